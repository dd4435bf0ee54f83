"""The incremental engine: sources, derived collections, one commit per batch."""
