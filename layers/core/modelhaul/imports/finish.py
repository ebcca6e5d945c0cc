"""Ends of a task that are not success, and what they leave behind: nothing."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from modelhaul.domain.errors import (
    ArchiveRefusedError,
    ImportCancelledError,
    InvalidModelError,
    ModelhaulError,
    StorageUnavailableError,
    TaskEndedError,
    TaskNotFoundError,
    UnsafeModelError,
)
from modelhaul.domain.keys import UPLOADED, manifest_key, staging_prefix
from modelhaul.domain.models import Model, ModelError, ModelStatus
from modelhaul.domain.tasks import Stage, Task, TaskError, TaskStatus, describe_missing_task
from modelhaul.imports.outcomes import OutcomeWriter
from modelhaul.ports.archive_store import ArchiveStore
from modelhaul.ports.clock import Clock
from modelhaul.ports.files import FileRepository
from modelhaul.ports.imports import ImportRepository
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.object_store import ObjectStore
from modelhaul.ports.tasks import TaskRepository

logger = logging.getLogger(__name__)


# Seconds until the sweep's last look: no function that was at work when its task ended is alive after this.
_GRACE = 1200.0

# Types of errors that refuse content: nobody may find it in staging and copy it.
_WITHOUT_STAGING = {ArchiveRefusedError.type, InvalidModelError.type, UnsafeModelError.type}


@dataclass(frozen=True, slots=True)
class TaskFinisher:
    """Ends tasks FAILED or cancelled, whoever notices that they must."""

    tasks: TaskRepository
    models: ModelRepository
    imports: ImportRepository
    files: FileRepository
    store: ObjectStore
    archives: ArchiveStore
    metrics: Metrics
    clock: Clock
    outcomes: OutcomeWriter

    def fail(
        self, task_id: str, error: ModelhaulError, failed: Mapping[str, ModelError] = MappingProxyType({})
    ) -> None:
        """Ends the task FAILED and tidies up; without effect if it has ended before.

        `failed`: the error of a model that has its own, by its id.
        """
        self._end(task_id, error, Stage.FAILED, failed)

    def cancel(self, task_id: str) -> None:
        """Raises TaskNotFoundError, TaskEndedError."""
        task = self.tasks.find_task(task_id)
        if task is None:
            raise TaskNotFoundError(describe_missing_task(task_id))
        if not self._end(task_id, ImportCancelledError("The import was cancelled."), Stage.CANCELLED):
            raise TaskEndedError(f"Task {task_id} has ended already.")

    def tidy(self, task: Task) -> None:
        """Leaves no multipart upload and no published object of a task that ended FAILED, and says how it ended where
        an archive was dropped.

        Verified files stay in staging, where a new import of the same content finds them, unless the content of the
        archive or of a model was refused.
        """
        models = self.models.find_models(task.model_ids)
        self.outcomes.write_outcome(task)
        abort_uploads(self.store, staging_prefix(task.id))
        if task.archive is not None and task.archive.key.startswith(UPLOADED):
            self.archives.abort_uploads(task.archive.key)
        if _is_content_refused(task, models):
            self.store.delete(record.staging_key for record in self.files.list_files(task.id))
        for model in models:
            # Only a WITHDRAWING model is the task's to remove: no other can claim it until it is released.
            if model.task_id == task.id and model.status is ModelStatus.WITHDRAWING:
                self._withdraw(model)

    def _withdraw(self, model: Model) -> None:
        abort_uploads(self.store, model.resolved.prefix)
        records = self.files.list_files(model.task_id)
        self.store.delete(key for key in map(model.resolved.locate, (r.file.path for r in records)) if key is not None)
        self.store.delete([manifest_key(model.model_id)])

    def close(self, task: Task) -> None:
        """The sweep's last look, when no function can still be at work for the task."""
        self.tidy(task)
        self.imports.release_models(task.id)
        self.tasks.unwatch_task(task.id)

    def _end(
        self,
        task_id: str,
        error: ModelhaulError,
        stage: Stage,
        failed: Mapping[str, ModelError] = MappingProxyType({}),
    ) -> bool:
        ended = self.imports.fail_import(
            task_id,
            TaskError(error.type, error.detail, error.retryable),
            stage=stage,
            check_at=self.clock() + _GRACE,
            failed=failed,
        )
        task = self.tasks.find_task(task_id)
        if task is None or task.status is not TaskStatus.FAILED:
            return False
        if ended:
            context = {"task_id": task_id, "reason": error.type, "detail": error.detail}
            if stage is Stage.CANCELLED:
                self.metrics.count("ImportsCancelled", source=task.source)
                logger.info("import cancelled", extra=context)
            else:
                self.metrics.count("ImportsFailed", source=task.source, reason=error.type)
                logger.error("import failed", extra=context)
        try:
            self.tidy(task)
        except StorageUnavailableError as trouble:
            # The task has ended all the same, and the sweep looks after it once more.
            logger.warning("not tidied up; the sweep will", extra={"task_id": task_id, "detail": trouble.detail})
        return ended


def abort_uploads(store: ObjectStore, prefix: str) -> None:
    """Aborts all unfinished multipart uploads below the prefix."""
    for key, upload_id in list(store.list_uploads(prefix)):
        store.abort_upload(key, upload_id)


def _is_content_refused(task: Task, models: Sequence[Model]) -> bool:
    found = [task.error, *(model.error for model in models if model.task_id == task.id)]
    return any(error is not None and error.type in _WITHOUT_STAGING for error in found)
