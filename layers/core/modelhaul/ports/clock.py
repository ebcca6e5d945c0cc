"""The current time."""

from collections.abc import Callable

type Clock = Callable[[], float]
"""Returns the current time in epoch seconds."""
