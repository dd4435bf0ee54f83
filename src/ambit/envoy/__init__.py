"""Model values to Envoy messages, one file per Envoy concept."""
