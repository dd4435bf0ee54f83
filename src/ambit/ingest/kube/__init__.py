"""Kubernetes core objects to model values."""
