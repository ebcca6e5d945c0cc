"""Tries again what may go well the next time."""

from collections.abc import Callable

import tenacity

from modelhaul_cli.errors import UnavailableError

ATTEMPTS = 6
FIRST_WAIT = 0.5  # seconds; doubles, with jitter
MAX_WAIT = 20.0  # seconds
MAX_RETRY_AFTER = 120.0  # seconds; who asks for more is not waited for


def open_attempts(say: Callable[[str], None]) -> tenacity.Retrying:
    """`for attempt in open_attempts(say): with attempt: …`: up to six times while it raises a transient
    UnavailableError, the last of which is raised. Waits as long as the other side asks, and says so.
    """

    def announce(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, UnavailableError) and state.next_action is not None:
            words = f"{error.title}. {error.detail}".rstrip()
            say(f"{words} Trying again in {state.next_action.sleep:.0f} s.")

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_worth_another_try),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=choose_wait,
        before_sleep=announce,
        reraise=True,
    )


def is_worth_another_try(error: BaseException) -> bool:
    return isinstance(error, UnavailableError) and error.transient and (error.retry_after or 0) <= MAX_RETRY_AFTER


def choose_wait(state: tenacity.RetryCallState) -> float:
    """Seconds: what was asked for, at least an exponential back-off with jitter."""
    backoff = tenacity.wait_random_exponential(multiplier=FIRST_WAIT, max=MAX_WAIT)(state)
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, UnavailableError) else None
    return max(backoff, asked or 0.0)
