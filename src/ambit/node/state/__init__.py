"""What the node knows of the mesh: every resource's bytes in one SQLite file, decoded when used."""
