"""Envoy's life: start, hot restart, adoption, end."""
