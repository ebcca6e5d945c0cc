"""Errors of the local stack."""


class LocalStackError(Exception):
    """An operation on the local stack failed. The message is printed to the terminal."""


class StackStoppedError(LocalStackError):
    """Another command has stopped the stack."""
