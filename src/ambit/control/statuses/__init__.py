"""What objects say became of them."""
