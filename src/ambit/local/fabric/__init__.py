"""The laptop cluster's network."""
