"""API objects to model values: one package per API family, blind to each other, and what they have in common."""
