"""What Envoy talks to: configuration, certificates and access logs over one Unix socket."""
