"""Handle failed steps: retry the step, wait for a rate limit or for the end of an outage, or end the task.

A failed attempt sends a new, delayed message instead of relying on the redelivery of SQS. The delay can then be chosen,
and a wait does not use up an attempt. The redelivery of SQS handles functions that died. It does not count as an
attempt, because SQS also counts a delivery when Lambda throttles the function.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from modelhaul.domain.errors import (
    ContentMismatchError,
    DigestMismatchError,
    InternalError,
    ModelhaulError,
    OutageError,
    PermanentError,
    PolicyUnavailableError,
    RateLimitedError,
    RetriesExhaustedError,
    SourceChangedError,
    StepCrashedError,
    StorageUnavailableError,
    TransientError,
    UploadGoneError,
)
from modelhaul.domain.messages import CopyFiles, FailureKind, Failures, JoinTransfer, Message, TransferFiles
from modelhaul.domain.tasks import Stage, Waiting
from modelhaul.imports.dispatch import CHECK_AFTER
from modelhaul.imports.finish import TaskFinisher
from modelhaul.ports.clock import Clock
from modelhaul.ports.files import FileRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.tasks import TaskRepository

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 4  # the first attempt and three retries
MAX_WAITED = 24 * 3600.0  # seconds that one message may wait without progress, for any reason
_MAX_DELAY = 900.0  # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
_BASE_DELAY = 5.0
_FACTOR = 4.0
_DEFAULT_RATE_LIMIT_DELAY = 60.0
_OUTAGE_FACTOR = 2.0  # of the waits in an outage
_MAX_OUTAGE_WAIT = 300.0
_MAX_DETAIL = 500  # characters; DynamoDB bills each update of a task by the size of its item
_POLICY_REMEDY = (
    "Ask an operator to check that the policy document exists, is valid (modelhaul policy check), and can be read by "
    "the functions. Then submit the import again."
)
_LOG_MESSAGES = {
    FailureKind.STEP: "step failed; retry scheduled",
    FailureKind.RATE_LIMIT: "rate limited; retry scheduled",
    FailureKind.OUTAGE: "no response; retry scheduled",
}
_STEP_NAMES = {
    "accept_archive": "inspecting the archive",
    "plan_import": "listing the model's files",
    "transfer_files": "transferring files",
    "join_transfer": "transferring a file",
    "copy_files": "copying files",
    "publish_models": "publishing the model",
}
# The stages of a task in which each message still has work to do.
_STAGES = {
    "accept_archive": {Stage.UPLOADING, Stage.INSPECTING},
    "plan_import": {Stage.PLANNING},
    "transfer_files": {Stage.TRANSFERRING},
    "join_transfer": {Stage.TRANSFERRING},
    "copy_files": {Stage.PUBLISHING},
    "publish_models": {Stage.VERIFIED, Stage.PUBLISHING},
}


class TransferError(Exception):
    """An attempt that failed with `error`. `advanced`: it stored progress, from which the next attempt continues."""

    def __init__(self, error: ModelhaulError, *, advanced: bool) -> None:
        super().__init__(error.detail)
        self.error = error
        self.advanced = advanced


@dataclass(frozen=True, slots=True)
class Retry:
    """`failures` are those of the message."""

    message: Message
    delay: float
    failures: Failures


@dataclass(frozen=True, slots=True)
class Fail:
    """`error` ends the task. It is transient only if a step has waited too long for the end of its cause."""

    error: ModelhaulError


def decide_retry(
    message: Message, error: ModelhaulError, *, now: float, max_outage: float, advanced: bool = False
) -> Retry | Fail:
    """Decide whether a step that failed with `error` at `now` (epoch seconds) is retried.

    `max_outage`: seconds that a message waits for a source or an AWS service that does not respond. `advanced`: this
    attempt stored progress, so the next attempt counts as the first one.
    """
    if isinstance(error, PermanentError):
        return Fail(error)
    if advanced:
        message = message.reset_counts()
    failures = _count_failure(message, error, now)
    message = message.model_copy(update={"failures": failures})
    match failures.kind:
        case FailureKind.RATE_LIMIT:
            return _wait_for_limit(message, error, failures, waited=now - failures.since)
        case FailureKind.OUTAGE:
            return _wait_for_response(message, error, failures, now=now, max_outage=max_outage)
        case FailureKind.STEP:
            return _retry_step(message, error, failures)


def _count_failure(message: Message, error: ModelhaulError, now: float) -> Failures:
    """Return the message's failures and this one."""
    kind = FailureKind.STEP
    if isinstance(error, RateLimitedError):
        kind = FailureKind.RATE_LIMIT
    elif isinstance(error, TransientError) and error.is_outage:
        kind = FailureKind.OUTAGE
    last = message.failures
    failures = Failures(kind=kind, since=now, count=1)
    if last is not None:
        failures = last.model_copy(update={"kind": kind, "count": last.count + 1})
    if kind is FailureKind.OUTAGE:
        changes = {"outage_since": failures.outage_since or now, "outages": failures.outages + 1}
        failures = failures.model_copy(update=changes)
    return failures


def _wait_for_limit(message: Message, error: ModelhaulError, failures: Failures, *, waited: float) -> Retry | Fail:
    if waited >= MAX_WAITED:
        detail = f"The rate limit is still exceeded after 24 hours. Last error: {error.detail}"
        return Fail(RetriesExhaustedError(detail, remedy=error.remedy))
    requested = _read_retry_after(error)
    # At least a second, and with jitter: many functions that wait must not retry at the same moment.
    wait = min(_MAX_DELAY, max(1.0, _DEFAULT_RATE_LIMIT_DELAY if requested is None else requested))
    delay = min(_MAX_DELAY, wait * random.uniform(1.0, 1.1))  # noqa: S311 - jitter
    return Retry(message, delay, failures)


def _wait_for_response(
    message: Message, error: ModelhaulError, failures: Failures, *, now: float, max_outage: float
) -> Retry | Fail:
    waited = now - (failures.outage_since or now)
    if waited >= max_outage and isinstance(error, PolicyUnavailableError):
        detail = f"The import policy could not be read for {waited / 3600:.1f} hours. Last error: {error.detail}"
        return Fail(PolicyUnavailableError(detail, remedy=_POLICY_REMEDY))
    if waited >= max_outage:
        service = "AWS" if isinstance(error, StorageUnavailableError) else "the source"
        return Fail(
            OutageError(
                f"No successful response from {service} for {waited / 3600:.1f} hours. Last error: {error.detail}"
            )
        )
    if now - failures.since >= MAX_WAITED:
        return Fail(RetriesExhaustedError(f"No progress for 24 hours. Last error: {error.detail}"))
    # The exponent is limited, because a large power is not a float.
    wait = min(_MAX_OUTAGE_WAIT, _BASE_DELAY * _OUTAGE_FACTOR ** min(failures.outages - 1, 10))
    delay = wait * random.uniform(0.8, 1.0)  # noqa: S311 - jitter
    return Retry(message, min(_MAX_DELAY, max(delay, _read_retry_after(error) or 0.0)), failures)


def _retry_step(message: Message, error: ModelhaulError, failures: Failures) -> Retry | Fail:
    if isinstance(error, DigestMismatchError):
        mismatch = (error.expected, error.found)
        if mismatch in message.mismatches:
            return Fail(ContentMismatchError(f"{error.detail} The source sent the same wrong content twice."))
        message = message.model_copy(update={"mismatches": (*message.mismatches, mismatch)})
    if isinstance(message, TransferFiles) and isinstance(
        error, DigestMismatchError | SourceChangedError | UploadGoneError
    ):
        attempts = message.restarts + 1
        retry: Message = message.model_copy(update={"restarts": attempts})
    else:
        attempts = message.attempt
        retry = message.model_copy(update={"attempt": attempts + 1})
    if attempts >= MAX_ATTEMPTS:
        step = _STEP_NAMES[message.kind].capitalize()
        return Fail(RetriesExhaustedError(f"{step} failed {MAX_ATTEMPTS} times. Last error: {error.detail}"))
    backoff = _BASE_DELAY * _FACTOR ** (attempts - 1) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
    return Retry(retry, min(_MAX_DELAY, max(backoff, _read_retry_after(error) or 0.0)), failures)


def _read_retry_after(error: ModelhaulError) -> float | None:
    return error.retry_after if isinstance(error, TransientError) else None


@dataclass(frozen=True, slots=True)
class StepRunner:
    """Runs a step for a message. If the step fails, it schedules a retry or ends the task.

    `max_outage`: seconds that a message waits for a source or an AWS service that does not respond.
    """

    tasks: TaskRepository
    files: FileRepository
    queue: MessageQueue
    finisher: TaskFinisher
    metrics: Metrics
    clock: Clock
    max_outage: float

    def run[M: Message](self, message: M, step: Callable[[M], None], *, deliveries: int) -> None:
        """Run the step. `deliveries` is the number of times that SQS delivered this message.

        Raises StorageUnavailableError if the outcome cannot be recorded. SQS then redelivers the message.
        """
        if deliveries > 1:
            message = cast("M", message.mark_redelivered())
        try:
            step(message)
        except TransferError as failure:
            self._handle_error(message, failure.error, advanced=failure.advanced)
        except ModelhaulError as error:
            self._handle_error(message, error, advanced=False)
        except Exception as error:
            logger.exception("unexpected error", extra={"task_id": message.task_id, "attempt": message.attempt})
            internal = InternalError(
                f"Internal error ({type(error).__name__}). Search the logs for the task ID to find the stack trace."
            )
            self._handle_error(message, internal, advanced=False)

    def record_crash(self, message: Message) -> None:
        """End the task of a dead letter: no delivery of the message was completed.

        No-op if the work is done or in progress: the last function may have finished the work, and died before it
        deleted the message.
        """
        name = _STEP_NAMES[message.kind]
        if not self._has_work(message):
            logger.info("delivery limit reached, but the work is done", extra={"task_id": message.task_id})
            return
        self.finisher.fail(
            message.task_id,
            StepCrashedError(f"The function crashed or was throttled in every delivery of its message while {name}."),
        )

    def _has_work(self, message: Message) -> bool:
        task = self.tasks.find_task(message.task_id)
        if task is None or task.stage not in _STAGES[message.kind]:
            return False
        plan_id = task.plan_id or ""
        match message:
            case TransferFiles():
                groups = self.files.find_groups(plan_id, [message.group])
                return any(not group.is_done and group.lease_until <= self.clock() for group in groups)
            case JoinTransfer():
                return False  # the function with the lease transfers the file
            case CopyFiles():
                return not self.files.list_copied(plan_id).issuperset(message.groups)
        return True

    def _handle_error(self, message: Message, error: ModelhaulError, *, advanced: bool) -> None:
        now = self.clock()
        decision = decide_retry(message, error, now=now, max_outage=self.max_outage, advanced=advanced)
        if isinstance(decision, Fail):
            if isinstance(message, JoinTransfer):
                logger.warning("transfer left after errors", extra={"task_id": message.task_id, "detail": error.detail})
            else:
                self.finisher.fail(message.task_id, decision.error)
            return
        self.queue.send([decision.message], delay=decision.delay)
        kind = decision.failures.kind
        names = {
            FailureKind.STEP: "Retries",
            FailureKind.RATE_LIMIT: "RateLimitWaits",
            FailureKind.OUTAGE: "OutageWaits",
        }
        self.metrics.count(names[kind])
        logger.warning(
            _LOG_MESSAGES[kind],
            extra={
                "task_id": message.task_id,
                "step": message.kind,
                "attempt": message.attempt,
                "failures": decision.failures.count,
                "reason": error.type,
                "detail": error.detail,
                "delay": round(decision.delay, 1),
            },
        )
        self._record_wait(message, error, decision, now)

    def _record_wait(self, message: Message, error: ModelhaulError, retry: Retry, now: float) -> None:
        """Show the wait in the task, and postpone the sweep's check.

        An error is only logged: the message is sent, and if SQS redelivered this one, there would be two of them.
        """
        check_at = now + retry.delay + CHECK_AFTER
        try:
            if isinstance(message, JoinTransfer):  # the leading function may be making progress
                self.tasks.postpone_check(message.task_id, check_at=check_at)
                return
            waiting = Waiting(
                reason=error.type,
                detail=error.detail[:_MAX_DETAIL],
                since=datetime.fromtimestamp(retry.failures.since, UTC),
                attempt=retry.failures.count,
                next_attempt=datetime.fromtimestamp(now + retry.delay, UTC),
                recorded_at=datetime.fromtimestamp(now, UTC),
            )
            if not self.tasks.record_wait(message.task_id, waiting, stages=_STAGES[message.kind], check_at=check_at):
                self.tasks.postpone_check(message.task_id, check_at=check_at)  # the task has ended, but is cleaned up
        except StorageUnavailableError as storage_error:
            logger.warning("wait not recorded", extra={"task_id": message.task_id, "detail": storage_error.detail})
