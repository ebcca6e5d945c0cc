"""Recover tasks without progress, whose message was lost or whose function died, and resume deletions.

The sweep resends messages. This is always safe: every step determines the remaining work itself.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from modelhaul.catalog.delete import ModelDeleter
from modelhaul.domain.errors import ImportStalledError, ModelhaulError
from modelhaul.domain.messages import AcceptArchive, PlanImport, PublishModels
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from modelhaul.imports.dispatch import CHECK_AFTER, send_transfers, start_publishing
from modelhaul.imports.finish import TaskFinisher, describe_unplanned
from modelhaul.ports.clock import Clock
from modelhaul.ports.files import FileRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.tasks import TaskRepository

logger = logging.getLogger(__name__)

MAX_SWEEPS = 8  # sweeps without progress; with the pauses below, about 23 hours
_MAX_PAUSE = 6 * 3600.0
_MAX_LATE = 3600.0  # seconds that the message of a waiting step may be late, because the queue is long
_MAX_DUE = 100
_STOP_BEFORE = 30.0  # seconds reserved at the end


@dataclass(frozen=True, slots=True)
class Sweeper:
    """The sweep, which runs every five minutes."""

    tasks: TaskRepository
    files: FileRepository
    queue: MessageQueue
    finisher: TaskFinisher
    deleter: ModelDeleter
    metrics: Metrics
    clock: Clock

    def sweep_stale(self, remaining: Callable[[], float]) -> int:
        """Recover due tasks and resume deletions until the `remaining()` seconds run out.

        Return the number of tasks that were due. An error of one task does not stop the sweep. Raises ExceptionGroup
        with the unexpected errors at the end.
        """
        unexpected: list[Exception] = []
        due = self.tasks.list_due(self.clock(), _MAX_DUE)
        for listed in due:
            if remaining() < _STOP_BEFORE:
                logger.warning("out of time; the next sweep continues", extra={"due": len(due)})
                break
            try:
                # The list comes from an index, which is eventually consistent.
                task = self.tasks.find_task(listed.id)
                if task is not None and task.check_at <= self.clock():
                    self._recover(task)
            except ModelhaulError as error:
                logger.warning(
                    "task recovery failed; the next sweep retries",
                    extra={"task_id": listed.id, "reason": error.type, "detail": error.detail},
                )
            except Exception as error:
                logger.exception("unexpected error in task recovery", extra={"task_id": listed.id})
                unexpected.append(error)
        self.deleter.resume(lambda: remaining() - _STOP_BEFORE)
        if unexpected:
            # The function must fail, so that its alarm reports the errors.
            raise ExceptionGroup("unexpected errors in task recovery", unexpected)
        return len(due)

    def _recover(self, task: Task) -> None:
        if task.status is TaskStatus.FAILED:
            # Postponed first: a cleanup that is slow or fails must not block the other tasks in the next sweeps.
            self.tasks.postpone_check(task.id, check_at=self.clock() + CHECK_AFTER)
            self.finisher.finish_cleanup(task)
            return
        if task.status is TaskStatus.PENDING and task.sweeps >= MAX_SWEEPS and not self._is_waiting(task):
            stalled = ImportStalledError(f"The import made no progress for about 23 hours (stage {task.stage}).")
            self.finisher.fail(task.id, stalled)
            return
        if task.is_unplanned:
            self.finisher.fail(task.id, describe_unplanned(task))
            return
        upload_until = task.upload_until.timestamp()
        if task.stage is Stage.UPLOADING and self.clock() < upload_until:
            # Earlier versions recorded a check after twelve hours. The message finds an archive whose event was lost.
            self.tasks.postpone_check(task.id, check_at=upload_until + CHECK_AFTER)
            self._resend_messages(task)
            return
        # Postponed before the messages are sent, because a later write could replace the heartbeats of the receivers.
        pause = min(_MAX_PAUSE, CHECK_AFTER * 2 ** (task.sweeps + 1))
        self.tasks.postpone_check(task.id, check_at=self.clock() + pause, sweeps=task.sweeps + 1)
        self._resend_messages(task)
        self.metrics.count("SweepRecoveries")
        logger.warning(
            "task without progress; messages resent",
            extra={"task_id": task.id, "stage": task.stage, "sweeps": task.sweeps + 1},
        )

    def _is_waiting(self, task: Task) -> bool:
        """Return whether a step waits for its next attempt. Its message says how long it may wait in total."""
        waiting = task.waiting
        if waiting is None or task.waiting_stage is not task.stage:
            return False
        return self.clock() < waiting.next_attempt.timestamp() + _MAX_LATE

    def _resend_messages(self, task: Task) -> None:
        if task.status is TaskStatus.DONE or task.stage in (Stage.VERIFIED, Stage.PUBLISHING):
            self.queue.send([PublishModels(task_id=task.id)])
        elif task.stage in (Stage.UPLOADING, Stage.INSPECTING):
            self.queue.send([AcceptArchive(task_id=task.id)])
        elif task.stage is Stage.PLANNING:
            self.queue.send([PlanImport(task_id=task.id)])
        else:
            pending = [group for group in self.files.list_groups(task.plan_id or "") if not group.is_done]
            now = self.clock()
            send_transfers(self.queue, task.id, [group.number for group in pending if group.lease_until <= now])
            if not pending:
                start_publishing(self.tasks, self.queue, task.id, check_at=now + CHECK_AFTER)
