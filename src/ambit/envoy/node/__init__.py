"""What only a node's proxy has."""
