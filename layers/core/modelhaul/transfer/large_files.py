"""Transfer of one large file: copied inside S3 if its content is stored, else streamed from its source."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from modelhaul.domain.files import Checkpoint, FileRecord, FileResult, SourceFile
from modelhaul.domain.objects import ObjectRange
from modelhaul.ports.byte_streams import ByteStream
from modelhaul.ports.multipart_uploads import MultipartUploads
from modelhaul.transfer.engine import FileTransfer, Moved, Paused
from modelhaul.transfer.lease import Lease
from modelhaul.transfer.policy import estimate_copy_time
from modelhaul.transfer.reuse import ContentReuse
from modelhaul.transfer.session import FileLease, TransferSession
from modelhaul.transfer.settings import StreamSettings
from modelhaul.transfer.source import FileSource

logger = logging.getLogger(__name__)


class Transfer(Protocol):
    """The transfer of one large file."""

    @property
    def advanced(self) -> bool:
        """Return whether `run` stored bytes that no checkpoint had before."""

    def run(self) -> Moved | Paused:
        """Transfer the file until it is stored, or the function's time is nearly over."""


class CreateTransfer(Protocol):
    """Creates the transfer of one file, as FileTransfer does."""

    def __call__(  # noqa: PLR0913 - the fields of FileTransfer
        self,
        *,
        file: SourceFile,
        key: str,
        open_range: Callable[[int, int], ByteStream],
        uploads: MultipartUploads,
        lease: Lease,
        remaining: Callable[[], float],
        checkpoint: Checkpoint | None,
        origin: ObjectRange | None,
        settings: StreamSettings,
    ) -> Transfer: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeFileTransfer:
    """Transfers large files one after the other, each under its own lease."""

    session: TransferSession
    reuse: ContentReuse
    uploads: MultipartUploads
    source: FileSource
    create_transfer: CreateTransfer = FileTransfer

    def transfer(self, record: FileRecord) -> None:
        """Transfer and record the file, or set `session.paused` if time ran out.

        No-op if the file is done, or leased to another function. Raises LeaseLostError, TaskEndedError, and the errors
        of the source and the store.
        """
        # A copy cannot be interrupted. The first file of a session is tried regardless of its size, because no later
        # session has more time for it.
        needed = estimate_copy_time(record.file.size) if self.session.advanced else 0
        if self.session.is_out_of_time(needed=needed):
            self.session.paused = True
            return
        lease = self.session.lease_file(record.file.path)
        if lease is None:
            return
        result = self._copy(lease) or self._stream(lease)
        if result is not None:
            self.reuse.index([result])
            self.session.record_files([result])

    def _copy(self, lease: FileLease) -> FileResult | None:
        if lease.record.checkpoint is not None:
            return None
        return self.reuse.reuse(lease.record, self.reuse.find_blobs([lease.record.file.digest]), lease)

    def _stream(self, lease: FileLease) -> FileResult | None:
        record, file = lease.record, lease.record.file
        logger.info(
            "transfer started",
            extra={
                "task_id": record.task_id,
                "path": file.path,
                "bytes": file.size,
                "offset": record.checkpoint.offset if record.checkpoint else 0,
            },
        )
        transfer = self.create_transfer(
            file=file,
            key=record.staging_key,
            open_range=lambda start, end: self.source.open_range(file, start, end),
            uploads=self.uploads,
            lease=lease,
            remaining=self.session.remaining,
            checkpoint=record.checkpoint,
            origin=self.source.locate(file),
            settings=self.session.settings,
        )
        try:
            outcome = transfer.run()
        finally:
            self.session.advanced |= transfer.advanced
        if isinstance(outcome, Paused):
            self.session.paused = True
            return None
        return FileResult(file, outcome.sha256, outcome.etag, reused=False)
