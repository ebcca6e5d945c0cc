"""End tasks as failed or cancelled, and delete what they stored."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from modelhaul.domain.audit import AuditEntry, describe_cancellation
from modelhaul.domain.errors import (
    REJECTED_CONTENT,
    ImportCancelledError,
    ImportStalledError,
    ModelhaulError,
    StorageUnavailableError,
    TaskEndedError,
    TaskNotFoundError,
)
from modelhaul.domain.files import FileRecord
from modelhaul.domain.keys import UPLOADED, manifest_key, signature_key, staging_prefix
from modelhaul.domain.models import Model, ModelError, ModelStatus
from modelhaul.domain.segments import FileUpload, UploadKey
from modelhaul.domain.tasks import Stage, Task, TaskError, TaskStatus, describe_missing_task
from modelhaul.imports.outcomes import OutcomeWriter
from modelhaul.ports.archive_store import ArchiveStore
from modelhaul.ports.clock import Clock
from modelhaul.ports.files import FileRepository
from modelhaul.ports.imports import ImportRepository
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.multipart_uploads import MultipartUploads
from modelhaul.ports.object_store import ObjectStore
from modelhaul.ports.segments import SegmentRepository
from modelhaul.ports.tasks import TaskRepository

logger = logging.getLogger(__name__)

# Seconds between the end of a task and the sweep's final cleanup. No function that worked on the task runs longer.
_GRACE = 1200.0


@dataclass(frozen=True, slots=True)
class TaskFinisher:
    """Ends tasks as failed or cancelled. Every step, the sweep and the API use it."""

    tasks: TaskRepository
    models: ModelRepository
    imports: ImportRepository
    files: FileRepository
    segments: SegmentRepository
    store: ObjectStore
    uploads: MultipartUploads
    archives: ArchiveStore
    metrics: Metrics
    clock: Clock
    outcomes: OutcomeWriter

    def fail(
        self, task_id: str, error: ModelhaulError, failed: Mapping[str, ModelError] = MappingProxyType({})
    ) -> None:
        """End the task as FAILED and clean it up. The first end of a task is final; later calls change nothing.

        `failed`: errors of single models, by model id.
        """
        self._end(task_id, error, Stage.FAILED, failed)

    def cancel(self, task_id: str, *, cancelled_by: str | None = None) -> None:
        """End the task as cancelled and clean it up. Raises TaskNotFoundError, TaskEndedError."""
        task = self.tasks.find_task(task_id)
        if task is None:
            raise TaskNotFoundError(describe_missing_task(task_id))
        error = ImportCancelledError("The import was cancelled.")
        entry = describe_cancellation(task, cancelled_by, datetime.fromtimestamp(self.clock(), UTC))
        if not self._end(task_id, error, Stage.CANCELLED, cancelled_by=cancelled_by, entry=entry):
            raise TaskEndedError(f"Task {task_id} has already ended.")

    def clean_up(self, task: Task) -> None:
        """Delete the multipart uploads and published objects of a task that ended FAILED.

        Write the outcome of a dropped archive beside it. Verified files stay in staging, where a new import of the same
        content reuses them, and recorded uploads stay, which it continues, unless the content of the archive or of a
        model was rejected.
        """
        models = self.models.find_models(task.model_ids)
        self.outcomes.write_outcome(task)
        if _is_content_rejected(task, models):
            discard_uploads(self.uploads, self.segments, task)
        abort_unkept_uploads(self.uploads, self.segments, task)
        if task.archive is not None and task.archive.key.startswith(UPLOADED):
            self.archives.abort_uploads(task.archive.key)
        if _is_content_rejected(task, models):
            self.store.delete(record.staging_key for record in self._list_records(task))
        # The task owns a model only while it is WITHDRAWING: no other task can claim it before its release.
        owned = [m for m in models if m.task_id == task.id and m.status is ModelStatus.WITHDRAWING]
        if owned:
            self._delete_published(task, owned)

    def _list_records(self, task: Task) -> Iterator[FileRecord]:
        if task.plan_id is not None:
            for group in self.files.list_groups(task.plan_id):
                yield from group.records

    def _delete_published(self, task: Task, models: Sequence[Model]) -> None:
        for model in models:
            abort_uploads(self.uploads, model.resolved.prefix)
        paths = (record.file.path for record in self._list_records(task))
        keys = (model.resolved.locate(path) for path in paths for model in models)
        self.store.delete(key for key in keys if key is not None)
        self.store.delete(key for model in models for key in (manifest_key(model.model_id), signature_key(model)))

    def finish_cleanup(self, task: Task) -> None:
        """Clean the task up for the last time, and release its models. No function may still be working on the task."""
        self.clean_up(task)
        self.imports.release_models(task.id)
        self.tasks.unwatch_task(task.id)

    def _end(
        self,
        task_id: str,
        error: ModelhaulError,
        stage: Stage,
        failed: Mapping[str, ModelError] = MappingProxyType({}),
        *,
        cancelled_by: str | None = None,
        entry: AuditEntry | None = None,
    ) -> bool:
        ended = self.imports.fail_import(
            task_id,
            TaskError(error.type, error.detail, error.retryable, error.remedy),
            stage=stage,
            check_at=self.clock() + _GRACE,
            failed=failed,
            cancelled_by=cancelled_by,
            entry=entry,
        )
        task = self.tasks.find_task(task_id)
        if task is None or task.status is not TaskStatus.FAILED:
            return False
        if ended:
            context = {"task_id": task_id, "source": task.source, "reason": error.type, "detail": error.detail}
            if stage is Stage.CANCELLED:
                self.metrics.count("ImportsCancelled")
                logger.info("import cancelled", extra=context)
            else:
                self.metrics.count("ImportsFailed")
                logger.error("import failed", extra=context)
        try:
            self.clean_up(task)
        except StorageUnavailableError as storage_error:
            # The end of the task is recorded. The sweep cleans it up again after the grace period.
            logger.warning(
                "cleanup failed; the next sweep retries", extra={"task_id": task_id, "detail": storage_error.detail}
            )
        return ended


def describe_unplanned(task: Task) -> ModelhaulError:
    """Return the error for a task whose files were recorded by a version of the stack without plans."""
    return ImportStalledError(
        f"The stack was updated from an older version during the import (stage {task.stage}). Submit again."
    )


def abort_uploads(uploads: MultipartUploads, prefix: str) -> None:
    """Abort all multipart uploads in progress below the prefix."""
    for key, upload_id in list(uploads.list_uploads(prefix)):
        uploads.abort_upload(key, upload_id)


def discard_uploads(uploads: MultipartUploads, segments: SegmentRepository, task: Task) -> None:
    """Delete the records of the task's uploads, and abort those that it has taken over from another task."""
    for key, upload in _list_recorded(segments, task).items():
        if segments.delete_upload(key, upload.upload_id) and upload.object_key is not None:
            uploads.abort_upload(upload.object_key, upload.upload_id)


def abort_unkept_uploads(uploads: MultipartUploads, segments: SegmentRepository, task: Task) -> None:
    """Abort the uploads of an ended task, except those that another import can continue or has taken over."""
    found = list(uploads.list_uploads(staging_prefix(task.id)))
    recorded = _list_recorded(segments, task) if found else {}
    kept = {upload.upload_id for upload in recorded.values() if upload.is_kept}
    for key, upload_id in found:
        if upload_id not in kept:
            uploads.abort_upload(key, upload_id)


def abort_uploads_if_ended(
    tasks: TaskRepository, uploads: MultipartUploads, segments: SegmentRepository, task: Task
) -> None:
    """Abort the uploads of an ended task, which may have been cleaned up while this function was uploading."""
    current = tasks.find_task(task.id)
    if current is not None and current.status is not TaskStatus.PENDING:
        if current.is_content_rejected:
            discard_uploads(uploads, segments, current)
        abort_unkept_uploads(uploads, segments, current)


def _list_recorded(segments: SegmentRepository, task: Task) -> dict[UploadKey, FileUpload]:
    return segments.list_uploads(task.plan_id) if task.plan_id is not None else {}


def _is_content_rejected(task: Task, models: Sequence[Model]) -> bool:
    errors = [model.error for model in models if model.task_id == task.id]
    return task.is_content_rejected or any(error is not None and error.type in REJECTED_CONTENT for error in errors)
