"""The transfer engine: one large file, from ranges of its source into an S3 multipart upload.

One function leads the transfer. It starts the upload, and completes it when all parts are stored and the digest is
verified. Other functions can join, and transfer segments. The recorded upload is also the checkpoint from which another
function continues.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from modelhaul.domain.digests import FileHasher
from modelhaul.domain.errors import (
    DigestMismatchError,
    FileTooLargeError,
    LeaseLostError,
    ModelhaulError,
    SourceChangedError,
    StorageUnavailableError,
    TaskEndedError,
    TransientError,
    UploadGoneError,
)
from modelhaul.domain.files import Part, SourceFile
from modelhaul.domain.objects import ObjectRange
from modelhaul.domain.segments import FileUpload
from modelhaul.ports.byte_streams import ByteStream
from modelhaul.ports.multipart_uploads import MultipartUploads
from modelhaul.transfer.lease import Lease
from modelhaul.transfer.mover import SegmentMover, Stop, count_buffers
from modelhaul.transfer.ranges import RangesIgnoredError
from modelhaul.transfer.segments import SegmentClaims, SegmentLostError
from modelhaul.transfer.settings import StreamSettings

logger = logging.getLogger(__name__)

_JOIN_PAUSE = 4  # polls; the record appears when the source has responded


@dataclass(frozen=True, slots=True)
class Moved:
    """All bytes are stored and verified. `key`: the object's key."""

    key: str
    sha256: str
    etag: str


@dataclass(frozen=True, slots=True)
class Paused:
    """The function's time is nearly over. The recorded upload says where other functions continue."""


@dataclass(frozen=True, slots=True)
class Left:
    """The function that joined has no segment left.

    `is_hashed`: nobody has, so the file can be completed. `may_return`: there may be segments for it later.
    """

    is_hashed: bool = False
    may_return: bool = False


def can_be_continued(file: SourceFile, settings: StreamSettings) -> bool:
    """Return whether another import can continue the upload of the file.

    Its digest must identify the content, and its upload must have more parts than a function has in memory: smaller
    uploads are usually not recorded.
    """
    part_size = settings.part_size(file.size)
    return file.digest.algorithm.identifies and file.size > part_size * count_buffers(part_size, settings)


@dataclass(slots=True, kw_only=True)
class FileTransfer:
    """Transfers `file`, and continues the upload that `claims` finds, if there is one. Otherwise, the upload creates
    the object `key`.

    `lease`: the function leads the transfer. Without it, the function joins the transfer that another function leads.
    `remaining` returns the seconds that the function has left. `origin`: the S3 object range that contains the file's
    bytes unchanged, if any. The bytes are then only read to verify them, and S3 copies the parts.
    """

    file: SourceFile
    key: str
    open_range: Callable[[int, int], ByteStream]
    uploads: MultipartUploads
    claims: SegmentClaims
    lease: Lease | None
    remaining: Callable[[], float]
    origin: ObjectRange | None = None
    settings: StreamSettings = field(default_factory=StreamSettings)
    advanced: bool = False
    """Whether this or another function stored and hashed bytes that were not recorded before."""

    _hasher: FileHasher | None = None
    _parts: list[Part] = field(default_factory=list)

    @property
    def _object_key(self) -> str:
        return self.claims.upload.object_key or self.key

    def run(self) -> Moved | Paused | Left:
        """Transfer until the file is stored and verified, the function's time is nearly over, or, without the lease,
        until other functions have all remaining segments.

        Raises the last error of the source or the store when all reconnects have failed. After a TransientError, what
        is stored is recorded. DigestMismatchError, SourceChangedError and UploadGoneError of the leading function
        discard the upload, so that the next transfer starts at the first byte. LeaseLostError and TaskEndedError
        discard nothing.
        """
        if self.lease is None:
            return self._join()
        if not self.claims.is_recorded and self.claims.find() is None:
            self.claims.start(
                FileUpload(
                    upload_id=self.uploads.create_upload(self.key),
                    size=self.file.size,
                    part_size=self.settings.part_size(self.file.size),
                    object_key=self.key if can_be_continued(self.file, self.settings) else None,
                )
            )
        try:
            outcome = Paused() if self._move() is Stop.OUT_OF_TIME else self._finish(self.lease)
        except (DigestMismatchError, SourceChangedError, UploadGoneError):
            self._discard(self.lease)
            raise
        except ModelhaulError:
            self._abort_unrecorded()
            raise
        if isinstance(outcome, Paused):
            self._abort_unrecorded()
        return outcome

    def _join(self) -> Paused | Left:
        waited = 0.0
        while (upload := self.claims.find()) is None and waited < self.settings.join:
            pause = self.settings.poll * _JOIN_PAUSE
            time.sleep(pause)
            waited += pause
        if upload is None:
            return Left(may_return=True)
        if not upload.ranged or upload.is_hashed:
            return Left(upload.is_hashed)
        logger.info("transfer joined", extra={"path": self.file.path, "offset": upload.offset})
        try:
            return Paused() if self._move() is Stop.OUT_OF_TIME else Left(self.claims.upload.is_hashed)
        except RangesIgnoredError:
            return Left()
        except (LeaseLostError, UploadGoneError):
            # A part that was being stored when the leading function aborted the upload may remain.
            # https://docs.aws.amazon.com/AmazonS3/latest/API/API_AbortMultipartUpload.html
            if self.claims.is_discarded():
                self.uploads.abort_upload(self._object_key, upload.upload_id)
            raise

    def _move(self) -> Stop:
        """Transfer segments, and release those that are incomplete at the end."""
        hashed = self.claims.upload.hashed
        stop = Stop.HASHED if self.claims.upload.is_hashed else Stop.RESTART
        while stop is Stop.RESTART:
            mover = SegmentMover(
                file=self.file,
                key=self._object_key,
                open_range=self.open_range,
                uploads=self.uploads,
                claims=self.claims,
                lease=self.lease,
                remaining=self.remaining,
                origin=self.origin,
                settings=self.settings,
            )
            try:
                stop = mover.run()
                if stop is Stop.OUT_OF_TIME:
                    self._check_resumable(mover)
                    self._save(mover)
                elif stop is Stop.NOTHING_LEFT:
                    self._release()
            except (SourceChangedError, UploadGoneError):
                if self.lease is None:
                    self._release()
                raise
            except (TransientError, TaskEndedError):  # another import can continue the upload of an ended one
                self._save(mover)
                raise
            except (ModelhaulError, RangesIgnoredError):
                self._release()
                raise
            finally:
                self.advanced |= self.claims.upload.hashed > hashed
                self._hasher = mover.hasher
                self._parts += mover.published
        return stop

    def _save(self, mover: SegmentMover) -> None:
        try:
            with suppress(SegmentLostError):
                mover.save()
        finally:
            self._release()

    def _release(self) -> None:
        try:
            self.claims.release()
        except ModelhaulError as error:  # the claims expire
            logger.warning("segments not released", extra={"path": self.file.path, "detail": error.detail})

    def _check_resumable(self, mover: SegmentMover) -> None:
        if not mover.is_resumable and mover.has_parts:
            raise FileTooLargeError(
                f"The transfer of {self.file.path} did not finish within one function invocation, and cannot be "
                "resumed because libcrypto 3 is not available.",
                remedy="Ask an operator to check the runtime of the functions.",
            )

    def _finish(self, lease: Lease) -> Moved:
        upload = self.claims.upload
        hasher = self._hasher
        if hasher is None or upload.hash_state is not None:
            hasher = FileHasher(self.file.digest, self.file.size, upload.hash_state)
        sha256 = hasher.verify(self.file.path)
        parts = self._parts if len(self._parts) == upload.count else self.claims.list_parts()
        if [part.number for part in parts] != list(range(1, upload.count + 1)):
            raise UploadGoneError(f"The record of the parts of {self.file.path} is incomplete.")
        # Another function may have leased the file while this function was delayed. Its object must not be replaced.
        lease.confirm()
        etag = self.uploads.complete_upload(self._object_key, upload.upload_id, parts, size=self.file.size)
        return Moved(self._object_key, sha256, etag)

    def _abort_unrecorded(self) -> None:
        """Abort the upload if no function can continue it."""
        if not self.claims.is_recorded:
            with suppress(StorageUnavailableError):
                self.uploads.abort_upload(self._object_key, self.claims.upload.upload_id)

    def _discard(self, lease: Lease) -> None:
        """Delete the record of the upload, then abort the upload.

        Without the lease, recording the offset raises LeaseLostError, and the upload is kept, because another function
        may be using it.
        """
        lease.record_offset(0)
        self.claims.delete()
        self.uploads.abort_upload(self._object_key, self.claims.upload.upload_id)
