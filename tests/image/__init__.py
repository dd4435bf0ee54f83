"""The container image: its parts, and (marker `kubernetes`) the whole."""
