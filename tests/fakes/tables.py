"""The state of a database in memory."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.files import FileGroup, Part
from modelhaul.domain.hub_models import HubRevision
from modelhaul.domain.models import Model
from modelhaul.domain.objects import Blob
from modelhaul.domain.quotas import QuotaState
from modelhaul.domain.segments import FileUpload, KeptUpload, UploadKey
from modelhaul.domain.tasks import Task
from modelhaul.ports.clock import Clock


@dataclass(slots=True)
class Group:
    group: FileGroup
    owner: str | None = None


@dataclass(slots=True)
class InMemoryTables:
    """What the repositories of one deployment share."""

    clock: Clock = time.time
    lock: threading.RLock = field(default_factory=threading.RLock)
    tasks: dict[str, Task] = field(default_factory=dict)
    watched: set[str] = field(default_factory=set)
    models: dict[str, Model] = field(default_factory=dict)
    groups: dict[tuple[str, int], Group] = field(default_factory=dict)  # by plan_id and number
    uploads: dict[UploadKey, FileUpload] = field(default_factory=dict)
    parts: dict[tuple[UploadKey, str], dict[int, tuple[Part, ...]]] = field(default_factory=dict)  # by first part
    copied: dict[str, set[int]] = field(default_factory=dict)  # numbers of groups by plan_id
    blobs: dict[str, dict[str, tuple[Blob, float]]] = field(default_factory=dict)  # by digest and key, with its expiry
    blob_groups: dict[str, tuple[dict[str, Blob], float]] = field(default_factory=dict)  # by fingerprint
    kept_uploads: dict[str, KeptUpload] = field(default_factory=dict)  # by digest
    deletions: dict[str, tuple[str, float]] = field(default_factory=dict)  # owner, lease until
    quota: QuotaState = field(default_factory=QuotaState)
    unindexed: set[str] = field(default_factory=set)  # IDs of models that were recorded without a hub_name
    entries: dict[str, AuditEntry] = field(default_factory=dict)  # of the audit, by ID
    hub_names: dict[str, str] = field(default_factory=dict)
    hub_revisions: dict[tuple[str, str], HubRevision] = field(default_factory=dict)  # by hub_id and revision

    def record(self, task: Task) -> None:
        self.tasks[task.id] = task
        self.watched.add(task.id)

    def record_entry(self, entry: AuditEntry | None) -> None:
        if entry is not None:
            self.entries[entry.id] = entry

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
