"""Ports of the host's loopback that lead into the instance."""
