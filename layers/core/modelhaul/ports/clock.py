"""The time."""

from collections.abc import Callable

type Clock = Callable[[], float]
"""Epoch seconds."""
