"""Questions about configuration: what it comes to, and what it decides."""
