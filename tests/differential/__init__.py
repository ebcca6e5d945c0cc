"""Our parsers, compared with the readers of the same formats."""
