"""The connection to the control plane: the workload API and the certificate service."""
