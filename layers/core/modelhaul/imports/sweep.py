"""Looks after tasks of which nothing was heard for a while: a message was lost, or a function died.

It only sends messages again, which is always safe, since every step finds out for itself what is left to do. And it
goes on with what was being deleted.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from modelhaul.catalog.delete import ModelDeleter
from modelhaul.domain.errors import ImportStalledError, ModelhaulError
from modelhaul.domain.messages import AcceptArchive, PlanImport, PublishModels
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from modelhaul.imports.dispatch import CHECK_AFTER, publish_if_complete, send_transfers
from modelhaul.imports.finish import TaskFinisher
from modelhaul.ports.clock import Clock
from modelhaul.ports.files import FileRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.tasks import TaskRepository
from modelhaul.transfer.policy import TransferPolicy

logger = logging.getLogger(__name__)

MAX_SWEEPS = 8  # in vain, with the pauses below about a day
_MAX_PAUSE = 6 * 3600.0
_MAX_DUE = 100
_STOP_BEFORE = 30.0  # seconds kept at the end


@dataclass(frozen=True, slots=True)
class Sweeper:
    """What runs every five minutes."""

    tasks: TaskRepository
    files: FileRepository
    queue: MessageQueue
    finisher: TaskFinisher
    deleter: ModelDeleter
    metrics: Metrics
    clock: Clock
    policy: TransferPolicy = field(default_factory=TransferPolicy)

    def sweep_stale(self, remaining: Callable[[], float]) -> int:
        """Looks after as many tasks as `remaining()` seconds allow, then after deletions, and returns how many tasks
        were due.

        One task's error does not keep the others from being looked after. Raises ExceptionGroup with the unexpected
        errors, after all of them.
        """
        defects: list[Exception] = []
        due = self.tasks.list_due(self.clock(), _MAX_DUE)
        for listed in due:
            if remaining() < _STOP_BEFORE:
                logger.warning("out of time; the next sweep goes on", extra={"due": len(due)})
                break
            try:
                # The list comes from an index, which may lag behind.
                task = self.tasks.find_task(listed.id)
                if task is not None and task.check_at <= self.clock():
                    self._look_after(task)
            except ModelhaulError as error:
                logger.warning(
                    "could not look after the task; the next sweep will",
                    extra={"task_id": listed.id, "reason": error.type, "detail": error.detail},
                )
            except Exception as error:
                logger.exception("unexpected error; the other tasks are looked after", extra={"task_id": listed.id})
                defects.append(error)
        self.deleter.resume(lambda: remaining() - _STOP_BEFORE)
        if defects:
            raise ExceptionGroup("unexpected errors of tasks", defects)  # so that the function's alarm tells of them
        return len(due)

    def _look_after(self, task: Task) -> None:
        if task.status is TaskStatus.FAILED:
            # First, so that one which takes long, or fails, does not stand before the others for ever.
            self.tasks.postpone_check(task.id, check_at=self.clock() + CHECK_AFTER)
            self.finisher.close(task)
            return
        if task.status is TaskStatus.PENDING and task.sweeps >= MAX_SWEEPS:
            stalled = ImportStalledError(
                f"Nothing has moved for about a day at the stage {task.stage}. Submit the model again: "
                "files that were verified are used again."
            )
            self.finisher.fail(task.id, stalled)
            return
        # Before the messages go out, so that their receivers' own signs of life are not overwritten.
        pause = min(_MAX_PAUSE, CHECK_AFTER * 2 ** (task.sweeps + 1))
        self.tasks.postpone_check(task.id, check_at=self.clock() + pause, sweeps=task.sweeps + 1)
        self._send_again(task)
        self.metrics.count("SweepRecoveries", source=task.source)
        logger.warning(
            "nothing heard of the task for a while; its messages were sent again",
            extra={"task_id": task.id, "stage": task.stage, "sweeps": task.sweeps + 1},
        )

    def _send_again(self, task: Task) -> None:
        if task.status is TaskStatus.DONE or task.stage in (Stage.VERIFIED, Stage.PUBLISHING):
            self.queue.send([PublishModels(task_id=task.id)])
        elif task.stage in (Stage.UPLOADING, Stage.INSPECTING):
            self.queue.send([AcceptArchive(task_id=task.id)])
        elif task.stage is Stage.PLANNING:
            self.queue.send([PlanImport(task_id=task.id)])
        else:
            pending = [record for record in self.files.list_files(task.id) if not record.done]
            now = self.clock()
            send_transfers(self.queue, task.id, [r.file for r in pending if r.lease_until <= now], self.policy)
            if not pending:
                publish_if_complete(self.tasks, self.queue, task.id, task.progress, check_at=now + CHECK_AFTER)
