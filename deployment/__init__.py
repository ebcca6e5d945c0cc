"""Deployment to AWS: what `make deploy` checks before it runs the SAM CLI, and what an update would do to data."""
