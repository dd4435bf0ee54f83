"""Envoy's life: started, adopted, handed over without a refused connection, restarted after a crash."""
