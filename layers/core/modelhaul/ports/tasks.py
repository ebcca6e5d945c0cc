"""Records of tasks."""

from collections.abc import Collection
from typing import Protocol

from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.files import FileCounts
from modelhaul.domain.models import Source
from modelhaul.domain.tasks import Progress, Stage, Task, TaskPage, TaskStatus, Waiting


class TaskRepository(Protocol):
    """Records of tasks. Every write is atomic, and idempotent after a lost response.

    A task is *watched* from its creation until `unwatch_task`. Every method raises StorageUnavailableError.
    """

    def find_task(self, task_id: str) -> Task | None:
        """Return the task, None for an unknown ID of any format. Strongly consistent."""

    def record_task(self, task: Task, *, entry: AuditEntry | None = None) -> bool:
        """Create a task without models, and record the audit's `entry` in the same transaction.

        Return False, and change nothing, if a task with this ID exists.
        """

    def list_tasks(
        self, *, source: Source | None = None, status: TaskStatus | None = None, limit: int, cursor: str | None = None
    ) -> TaskPage:
        """Return a page of at most `limit` tasks, newest first. Eventually consistent.

        A page with a cursor may have fewer than `limit` tasks, or be empty. Raises InvalidReferenceError for an invalid
        cursor.
        """

    def list_pending(self, limit: int) -> list[Task]:
        """Return at most `limit` PENDING tasks, newest first. Eventually consistent.

        Of more tasks, those with the earliest check are returned, and those whose check is due only after all others.
        """

    def record_arrival(self, task_id: str, *, size: int, etag: str, check_at: float) -> Task | None:
        """Move a PENDING task from UPLOADING to INSPECTING, and record the size and ETag of its archive.

        No-op if the task is at any other stage. Returns the current task, None if it does not exist.
        """

    def start_stage(
        self,
        task_id: str,
        stage: Stage,
        *,
        check_at: float,
        totals: Progress | None = None,
        plan_id: str | None = None,
    ) -> bool:
        """Move a PENDING task forward to `stage`: TRANSFERRING with `totals` and `plan_id`, VERIFIED or PUBLISHING.

        The write records when TRANSFERRING started. VERIFIED sets the counts to the totals. No-op if the task has
        reached the stage. Returns True only for the call that moved the task.
        """

    def record_progress(self, task_id: str, counts: FileCounts, *, check_at: float) -> bool:
        """Store the counts of files and bytes, and postpone the sweep's check. Return whether the task is PENDING.

        No-op if the stored counts have more files: the given counts are then older.
        """

    def postpone_check(self, task_id: str, *, check_at: float, sweeps: int | None = None) -> None:
        """Postpone the sweep's check of a watched task to `check_at`, and set its count `sweeps` if given.

        No-op if the check is already later.
        """

    def record_wait(self, task_id: str, waiting: Waiting, *, stages: Collection[Stage], check_at: float) -> bool:
        """Record that a step waits, and postpone the sweep's check. No-op unless the task is at one of the stages.

        An earlier wait is replaced. A check that is already later is kept. Return whether the task is at one of the
        stages.
        """

    def list_due(self, now: float, limit: int) -> list[Task]:
        """Return watched tasks with `check_at` up to `now`, earliest first. Eventually consistent."""

    def unwatch_task(self, task_id: str) -> None:
        """Stop watching an ended task that needs no further cleanup. No-op if the task is PENDING."""
