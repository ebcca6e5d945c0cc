"""Deployment to AWS: what `make deploy` checks in the account before it runs the SAM CLI."""
