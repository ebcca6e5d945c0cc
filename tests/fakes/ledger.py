import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType

from modelhaul.domain.archives import SkippedDirectory
from modelhaul.domain.errors import (
    DeletionInProgressError,
    ImportInProgressError,
    InvalidReferenceError,
    LeaseLostError,
    ModelExistsError,
    TaskEndedError,
)
from modelhaul.domain.files import Checkpoint, FileKind, FileRecord, FileResult, SourceFile
from modelhaul.domain.gate import GateReport
from modelhaul.domain.models import Model, ModelError, ModelPage, ModelStatus, Source
from modelhaul.domain.objects import Blob
from modelhaul.domain.tasks import Progress, Stage, Task, TaskError, TaskPage, TaskStatus
from modelhaul.ports.clock import Clock
from modelhaul.ports.ledger import Ledger

_UPLOADING = (TaskStatus.PENDING, Stage.UPLOADING)
_INSPECTING = (TaskStatus.PENDING, Stage.INSPECTING)
_STAGE_ORDER = (Stage.PLANNING, Stage.TRANSFERRING, Stage.VERIFIED, Stage.PUBLISHING)


_CURSOR = re.compile(r"[0-9-]{10}T[0-9:]{8}\.[0-9]{6} [0-9a-f-]{36}")


def _rank(model: Model) -> str:
    """Of equal length for all, so that texts compare as times do."""
    return f"{model.created_at.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%S.%f')} {model.model_id}"


@dataclass(slots=True)
class _File:
    record: FileRecord
    owner: str | None = None

    @property
    def offset(self) -> int:
        return self.record.checkpoint.offset if self.record.checkpoint else 0


@dataclass(slots=True)
class _Tables:
    tasks: dict[str, Task] = field(default_factory=dict)
    watched: set[str] = field(default_factory=set)
    models: dict[str, Model] = field(default_factory=dict)
    files: dict[tuple[str, str], _File] = field(default_factory=dict)
    blobs: dict[str, Blob] = field(default_factory=dict)
    expiring_blobs: dict[str, tuple[Blob, float]] = field(default_factory=dict)
    deletions: dict[str, tuple[str, float]] = field(default_factory=dict)  # owner, lease until


class InMemoryLedger(Ledger):
    def __init__(self, *, clock: Clock = time.time) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._tables = _Tables()

    def claim_import(self, task: Task, models: Sequence[Model]) -> None:
        with self._lock:
            if task.id in self._tables.tasks:
                return
            self._claim(task.id, models)
            self._record(task)

    def record_task(self, task: Task) -> None:
        with self._lock:
            if task.id not in self._tables.tasks:
                self._record(task)

    def record_arrival(self, task_id: str, *, size: int, etag: str, check_at: float) -> Task | None:
        with self._lock:
            task = self._tables.tasks.get(task_id)
            if task is None or task.archive is None or (task.status, task.stage) != _UPLOADING:
                return task
            archive = replace(task.archive, size=size, etag=etag)
            return self._write_task(task, stage=Stage.INSPECTING, archive=archive, check_at=check_at, sweeps=0)

    def claim_models(
        self, task_id: str, models: Sequence[Model], skipped: Sequence[SkippedDirectory], *, check_at: float
    ) -> Task | None:
        with self._lock:
            task = self._tables.tasks.get(task_id)
            if task is None or (task.status, task.stage) != _INSPECTING:
                return task
            self._claim(task_id, models)
            return self._write_task(
                task,
                stage=Stage.PLANNING,
                model_ids=tuple(model.model_id for model in models),
                skipped=tuple(skipped),
                check_at=check_at,
                sweeps=0,
            )

    def _claim(self, task_id: str, models: Sequence[Model]) -> None:
        held = self.find_models([model.model_id for model in models])
        ready = [model.resolved for model in held if model.status is ModelStatus.READY]
        if ready:
            raise ModelExistsError(
                f"{', '.join(model.describe() for model in ready)}: here already.",
                models={model.model_id: model.name for model in ready},
            )
        for model in held:
            if model.status is ModelStatus.DELETING:
                raise DeletionInProgressError(f"{model.resolved.name} is being deleted.", model_id=model.model_id)
            if model.status is not ModelStatus.FAILED:
                doing = "imported" if model.status is ModelStatus.IMPORTING else "withdrawn"
                raise ImportInProgressError(
                    f"{model.resolved.describe()} is being {doing} by task {model.task_id}.",
                    model_id=model.model_id,
                    task_id=model.task_id,
                )
        self._tables.models |= {model.model_id: model for model in models}

    def _record(self, task: Task) -> None:
        self._tables.tasks[task.id] = task
        self._tables.watched.add(task.id)

    def list_tasks(
        self, *, source: Source | None = None, status: TaskStatus | None = None, limit: int, cursor: str | None = None
    ) -> TaskPage:
        """The cursor is the last listed task's id."""
        with self._lock:
            tasks = sorted(self._tables.tasks.values(), key=lambda t: (t.created_at, t.id), reverse=True)
            if cursor is not None:
                if cursor not in self._tables.tasks:
                    raise InvalidReferenceError("The cursor is none that a list was answered with.", part="cursor")
                tasks = tasks[tasks.index(self._tables.tasks[cursor]) + 1 :]
            fitting = [t for t in tasks if source in (None, t.source) and status in (None, t.status)]
            page = fitting[:limit]
            return TaskPage(tuple(page), page[-1].id if len(fitting) > limit else None)

    def find_task(self, task_id: str) -> Task | None:
        with self._lock:
            return self._tables.tasks.get(task_id)

    def find_model(self, model_id: str) -> Model | None:
        with self._lock:
            return self._tables.models.get(model_id)

    def find_models(self, model_ids: Sequence[str]) -> list[Model]:
        with self._lock:
            return [self._tables.models[model_id] for model_id in model_ids if model_id in self._tables.models]

    def list_models(
        self, *, source: Source | None = None, name: str | None = None, limit: int, cursor: str | None = None
    ) -> ModelPage:
        """The cursor is the last listed model's time and id."""
        with self._lock:
            ready = {_rank(m): m for m in self._tables.models.values() if m.status is ModelStatus.READY}
            if cursor is not None:
                if not _CURSOR.fullmatch(cursor):
                    raise InvalidReferenceError("The cursor is none that a list was answered with.", part="cursor")
                ready = {rank: model for rank, model in ready.items() if rank < cursor}
            fitting = [
                model
                for _, model in sorted(ready.items(), reverse=True)
                if source in (None, model.resolved.source)
                and (name is None or name.lower() in model.resolved.name.lower())
            ]
            page = fitting[:limit]
            return ModelPage(tuple(page), _rank(page[-1]) if len(fitting) > limit else None)

    def lease_deletion(self, model_id: str, *, owner: str, now: float, until: float) -> Model | None:
        with self._lock:
            model = self._tables.models.get(model_id)
            if model is None or model.status not in (ModelStatus.READY, ModelStatus.FAILED, ModelStatus.DELETING):
                return None
            holder, leased_until = self._tables.deletions.get(model_id, (owner, 0.0))
            if holder != owner and leased_until > now:
                return None
            self._tables.deletions[model_id] = (owner, until)
            self._write_model(model_id, status=ModelStatus.DELETING)
            return self._tables.models[model_id]

    def remove_model(self, model_id: str, *, owner: str) -> None:
        with self._lock:
            holder, _ = self._tables.deletions.get(model_id, (None, 0.0))
            if holder == owner:
                del self._tables.deletions[model_id], self._tables.models[model_id]

    def list_deleting(self, now: float, limit: int) -> list[Model]:
        with self._lock:
            free = [model_id for model_id, (_, until) in self._tables.deletions.items() if until <= now]
            return [self._tables.models[model_id] for model_id in free[:limit]]

    def put_files(self, task_id: str, files: Iterable[SourceFile]) -> None:
        with self._lock:
            for file in files:
                self._tables.files.setdefault(
                    (task_id, file.path), _File(FileRecord(task_id, file, done=file.kind is not FileKind.FILE))
                )

    def list_files(self, task_id: str) -> Iterator[FileRecord]:
        with self._lock:
            records = [f.record for (owner, _), f in sorted(self._tables.files.items()) if owner == task_id]
        yield from records

    def find_files(self, task_id: str, paths: Sequence[str]) -> list[FileRecord]:
        with self._lock:
            found = (self._tables.files.get((task_id, path)) for path in set(paths))
            return [file.record for file in found if file is not None]

    def start_stage(self, task_id: str, stage: Stage, *, check_at: float, totals: Progress | None = None) -> bool:
        earlier = _STAGE_ORDER[: _STAGE_ORDER.index(stage)]
        with self._lock:
            task = self._tables.tasks.get(task_id)
            if task is None or task.status is not TaskStatus.PENDING or task.stage not in earlier:
                return False
            progress, began_at = task.progress, task.transfer_began_at
            if totals is not None:
                progress = replace(progress, files_total=totals.files_total, bytes_total=totals.bytes_total)
            if stage is Stage.TRANSFERRING:
                began_at = self._now()
            self._write_task(
                task, stage=stage, progress=progress, transfer_began_at=began_at, check_at=check_at, sweeps=0
            )
            return True

    def postpone_check(self, task_id: str, *, check_at: float, sweeps: int | None = None) -> None:
        with self._lock:
            task = self._tables.tasks.get(task_id)
            if task is not None and task_id in self._tables.watched and task.check_at < check_at:
                self._write_task(task, check_at=check_at, sweeps=task.sweeps if sweeps is None else sweeps)

    def lease_file(self, task_id: str, path: str, *, owner: str, now: float, until: float) -> FileRecord | None:
        with self._lock:
            file = self._tables.files.get((task_id, path))
            if file is None or file.record.done:
                return None
            if file.owner not in (None, owner) and file.record.lease_until > now:
                return None
            file.owner = owner
            file.record = replace(file.record, lease_until=until)
            return file.record

    def renew_lease(self, task_id: str, path: str, *, owner: str, until: float) -> None:
        with self._lock:
            file = self._find_leased(task_id, path, owner)
            file.record = replace(file.record, lease_until=until)

    def release_lease(self, task_id: str, path: str, *, owner: str) -> None:
        with self._lock:
            file = self._tables.files.get((task_id, path))
            if file is not None and file.owner == owner:
                file.owner = None
                file.record = replace(file.record, lease_until=0.0)

    def save_checkpoint(
        self,
        task_id: str,
        path: str,
        checkpoint: Checkpoint | None,
        *,
        owner: str,
        until: float,
        check_at: float,
    ) -> None:
        with self._lock:
            file = self._find_leased(task_id, path, owner)
            task = self._find_pending(task_id)
            moved = (checkpoint.offset if checkpoint else 0) - file.offset
            file.record = replace(file.record, checkpoint=checkpoint, lease_until=until)
            progress = replace(task.progress, bytes_done=task.progress.bytes_done + moved)
            self._write_task(task, progress=progress, bytes_counted_at=self._now(), check_at=check_at, sweeps=0)

    def finish_files(self, task_id: str, results: Sequence[FileResult], *, check_at: float) -> Progress:
        if len(results) > 90:
            raise ValueError(f"{len(results)} files at once; the limit is 90")
        with self._lock:
            progress = self._find_pending(task_id).progress
            for result in results:
                file = self._tables.files.get((task_id, result.file.path))
                if file is None or file.record.done:
                    continue
                progress = replace(
                    progress,
                    files_done=progress.files_done + 1,
                    bytes_done=progress.bytes_done + result.file.size - file.offset,
                    bytes_reused=progress.bytes_reused + (result.file.size if result.reused else 0),
                )
                file.owner = None
                file.record = replace(
                    file.record,
                    done=True,
                    sha256=result.sha256,
                    etag=result.etag,
                    reused=result.reused,
                    checkpoint=None,
                    lease_until=0.0,
                )
            task = self._tables.tasks[task_id]
            if progress != task.progress:
                self._write_task(task, progress=progress, bytes_counted_at=self._now(), check_at=check_at, sweeps=0)
            return progress

    def finish_import(
        self,
        task_id: str,
        *,
        totals: Mapping[str, tuple[int, int]],
        check_at: float,
        gates: Mapping[str, GateReport] = MappingProxyType({}),
        failed: Mapping[str, ModelError] = MappingProxyType({}),
    ) -> bool:
        with self._lock:
            task = self._tables.tasks.get(task_id)
            if task is None or task.status is not TaskStatus.PENDING:
                return task is not None and task.status is TaskStatus.DONE
            self._write_task(
                task, status=TaskStatus.DONE, stage=Stage.DONE, failed_ids=tuple(failed), check_at=check_at
            )
            for model_id, (files, size) in totals.items():
                self._write_model(model_id, status=ModelStatus.READY, files=files, size=size, gate=gates.get(model_id))
            for model_id, error in failed.items():
                self._write_model(model_id, status=ModelStatus.FAILED, error=error.shorten())
            return True

    def fail_import(
        self,
        task_id: str,
        error: TaskError,
        *,
        stage: Stage = Stage.FAILED,
        check_at: float,
        failed: Mapping[str, ModelError] = MappingProxyType({}),
    ) -> bool:
        with self._lock:
            task = self._tables.tasks.get(task_id)
            if task is None or task.status is not TaskStatus.PENDING:
                return False
            self._write_task(task, status=TaskStatus.FAILED, stage=stage, error=error, check_at=check_at)
            status = ModelStatus.WITHDRAWING if task.stage is Stage.PUBLISHING else ModelStatus.FAILED
            shared = ModelError(error.type, error.detail, error.retryable)
            for model_id in task.model_ids:
                self._write_model(model_id, status=status, error=failed.get(model_id, shared).shorten())
            return True

    def release_models(self, task_id: str) -> None:
        with self._lock:
            task = self._tables.tasks.get(task_id)
            for model in self.find_models(task.model_ids if task is not None else ()):
                if model.task_id == task_id and model.status is ModelStatus.WITHDRAWING:
                    self._write_model(model.model_id, status=ModelStatus.FAILED)

    def unwatch_task(self, task_id: str) -> None:
        with self._lock:
            task = self._tables.tasks.get(task_id)
            if task is not None and task.status is not TaskStatus.PENDING:
                self._tables.watched.discard(task_id)

    def list_due(self, now: float, limit: int) -> list[Task]:
        with self._lock:
            watched = (self._tables.tasks[task_id] for task_id in self._tables.watched)
            return sorted((t for t in watched if t.check_at <= now), key=lambda t: t.check_at)[:limit]

    def find_blobs(self, digests: Iterable[str]) -> dict[str, Blob]:
        with self._lock:
            found = {digest: self._find_blob(digest) for digest in digests}
            return {digest: blob for digest, blob in found.items() if blob is not None}

    def _find_blob(self, digest: str) -> Blob | None:
        blob, expires_at = self._tables.expiring_blobs.get(digest, (None, 0.0))
        return self._tables.blobs.get(digest) or (blob if expires_at > self._clock() else None)

    def put_blobs(self, blobs: Iterable[tuple[str, Blob]], *, expires_at: float | None) -> None:
        with self._lock:
            for digest, blob in blobs:
                if expires_at is None:
                    self._tables.blobs[digest] = blob
                else:
                    self._tables.expiring_blobs[digest] = (blob, expires_at)

    def forget_blob(self, digest: str, key: str) -> None:
        with self._lock:
            stays, expiring = self._tables.blobs.get(digest), self._tables.expiring_blobs.get(digest)
            if stays is not None and stays.key == key:
                del self._tables.blobs[digest]
            if expiring is not None and expiring[0].key == key:
                del self._tables.expiring_blobs[digest]

    def forget_blobs(self, references: Iterable[tuple[str, str]]) -> None:
        for digest, key in references:
            self.forget_blob(digest, key)

    def _find_leased(self, task_id: str, path: str, owner: str) -> _File:
        file = self._tables.files.get((task_id, path))
        if file is None or file.owner != owner:
            raise LeaseLostError(f"Another worker has {path} now.")
        return file

    def _find_pending(self, task_id: str) -> Task:
        task = self._tables.tasks.get(task_id)
        if task is None or task.status is not TaskStatus.PENDING:
            raise TaskEndedError(f"Task {task_id} has ended already.")
        return task

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _write_task(self, task: Task, **changes: object) -> Task:
        written = replace(task, updated_at=self._now(), **changes)  # type: ignore[arg-type]
        self._tables.tasks[task.id] = written
        return written

    def _write_model(self, model_id: str, **changes: object) -> None:
        model = self._tables.models[model_id]
        self._tables.models[model_id] = replace(model, updated_at=self._now(), **changes)  # type: ignore[arg-type]
