"""Objects on disk and in memory, and their versions."""
