"""Kubernetes objects to the mesh model."""
