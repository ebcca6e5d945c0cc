from collections.abc import Collection
from dataclasses import replace

from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.errors import InvalidReferenceError
from modelhaul.domain.files import FileCounts
from modelhaul.domain.models import Source
from modelhaul.domain.tasks import Progress, Stage, Task, TaskPage, TaskStatus, Waiting
from modelhaul.ports.tasks import TaskRepository
from tests.fakes.tables import InMemoryTables

_UPLOADING = (TaskStatus.PENDING, Stage.UPLOADING)
_STAGE_ORDER = (Stage.PLANNING, Stage.TRANSFERRING, Stage.VERIFIED, Stage.PUBLISHING)


class InMemoryTaskRepository(TaskRepository):
    def __init__(self, tables: InMemoryTables) -> None:
        self._tables = tables

    def find_task(self, task_id: str) -> Task | None:
        with self._tables.lock:
            return self._tables.tasks.get(task_id)

    def record_task(self, task: Task, *, entry: AuditEntry | None = None) -> bool:
        with self._tables.lock:
            if task.id in self._tables.tasks:
                return False
            self._tables.record(task)
            self._tables.record_entry(entry)
            return True

    def list_tasks(
        self, *, source: Source | None = None, status: TaskStatus | None = None, limit: int, cursor: str | None = None
    ) -> TaskPage:
        """The cursor is the last listed task's id."""
        with self._tables.lock:
            tasks = sorted(self._tables.tasks.values(), key=lambda t: (t.created_at, t.id), reverse=True)
            if cursor is not None:
                if cursor not in self._tables.tasks:
                    raise InvalidReferenceError("Invalid pagination cursor.", part="cursor")
                tasks = tasks[tasks.index(self._tables.tasks[cursor]) + 1 :]
            fitting = [t for t in tasks if source in (None, t.source) and status in (None, t.status)]
            page = fitting[:limit]
            return TaskPage(tuple(page), page[-1].id if len(fitting) > limit else None)

    def list_pending(self, limit: int) -> list[Task]:
        with self._tables.lock:
            pending = [task for task in self._tables.tasks.values() if task.status is TaskStatus.PENDING]
            now = self._tables.clock()
            found = sorted(pending, key=lambda task: (task.check_at <= now, task.check_at))[:limit]
            return sorted(found, key=lambda task: (task.created_at, task.id), reverse=True)

    def record_arrival(self, task_id: str, *, size: int, etag: str, check_at: float) -> Task | None:
        with self._tables.lock:
            task = self._tables.tasks.get(task_id)
            if task is None or task.archive is None or (task.status, task.stage) != _UPLOADING:
                return task
            archive = replace(task.archive, size=size, etag=etag)
            return self._tables.write_task(task, stage=Stage.INSPECTING, archive=archive, check_at=check_at, sweeps=0)

    def start_stage(
        self,
        task_id: str,
        stage: Stage,
        *,
        check_at: float,
        totals: Progress | None = None,
        plan_id: str | None = None,
    ) -> bool:
        earlier = _STAGE_ORDER[: _STAGE_ORDER.index(stage)]
        with self._tables.lock:
            task = self._tables.tasks.get(task_id)
            if task is None or task.status is not TaskStatus.PENDING or task.stage not in earlier:
                return False
            progress, began_at = task.progress, task.transfer_began_at
            if totals is not None:
                progress = replace(progress, files_total=totals.files_total, bytes_total=totals.bytes_total)
            if stage is Stage.TRANSFERRING:
                began_at = self._tables.now()
            if stage is Stage.VERIFIED:
                progress = replace(progress, files_done=progress.files_total, bytes_done=progress.bytes_total)
            self._tables.write_task(
                task,
                stage=stage,
                progress=progress,
                plan_id=plan_id or task.plan_id,
                transfer_began_at=began_at,
                check_at=check_at,
                sweeps=0,
            )
            return True

    def record_progress(self, task_id: str, counts: FileCounts, *, check_at: float) -> bool:
        with self._tables.lock:
            task = self._tables.tasks.get(task_id)
            if task is None or task.status is not TaskStatus.PENDING:
                return False
            if counts.files_done >= task.progress.files_done:
                has_moved = counts.bytes_done != task.progress.bytes_done
                progress = replace(
                    task.progress,
                    files_done=counts.files_done,
                    bytes_done=counts.bytes_done,
                    bytes_reused=counts.bytes_reused,
                )
                counted_at = self._tables.now() if has_moved else task.bytes_counted_at
                self._tables.write_task(
                    task, progress=progress, bytes_counted_at=counted_at, check_at=check_at, sweeps=0
                )
            return True

    def postpone_check(self, task_id: str, *, check_at: float, sweeps: int | None = None) -> None:
        with self._tables.lock:
            task = self._tables.tasks.get(task_id)
            if task is not None and task_id in self._tables.watched and task.check_at < check_at:
                self._tables.write_task(task, check_at=check_at, sweeps=task.sweeps if sweeps is None else sweeps)

    def record_wait(self, task_id: str, waiting: Waiting, *, stages: Collection[Stage], check_at: float) -> bool:
        with self._tables.lock:
            task = self._tables.tasks.get(task_id)
            if task is None or task.stage not in stages:
                return False
            self._tables.write_task(
                task, waiting=waiting, waiting_stage=task.stage, check_at=max(task.check_at, check_at)
            )
            return True

    def list_due(self, now: float, limit: int) -> list[Task]:
        with self._tables.lock:
            watched = (self._tables.tasks[task_id] for task_id in self._tables.watched)
            return sorted((t for t in watched if t.check_at <= now), key=lambda t: t.check_at)[:limit]

    def unwatch_task(self, task_id: str) -> None:
        with self._tables.lock:
            task = self._tables.tasks.get(task_id)
            if task is not None and task.status is not TaskStatus.PENDING:
                self._tables.watched.discard(task_id)
