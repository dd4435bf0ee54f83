"""The CNI plugin of Kubernetes nodes, and the socket on which it, or the laptop's pod runner, announces sandboxes."""
