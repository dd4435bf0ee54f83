"""The laptop cluster."""
