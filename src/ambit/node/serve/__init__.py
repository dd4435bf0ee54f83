"""What people and collectors ask the agent: readiness, metrics, dumps, flows."""
