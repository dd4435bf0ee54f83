"""What the mesh means: frozen values with their origin."""
