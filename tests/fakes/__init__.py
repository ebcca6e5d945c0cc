"""In-memory implementations of the ports."""
