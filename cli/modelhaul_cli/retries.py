"""Retries of transient errors."""

import math
import time
from collections.abc import Callable

import tenacity

from modelhaul_cli.errors import UnavailableError, UnreachableError

MAX_ATTEMPTS = 6
INITIAL_BACKOFF = 0.5  # seconds; doubles after each attempt, with jitter
MAX_BACKOFF = 20.0  # seconds
MAX_RETRY_AFTER = 120.0  # seconds; a longer Retry-After is not waited for
# Seconds without a response after which a request is not sent again. A command ends within a minute after its server
# has disappeared, because the last request before this limit has a timeout of 24 seconds. The first request, of up to
# 34 seconds, is always retried: a router may have dropped its connection. The wait for the response to a body that was
# sent to S3 does not count.
MAX_OUTAGE = 35.0


class Outage:
    """The time that a server has not responded, over several attempts. The time until the last activity of an attempt,
    such as sent bytes, does not count, and a response ends the outage.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._idle_since = time.monotonic()

    def note_activity(self) -> None:
        self._idle_since = time.monotonic()

    def note_response(self) -> None:
        self.seconds = 0.0
        self._idle_since = time.monotonic()

    def add_failure(self, pause: float) -> None:
        """Add the time since the last activity, and the seconds until the next attempt."""
        now = time.monotonic()
        self.seconds += now - self._idle_since + pause
        self._idle_since = now + pause


def iterate_attempts(
    report: Callable[[str], None], *, outage: Outage | None = None, patient: bool = False
) -> tenacity.Retrying:
    """Retry transient errors: `for attempt in iterate_attempts(report): with attempt: …`.

    Makes up to MAX_ATTEMPTS attempts while the block raises a retryable UnavailableError, then raises the last one.
    Retries end after MAX_OUTAGE seconds without a response, with `patient` not earlier. A `Retry-After` is respected.
    Before each wait, `report` receives a message.
    """
    measured = outage or Outage()

    def is_last(state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if not isinstance(error, UnreachableError):
            measured.note_response()
            return state.attempt_number >= MAX_ATTEMPTS
        measured.add_failure(state.upcoming_sleep)
        return measured.seconds >= MAX_OUTAGE or (not patient and state.attempt_number >= MAX_ATTEMPTS)

    def report_wait(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, UnavailableError) and state.next_action is not None:
            message = f"{error.title}. {error.detail}".rstrip()
            report(f"{message} Retrying in {max(1, math.ceil(state.next_action.sleep))} s.")

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_retryable),
        stop=is_last,
        wait=compute_backoff,
        before_sleep=report_wait,
        reraise=True,
    )


def is_retryable(error: BaseException) -> bool:
    return isinstance(error, UnavailableError) and error.transient and (error.retry_after or 0) <= MAX_RETRY_AFTER


def compute_backoff(state: tenacity.RetryCallState) -> float:
    """Return the seconds to wait: an exponential back-off with jitter, or `Retry-After` if that is longer."""
    backoff = tenacity.wait_random_exponential(multiplier=INITIAL_BACKOFF, max=MAX_BACKOFF)(state)
    error = state.outcome.exception() if state.outcome else None
    retry_after = error.retry_after if isinstance(error, UnavailableError) else None
    return max(backoff, retry_after or 0.0)
