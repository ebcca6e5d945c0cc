"""Accepts archives: posted whole, to be uploaded, or found in the incoming bucket."""

import logging
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from modelhaul.archives.entries import ArchiveLimits
from modelhaul.archives.models import inspect_archive
from modelhaul.archives.reader import ArchiveReader, open_memory
from modelhaul.archives.source import open_stored
from modelhaul.errors import (
    ArchiveTooLargeError,
    InvalidReferenceError,
    ModelhaulError,
    StorageUnavailableError,
    UploadExpiredError,
)
from modelhaul.messages import AcceptArchive, PlanImport
from modelhaul.model import Archive, Source, UploadTicket
from modelhaul.naming import check_model_name
from modelhaul.outcomes import POSTED, UPLOADED, OutcomeWriter
from modelhaul.planning import CHECK_AFTER
from modelhaul.ports import ArchiveStore, Clock, Ledger, MessageQueue, Meter
from modelhaul.required_files import RequiredFiles
from modelhaul.task import Stage, Task, TaskStatus

logger = logging.getLogger(__name__)

MAX_POSTED = 4_500_000  # bytes: Lambda takes 6 MB, in base64 and with the rest of the request
UPLOAD_SECONDS = 12 * 3600.0
_MAX_FILE_NAME = 255
_DROP_NAMESPACE = uuid.UUID("0d7a54c1-8f0c-5d13-9a55-1b7f3a0c9e42")
_HOW_TO_SEND_LARGER = (
    'Send larger ones by POST /v1/upload/local with the JSON {"file_name": …, "size": …}, which answers where to '
    "put the bytes, or copy them into the incoming bucket under incoming/."
)


@dataclass(frozen=True, slots=True)
class ArchiveRules:
    limits: ArchiveLimits
    required_files: RequiredFiles


@dataclass(frozen=True, slots=True)
class ArchiveIntake:
    """What POST /v1/upload/local calls."""

    ledger: Ledger
    archives: ArchiveStore
    queue: MessageQueue
    meter: Meter
    clock: Clock
    rules: ArchiveRules

    def submit_archive(self, body: bytes, file_name: str, model_name: str | None) -> Task:
        """Accepts an archive that is here whole, once all of it was read and found sound.

        Raises ArchiveTooLargeError above 4.5 MB, ArchiveRefusedError, NoModelInArchiveError, InvalidReferenceError,
        and what Ledger.claim_import raises; nothing is stored then.
        """
        if len(body) > MAX_POSTED:
            raise ArchiveTooLargeError(
                f"The archive has {len(body):,} bytes; by this way at most {MAX_POSTED:,}. {_HOW_TO_SEND_LARGER}"
            )
        task_id = str(uuid.uuid4())
        now = self.clock()
        moment = datetime.fromtimestamp(now, UTC)
        named = Archive(f"{POSTED}{task_id}.zip", file_name, _check_name(model_name), len(body))
        reader = ArchiveReader(open_memory(body), len(body), self.rules.limits)
        inspection = inspect_archive(reader, named, self.rules.required_files)
        for entry in reader.entries:
            reader.verify_entry(entry)
        models = inspection.build_models(task_id, moment)
        archive = Archive(named.key, file_name, model_name, len(body), self.archives.put_archive(named.key, body))
        task = Task(
            id=task_id,
            source=Source.LOCAL,
            model_tag=model_name or file_name,
            model_ids=tuple(m.model_id for m in models),
            created_at=moment,
            updated_at=moment,
            check_at=now + CHECK_AFTER,
            archive=archive,
            skipped=inspection.skipped,
        )
        try:
            self.ledger.claim_import(task, models)
        except StorageUnavailableError:
            raise  # perhaps it was written all the same, and then the archive is needed
        except ModelhaulError:
            self.archives.delete_archive(archive.key)
            raise
        self.meter.count("ImportsAccepted", source=Source.LOCAL)
        context = {"task_id": task_id, "models": [m.resolved.name for m in models], "bytes": len(body)}
        try:
            self.queue.send([PlanImport(task_id=task_id)])
        except StorageUnavailableError as error:
            # The task is written and so accepted; the sweep sends the message again.
            context["detail"] = error.detail
            logger.warning("archive accepted, but the plan message was not sent; the sweep will", extra=context)
        else:
            logger.info("archive accepted; planning comes next", extra=context)
        return task

    def open_upload(self, file_name: str, size: int, model_name: str | None) -> tuple[Task, UploadTicket]:
        """Accepts an archive of `size` bytes that is to be stored by its owner within twelve hours; its arrival
        starts the task. Raises ArchiveTooLargeError, InvalidReferenceError.
        """
        if size > self.rules.limits.max_total_bytes:
            raise ArchiveTooLargeError(
                f"The archive has {size:,} bytes; the limit is {self.rules.limits.max_total_bytes:,} "
                "(parameter ArchiveMaxTotalBytes)."
            )
        file_name = check_file_name(file_name)
        task_id = str(uuid.uuid4())
        now = self.clock()
        moment = datetime.fromtimestamp(now, UTC)
        archive = Archive(f"{UPLOADED}{task_id}.zip", file_name, _check_name(model_name), size)
        ticket = self.archives.open_upload(archive.key, size, seconds=UPLOAD_SECONDS)
        task = Task(
            id=task_id,
            source=Source.LOCAL,
            model_tag=model_name or file_name,
            model_ids=(),
            created_at=moment,
            updated_at=moment,
            stage=Stage.UPLOADING,
            check_at=now + UPLOAD_SECONDS + CHECK_AFTER,
            archive=archive,
        )
        self.ledger.record_task(task)
        self.meter.count("ImportsAccepted", source=Source.LOCAL)
        logger.info("upload opened; the archive's arrival comes next", extra={"task_id": task_id, "bytes": size})
        return task, ticket


@dataclass(frozen=True, slots=True)
class ArrivalRecorder:
    """Turns the event of an object that arrived into its task."""

    ledger: Ledger
    archives: ArchiveStore
    clock: Clock

    def record_arrival(self, key: str, *, size: int, etag: str, event_id: str) -> str | None:
        """The id of the task for an object of the incoming bucket; the same event (`event_id`, S3's sequencer)
        always has the same. None for an upload whose task is no longer there.
        """
        now = self.clock()
        if key.startswith(UPLOADED):
            task_id = PurePosixPath(key).stem
            task = self.ledger.record_arrival(task_id, size=size, etag=etag, check_at=now + CHECK_AFTER)
            if task is None:
                logger.warning("an upload arrived that belongs to no task; it will expire", extra={"key": key})
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
        )
        self.ledger.record_task(task)
        logger.info("archive arrived; inspecting it comes next", extra={"task_id": task_id, "key": key, "bytes": size})
        return task_id


@dataclass(frozen=True, slots=True)
class ArchiveAcceptor:
    """The step `accept_archive`."""

    ledger: Ledger
    archives: ArchiveStore
    queue: MessageQueue
    clock: Clock
    rules: ArchiveRules
    outcomes: OutcomeWriter

    def accept_archive(self, message: AcceptArchive) -> None:
        """Finds the models in the task's archive, claims them and hands the task on to planning.

        Raises ArchiveRefusedError, NoModelInArchiveError, ArchiveReplacedError, UploadExpiredError,
        InvalidReferenceError, and what Ledger.claim_models raises.
        """
        task = self.ledger.find_task(message.task_id)
        if task is not None and task.status is TaskStatus.PENDING and task.stage is Stage.UPLOADING:
            task = self._find_upload(task)
        if task is None or task.status is not TaskStatus.PENDING or task.archive is None:
            logger.info("nothing to inspect: the task has ended", extra={"task_id": message.task_id})
            return
        if task.stage is Stage.INSPECTING:
            task = self._inspect(task, task.archive)
        # Also if an earlier delivery died between the claim and its message.
        if task is not None and task.stage is Stage.PLANNING:
            self.queue.send([PlanImport(task_id=task.id)])

    def _find_upload(self, task: Task) -> Task | None:
        """The event of its arrival may have been lost."""
        found = self.archives.find_archive(task.archive.key) if task.archive is not None else None
        if found is not None:
            size, etag = found
            return self.ledger.record_arrival(task.id, size=size, etag=etag, check_at=self.clock() + CHECK_AFTER)
        if self.clock() - task.created_at.timestamp() >= UPLOAD_SECONDS:
            raise UploadExpiredError("The archive did not arrive within twelve hours. Submit it again.")
        return None

    def _inspect(self, task: Task, archive: Archive) -> Task | None:
        self.outcomes.write_outcome(task)
        reader = ArchiveReader(open_stored(self.archives, archive), archive.size or 0, self.rules.limits)
        inspection = inspect_archive(reader, archive, self.rules.required_files)
        now = self.clock()
        models = inspection.build_models(task.id, datetime.fromtimestamp(now, UTC))
        logger.info(
            "archive inspected; planning comes next",
            extra={
                "task_id": task.id,
                "models": [m.resolved.name for m in models],
                "skipped": len(inspection.skipped),
                "entries": len(reader.entries),
            },
        )
        return self.ledger.claim_models(task.id, models, inspection.skipped, check_at=now + CHECK_AFTER)


def check_file_name(file_name: str) -> str:
    """Raises InvalidReferenceError unless it is a file's name that ends in `.zip`."""
    name = PurePosixPath(file_name.replace("\\", "/")).name
    if not name.lower().endswith(".zip") or len(name) > _MAX_FILE_NAME or not name.isprintable():
        raise InvalidReferenceError(f"{file_name[:100]!r} is not the name of a .zip file", part="file_name")
    return name


def _check_name(model_name: str | None) -> str | None:
    return None if model_name is None else check_model_name(model_name)
