"""Reading and deleting imported models."""
