"""What the pipeline needs of the world. Adapters and fakes implement these; each has one contract suite."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from modelhaul.domain.archives import SkippedDirectory
from modelhaul.domain.files import Checkpoint, FileRecord, FileResult, SourceFile
from modelhaul.domain.gate import GateReport
from modelhaul.domain.models import Model, ModelError, ModelPage, Source
from modelhaul.domain.objects import Blob
from modelhaul.domain.tasks import Progress, Stage, Task, TaskError, TaskPage, TaskStatus


class Ledger(Protocol):
    """Tasks, models, files and blobs. Every write is atomic and safe to repeat after a lost reply.

    Every method raises StorageUnavailableError. A task is *watched* from its claim until `unwatch_task`.
    """

    def claim_import(self, task: Task, models: Sequence[Model]) -> None:
        """Writes the task (whose `model_ids` are the models') and claims the models for it, all or nothing.
        A FAILED model can be taken over. At most 90 models.

        Raises ModelExistsError with all that are READY; if none is, for the first that is not free
        ImportInProgressError, if another task is bringing it in or it is WITHDRAWING, or DeletionInProgressError.
        Of simultaneous claims exactly one succeeds. Repeating one's own claim succeeds.
        """

    def record_task(self, task: Task) -> None:
        """Writes a task that claims nothing yet; one with this id that is there already is left as it is."""

    def record_arrival(self, task_id: str, *, size: int, etag: str, check_at: float) -> Task | None:
        """Moves a PENDING task from UPLOADING to INSPECTING and notes its archive's size and ETag; a task at any
        other stage is left alone. Returns the task as it then is.
        """

    def claim_models(
        self, task_id: str, models: Sequence[Model], skipped: Sequence[SkippedDirectory], *, check_at: float
    ) -> Task | None:
        """Moves a PENDING task from INSPECTING to PLANNING with these models, claimed as by `claim_import`, and these
        skipped directories; all or nothing. A task at any other stage is left alone. Returns the task as it then is.

        Raises as `claim_import`. Repeating one's own claim succeeds.
        """

    def find_task(self, task_id: str) -> Task | None:
        """Strongly consistent; None for an id of any shape that is not there."""

    def list_tasks(
        self, *, source: Source | None = None, status: TaskStatus | None = None, limit: int, cursor: str | None = None
    ) -> TaskPage:
        """A page of at most `limit` tasks, newest first, eventually consistent. A page may be short, or empty, and
        still have a cursor. Raises InvalidReferenceError for a cursor that it did not give.
        """

    def find_model(self, model_id: str) -> Model | None: ...

    def find_models(self, model_ids: Sequence[str]) -> list[Model]:
        """Those that are there, in the order asked for, strongly consistent. At most 90."""

    def list_models(
        self, *, source: Source | None = None, name: str | None = None, limit: int, cursor: str | None = None
    ) -> ModelPage:
        """A page of at most `limit` READY models, newest first, eventually consistent; `name`: those in whose name it
        is, in any case of letters. A page may be short, or empty, and still have a cursor. Raises
        InvalidReferenceError for a cursor that it did not give.
        """

    def lease_deletion(self, model_id: str, *, owner: str, now: float, until: float) -> Model | None:
        """Moves a READY or FAILED model to DELETING and leases it to `owner`, or leases one that is DELETING already.

        None if it is unknown, IMPORTING or WITHDRAWING, or another owner's lease runs at `now`.
        """

    def remove_model(self, model_id: str, *, owner: str) -> None:
        """Removes the record of a DELETING model, so that the model can be claimed again; without effect if the lease
        is another's.
        """

    def list_deleting(self, now: float, limit: int) -> list[Model]:
        """DELETING models whose lease does not run at `now`. Eventually consistent."""

    def put_files(self, task_id: str, files: Iterable[SourceFile]) -> None:
        """Records the planned files; one that is there already is left as it is. What is not
        followed is done at once.
        """

    def list_files(self, task_id: str) -> Iterator[FileRecord]:
        """All files of the task in path order, strongly consistent."""

    def find_files(self, task_id: str, paths: Sequence[str]) -> list[FileRecord]:
        """Those of `paths` that are recorded, strongly consistent, in no order."""

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

    def lease_file(self, task_id: str, path: str, *, owner: str, now: float, until: float) -> FileRecord | None:
        """The file, leased to `owner`; None if it is done, unknown, or another owner's lease runs at `now`."""

    def renew_lease(self, task_id: str, path: str, *, owner: str, until: float) -> None:
        """Raises LeaseLostError."""

    def release_lease(self, task_id: str, path: str, *, owner: str) -> None:
        """Gives the lease back; without effect if it is another's."""

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
        """Stores (or with None discards) the checkpoint, renews the lease, moves the task's `bytes_done` by the
        difference of offsets, and postpones the sweep.

        Raises LeaseLostError if the lease is another's, TaskEndedError if the task is no longer PENDING.
        """

    def finish_files(self, task_id: str, results: Sequence[FileResult], *, check_at: float) -> Progress:
        """Marks up to 90 files as done, drops their checkpoints and leases, and counts them in the task; files
        that were done before, or never planned, are not counted. Returns the task's progress after it.

        Raises TaskEndedError if the task is no longer PENDING.
        """

    def finish_import(
        self,
        task_id: str,
        *,
        totals: Mapping[str, tuple[int, int]],
        check_at: float,
        gates: Mapping[str, GateReport] = MappingProxyType({}),
        failed: Mapping[str, ModelError] = MappingProxyType({}),
    ) -> bool:
        """Ends the task DONE: the models in `totals` become READY, those in `failed` FAILED with their shortened error,
        so that another import can claim them; all or nothing. Together these are the task's models.

        `totals`: (files, bytes) of each READY model, by its id; `gates`: what the gate found in it. False if the task
        has ended otherwise before.
        """

    def fail_import(
        self,
        task_id: str,
        error: TaskError,
        *,
        stage: Stage = Stage.FAILED,
        check_at: float,
        failed: Mapping[str, ModelError] = MappingProxyType({}),
    ) -> bool:
        """Ends the task FAILED with `error`, and its models, if it has any, FAILED, or WITHDRAWING if the task was
        PUBLISHING; all or nothing. A model has its own error of `failed`, else the task's, shortened.

        False if the task has ended before.
        """

    def release_models(self, task_id: str) -> None:
        """What the task had published is removed: its models go from WITHDRAWING to FAILED, and can be claimed."""

    def unwatch_task(self, task_id: str) -> None:
        """The task has ended and nothing is left to tidy up; without effect on a PENDING task."""

    def list_due(self, now: float, limit: int) -> list[Task]:
        """Watched tasks whose `check_at` is not after `now`, longest due first. Eventually consistent."""

    def find_blobs(self, digests: Iterable[str]) -> dict[str, Blob]:
        """The stored contents with these digests (`sha256:…` or `git-sha1:…`), by digest; strongly consistent."""

    def put_blobs(self, blobs: Iterable[tuple[str, Blob]], *, expires_at: float | None) -> None:
        """Records (digest, blob) pairs in the place of earlier ones. With `expires_at` they are forgotten then, and are
        found only where there is none that stays.
        """

    def forget_blob(self, digest: str, key: str) -> None:
        """Forgets the digest if it is recorded at `key`."""

    def forget_blobs(self, references: Iterable[tuple[str, str]]) -> None:
        """Forgets any number of (digest, key) pairs, as `forget_blob` does, of which most are not recorded."""
