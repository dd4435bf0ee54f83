"""The control plane under load: many services, pods and nodes, and one stream for each node."""
