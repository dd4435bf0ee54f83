"""What the agents beside Envoys have in common: the way to the control plane, certificates, Envoy's configuration."""
