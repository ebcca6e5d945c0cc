"""Transfer and check of one large file: copied inside S3 if its content is stored, else streamed from its source."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.files import FileGroup, FileRecord, SourceFile
from modelhaul.domain.objects import Blob, ObjectRange
from modelhaul.domain.segments import UploadKey
from modelhaul.ports.byte_streams import ByteStream
from modelhaul.ports.clock import Clock
from modelhaul.ports.multipart_uploads import MultipartUploads
from modelhaul.ports.segments import SegmentRepository
from modelhaul.transfer.engine import FileTransfer, Left, Moved, Paused
from modelhaul.transfer.kept_uploads import KeptUploads
from modelhaul.transfer.lease import Lease
from modelhaul.transfer.policy import TransferPolicy, estimate_copy_time
from modelhaul.transfer.reuse import ContentReuse
from modelhaul.transfer.segments import SegmentClaims
from modelhaul.transfer.session import MAX_CHECK_SECONDS, TransferSession
from modelhaul.transfer.settings import StreamSettings
from modelhaul.transfer.source import FileSource
from modelhaul.transfer.staged import StagedFileChecks

logger = logging.getLogger(__name__)


class Transfer(Protocol):
    """The transfer of one large file."""

    @property
    def advanced(self) -> bool:
        """Return whether bytes were stored during `run` that were not recorded before."""

    def run(self) -> Moved | Paused | Left:
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
        claims: SegmentClaims,
        lease: Lease | None,
        remaining: Callable[[], float],
        origin: ObjectRange | None,
        settings: StreamSettings,
    ) -> Transfer: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeFileOpener:
    """Opens the transfers of the large files of a group, for the function `owner`."""

    group: FileGroup
    owner: str
    segments: SegmentRepository
    uploads: MultipartUploads
    source: FileSource
    clock: Clock
    remaining: Callable[[], float]
    settings: StreamSettings
    create_transfer: CreateTransfer = FileTransfer

    def open_claims(
        self, record: FileRecord, on_record: Callable[[SegmentClaims], None] = lambda _: None
    ) -> SegmentClaims:
        position = next(n for n, r in enumerate(self.group.records) if r.file.path == record.file.path)
        key = UploadKey(self.group.plan_id, self.group.number, position)
        return SegmentClaims(repository=self.segments, key=key, owner=self.owner, clock=self.clock, on_record=on_record)

    def open(self, record: FileRecord, claims: SegmentClaims, lease: Lease | None) -> Transfer:
        file = record.file
        if lease is not None:
            context = {"task_id": record.task_id, "path": file.path, "bytes": file.size}
            logger.info("transfer started", extra=context)
        return self.create_transfer(
            file=file,
            key=record.staging_key,
            open_range=lambda start, end: self.source.open_range(file, start, end),
            uploads=self.uploads,
            claims=claims,
            lease=lease,
            remaining=self.remaining,
            origin=self.source.locate(file),
            settings=self.settings,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeFileTransfer:
    """Transfers and checks the large files of a group one after the other."""

    session: TransferSession
    reuse: ContentReuse
    kept: KeptUploads
    checks: StagedFileChecks
    opener: LargeFileOpener

    def transfer(self, record: FileRecord) -> None:
        """Transfer, check and record the file, or set `session.paused` if time ran out.

        Raises LeaseLostError, TaskEndedError, and the errors of the source and the store.
        """
        session = self.session
        # A copy cannot be interrupted. The first file of a session is tried regardless of its size, because no later
        # session has more time for it.
        needed = estimate_copy_time(record.file.size) if session.advanced else 0
        if session.is_out_of_time(needed=needed):
            session.paused = True
            return
        stored, left = self._store(record) if record.sha256 is None else (record, None)
        if stored is None:
            session.paused = True
            return
        session.advanced |= record.sha256 is None
        if not session.has_time_to_check():
            session.record_files([stored])
            session.paused = True
        else:
            session.renew(busy=MAX_CHECK_SECONDS)  # no heartbeat can be sent during the check
            checked = self.checks.check(stored)
            session.record_files(self.checks.add_opinions([checked], seconds=session.find_scan_time()))
        if left is not None:
            self._delete(left)

    def _store(self, record: FileRecord) -> tuple[FileRecord | None, str | None]:
        """Return the stored record, or None if time ran out, and the key of an object to delete, if there is one."""
        claims = self.opener.open_claims(record, lambda claims: self.kept.index(record, claims))
        stored = None
        if claims.find() is not None:
            self.kept.index(record, claims)
        else:
            stored = self.reuse.reuse(record, self.reuse.find_blobs([record.file.digest]))
            if stored is None:
                self.kept.take_over(record, claims)
        moved = self._stream(record, claims) if stored is None else None
        if moved is not None:
            stored = self._adopt(record, moved)
        if stored is not None:
            self.reuse.index([stored])
        return stored, moved.key if moved is not None and moved.key != record.staging_key else None

    def _stream(self, record: FileRecord, claims: SegmentClaims) -> Moved | None:
        """Return None if time ran out."""
        transfer = self.opener.open(record, claims, self.session)
        try:
            outcome = transfer.run()
        finally:
            self.session.advanced |= transfer.advanced
        return outcome if isinstance(outcome, Moved) else None

    def _adopt(self, record: FileRecord, moved: Moved) -> FileRecord | None:
        """Return the stored record. Copy the file if the upload that was taken over belongs to another key.

        Return None if there is no time for the copy. The next function finds that the upload is completed.
        """
        if moved.key == record.staging_key:
            return replace(record, sha256=moved.sha256, etag=moved.etag)
        blob = Blob(moved.sha256, moved.key, record.file.size, moved.etag)
        self.reuse.index_blob(record.file, blob)  # first, so that the next import finds it if this one ends now
        if self.session.advanced and self.session.is_out_of_time(needed=estimate_copy_time(record.file.size)):
            return None
        return self.reuse.adopt(record, blob)

    def _delete(self, key: str) -> None:
        try:
            self.reuse.store.delete([key])
        except StorageUnavailableError as error:  # the object expires
            logger.warning("copied object not deleted", extra={"key": key, "detail": error.detail})


def find_large_file(group: FileGroup, policy: TransferPolicy) -> FileRecord | None:
    """Return the file of the group that functions can transfer together, None if there is none."""
    unstored = (record for record in group.records if record.sha256 is None and not record.is_done)
    first = next(unstored, None)
    return first if first is not None and first.file.size > policy.small_file else None
