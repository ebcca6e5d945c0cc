"""Whether and when a failed step is tried again."""

import pytest

from modelhaul.domain.errors import (
    DigestMismatchError,
    FileMissingError,
    InternalError,
    ModelhaulError,
    RateLimitedError,
    SourceChangedError,
    SourceUnavailableError,
    StalledTransferError,
    StorageUnavailableError,
    UnexpectedResponseError,
)
from modelhaul.domain.messages import Message, PlanImport, TransferFiles, parse_message
from modelhaul.imports.retry import Fail, Retry, decide_retry

START = 1_800_000_000.0
HOUR = 3600.0
MESSAGE = TransferFiles(task_id="a", group=0)
OUTAGES = [
    SourceUnavailableError("The connection was refused."),
    StalledTransferError("The transfer stalled."),
    StorageUnavailableError("S3 UploadPart failed (SlowDown)."),
]
FAILURES = [
    UnexpectedResponseError("The response is not the requested range."),
    InternalError("Internal error (KeyError)."),
    StorageUnavailableError("S3 UploadPart failed (AccessDenied).", is_outage=False),
]


def decide(message: Message, error: ModelhaulError, *, now: float = START, advanced: bool = False) -> Retry | Fail:
    return decide_retry(message, error, now=now, max_outage=6 * HOUR, advanced=advanced)


def fail_until_end(message: Message, error: ModelhaulError, *, now: float = START) -> tuple[list[float], Fail]:
    """Return the delays until the step is no longer retried, and why. An attempt takes a second."""
    delays: list[float] = []
    while isinstance(decision := decide(message, error, now=now), Retry):
        message = decision.message
        delays.append(decision.delay)
        now += decision.delay + 1
        assert len(delays) < 10_000
    return delays, decision


@pytest.mark.parametrize("error", OUTAGES, ids=lambda error: error.type)
def test_an_outage_is_waited_for_with_growing_delays_and_uses_no_retry(error: ModelhaulError) -> None:
    delays, end = fail_until_end(MESSAGE, error)
    for delay, longest in zip(delays, (5, 10, 20, 40, 80, 160, 300, 300, 300), strict=False):
        assert 0.7 * longest < delay <= longest
    assert max(delays) <= 300
    assert 6 * HOUR <= sum(delays) + len(delays) < 6 * HOUR + 600
    assert end.error.type == "outage"
    service = "AWS" if isinstance(error, StorageUnavailableError) else "the source"
    assert f"No successful response from {service} for 6." in end.error.detail
    assert error.detail in end.error.detail
    first = decide(MESSAGE, error)
    assert isinstance(first, Retry)
    assert (first.message.attempt, first.failures.since, first.failures.count) == (1, START, 1)


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: error.detail)
def test_a_failure_of_the_step_has_three_retries(error: ModelhaulError) -> None:
    delays, end = fail_until_end(PlanImport(task_id="a"), error)
    assert len(delays) == 3
    assert delays == sorted(delays)
    assert end.error.type == "retries-exhausted"
    assert error.detail in end.error.detail


def test_retries_are_left_after_an_outage() -> None:
    waited = decide(MESSAGE.model_copy(update={"attempt": 2}), OUTAGES[0])
    assert isinstance(waited, Retry)
    retried = decide(waited.message, FAILURES[0], now=START + 100)
    assert isinstance(retried, Retry)
    assert retried.message.attempt == 3
    assert (retried.failures.since, retried.failures.count) == (START, 2)


@pytest.mark.parametrize("error", [*OUTAGES, RateLimitedError("slow down"), FAILURES[0]], ids=lambda error: error.type)
def test_progress_starts_the_count_again(error: ModelhaulError) -> None:
    message: Message = MESSAGE
    for hours in range(60):
        decision = decide(message, error, now=START + hours * HOUR, advanced=True)
        assert isinstance(decision, Retry), decision
        message = decision.message
        assert decision.failures.since == START + hours * HOUR


def test_alternating_outages_and_rate_limits_end_like_an_outage() -> None:
    """A source that responds with 503 and 429 in turn makes no progress, and is asked less and less often."""
    message: Message = MESSAGE
    now, delays = START, list[float]()
    errors = [OUTAGES[0], RateLimitedError("429", retry_after=1)]
    while isinstance(decision := decide(message, errors[len(delays) % 2], now=now), Retry):
        message, now = decision.message, now + decision.delay + 1
        delays.append(decision.delay)
        assert (decision.failures.since, decision.failures.count) == (START, len(delays))
    assert decision.error.type == "outage"
    assert "the source for 6." in decision.error.detail
    assert 6 * HOUR <= now - START < 6 * HOUR + 600
    assert min(delays[20::2]) > 200


@pytest.mark.parametrize("error", [RateLimitedError("429", retry_after=1), OUTAGES[0]], ids=lambda error: error.type)
def test_no_message_waits_for_more_than_a_day_without_progress(error: ModelhaulError) -> None:
    """An attempt takes time too, so the age counts, and not only the delays."""
    limited = decide(MESSAGE, RateLimitedError("429", retry_after=1))
    assert isinstance(limited, Retry)
    assert isinstance(decide(limited.message, error, now=START + 23 * HOUR), Retry)
    waited = decide(limited.message, OUTAGES[0], now=START + 20 * HOUR)
    assert isinstance(waited, Retry)
    end = decide(waited.message, error, now=START + 24 * HOUR)
    assert isinstance(end, Fail)
    assert error.detail in end.error.detail


def test_the_delay_that_the_source_asks_for_is_kept() -> None:
    for seconds, expected in ((120.0, 120.0), (5000.0, 900.0)):
        decision = decide(MESSAGE, SourceUnavailableError("503", retry_after=seconds))
        assert isinstance(decision, Retry)
        assert decision.delay == expected


def mismatch(path: str, found: str) -> DigestMismatchError:
    return DigestMismatchError(f"Checksum mismatch for {path}.", expected=f"sha256:{path}", found=f"sha256:{found}")


def test_the_same_wrong_content_twice_is_final() -> None:
    first = decide(MESSAGE, mismatch("a", "1"), advanced=True)
    assert isinstance(first, Retry)
    other = decide(first.message, mismatch("a", "2"))
    assert isinstance(other, Retry)
    outage = decide(other.message, OUTAGES[0])
    assert isinstance(outage, Retry)
    again = decide(outage.message, mismatch("a", "1"), advanced=True)
    assert isinstance(again, Fail)
    assert again.error.type == "content-mismatch"
    assert "Checksum mismatch for a." in again.error.detail


def test_the_same_wrong_content_of_two_files_is_retried() -> None:
    """A source may send the same error page for any file."""
    first = decide(MESSAGE, mismatch("a", "page"), advanced=True)
    assert isinstance(first, Retry)
    other = decide(parse_message(first.message.model_dump_json()), mismatch("b", "page"), advanced=True)
    assert isinstance(other, Retry)
    assert isinstance(decide(other.message, mismatch("b", "page"), advanced=True), Fail)


def test_content_that_changes_each_time_ends_too() -> None:
    message: Message = MESSAGE
    for number in range(3):
        decision = decide(message, mismatch("a", str(number)), advanced=True)
        assert isinstance(decision, Retry)
        message = decision.message
    end = decide(message, SourceChangedError("a changed at its source."), advanced=True)
    assert isinstance(end, Fail)
    assert end.error.type == "retries-exhausted"


def test_a_permanent_error_is_final() -> None:
    error = FileMissingError("a no longer exists.")
    assert decide(MESSAGE, error) == Fail(error)
