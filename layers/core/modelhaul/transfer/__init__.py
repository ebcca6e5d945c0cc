"""Moving one file."""
