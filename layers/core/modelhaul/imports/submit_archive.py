"""Accept archives: sent in the request, or uploaded later to a presigned URL."""

import logging
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from modelhaul.archives.models import inspect_archive
from modelhaul.archives.reader import ArchiveReader, open_memory
from modelhaul.archives.rules import ArchiveRules
from modelhaul.catalog.quota import StorageQuota
from modelhaul.domain.archives import MAX_PUT_SIZE, Archive, UploadTicket
from modelhaul.domain.audit import describe_renewal, describe_submission
from modelhaul.domain.callers import is_same_caller
from modelhaul.domain.claims import check_claimable
from modelhaul.domain.errors import (
    ArchiveTooLargeError,
    InvalidReferenceError,
    ModelhaulError,
    StorageUnavailableError,
    TaskNotFoundError,
    UploadNotOpenError,
)
from modelhaul.domain.keys import POSTED, UPLOADED
from modelhaul.domain.models import Source
from modelhaul.domain.names import check_model_name
from modelhaul.domain.tasks import UPLOAD_LIFE, Stage, Task, describe_missing_task
from modelhaul.imports.dispatch import CHECK_AFTER
from modelhaul.imports.import_policy import Candidate, ImportPolicy, list_candidates
from modelhaul.imports.policy_facts import know_archive
from modelhaul.imports.submit import request_plan
from modelhaul.ports.archive_store import ArchiveStore
from modelhaul.ports.audit_log import AuditLog
from modelhaul.ports.clock import Clock
from modelhaul.ports.imports import ImportRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.tasks import TaskRepository

logger = logging.getLogger(__name__)

MAX_POSTED = 4_500_000  # bytes: Lambda accepts 6 MB, with the body in base64 and the rest of the request
_MAX_FILE_NAME = 255
# The credentials of a function are valid for up to 12 hours, and its presigned URLs not longer.
_URL_SECONDS = 12 * 3600.0
LARGE_ARCHIVE_REMEDY = (
    'To upload an archive above 4.5 MB, send POST /v1/upload/local with the JSON {"file_name": ..., "size": ...}, and '
    "use the presigned URLs in the response. Or copy the archive into the incoming bucket under incoming/."
)


@dataclass(frozen=True, slots=True)
class ArchiveSubmitter:
    """Accepts archives. Called by POST /v1/upload/local."""

    tasks: TaskRepository
    imports: ImportRepository
    archives: ArchiveStore
    queue: MessageQueue
    metrics: Metrics
    clock: Clock
    rules: ArchiveRules
    audit: AuditLog
    models: ModelRepository
    policy: ImportPolicy | None = None
    quota: StorageQuota | None = None

    def submit_archive(
        self, body: bytes, file_name: str, model_name: str | None, *, submitted_by: str | None = None
    ) -> Task:
        """Accept an archive that was sent in the request, after all of its entries are verified.

        Raises ArchiveTooLargeError above 4.5 MB, ArchiveRefusedError, NoModelInArchiveError, InvalidReferenceError,
        the errors of ImportRepository.claim_import, StorageQuotaError, PolicyUnavailableError, and PolicyDeniedError if
        the policy denies all of its models. Nothing is stored in these cases.
        """
        if len(body) > MAX_POSTED:
            raise ArchiveTooLargeError(
                f"The archive has {len(body):,} bytes; the limit for one request is {MAX_POSTED:,}.",
                remedy=LARGE_ARCHIVE_REMEDY,
            )
        task_id = str(uuid.uuid4())
        now = self.clock()
        moment = datetime.fromtimestamp(now, UTC)
        named = Archive(f"{POSTED}{task_id}.zip", file_name, _check_name(model_name), len(body))
        reader = ArchiveReader(open_memory(body), len(body), self.rules.limits)
        inspection = inspect_archive(reader, named, self.rules.required_files)
        for entry in reader.entries:
            reader.verify_entry(entry)
        models = inspection.build_models(task_id, moment, submitted_by)
        if self.policy is not None:
            # The policy does not concern models that exist.
            check_claimable(task_id, self.models.find_models([model.model_id for model in models]))
            self.policy.check(list_candidates(models, moment), caller=submitted_by)
        if self.quota is not None:
            self.quota.check_submission(models=models)
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
            submitted_by=submitted_by,
        )
        try:
            self.imports.claim_import(task, models, entry=describe_submission(task, models))
        except StorageUnavailableError:
            raise  # the task may have been recorded, and then the archive is needed
        except ModelhaulError:
            self.archives.delete_archive(archive.key)
            raise
        context = {"task_id": task_id, "models": [m.resolved.name for m in models], "bytes": len(body)}
        request_plan(task, self.queue, self.metrics, context)
        return task

    def open_upload(
        self,
        file_name: str,
        size: int,
        model_name: str | None,
        *,
        single_put: bool = False,
        submitted_by: str | None = None,
    ) -> tuple[Task, UploadTicket]:
        """Accept an archive of `size` bytes that the client uploads within three days. Its arrival starts the task.

        The presigned URLs expire earlier. `renew_upload` signs them again.

        `single_put`: the client does not upload in parts, although an interrupted upload then starts again.

        With a quota, the archive itself must fit: its models are seldom smaller.

        Raises ArchiveTooLargeError, InvalidReferenceError, StorageQuotaError, PolicyUnavailableError, and
        PolicyDeniedError if the policy denies every archive.
        """
        if size > self.rules.limits.max_total_bytes:
            raise ArchiveTooLargeError(
                f"The archive has {size:,} bytes; the limit is {self.rules.limits.max_total_bytes:,} "
                "(parameter ArchiveMaxTotalBytes)."
            )
        if single_put and size > MAX_PUT_SIZE:
            raise ArchiveTooLargeError(
                f"The archive has {size:,} bytes; the limit for a single PUT is {MAX_PUT_SIZE:,}.",
                remedy="Send the request without single_put, and upload the archive in parts.",
            )
        file_name = check_file_name(file_name)
        task_id = str(uuid.uuid4())
        now = self.clock()
        moment = datetime.fromtimestamp(now, UTC)
        key, name = f"{UPLOADED}{task_id}.zip", _check_name(model_name)
        if self.policy is not None:
            self.policy.check([Candidate(None, know_archive(moment))], caller=submitted_by)
        if self.quota is not None:
            self.quota.check_submission(size)
        ticket = self.archives.open_upload(key, size, seconds=_URL_SECONDS, single_put=single_put)
        archive = Archive(key, file_name, name, size, upload_id=ticket.upload_id, part_size=ticket.part_size)
        task = Task(
            id=task_id,
            source=Source.LOCAL,
            model_tag=model_name or file_name,
            model_ids=(),
            created_at=moment,
            updated_at=moment,
            stage=Stage.UPLOADING,
            check_at=now + UPLOAD_LIFE.total_seconds() + CHECK_AFTER,
            archive=archive,
            submitted_by=submitted_by,
        )
        self.tasks.record_task(task, entry=describe_submission(task))
        self.metrics.count("ImportsAccepted")
        logger.info("upload opened", extra={"task_id": task_id, "source": task.source, "bytes": size})
        return task, ticket

    def renew_upload(
        self, task_id: str, parts: Collection[int] | None, *, caller: str | None = None
    ) -> tuple[Task, UploadTicket]:
        """Sign the URLs of a task's upload again: those of the parts with these numbers (None: of all parts), and those
        that complete and abort the upload.

        Raises TaskNotFoundError, UploadNotOpenError if the task does not wait for an upload by `caller`, and
        InvalidReferenceError for a number that is not one of a part.
        """
        task = self.tasks.find_task(task_id)
        if task is None:
            raise TaskNotFoundError(describe_missing_task(task_id))
        if task.archive is None or task.stage is not Stage.UPLOADING:
            raise UploadNotOpenError(f"Task {task_id} does not wait for an upload. Its stage is {task.stage}.")
        if not is_same_caller(task.submitted_by, caller):
            # With the URLs, the caller could upload another archive, which would be imported in the submitter's name.
            raise UploadNotOpenError(f"Task {task_id} does not wait for an upload by this caller.")
        left = task.upload_until.timestamp() - self.clock()
        if left < 1:
            raise UploadNotOpenError(f"Task {task_id} no longer waits for its upload, which took too long.")
        if task.archive.upload_id is None and (task.archive.size or 0) > MAX_PUT_SIZE:
            raise UploadNotOpenError(
                f"Task {task_id} was accepted by an earlier version, which did not record the parts of uploads. Cancel "
                "the task, and start a new upload."
            )
        count = task.archive.count_parts()
        if parts and (unknown := [number for number in parts if number > count]):
            raise InvalidReferenceError(
                f"Part {unknown[0]} does not exist. The number of parts of this upload is {count}.", part="parts"
            )
        self.audit.record(describe_renewal(task, caller, datetime.fromtimestamp(self.clock(), UTC)))
        ticket = self.archives.renew_upload(task.archive, seconds=min(left, _URL_SECONDS), parts=parts)
        logger.info("upload renewed", extra={"task_id": task_id, "parts": len(ticket.parts)})
        return task, ticket


def check_file_name(file_name: str) -> str:
    """Return the file name without directories. Raises InvalidReferenceError if it does not end in `.zip`."""
    name = PurePosixPath(file_name.replace("\\", "/")).name
    if not name.lower().endswith(".zip") or len(name) > _MAX_FILE_NAME or not name.isprintable():
        raise InvalidReferenceError(
            f"Invalid file name {file_name[:100]!r}. It must end with .zip and have up to {_MAX_FILE_NAME} printable "
            "characters.",
            part="file_name",
        )
    return name


def _check_name(model_name: str | None) -> str | None:
    return None if model_name is None else check_model_name(model_name)
