"""Pods as processes in namespaces."""
