"""What agents beside Envoys share: the way to the control plane, certificates, Envoy's configuration, records."""
