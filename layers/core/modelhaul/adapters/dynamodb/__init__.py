"""Repositories in DynamoDB, whose tables' keys and TTL `template.yaml` has: a module for each."""
