"""The transfer session: one function's work on one group of files."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from modelhaul.domain.errors import ModelhaulError, StorageUnavailableError, TaskEndedError
from modelhaul.domain.files import FileCounts, FileGroup, FileRecord
from modelhaul.domain.tasks import Task
from modelhaul.ports.clock import Clock
from modelhaul.ports.files import GroupLeases
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.tasks import TaskRepository
from modelhaul.transfer.settings import StreamSettings

logger = logging.getLogger(__name__)

LEASE_SECONDS = 90.0  # several heartbeats
MAX_CHECK_SECONDS = 150.0  # more than the check of any file takes
_MAX_SCAN_SECONDS = 60.0
_AFTER_SCAN_SECONDS = 15.0  # of the function's time, reserved to record the files after the scan


class TransferPausedError(Exception):
    """The function's time is nearly over. Another function transfers the remaining files."""


@dataclass(slots=True, kw_only=True)
class TransferSession:
    """Holds the lease of a group, and records the progress and completion of its files. Implements `Lease`.

    `remaining` returns the seconds that the function has left. Each sign of progress postpones the sweep by
    `check_after` seconds. `publish_if_complete` receives the counts of the task's files, and returns whether it started
    publishing. `advanced`: the session has stored or recorded something. `paused`: another function must transfer the
    remaining files.
    """

    task: Task
    group: FileGroup
    owner: str
    tasks: TaskRepository
    leases: GroupLeases
    metrics: Metrics
    clock: Clock
    settings: StreamSettings
    remaining: Callable[[], float]
    check_after: float
    publish_if_complete: Callable[[FileCounts], bool]
    advanced: bool = False
    paused: bool = False
    _counted: FileGroup = field(init=False)

    def __post_init__(self) -> None:
        self._counted = self.group

    def is_out_of_time(self, *, needed: float = 0.0) -> bool:
        """Return whether less than `needed` seconds are left before the time reserved at the function's end."""
        return self.remaining() < self.settings.stop_before + needed

    def has_time_to_check(self) -> bool:
        """Return whether the time suffices for the check of any file. The session's first action is always allowed."""
        return not self.advanced or self.remaining() >= MAX_CHECK_SECONDS

    def check_time(self) -> None:
        """Raise TransferPausedError if the function's time is nearly over."""
        if self.is_out_of_time():
            raise TransferPausedError

    def find_scan_time(self) -> float:
        """Return the seconds that the second scanner may take."""
        return min(_MAX_SCAN_SECONDS, self.remaining() - _AFTER_SCAN_SECONDS)

    def release(self) -> None:
        """Release the lease, so that another function can lease the group immediately.

        An error is only logged, so that it does not replace the reason for the release.
        """
        try:
            self.leases.release_lease(self.group.plan_id, self.group.number, owner=self.owner)
        except ModelhaulError as error:  # the lease expires
            logger.warning("lease not released", extra={"task_id": self.task.id, "detail": error.detail})

    def confirm(self) -> None:
        self._renew(until=self.clock())

    def renew(self, *, busy: float = 0.0) -> None:
        until = self.clock() + busy
        self._renew(until=until)
        try:
            self.tasks.postpone_check(self.task.id, check_at=until + self.check_after)
        except StorageUnavailableError as error:  # if the sweep resends messages, the lease makes them no-ops
            logger.warning("next sweep check not postponed", extra={"task_id": self.task.id, "detail": error.detail})

    def record_offset(self, offset: int, *, continued: int = 0) -> None:
        """Record the offset as Lease does. `continued`: the bytes that an ended import has stored."""
        counts = self.leases.record_offset(
            self.group.plan_id,
            self.group.number,
            offset,
            continued=continued,
            owner=self.owner,
            until=self.clock() + LEASE_SECONDS,
        )
        self._count_bytes(self._counted.advance(offset, continued))
        self._record_progress(counts)
        logger.info("offset recorded", extra={"task_id": self.task.id, "group": self.group.number, "offset": offset})

    def record_files(self, records: Sequence[FileRecord]) -> None:
        """Record the state of files. Start publishing if they were the task's last ones.

        Raises LeaseLostError, TaskEndedError.
        """
        counts = self.leases.record_files(
            self.group.plan_id, self.group.number, records, owner=self.owner, until=self.clock() + LEASE_SECONDS
        )
        self.advanced = True
        self._count_bytes(self._counted.merge(records))
        self._record_progress(counts)
        moved = sum(r.file.size for r in records if r.is_done and not r.reused)
        reused = sum(r.file.size for r in records if r.is_done and r.reused)
        logger.info(
            "all files recorded; publishing starts" if self.publish_if_complete(counts) else "files recorded",
            extra={
                "task_id": self.task.id,
                "group": self.group.number,
                "files": len(records),
                "path": records[0].file.path,
                "bytes_moved": moved,
                "bytes_reused": reused,
                "files_done": counts.files_done,
                "files_total": self.task.progress.files_total,
            },
        )

    def _renew(self, *, until: float) -> None:
        self.leases.renew_lease(self.group.plan_id, self.group.number, owner=self.owner, until=until + LEASE_SECONDS)

    def _count_bytes(self, group: FileGroup) -> None:
        """Count the difference of the group's recorded progress. Bytes that are transferred again count again."""
        before, after = self._counted.count(), group.count()
        self._counted = group
        reused = after.bytes_reused - before.bytes_reused
        transferred = after.bytes_done - before.bytes_done - reused
        for name, size in (("BytesTransferred", transferred), ("BytesReused", reused)):
            if size > 0:
                self.metrics.count(name, size)

    def _record_progress(self, counts: FileCounts) -> None:
        if not self.tasks.record_progress(self.task.id, counts, check_at=self.clock() + self.check_after):
            raise TaskEndedError(f"Task {self.task.id} has already ended.")
