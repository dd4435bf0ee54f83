"""A real Kubernetes cluster on one machine: the released programs, each node in namespaces of its own.

Nothing is added to the machine's own network: the control plane lives in one network namespace, every node in
another, joined by a bridge. `python -m tests.kubernetes.cluster` says what it can do.
"""
