"""Parsers, one module per file format."""
