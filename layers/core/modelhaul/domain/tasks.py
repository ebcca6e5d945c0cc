"""Tasks: one accepted request, followed from PENDING to DONE or FAILED."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from modelhaul.domain.archives import Archive, SkippedDirectory
from modelhaul.domain.models import Source
from modelhaul.domain.selection import WHOLE, Selection


class TaskStatus(StrEnum):
    PENDING = "PENDING"
    DONE = "DONE"
    FAILED = "FAILED"


class Stage(StrEnum):
    """Where a task stands, in this order; the last three are ends."""

    UPLOADING = "UPLOADING"  # the archive's bytes are awaited
    INSPECTING = "INSPECTING"  # the archive is there; which models are in it is being found out
    PLANNING = "PLANNING"
    TRANSFERRING = "TRANSFERRING"
    VERIFIED = "VERIFIED"  # every file is; nothing is visible yet
    PUBLISHING = "PUBLISHING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of files and bytes. `bytes_done` includes `bytes_reused` and grows while a large file moves."""

    files_done: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_reused: int = 0


@dataclass(frozen=True, slots=True)
class TaskError:
    type: str
    detail: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Task:
    """`model_tag` is what was asked for (`name@revision`, or an archive's name), `model_ids` the models it claims,
    at most 90; none before an archive was inspected. `failed_ids` are those of its models that failed although the
    task is DONE. `skipped` are an archive's directories that are no models, `selection` says which files of
    the model were asked for.

    `transfer_began_at` is when its first byte could move, `bytes_counted_at` when `progress.bytes_done` last changed.

    `check_at` (epoch seconds) is when the sweep looks after the task if nothing else touched it before,
    `sweeps` how often it did so since something last moved.
    """

    id: str
    source: Source
    model_tag: str
    model_ids: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    status: TaskStatus = TaskStatus.PENDING
    stage: Stage = Stage.PLANNING
    progress: Progress = Progress()
    error: TaskError | None = None
    check_at: float = 0.0
    sweeps: int = 0
    archive: Archive | None = None
    skipped: tuple[SkippedDirectory, ...] = ()
    failed_ids: tuple[str, ...] = ()
    selection: Selection = WHOLE
    transfer_began_at: datetime | None = None
    bytes_counted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """That a task ended, for whoever wants to know: `detail` is a JSON object."""

    type: str
    time: datetime
    detail: str


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Tasks, newest first; `cursor` asks for those that follow, None at the end."""

    tasks: tuple[Task, ...]
    cursor: str | None


def describe_missing_task(task_id: str) -> str:
    return f"There is no task {task_id[:64]!r}."
