"""Which kinds there are, and what is said of them."""
