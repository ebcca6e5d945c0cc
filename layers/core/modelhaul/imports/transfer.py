"""The second step of an import: store the files of a task in staging, and verify each of them.

Files that are done are skipped. Content that is already stored is copied within S3. All other content is streamed.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from modelhaul.domain.errors import LeaseLostError, ModelhaulError, StalledTransferError, TaskEndedError
from modelhaul.domain.files import FileRecord
from modelhaul.domain.keys import staging_prefix
from modelhaul.domain.messages import TransferFiles
from modelhaul.domain.models import Model, ModelRoots
from modelhaul.domain.tasks import Progress, Stage, Task, TaskStatus
from modelhaul.imports.dispatch import CHECK_AFTER, publish_if_complete
from modelhaul.imports.finish import abort_uploads
from modelhaul.imports.retry import TransferError
from modelhaul.ports.clock import Clock
from modelhaul.ports.content import ContentIndex
from modelhaul.ports.files import FileRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.model_sources import ModelSource
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.multipart_uploads import MultipartUploads
from modelhaul.ports.object_store import ObjectStore
from modelhaul.ports.tasks import TaskRepository
from modelhaul.transfer.engine import FileTransfer
from modelhaul.transfer.large_files import CreateTransfer, LargeFileTransfer
from modelhaul.transfer.policy import TransferPolicy
from modelhaul.transfer.reuse import ContentReuse
from modelhaul.transfer.session import FileLease, TransferSession
from modelhaul.transfer.settings import StreamSettings
from modelhaul.transfer.small_files import SmallFileBatch
from modelhaul.transfer.source import FileSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Transferrer:
    """The step `transfer_files`."""

    tasks: TaskRepository
    models: ModelRepository
    files: FileRepository
    content: ContentIndex
    store: ObjectStore
    uploads: MultipartUploads
    queue: MessageQueue
    open_source: Callable[[Task], ModelSource]
    metrics: Metrics
    clock: Clock
    settings: StreamSettings = field(default_factory=StreamSettings)
    policy: TransferPolicy = field(default_factory=TransferPolicy)
    create_transfer: CreateTransfer = FileTransfer

    def transfer_files(self, message: TransferFiles, remaining: Callable[[], float]) -> None:
        """Transfer the message's files until they are done, or the `remaining()` seconds are nearly over.

        In the second case, a new message has the remaining files. A duplicate of a message is a no-op, because its
        files are done or leased.

        Raises TransferError.
        """
        task = self.tasks.find_task(message.task_id)
        if task is None or task.stage is not Stage.TRANSFERRING:
            logger.info("transfer skipped: task is not transferring", extra={"task_id": message.task_id})
            return
        models = self.models.find_models(task.model_ids)
        pending = self._find_pending(message)
        session = self._open_session(task, remaining)
        if not models or not pending:
            # The function that recorded the last file may have died before it started publishing.
            session.publish_if_complete(task.progress)
            return
        lease = session.lease_file(pending[0].file.path)
        if lease is None:
            logger.info(
                "transfer skipped: file leased by another function",
                extra={"task_id": task.id, "path": pending[0].file.path},
            )
            return
        try:
            self._transfer(message, session, lease, pending, models)
        except (LeaseLostError, TaskEndedError) as error:
            logger.info(
                "transfer stopped: lease lost or task ended", extra={"task_id": task.id, "detail": error.detail}
            )
            self._abort_uploads_if_ended(task)
            return
        except Exception as error:
            session.release_leases()
            if isinstance(error, ModelhaulError):
                raise TransferError(error, advanced=session.advanced) from error
            raise
        if session.paused:
            session.release_leases()
            if not session.advanced:
                stalled = StalledTransferError(
                    f"{lease.record.file.path}: no part was received before the function ran out of time."
                )
                raise TransferError(stalled, advanced=False)
            self.queue.send([message.model_copy(update={"attempt": 1})])
            logger.info("transfer paused: out of time", extra={"task_id": task.id})

    def _transfer(
        self,
        message: TransferFiles,
        session: TransferSession,
        lease: FileLease,
        pending: list[FileRecord],
        models: list[Model],
    ) -> None:
        source = FileSource(self.open_source(session.task), ModelRoots(models))
        reuse = ContentReuse(session, self.content, self.store, source, self.policy, first_attempt=message.attempt == 1)
        source.prepare([record.file for record in pending])
        small = [record for record in pending if record.file.size <= self.policy.small_file]
        if small:
            SmallFileBatch(
                session=session,
                lease=lease,
                reuse=reuse,
                store=self.store,
                source=source,
                policy=self.policy,
            ).transfer(small)
        large = LargeFileTransfer(
            session=session, reuse=reuse, uploads=self.uploads, source=source, create_transfer=self.create_transfer
        )
        for record in pending:
            if record.file.size > self.policy.small_file and not session.paused:
                large.transfer(record)

    def _open_session(self, task: Task, remaining: Callable[[], float]) -> TransferSession:
        def publish(progress: Progress) -> bool:
            check_at = self.clock() + CHECK_AFTER
            return publish_if_complete(self.tasks, self.queue, task.id, progress, check_at=check_at)

        return TransferSession(
            task=task,
            tasks=self.tasks,
            files=self.files,
            metrics=self.metrics,
            clock=self.clock,
            settings=self.settings,
            remaining=remaining,
            check_after=CHECK_AFTER,
            publish_if_complete=publish,
        )

    def _find_pending(self, message: TransferFiles) -> list[FileRecord]:
        records = {r.file.path: r for r in self.files.find_files(message.task_id, message.paths)}
        return [records[p] for p in message.paths if p in records and not records[p].done]

    def _abort_uploads_if_ended(self, task: Task) -> None:
        """Abort the uploads of an ended task, which may have been cleaned up while this function was uploading."""
        now = self.tasks.find_task(task.id)
        if now is not None and now.status is not TaskStatus.PENDING:
            abort_uploads(self.uploads, staging_prefix(task.id))
