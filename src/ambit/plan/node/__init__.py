"""The Envoy of one node."""
