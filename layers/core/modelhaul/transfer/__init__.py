"""Transfers of files: a session for each message, small files, large files with their engine, and reuse of content."""
