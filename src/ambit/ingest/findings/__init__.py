"""What is found when objects of several families are seen together."""
