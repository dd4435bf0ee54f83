"""Requests, and connections in which none are read, as Envoy reports them: decision records and metrics."""
