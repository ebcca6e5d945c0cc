"""The part of the second step that several functions share: transfer segments of one large file.

The function with the lease of the group leads the transfer. A function that joins it cannot fail the import.
"""

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from modelhaul.domain.errors import ModelhaulError, TransientError
from modelhaul.domain.messages import JoinTransfer, TransferFiles
from modelhaul.domain.models import ModelRoots
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from modelhaul.imports.finish import abort_uploads_if_ended
from modelhaul.ports.clock import Clock
from modelhaul.ports.files import FileRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.model_sources import ModelSource
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.multipart_uploads import MultipartUploads
from modelhaul.ports.segments import SegmentRepository
from modelhaul.ports.tasks import TaskRepository
from modelhaul.transfer.engine import FileTransfer, Left, Paused
from modelhaul.transfer.large_files import CreateTransfer, LargeFileOpener, Transfer, find_large_file
from modelhaul.transfer.policy import TransferPolicy
from modelhaul.transfer.session import LEASE_SECONDS
from modelhaul.transfer.settings import StreamSettings
from modelhaul.transfer.source import FileSource

logger = logging.getLogger(__name__)

_MAX_RETURNS = 8
_FIRST_DELAY = 10.0  # seconds until the first return; each further delay is twice as long
_MAX_DELAY = 900.0


@dataclass(frozen=True, slots=True)
class TransferJoiner:
    """The step `join_transfer`."""

    tasks: TaskRepository
    models: ModelRepository
    files: FileRepository
    segments: SegmentRepository
    uploads: MultipartUploads
    queue: MessageQueue
    open_source: Callable[[Task], ModelSource]
    clock: Clock
    settings: StreamSettings = field(default_factory=StreamSettings)
    policy: TransferPolicy = field(default_factory=TransferPolicy)
    create_transfer: CreateTransfer = FileTransfer

    def join_transfer(self, message: JoinTransfer, remaining: Callable[[], float]) -> None:
        """Transfer segments of the group's large file until other functions have all that is left.

        After an error of the source or the store, the leading function continues without this one. If the error may be
        temporary, if no function leads the transfer, or if the `remaining()` seconds are nearly over, a message is sent
        by which a function joins later. If all bytes are hashed, a message is sent by which a function completes the
        file in case the leading one has died.
        """
        task = self.tasks.find_task(message.task_id)
        if task is None or task.stage is not Stage.TRANSFERRING:
            logger.info("join skipped: task is not transferring", extra={"task_id": message.task_id})
            return
        transfer: Transfer | Left = Left()
        delay = 0.0
        try:
            transfer = self._open(message, task, self._limit_time(task, remaining))
            outcome = transfer if isinstance(transfer, Left) else transfer.run()
        except ModelhaulError as error:
            logger.warning("transfer left after an error", extra={"task_id": task.id, "detail": error.detail})
            outcome = Left(may_return=isinstance(error, TransientError))
            delay = (error.retry_after or 0.0) if isinstance(error, TransientError) else 0.0
        abort_uploads_if_ended(self.tasks, self.uploads, self.segments, task)
        logger.info("transfer left", extra={"task_id": task.id, "group": message.group, "outcome": repr(outcome)})
        returns = message.returns if isinstance(transfer, Left) or not transfer.advanced else 0
        if isinstance(outcome, Paused):
            self.queue.send([message.reset_counts().model_copy(update={"returns": returns})])
        elif isinstance(outcome, Left) and outcome.is_hashed:
            self.queue.send([TransferFiles(task_id=task.id, group=message.group)], delay=LEASE_SECONDS)
        elif isinstance(outcome, Left) and outcome.may_return and returns < _MAX_RETURNS:
            delay = min(_MAX_DELAY, max(_FIRST_DELAY * 2**returns, delay))
            self.queue.send([message.reset_counts().model_copy(update={"returns": returns + 1})], delay=delay)

    def _limit_time(self, task: Task, remaining: Callable[[], float]) -> Callable[[], float]:
        """Return a function like `remaining` that returns 0 when the task has ended.

        Ending the task does not stop functions that joined: their upload is kept, and they do not use the lease.
        """
        checked_at, is_pending = self.clock(), True

        def find_remaining() -> float:
            nonlocal checked_at, is_pending
            if is_pending and self.clock() - checked_at >= self.settings.heartbeat:
                current = self.tasks.find_task(task.id)
                checked_at, is_pending = self.clock(), current is not None and current.status is TaskStatus.PENDING
            return remaining() if is_pending else 0.0

        return find_remaining

    def _open(self, message: JoinTransfer, task: Task, remaining: Callable[[], float]) -> Transfer | Left:
        """Return the transfer.

        Return Left if the group has no large file to transfer, if a model was deleted, or if no function leads the
        transfer: without one, the progress is not recorded, and the sweep would take the transfer for stalled.
        """
        group = next(iter(self.files.find_groups(task.plan_id or "", [message.group])), None)
        record = find_large_file(group, self.policy) if group is not None else None
        models = self.models.find_models(task.model_ids) if record is not None else []
        if group is None or record is None or len(models) < len(task.model_ids):
            return Left()
        source = FileSource(self.open_source(task), ModelRoots(models))
        source.prepare([record.file])
        opener = LargeFileOpener(
            group=group,
            owner=str(uuid.uuid4()),
            segments=self.segments,
            uploads=self.uploads,
            source=source,
            clock=self.clock,
            remaining=remaining,
            settings=self.settings,
            create_transfer=self.create_transfer,
        )
        claims = opener.open_claims(record)
        if group.lease_until <= self.clock() and claims.find() is not None:
            return Left(may_return=True)
        return opener.open(record, claims, None)
