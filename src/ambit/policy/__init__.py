"""The one written meaning of policy: decide(policies, facts)."""
