"""Files of tasks in groups, and the leases of the functions that transfer the groups.

`plan_id` identifies the files of a task as one planner has listed them (`Task.plan_id`). Every write is
idempotent after a lost response, and every write of one group is atomic. Every method raises StorageUnavailableError.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from modelhaul.domain.files import FileCounts, FileGroup, FileRecord, SourceFile


class FileRepository(Protocol):
    """Files of tasks in groups."""

    def put_groups(self, plan_id: str, groups: Iterable[Sequence[SourceFile]]) -> None:
        """Record groups of files, numbered from 0. A group of symlinks and submodules only is done immediately."""

    def list_groups(self, plan_id: str) -> Iterator[FileGroup]:
        """Yield all groups by number. Strongly consistent."""

    def find_groups(self, plan_id: str, numbers: Iterable[int]) -> list[FileGroup]:
        """Return the recorded groups with these numbers, in any order. Strongly consistent."""

    def count_files(self, plan_id: str) -> FileCounts:
        """Return the counts of the plan. Strongly consistent."""

    def record_copied(self, plan_id: str, numbers: Iterable[int]) -> FileCounts:
        """Record that the files of up to 40 groups are at their published keys, and return the plan's new counts.

        Each group is counted once.
        """

    def list_copied(self, plan_id: str) -> set[int]:
        """Return the numbers of the groups that `record_copied` recorded. Strongly consistent."""


class GroupLeases(Protocol):
    """Leases of groups. The owner of a lease stores the progress and results of the group."""

    def lease_group(self, plan_id: str, number: int, *, owner: str, now: float, until: float) -> FileGroup | None:
        """Lease the group to `owner`. Return None if it is done, unknown, or leased to another owner at `now`."""

    def renew_lease(self, plan_id: str, number: int, *, owner: str, until: float) -> None:
        """Extend the lease. Raises LeaseLostError if `owner` no longer has the lease."""

    def release_lease(self, plan_id: str, number: int, *, owner: str) -> None:
        """Release the lease. No-op if `owner` does not have the lease."""

    def record_offset(
        self, plan_id: str, number: int, offset: int, *, owner: str, until: float, continued: int = 0
    ) -> FileCounts:
        """Store the offset in the first file that is not stored, extend the lease, and return the plan's new counts.

        `bytes_done` changes by the difference of the offsets, `bytes_reused` by that of `FileGroup.continued`. Raises
        LeaseLostError if `owner` no longer has the lease.
        """

    def record_files(
        self, plan_id: str, number: int, records: Sequence[FileRecord], *, owner: str, until: float
    ) -> FileCounts:
        """Store the state of files of the group, extend the lease, and return the plan's new counts.

        Files that become stored (`sha256` is set) reset the group's offset to 0, and their bytes are counted.
        Files that become done are counted. When all files are done, the group is done, and the lease ends. Raises
        LeaseLostError if `owner` no longer has the lease, and the group is not done.
        """
