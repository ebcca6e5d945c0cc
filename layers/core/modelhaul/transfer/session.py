"""The transfer session: one function's work on one message."""

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.files import Checkpoint, FileRecord, FileResult
from modelhaul.domain.tasks import Progress, Task
from modelhaul.ports.clock import Clock
from modelhaul.ports.files import FileRepository
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.tasks import TaskRepository
from modelhaul.transfer.settings import StreamSettings

logger = logging.getLogger(__name__)

LEASE_SECONDS = 90.0  # several heartbeats


class TransferPausedError(Exception):
    """The function's time is nearly over. Another function transfers the remaining files."""


@dataclass(slots=True, kw_only=True)
class TransferSession:
    """Manages the leases and heartbeats of one function, and records the progress and completion of its files.

    `remaining` returns the seconds that the function has left. Each sign of progress postpones the sweep by
    `check_after` seconds. `publish_if_complete` receives the task's progress, and returns whether it started
    publishing. `advanced`: the session has stored or recorded something. `paused`: another function must transfer the
    remaining files.
    """

    task: Task
    tasks: TaskRepository
    files: FileRepository
    metrics: Metrics
    clock: Clock
    settings: StreamSettings
    remaining: Callable[[], float]
    check_after: float
    publish_if_complete: Callable[[Progress], bool]
    advanced: bool = False
    paused: bool = False
    _owner: str = field(default_factory=lambda: str(uuid.uuid4()))
    _leased: dict[str, FileRecord] = field(default_factory=dict)

    def lease_file(self, path: str) -> "FileLease | None":
        """Lease the file, or return the lease that this session already has.

        Return None if the file is done, or leased to another function.
        """
        if path not in self._leased:
            now = self.clock()
            record = self.files.lease_file(self.task.id, path, owner=self._owner, now=now, until=now + LEASE_SECONDS)
            if record is None:
                return None
            self._leased[path] = record
        return FileLease(self, self._leased[path])

    def release_leases(self) -> None:
        """Release all leases, so that other functions can lease the files immediately."""
        for path in self._leased:
            self.files.release_lease(self.task.id, path, owner=self._owner)

    def is_out_of_time(self, *, needed: float = 0.0) -> bool:
        """Return whether less than `needed` seconds are left before the time reserved at the function's end."""
        return self.remaining() < self.settings.stop_before + needed

    def check_time(self) -> None:
        """Raise TransferPausedError if the function's time is nearly over."""
        if self.is_out_of_time():
            raise TransferPausedError

    def record_files(self, results: Sequence[FileResult]) -> None:
        """Record up to 90 files as done, which ends their leases. Start publishing if they were the last ones.

        Raises TaskEndedError.
        """
        progress = self.files.finish_files(self.task.id, results, check_at=self.clock() + self.check_after)
        self.advanced = True
        moved = sum(r.file.size for r in results if not r.reused)
        reused = sum(r.file.size for r in results if r.reused)
        for name, size in (("BytesTransferred", moved), ("BytesReused", reused)):
            if size:
                self.metrics.count(name, size, source=self.task.source)
        logger.info(
            "all files verified; publishing starts" if self.publish_if_complete(progress) else "files verified",
            extra={
                "task_id": self.task.id,
                "files": len(results),
                "path": results[0].file.path,
                "bytes_moved": moved,
                "bytes_reused": reused,
                "files_done": progress.files_done,
                "files_total": progress.files_total,
            },
        )

    def renew_lease(self, path: str, *, until: float) -> None:
        """Extend the lease. Raises LeaseLostError."""
        self.files.renew_lease(self.task.id, path, owner=self._owner, until=until + LEASE_SECONDS)

    def postpone_check(self, *, until: float) -> None:
        """Postpone the sweep's check of the task to `check_after` seconds after `until`."""
        try:
            self.tasks.postpone_check(self.task.id, check_at=until + self.check_after)
        except StorageUnavailableError as error:  # if the sweep resends messages, the lease makes them no-ops
            logger.warning("next sweep check not postponed", extra={"task_id": self.task.id, "detail": error.detail})

    def save_checkpoint(self, path: str, checkpoint: Checkpoint | None) -> None:
        """Store the checkpoint, or delete it with None. Raises LeaseLostError, TaskEndedError."""
        now = self.clock()
        self.files.save_checkpoint(
            self.task.id,
            path,
            checkpoint,
            owner=self._owner,
            until=now + LEASE_SECONDS,
            check_at=now + self.check_after,
        )


@dataclass(frozen=True, slots=True)
class FileLease:
    """Implements `Lease` for a file of the session. `record`: the file's record when it was leased."""

    session: TransferSession
    record: FileRecord

    def confirm(self) -> None:
        self.session.renew_lease(self.record.file.path, until=self.session.clock())

    def renew(self, *, busy: float = 0.0) -> None:
        until = self.session.clock() + busy
        self.session.renew_lease(self.record.file.path, until=until)
        self.session.postpone_check(until=until)

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        self.session.save_checkpoint(self.record.file.path, checkpoint)
        logger.info(
            "checkpoint saved",
            extra={
                "task_id": self.record.task_id,
                "path": self.record.file.path,
                "offset": checkpoint.offset,
            },
        )

    def discard_checkpoint(self) -> None:
        self.session.save_checkpoint(self.record.file.path, None)
