"""Tasks: the progress of an accepted request from PENDING to DONE or FAILED."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from modelhaul.domain.archives import Archive, SkippedDirectory
from modelhaul.domain.errors import REJECTED_CONTENT
from modelhaul.domain.models import Source
from modelhaul.domain.policy_results import PolicyResult
from modelhaul.domain.selection import WHOLE, Selection

# S3 deletes the parts of an unfinished upload after four days.
UPLOAD_LIFE = timedelta(days=3)


class TaskStatus(StrEnum):
    PENDING = "PENDING"
    DONE = "DONE"
    FAILED = "FAILED"


class Stage(StrEnum):
    """Stages of a task, in order. DONE, FAILED and CANCELLED are final.

    - UPLOADING: the archive has not arrived yet.
    - INSPECTING: the archive has arrived, and the models in it are being identified.
    - PLANNING: the files of the models are being listed.
    - TRANSFERRING: the files are being stored, verified and inspected.
    - VERIFIED: all files are verified and inspected, and the models are being checked. No model is visible yet.
    - PUBLISHING: the files are being copied to their final location.
    - DONE: at least one model is READY.
    - FAILED: no model was imported.
    - CANCELLED: the import was cancelled, and no model was imported.
    """

    UPLOADING = "UPLOADING"
    INSPECTING = "INSPECTING"
    PLANNING = "PLANNING"
    TRANSFERRING = "TRANSFERRING"
    VERIFIED = "VERIFIED"
    PUBLISHING = "PUBLISHING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def status(self) -> TaskStatus:
        match self:
            case Stage.DONE:
                return TaskStatus.DONE
            case Stage.FAILED | Stage.CANCELLED:
                return TaskStatus.FAILED
        return TaskStatus.PENDING


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of files and bytes. `bytes_done` includes `bytes_reused`, and grows while a large file is transferred."""

    files_done: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_reused: int = 0


@dataclass(frozen=True, slots=True)
class TaskError:
    """Why a task failed, with the fields of `ModelhaulError`."""

    type: str
    detail: str
    retryable: bool
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """The wait of a step for its next attempt.

    `reason` and `detail` are the type and the text of the last error. `since` is when the first of `attempt` attempts
    failed, `recorded_at` when the last one did.
    """

    reason: str
    detail: str
    since: datetime
    attempt: int
    next_attempt: datetime
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Task:
    """The import of one or more models.

    `model_tag` is the requested model (`name@revision`) or the archive's name. `commit` is the commit of the revision
    when the import was accepted, None for an archive. `model_ids` are the claimed models, at
    most 90, empty until an archive is inspected. `failed_ids` are the models of a DONE task that failed. `skipped` are
    the directories of an archive that are not models. `selection` are the requested files of the model.

    `plan_id` identifies the recorded files, once they are planned. `transfer_began_at` is the start of the transfer,
    `bytes_counted_at` the last change of `progress.bytes_done`. `waiting` is the last wait of a step, which may be
    over, `waiting_stage` the stage at which it began. `submitted_by` and `cancelled_by` name the caller, see
    `modelhaul.domain.callers`; None if AWS did not pass one. `policy_results` are the final decisions of the import
    policy by model ID, empty until they are made. They never change.

    `check_at` (epoch seconds) is when the sweep checks the task, unless a write postpones it. `sweeps` counts the
    checks since the last progress.
    """

    id: str
    source: Source
    model_tag: str
    model_ids: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    stage: Stage = Stage.PLANNING
    progress: Progress = Progress()
    error: TaskError | None = None
    check_at: float = 0.0
    sweeps: int = 0
    archive: Archive | None = None
    skipped: tuple[SkippedDirectory, ...] = ()
    failed_ids: tuple[str, ...] = ()
    selection: Selection = WHOLE
    plan_id: str | None = None
    transfer_began_at: datetime | None = None
    bytes_counted_at: datetime | None = None
    commit: str | None = None
    waiting: Waiting | None = None
    waiting_stage: Stage | None = None
    submitted_by: str | None = None
    cancelled_by: str | None = None
    policy_results: Mapping[str, PolicyResult] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def status(self) -> TaskStatus:
        return self.stage.status

    @property
    def upload_until(self) -> datetime:
        """Until when a task at the stage UPLOADING waits for its archive."""
        return self.created_at + UPLOAD_LIFE

    @property
    def is_content_rejected(self) -> bool:
        """Return whether the task ended because its content was rejected."""
        return self.error is not None and self.error.type in REJECTED_CONTENT

    @property
    def is_unplanned(self) -> bool:
        """Return whether the task lacks the plan that its stage requires."""
        return self.plan_id is None and self.stage in (Stage.TRANSFERRING, Stage.VERIFIED, Stage.PUBLISHING)


@dataclass(frozen=True, slots=True)
class Event:
    """Event that a task ended, for subscribers. `detail` is a JSON object."""

    type: str
    time: datetime
    detail: str


@dataclass(frozen=True, slots=True)
class TaskPage:
    """A page of tasks, newest first. `cursor` requests the next page; it is None on the last page."""

    tasks: tuple[Task, ...]
    cursor: str | None


def describe_missing_task(task_id: str) -> str:
    return f"Task {task_id[:64]!r} not found."
