"""Keys of tokens, fetched."""
