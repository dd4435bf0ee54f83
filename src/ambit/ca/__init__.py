"""SPIFFE authority: what may be signed, and signing it."""
