"""The state of a database in memory."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from modelhaul.domain.errors import TaskEndedError
from modelhaul.domain.files import FileRecord
from modelhaul.domain.hub_models import HubRevision
from modelhaul.domain.models import Model
from modelhaul.domain.objects import Blob
from modelhaul.domain.tasks import Task, TaskStatus
from modelhaul.ports.clock import Clock


@dataclass(slots=True)
class File:
    record: FileRecord
    owner: str | None = None

    @property
    def offset(self) -> int:
        return self.record.checkpoint.offset if self.record.checkpoint else 0


@dataclass(slots=True)
class InMemoryTables:
    """What the repositories of one deployment share."""

    clock: Clock = time.time
    lock: threading.RLock = field(default_factory=threading.RLock)
    tasks: dict[str, Task] = field(default_factory=dict)
    watched: set[str] = field(default_factory=set)
    models: dict[str, Model] = field(default_factory=dict)
    files: dict[tuple[str, str], File] = field(default_factory=dict)
    blobs: dict[str, Blob] = field(default_factory=dict)
    expiring_blobs: dict[str, tuple[Blob, float]] = field(default_factory=dict)
    deletions: dict[str, tuple[str, float]] = field(default_factory=dict)  # owner, lease until
    unindexed: set[str] = field(default_factory=set)  # IDs of models that were recorded without a hub_name
    hub_names: dict[str, str] = field(default_factory=dict)
    hub_revisions: dict[tuple[str, str], HubRevision] = field(default_factory=dict)  # by hub_id and revision

    def record(self, task: Task) -> None:
        self.tasks[task.id] = task
        self.watched.add(task.id)

    def find_pending(self, task_id: str) -> Task:
        task = self.tasks.get(task_id)
        if task is None or task.status is not TaskStatus.PENDING:
            raise TaskEndedError(f"Task {task_id} has already ended.")
        return task

    def find_models(self, model_ids: Sequence[str]) -> list[Model]:
        with self.lock:
            return [self.models[model_id] for model_id in model_ids if model_id in self.models]

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)

    def write_task(self, task: Task, **changes: object) -> Task:
        written = replace(task, updated_at=self.now(), **changes)  # type: ignore[arg-type]
        self.tasks[task.id] = written
        return written

    def write_model(self, model_id: str, **changes: object) -> None:
        model = self.models[model_id]
        self.models[model_id] = replace(model, updated_at=self.now(), **changes)  # type: ignore[arg-type]
