"""Transfers of files: the engine for large files, reuse of stored content, and the policy for groups."""
