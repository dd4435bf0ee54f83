"""Application bytes through the mesh against the same bytes without it."""
