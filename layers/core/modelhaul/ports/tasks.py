"""Tasks, each by its id."""

from typing import Protocol

from modelhaul.domain.models import Source
from modelhaul.domain.tasks import Progress, Stage, Task, TaskPage, TaskStatus


class TaskRepository(Protocol):
    """Every write is atomic and safe to repeat after a lost reply. Every method raises StorageUnavailableError.

    A task is *watched* from its creation until `unwatch_task`.
    """

    def find_task(self, task_id: str) -> Task | None:
        """Strongly consistent; None for an id of any shape that is not there."""

    def record_task(self, task: Task) -> None:
        """Writes a task that claims nothing yet; one with this id that is there already is left as it is."""

    def list_tasks(
        self, *, source: Source | None = None, status: TaskStatus | None = None, limit: int, cursor: str | None = None
    ) -> TaskPage:
        """A page of at most `limit` tasks, newest first, eventually consistent. A page may be short, or empty, and
        still have a cursor. Raises InvalidReferenceError for a cursor that it did not give.
        """

    def record_arrival(self, task_id: str, *, size: int, etag: str, check_at: float) -> Task | None:
        """Moves a PENDING task from UPLOADING to INSPECTING and notes its archive's size and ETag; a task at any
        other stage is left alone. Returns the task as it then is.
        """

    def start_stage(self, task_id: str, stage: Stage, *, check_at: float, totals: Progress | None = None) -> bool:
        """Moves a PENDING task forward to `stage` (TRANSFERRING with the totals, VERIFIED or PUBLISHING), and notes
        when TRANSFERRING began.

        A task that is at that stage or further is left alone. Of any number of calls one is told True: that it moved
        the task.
        """

    def postpone_check(self, task_id: str, *, check_at: float, sweeps: int | None = None) -> None:
        """Has the sweep look no sooner than then (and sets its count, if given), for a task that is still watched.

        Without effect if it looks later already.
        """

    def list_due(self, now: float, limit: int) -> list[Task]:
        """Watched tasks whose `check_at` is not after `now`, longest due first. Eventually consistent."""

    def unwatch_task(self, task_id: str) -> None:
        """The task has ended and nothing is left to tidy up; without effect on a PENDING task."""
