"""Keeps an Envoy running while agents come and go: the container's first process, and records of Envoys that run."""
