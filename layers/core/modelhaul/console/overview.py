"""What the widget shows: imports in progress, failures, new models and the use of storage."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from modelhaul.catalog.usage import UNREAD_DAYS, UsageReader
from modelhaul.domain.errors import ModelNotFoundError, TaskNotFoundError
from modelhaul.domain.models import Model, describe_missing_model
from modelhaul.domain.tasks import Stage, Task, describe_missing_task
from modelhaul.domain.usage import Usage
from modelhaul.ports.clock import Clock
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.tasks import TaskRepository

MAX_PENDING = 50
MAX_FAILURES = 10
MAX_MODELS = 10
RECENT = 100  # newest imports in which failures and reused bytes are searched
STORAGE_AGE = 300.0  # seconds for which a warm function keeps the use of storage, because counting reads all models
COUNT_TIME = 8.0  # seconds in which models are counted


@dataclass(frozen=True, slots=True)
class Overview:
    """The state of the stack, newest first.

    `pending` has at most MAX_PENDING imports in progress; `has_more_pending` is True if there are others. `failures`
    are the failed imports, and those with failed models, among the `recent` newest imports. Of the bytes of these
    imports, `imported` are all and `reused` were copied within S3.
    """

    pending: Sequence[Task]
    has_more_pending: bool
    failures: Sequence[Task]
    models: Sequence[Model]
    recent: int
    reused: int
    imported: int
    storage: Usage


@dataclass(slots=True)
class ConsoleReader:
    """Reads what the widget shows, with five requests, and a few more every STORAGE_AGE seconds."""

    tasks: TaskRepository
    models: ModelRepository
    usage: UsageReader
    clock: Clock
    _storage: Usage | None = field(default=None, init=False)

    def read_overview(self) -> Overview:
        """Raises StorageUnavailableError."""
        pending = self.tasks.list_pending(MAX_PENDING + 1)
        recent = self.tasks.list_tasks(limit=RECENT).tasks
        return Overview(
            pending=pending[:MAX_PENDING],
            has_more_pending=len(pending) > MAX_PENDING,
            failures=[task for task in recent if _has_failed(task)][:MAX_FAILURES],
            models=self.models.list_models(limit=MAX_MODELS).models,
            recent=len(recent),
            reused=sum(task.progress.bytes_reused for task in recent),
            imported=sum(task.progress.bytes_done for task in recent),
            storage=self._measure_storage(),
        )

    def _measure_storage(self) -> Usage:
        now = self.clock()
        if self._storage is None or now - self._storage.measured_at.timestamp() >= STORAGE_AGE:
            self._storage = self.usage.read_usage(UNREAD_DAYS, lambda: self.clock() < now + COUNT_TIME)
        return self._storage

    def read_task(self, task_id: str) -> tuple[Task, Sequence[Model]]:
        """Return the task and its models. Raises TaskNotFoundError."""
        task = self.tasks.find_task(task_id)
        if task is None:
            raise TaskNotFoundError(describe_missing_task(task_id))
        return task, self.models.find_models(task.model_ids)

    def read_model(self, model_id: str) -> Model:
        """Raises ModelNotFoundError."""
        model = self.models.find_model(model_id)
        if model is None:
            raise ModelNotFoundError(describe_missing_model(model_id))
        return model


def _has_failed(task: Task) -> bool:
    return task.stage is Stage.FAILED or bool(task.failed_ids)
