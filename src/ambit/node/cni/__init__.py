"""The socket on which the pod runner, or the CNI plugin, announces sandboxes."""
