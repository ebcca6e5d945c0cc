"""Comparisons of the parsers with other readers of the same formats."""
