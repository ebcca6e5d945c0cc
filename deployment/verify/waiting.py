"""Wait for a state that the stack reaches by itself."""

import time
from collections.abc import Callable

from deployment.verify.results import CheckFailedError


def wait_for[T](probe: Callable[[], T | None], subject: str, *, timeout: float, interval: float) -> T:
    """Return the first result of `probe` that is not None. Raises CheckFailedError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while (found := probe()) is None:
        if time.monotonic() > deadline:
            raise CheckFailedError(f"{subject} did not happen within {timeout:.0f} s")
        time.sleep(interval)
    return found
