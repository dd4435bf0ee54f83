"""What Envoy talks to: configuration, certificates and access logs over Unix sockets."""
