"""Who is who: roots, certificates, and who may ask for them."""
