"""What becomes of a step that failed: another try, a wait, or the end of the task.

A try that fails is answered by a new, delayed message rather than by SQS's redelivery, so that the delay is ours to
choose and a rate limit costs no try. SQS's own redelivery is for functions that died.
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
from modelhaul.domain.messages import Message, TransferFiles
from modelhaul.domain.tasks import Stage, TaskStatus
from modelhaul.imports.dispatch import CHECK_AFTER
from modelhaul.imports.finish import TaskFinisher
from modelhaul.ports.clock import Clock
from modelhaul.ports.files import FileRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.tasks import TaskRepository

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 4  # the first and three retries
MAX_WAITED = 24 * 3600.0  # seconds of rate limits that one message sits out
_MAX_DELAY = 900.0  # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
_BASE_DELAY = 5.0
_FACTOR = 4.0
_DEFAULT_RATE_LIMIT_DELAY = 60.0
_STEP_NAMES = {
    "accept_archive": "inspecting the archive",
    "plan_import": "listing the model's files",
    "transfer_files": "transferring files",
    "publish_models": "publishing the model",
}

_STAGES = {
    "accept_archive": {Stage.UPLOADING, Stage.INSPECTING},
    "plan_import": {Stage.PLANNING},
    "transfer_files": {Stage.TRANSFERRING},
    "publish_models": {Stage.VERIFIED, Stage.PUBLISHING},
}


class TransferError(Exception):
    """A try that failed with `error`; `advanced` if it stored something that the next one need not do again."""

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
    """`advanced`: this try moved something forward for good, so that the next one counts as the first again."""
    if isinstance(error, PermanentError):
        return Fail(error)
    asked = error.retry_after if isinstance(error, TransientError) else None
    if isinstance(error, RateLimitedError):
        # Never under a second, and spread, so that many waiting functions do not all come back at once.
        wait = min(_MAX_DELAY, max(1.0, _DEFAULT_RATE_LIMIT_DELAY if asked is None else asked))
        delay = min(_MAX_DELAY, wait * random.uniform(1.0, 1.1))  # noqa: S311 - jitter
        waited = message.waited + delay
        if waited > MAX_WAITED:
            return Fail(RetriesExhaustedError(f"Waited for a day in vain: {error.detail}"))
        return Retry(message.model_copy(update={"waited": waited}), delay)
    if isinstance(message, TransferFiles) and isinstance(
        error, DigestMismatchError | SourceChangedError | UploadGoneError
    ):
        spent = message.restarts + 1
        following: Message = message.model_copy(update={"restarts": spent})
    else:
        spent = 1 if advanced else message.attempt
        following = message.model_copy(update={"attempt": spent + 1})
    if spent >= MAX_ATTEMPTS:
        return Fail(
            RetriesExhaustedError(
                f"Gave up {_STEP_NAMES[message.kind]} after {MAX_ATTEMPTS} tries. The last one: {error.detail}"
            )
        )
    backoff = _BASE_DELAY * _FACTOR ** (spent - 1) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
    return Retry(following, min(_MAX_DELAY, max(backoff, asked or 0.0)))


@dataclass(frozen=True, slots=True)
class StepRunner:
    """Runs a step for a message and sees to what becomes of it."""

    tasks: TaskRepository
    files: FileRepository
    queue: MessageQueue
    finisher: TaskFinisher
    metrics: Metrics
    clock: Clock

    def run[M: Message](self, message: M, step: Callable[[M], None], *, deliveries: int) -> None:
        """`deliveries` is how often SQS has delivered this very message: above 1, a function died over it. The step is
        given the message with each of these counted as an attempt.

        Raises StorageUnavailableError when not even the outcome could be recorded; SQS delivers again then.
        """
        if message.attempt + deliveries - 1 > MAX_ATTEMPTS:
            self.record_crash(message)
            return
        message = cast("M", message.model_copy(update={"attempt": message.attempt + deliveries - 1}))
        try:
            step(message)
        except TransferError as failure:
            self._settle(message, failure.error, advanced=failure.advanced)
        except ModelhaulError as error:
            self._settle(message, error, advanced=False)
        except Exception as error:
            logger.exception("unexpected error", extra={"task_id": message.task_id, "attempt": message.attempt})
            defect = InternalError(f"An unexpected {type(error).__name__}; its trace is in the log of this task.")
            self._settle(message, defect, advanced=False)

    def record_crash(self, message: Message) -> None:
        """The end of a message that no function survived: its task's too, unless the work is done or under way.

        The last delivery may have done the work and only failed to say so to SQS.
        """
        name = _STEP_NAMES[message.kind]
        if not self._is_open(message):
            logger.info("a message came too often, but its work is done", extra={"task_id": message.task_id})
            return
        self.finisher.fail(
            message.task_id,
            StepCrashedError(f"The function {name} died {MAX_ATTEMPTS} times; its log says more. Submit again."),
        )

    def _is_open(self, message: Message) -> bool:
        task = self.tasks.find_task(message.task_id)
        if task is None or task.status is not TaskStatus.PENDING or task.stage not in _STAGES[message.kind]:
            return False
        if not isinstance(message, TransferFiles):
            return True
        records = self.files.find_files(message.task_id, message.paths)
        return any(not record.done and record.lease_until <= self.clock() for record in records)

    def _settle(self, message: Message, error: ModelhaulError, *, advanced: bool) -> None:
        verdict = decide_retry(message, error, advanced=advanced)
        if isinstance(verdict, Fail):
            self.finisher.fail(message.task_id, verdict.error)
            return
        self.queue.send([verdict.message], delay=verdict.delay)
        self.tasks.postpone_check(message.task_id, check_at=self.clock() + verdict.delay + CHECK_AFTER)
        limited = isinstance(error, RateLimitedError)
        self.metrics.count("RateLimitWaits" if limited else "Retries", step=message.kind)
        logger.warning(
            "rate-limited; waiting in the queue" if limited else "failed; trying again after a pause",
            extra={
                "task_id": message.task_id,
                "step": message.kind,
                "attempt": message.attempt,
                "reason": error.type,
                "detail": error.detail,
                "delay": round(verdict.delay, 1),
            },
        )
