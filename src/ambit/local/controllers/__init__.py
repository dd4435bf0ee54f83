"""The controllers of the local cluster: enough of Kubernetes for samples, tests and kubectl."""
