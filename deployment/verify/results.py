"""Results of checks, and the errors that end one."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    PASS = "PASS"  # noqa: S105 - not a password
    FAIL = "FAIL"
    SKIPPED = "SKIPPED"


class CheckFailedError(Exception):
    """The stack does not behave as expected. The message says what was seen, and what was expected."""


class CheckSkippedError(Exception):
    """A check does not apply to the stack, or cannot run. The message says why."""


class VerificationError(Exception):
    """The verification cannot start. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Result:
    """`detail` is what was seen, or the reason of a failure or skip. `link` is the section that describes the check."""

    name: str
    outcome: Outcome
    detail: str
    seconds: float
    link: str


def expect(seen: object, expected: object, subject: str) -> None:
    """Raise CheckFailedError unless `seen` equals `expected`."""
    if seen != expected:
        raise CheckFailedError(f"{subject} is {seen!r}, expected {expected!r}")


def expect_true(is_met: object, message: str) -> None:
    """Raise CheckFailedError with `message` unless the condition is met."""
    if not is_met:
        raise CheckFailedError(message)
