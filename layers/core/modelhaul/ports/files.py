"""Files of tasks, and the leases of those who transfer them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from modelhaul.domain.files import Checkpoint, FileRecord, FileResult, SourceFile
from modelhaul.domain.tasks import Progress


class FileRepository(Protocol):
    """Every write is atomic and safe to repeat after a lost reply. Every method raises StorageUnavailableError."""

    def put_files(self, task_id: str, files: Iterable[SourceFile]) -> None:
        """Records the planned files; one that is there already is left as it is. What is not followed
        is done at once.
        """

    def list_files(self, task_id: str) -> Iterator[FileRecord]:
        """All files of the task in path order, strongly consistent."""

    def find_files(self, task_id: str, paths: Sequence[str]) -> list[FileRecord]:
        """Those of `paths` that are recorded, strongly consistent, in no order."""

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
