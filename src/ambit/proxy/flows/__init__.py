"""Requests as Envoy reports them: decision records and metrics."""
