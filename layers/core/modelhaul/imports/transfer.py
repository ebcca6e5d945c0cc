"""The second step of an import: store the files of a group in staging, verify each of them, and check its content.

Files that are done are skipped. Content that is already stored is copied within S3. All other content is streamed.
"""

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from modelhaul.domain.errors import LeaseLostError, ModelhaulError, StalledTransferError, TaskEndedError
from modelhaul.domain.files import FileCounts
from modelhaul.domain.messages import FailureKind, TransferFiles
from modelhaul.domain.models import ModelRoots
from modelhaul.domain.tasks import Stage, Task
from modelhaul.imports.dispatch import CHECK_AFTER, publish_if_complete
from modelhaul.imports.finish import abort_uploads_if_ended
from modelhaul.imports.retry import TransferError
from modelhaul.ports.clock import Clock
from modelhaul.ports.content import ContentIndex
from modelhaul.ports.content_checks import ContentChecker
from modelhaul.ports.files import FileRepository, GroupLeases
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.model_sources import ModelSource
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.multipart_uploads import MultipartUploads
from modelhaul.ports.object_store import ObjectStore
from modelhaul.ports.segments import SegmentRepository
from modelhaul.ports.tasks import TaskRepository
from modelhaul.transfer.engine import FileTransfer
from modelhaul.transfer.kept_uploads import KeptUploads
from modelhaul.transfer.large_files import CreateTransfer, LargeFileOpener, LargeFileTransfer
from modelhaul.transfer.policy import TransferPolicy
from modelhaul.transfer.reuse import ContentReuse
from modelhaul.transfer.session import LEASE_SECONDS, TransferSession
from modelhaul.transfer.settings import StreamSettings
from modelhaul.transfer.small_files import SmallFileBatch
from modelhaul.transfer.source import FileSource
from modelhaul.transfer.staged import StagedFileChecks

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Transferrer:
    """The step `transfer_files`."""

    tasks: TaskRepository
    models: ModelRepository
    files: FileRepository
    leases: GroupLeases
    segments: SegmentRepository
    content: ContentIndex
    store: ObjectStore
    uploads: MultipartUploads
    queue: MessageQueue
    open_source: Callable[[Task], ModelSource]
    create_checker: Callable[[], ContentChecker]
    metrics: Metrics
    clock: Clock
    settings: StreamSettings = field(default_factory=StreamSettings)
    policy: TransferPolicy = field(default_factory=TransferPolicy)
    create_transfer: CreateTransfer = FileTransfer

    def transfer_files(self, message: TransferFiles, remaining: Callable[[], float]) -> None:
        """Transfer and check the files of the group until they are done, or the `remaining()` seconds are nearly over.

        In the second case, a new message is sent for the rest. A duplicate of a message is a no-op, because its group
        is done or leased.

        Raises TransferError.
        """
        task = self.tasks.find_task(message.task_id)
        if task is None or task.stage is not Stage.TRANSFERRING or task.plan_id is None:
            logger.info("transfer skipped: task is not transferring", extra={"task_id": message.task_id})
            return
        session = self._open_session(task, task.plan_id, message.group, remaining)
        if session is None:
            logger.info(
                "transfer skipped: group is done or leased by another function",
                extra={"task_id": task.id, "group": message.group},
            )
            self._publish_if_complete(task, task.plan_id)
            return
        try:
            self._transfer(message, session)
        except (LeaseLostError, TaskEndedError) as error:
            logger.info(
                "transfer stopped: lease lost or task ended", extra={"task_id": task.id, "detail": error.detail}
            )
            abort_uploads_if_ended(self.tasks, self.uploads, self.segments, task)
            return
        except Exception as error:
            session.release()
            if isinstance(error, ModelhaulError):
                raise TransferError(error, advanced=session.advanced) from error
            raise
        if session.paused:
            session.release()
            if not session.advanced:
                waiting = next(r for r in session.group.records if not r.is_done)
                stalled = StalledTransferError(
                    f"{waiting.file.path}: no part was received before the function ran out of time."
                )
                raise TransferError(stalled, advanced=False)
            self.queue.send([message.reset_counts()])
            logger.info("transfer paused: out of time", extra={"task_id": task.id})

    def _transfer(self, message: TransferFiles, session: TransferSession) -> None:
        found = self.models.find_models(session.task.model_ids)
        if len(found) < len(session.task.model_ids):
            raise TaskEndedError(f"Task {session.task.id} has already ended, and a model was deleted.")
        models = ModelRoots(found)
        pending = [record for record in session.group.records if not record.is_done]
        source = FileSource(self.open_source(session.task), models)
        reuse = ContentReuse(
            session, self.content, self.store, source, self.policy, first_attempt=message.is_first_attempt
        )
        checks = StagedFileChecks(self.create_checker, self.store, models)
        source.prepare([record.file for record in pending if record.sha256 is None])
        small = [record for record in pending if record.file.size <= self.policy.small_file]
        if small:
            SmallFileBatch(
                session=session, reuse=reuse, checks=checks, store=self.store, source=source, policy=self.policy
            ).transfer(small)
        is_outage = message.failures is not None and message.failures.kind is FailureKind.OUTAGE
        opener = LargeFileOpener(
            group=session.group,
            owner=session.owner,
            segments=self.segments,
            uploads=self.uploads,
            source=source,
            clock=self.clock,
            remaining=session.remaining,
            settings=replace(self.settings, is_outage=is_outage),
            create_transfer=self.create_transfer,
        )
        kept = KeptUploads(
            session=session,
            content=self.content,
            segments=self.segments,
            uploads=self.uploads,
            store=self.store,
            may_take_over=not message.mismatches,
        )
        large = LargeFileTransfer(session=session, reuse=reuse, kept=kept, checks=checks, opener=opener)
        for record in pending:
            if record.file.size > self.policy.small_file and not session.paused:
                large.transfer(record)

    def _open_session(
        self, task: Task, plan_id: str, number: int, remaining: Callable[[], float]
    ) -> TransferSession | None:
        """Lease the group. Return None if it is done, or leased to another function."""

        def publish(counts: FileCounts) -> bool:
            check_at = self.clock() + CHECK_AFTER
            return publish_if_complete(self.tasks, self.queue, task, counts, check_at=check_at)

        owner, now = str(uuid.uuid4()), self.clock()
        group = self.leases.lease_group(plan_id, number, owner=owner, now=now, until=now + LEASE_SECONDS)
        if group is None:
            return None
        return TransferSession(
            task=task,
            group=group,
            owner=owner,
            tasks=self.tasks,
            leases=self.leases,
            metrics=self.metrics,
            clock=self.clock,
            settings=self.settings,
            remaining=remaining,
            check_after=CHECK_AFTER,
            publish_if_complete=publish,
        )

    def _publish_if_complete(self, task: Task, plan_id: str) -> None:
        """Start publishing if all files are done.

        The function that recorded the last file may have died before it started publishing. Its message is then
        delivered again.
        """
        counts = self.files.count_files(plan_id)
        publish_if_complete(self.tasks, self.queue, task, counts, check_at=self.clock() + CHECK_AFTER)
