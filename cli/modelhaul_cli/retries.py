"""Retries of transient errors."""

from collections.abc import Callable

import tenacity

from modelhaul_cli.errors import UnavailableError

MAX_ATTEMPTS = 6
INITIAL_BACKOFF = 0.5  # seconds; doubles after each attempt, with jitter
MAX_BACKOFF = 20.0  # seconds
MAX_RETRY_AFTER = 120.0  # seconds; a longer Retry-After is not waited for


def iterate_attempts(report: Callable[[str], None]) -> tenacity.Retrying:
    """Retry transient errors: `for attempt in iterate_attempts(report): with attempt: …`.

    Makes up to MAX_ATTEMPTS attempts while the block raises a retryable UnavailableError, then raises the last one. A
    `Retry-After` is respected. Before each wait, `report` receives a message.
    """

    def report_wait(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, UnavailableError) and state.next_action is not None:
            message = f"{error.title}. {error.detail}".rstrip()
            report(f"{message} Retrying in {state.next_action.sleep:.0f} s.")

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_retryable),
        stop=tenacity.stop_after_attempt(MAX_ATTEMPTS),
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
