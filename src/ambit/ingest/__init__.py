"""API objects to model values; one package per API family, blind to each other."""
