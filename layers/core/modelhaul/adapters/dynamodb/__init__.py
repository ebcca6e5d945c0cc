"""Repositories on Amazon DynamoDB. `template.yaml` defines the keys and TTL attributes of the tables."""
