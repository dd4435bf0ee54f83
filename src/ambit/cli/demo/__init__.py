"""`ambit demo`: bookinfo under mutual TLS, with every claim measured on the spot."""
