"""Errors of the local stack."""


class LocalStackError(Exception):
    """The local stack could not do what was asked; the text is for the person at the terminal."""
