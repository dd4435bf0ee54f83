"""Kubernetes client: reflector, transport, projections."""
