"""Istio security objects to model values."""
