"""Connections as Envoy reports them: decision records, one log line each, metrics."""
