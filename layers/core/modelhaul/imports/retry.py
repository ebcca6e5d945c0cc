"""Handle failed steps: retry the step, wait for a rate limit, or end the task.

A failed attempt sends a new, delayed message instead of relying on the redelivery of SQS. The delay can then be chosen,
and waiting for a rate limit does not use up an attempt. The redelivery of SQS handles functions that died.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from modelhaul.domain.errors import (
    DigestMismatchError,
    InternalError,
    ModelhaulError,
    PermanentError,
    RateLimitedError,
    RetriesExhaustedError,
    SourceChangedError,
    StepCrashedError,
    TransientError,
    UploadGoneError,
)
from modelhaul.domain.messages import CopyFiles, JoinTransfer, Message, TransferFiles
from modelhaul.domain.tasks import Stage
from modelhaul.imports.dispatch import CHECK_AFTER
from modelhaul.imports.finish import TaskFinisher
from modelhaul.ports.clock import Clock
from modelhaul.ports.files import FileRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.tasks import TaskRepository

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 4  # the first attempt and three retries
MAX_WAITED = 24 * 3600.0  # seconds that one message may wait for rate limits in total
_MAX_DELAY = 900.0  # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
_BASE_DELAY = 5.0
_FACTOR = 4.0
_DEFAULT_RATE_LIMIT_DELAY = 60.0
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
    message: Message
    delay: float


@dataclass(frozen=True, slots=True)
class Fail:
    error: PermanentError


def decide_retry(message: Message, error: ModelhaulError, *, advanced: bool = False) -> Retry | Fail:
    """Decide whether a step that failed with `error` is retried.

    `advanced`: this attempt stored progress, so the next attempt counts as the first one.
    """
    if isinstance(error, PermanentError):
        return Fail(error)
    retry_after = error.retry_after if isinstance(error, TransientError) else None
    if isinstance(error, RateLimitedError):
        # At least a second, and with jitter: many functions that wait must not retry at the same moment.
        wait = min(_MAX_DELAY, max(1.0, _DEFAULT_RATE_LIMIT_DELAY if retry_after is None else retry_after))
        delay = min(_MAX_DELAY, wait * random.uniform(1.0, 1.1))  # noqa: S311 - jitter
        waited = message.waited + delay
        if waited > MAX_WAITED:
            return Fail(
                RetriesExhaustedError(f"The rate limit is still exceeded after 24 hours. Last error: {error.detail}")
            )
        return Retry(message.model_copy(update={"waited": waited}), delay)
    if isinstance(message, TransferFiles) and isinstance(
        error, DigestMismatchError | SourceChangedError | UploadGoneError
    ):
        attempts = message.restarts + 1
        retry: Message = message.model_copy(update={"restarts": attempts})
    else:
        attempts = 1 if advanced else message.attempt
        retry = message.model_copy(update={"attempt": attempts + 1})
    if attempts >= MAX_ATTEMPTS:
        step = _STEP_NAMES[message.kind].capitalize()
        return Fail(RetriesExhaustedError(f"{step} failed {MAX_ATTEMPTS} times. Last error: {error.detail}"))
    backoff = _BASE_DELAY * _FACTOR ** (attempts - 1) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
    return Retry(retry, min(_MAX_DELAY, max(backoff, retry_after or 0.0)))


@dataclass(frozen=True, slots=True)
class StepRunner:
    """Runs a step for a message. If the step fails, it schedules a retry or ends the task."""

    tasks: TaskRepository
    files: FileRepository
    queue: MessageQueue
    finisher: TaskFinisher
    metrics: Metrics
    clock: Clock

    def run[M: Message](self, message: M, step: Callable[[M], None], *, deliveries: int) -> None:
        """Run the step. Every delivery counts as an attempt.

        `deliveries` is the number of times that SQS delivered this message; above 1, a function died while processing
        it. Raises StorageUnavailableError if the outcome cannot be recorded. SQS then redelivers the message.
        """
        if message.attempt + deliveries - 1 > MAX_ATTEMPTS:
            self.record_crash(message)
            return
        message = cast("M", message.model_copy(update={"attempt": message.attempt + deliveries - 1}))
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
        """End the task of a message after every function that received it died.

        No-op if the work is done or in progress: the last function may have finished the work, and died before it
        deleted the message.
        """
        name = _STEP_NAMES[message.kind]
        if not self._has_work(message):
            logger.info("delivery limit reached, but the work is done", extra={"task_id": message.task_id})
            return
        self.finisher.fail(
            message.task_id,
            StepCrashedError(f"The function crashed {MAX_ATTEMPTS} times while {name}."),
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
        decision = decide_retry(message, error, advanced=advanced)
        if isinstance(decision, Fail):
            if isinstance(message, JoinTransfer):
                logger.warning("transfer left after errors", extra={"task_id": message.task_id, "detail": error.detail})
            else:
                self.finisher.fail(message.task_id, decision.error)
            return
        self.queue.send([decision.message], delay=decision.delay)
        self.tasks.postpone_check(message.task_id, check_at=self.clock() + decision.delay + CHECK_AFTER)
        rate_limited = isinstance(error, RateLimitedError)
        self.metrics.count("RateLimitWaits" if rate_limited else "Retries", step=message.kind)
        logger.warning(
            "rate limited; retry scheduled" if rate_limited else "step failed; retry scheduled",
            extra={
                "task_id": message.task_id,
                "step": message.kind,
                "attempt": message.attempt,
                "reason": error.type,
                "detail": error.detail,
                "delay": round(decision.delay, 1),
            },
        )
