"""The reference semantics of policy."""
