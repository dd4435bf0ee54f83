"""Which pods of the node are captured, and how they become so."""
