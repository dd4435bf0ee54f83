"""The controllers of the laptop cluster."""
