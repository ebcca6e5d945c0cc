"""What the steps need of the world: a small protocol for each consumer."""
