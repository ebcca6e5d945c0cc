"""Files of tasks, and the leases of the workers that transfer them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from modelhaul.domain.files import Checkpoint, FileRecord, FileResult, SourceFile
from modelhaul.domain.tasks import Progress


class FileRepository(Protocol):
    """Files of tasks. Every write is atomic, and idempotent after a lost response.

    Every method raises StorageUnavailableError.
    """

    def put_files(self, task_id: str, files: Iterable[SourceFile]) -> None:
        """Record the planned files, and keep existing records. Symlinks and submodules are done immediately."""

    def list_files(self, task_id: str) -> Iterator[FileRecord]:
        """Yield all files of the task in path order. Strongly consistent."""

    def find_files(self, task_id: str, paths: Sequence[str]) -> list[FileRecord]:
        """Return the recorded files of `paths`, in any order. Strongly consistent."""

    def lease_file(self, task_id: str, path: str, *, owner: str, now: float, until: float) -> FileRecord | None:
        """Lease the file to `owner`. Return None if it is done, unknown, or leased to another owner at `now`."""

    def renew_lease(self, task_id: str, path: str, *, owner: str, until: float) -> None:
        """Extend the lease. Raises LeaseLostError if `owner` no longer has the lease."""

    def release_lease(self, task_id: str, path: str, *, owner: str) -> None:
        """Release the lease. No-op if `owner` does not have the lease."""

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
        """Store the checkpoint, or remove it if it is None.

        The write also extends the lease, changes the task's `bytes_done` by the difference of the offsets, and
        postpones the sweep. Raises LeaseLostError if `owner` no longer has the lease, TaskEndedError if the task is no
        longer PENDING.
        """

    def finish_files(self, task_id: str, results: Sequence[FileResult], *, check_at: float) -> Progress:
        """Mark up to 90 files as done, and return the task's new progress.

        The write also removes the files' checkpoints and leases, and counts the files in the task. Files that are
        already done, or were never planned, are not counted. Raises TaskEndedError if the task is no longer PENDING.
        """
