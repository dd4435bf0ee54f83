"""Requests: how they are read, matched, authorized, changed and routed."""
