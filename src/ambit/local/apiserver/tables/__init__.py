"""Columns, as kubectl shows them."""
