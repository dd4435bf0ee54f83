"""Patches, apply and who manages a field."""
