"""Delta xDS sessions and the workload API messages."""
