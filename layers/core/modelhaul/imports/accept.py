"""Accept archives that arrived in the incoming bucket: create their tasks and find the models in them."""

import logging
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath

from modelhaul.archives.models import inspect_archive
from modelhaul.archives.reader import ArchiveReader
from modelhaul.archives.rules import ArchiveRules
from modelhaul.archives.source import open_stored
from modelhaul.domain.archives import Archive
from modelhaul.domain.audit import describe_submission
from modelhaul.domain.errors import ObjectIgnoredError, UploadExpiredError
from modelhaul.domain.keys import DROPPED, OUTCOMES, POSTED, UPLOADED
from modelhaul.domain.messages import AcceptArchive, PlanImport
from modelhaul.domain.models import Source
from modelhaul.domain.tasks import Stage, Task, TaskError, TaskStatus
from modelhaul.imports.dispatch import CHECK_AFTER
from modelhaul.imports.outcomes import OutcomeWriter
from modelhaul.ports.archive_store import ArchiveStore
from modelhaul.ports.clock import Clock
from modelhaul.ports.imports import ImportRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.tasks import TaskRepository

logger = logging.getLogger(__name__)

_DROP_NAMESPACE = uuid.UUID("0d7a54c1-8f0c-5d13-9a55-1b7f3a0c9e42")


@dataclass(frozen=True, slots=True)
class ArrivalRecorder:
    """Records the arrival of an object in the incoming bucket in its task."""

    tasks: TaskRepository
    archives: ArchiveStore
    metrics: Metrics
    clock: Clock
    outcomes: OutcomeWriter

    def record_arrival(
        self, key: str, *, size: int, etag: str, event_id: str, submitted_by: str | None = None
    ) -> str | None:
        """Return the id of the object's task. None for an upload whose task no longer exists, and for an object that is
        not imported.

        A dropped archive gets a new task. Its id depends on `event_id` (the sequencer of S3), so that a duplicate event
        does not create a second task. An object at any other key gets an outcome, but no task: somebody may copy a
        million of them.
        """
        # The console creates a folder as an empty object. An outcome of an outcome would be the first of an endless
        # series; the rule does not send their events.
        if key.endswith("/") or key.startswith((OUTCOMES, POSTED)):
            return None
        now = self.clock()
        if key.startswith(UPLOADED):
            task_id = PurePosixPath(key).stem
            task = self.tasks.record_arrival(task_id, size=size, etag=etag, check_at=now + CHECK_AFTER)
            if task is None:
                logger.warning("upload skipped: task not found", extra={"key": key})
            return task_id if task is not None else None
        task_id = str(uuid.uuid5(_DROP_NAMESPACE, f"{self.archives.bucket}/{key}\n{etag}\n{event_id}"))
        moment = datetime.fromtimestamp(now, UTC)
        task = Task(
            id=task_id,
            source=Source.LOCAL,
            model_tag=key,
            model_ids=(),
            created_at=moment,
            updated_at=moment,
            stage=Stage.INSPECTING,
            check_at=now + CHECK_AFTER,
            archive=Archive(key, PurePosixPath(key).name, None, size, etag),
            submitted_by=submitted_by,
        )
        if (fault := _find_fault(key)) is not None:
            error = ObjectIgnoredError(f"Object {key!r} is not imported, because its key {fault}.")
            ended = replace(task, stage=Stage.FAILED, error=TaskError(error.type, error.detail, error.retryable))
            self.outcomes.write_outcome(ended)
            logger.info("object ignored", extra={"key": key, "bytes": size, "caller": submitted_by})
            return None
        if self.tasks.record_task(task, entry=describe_submission(task)):
            self.metrics.count("ImportsAccepted")
            context = {"task_id": task_id, "source": task.source, "key": key, "bytes": size, "caller": submitted_by}
            logger.info("archive arrived", extra=context)
        return task_id


def _find_fault(key: str) -> str | None:
    """Return why an object with this key is not imported, None for a dropped archive."""
    if not key.startswith(DROPPED):
        return f"does not start with {DROPPED}"
    return None if key.lower().endswith(".zip") else "does not end in .zip"


@dataclass(frozen=True, slots=True)
class ArchiveAcceptor:
    """The step `accept_archive`."""

    tasks: TaskRepository
    imports: ImportRepository
    archives: ArchiveStore
    queue: MessageQueue
    clock: Clock
    rules: ArchiveRules
    outcomes: OutcomeWriter

    def accept_archive(self, message: AcceptArchive) -> None:
        """Find the models in the task's archive, claim them and send the plan message.

        Raises ArchiveRefusedError, NoModelInArchiveError, ArchiveReplacedError, UploadExpiredError,
        InvalidReferenceError, and the errors of ImportRepository.claim_models.
        """
        task = self.tasks.find_task(message.task_id)
        if task is not None and task.stage is Stage.UPLOADING:
            task = self._find_upload(task)
        if task is None or task.status is not TaskStatus.PENDING or task.archive is None:
            logger.info("archive inspection skipped: task has ended", extra={"task_id": message.task_id})
            return
        if task.stage is Stage.INSPECTING:
            task = self._inspect(task, task.archive)
        # A function may also have died between the claim and the plan message.
        if task is not None and task.stage is Stage.PLANNING:
            self.queue.send([PlanImport(task_id=task.id)])

    def _find_upload(self, task: Task) -> Task | None:
        """Record the arrival of an upload whose event was lost. Return None if it has not arrived.

        Raises UploadExpiredError.
        """
        found = self.archives.find_archive(task.archive.key) if task.archive is not None else None
        if found is not None:
            size, etag = found
            return self.tasks.record_arrival(task.id, size=size, etag=etag, check_at=self.clock() + CHECK_AFTER)
        if self.clock() >= task.upload_until.timestamp():
            raise UploadExpiredError("The archive was not uploaded within three days.")
        return None

    def _inspect(self, task: Task, archive: Archive) -> Task | None:
        self.outcomes.write_outcome(task)
        reader = ArchiveReader(open_stored(self.archives, archive), archive.size or 0, self.rules.limits)
        inspection = inspect_archive(reader, archive, self.rules.required_files)
        now = self.clock()
        models = inspection.build_models(task.id, datetime.fromtimestamp(now, UTC), task.submitted_by)
        logger.info(
            "archive inspected",
            extra={
                "task_id": task.id,
                "models": [m.resolved.name for m in models],
                "skipped": len(inspection.skipped),
                "entries": len(reader.entries),
            },
        )
        return self.imports.claim_models(task.id, models, inspection.skipped, check_at=now + CHECK_AFTER)
