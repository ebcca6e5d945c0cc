"""Tasks: one accepted request, followed from PENDING to DONE or FAILED."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from modelhaul.model import Source


class TaskStatus(StrEnum):
    PENDING = "PENDING"
    DONE = "DONE"
    FAILED = "FAILED"


class Stage(StrEnum):
    """Where a task stands, in this order; the last three are ends."""

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
    """`model_tag` is what was asked for (`name@revision`), `model_id` the one model that it claims.

    `check_at` (epoch seconds) is when the sweep looks after the task if nothing else touched it before,
    `sweeps` how often it did so since something last moved.
    """

    id: str
    source: Source
    model_tag: str
    model_id: str
    created_at: datetime
    updated_at: datetime
    status: TaskStatus = TaskStatus.PENDING
    stage: Stage = Stage.PLANNING
    progress: Progress = Progress()
    error: TaskError | None = None
    check_at: float = 0.0
    sweeps: int = 0
