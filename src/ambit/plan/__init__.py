"""Which resources one proxy gets, and their names."""
