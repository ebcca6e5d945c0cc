"""The transfer engine: one large file, from ranges of its source into an S3 multipart upload.

Each connection fills part buffers from a small pool. Each chunk is hashed in the file's order when it arrives, and
uploaders send a part when it is full and hashed. At any time at most `buffers` parts are in memory, whatever the file's
size, and nothing touches the disk.

    source ──ranged GETs──► [part][part][part][part] ──UploadPart──► S3
                                 └─ sha256, crc32 in order
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from modelhaul.domain.digests import FileHasher
from modelhaul.domain.errors import (
    DigestMismatchError,
    FileTooLargeError,
    ModelhaulError,
    SourceChangedError,
    TransientError,
    UploadGoneError,
)
from modelhaul.domain.files import Checkpoint, SourceFile
from modelhaul.domain.objects import ObjectRange
from modelhaul.ports.byte_streams import ByteStream
from modelhaul.ports.multipart_uploads import MultipartUploads
from modelhaul.transfer.downloads import PartDownloader
from modelhaul.transfer.lease import Lease
from modelhaul.transfer.ranges import Connections
from modelhaul.transfer.settings import MIB, StreamSettings
from modelhaul.transfer.uploads import PartUploader
from modelhaul.transfer.window import PartWindow

_BUFFER_BUDGET = 144 * MIB  # bytes; with the interpreter and its libraries, a function needs less than 256 MB
_TICK = 0.5  # seconds between two checks of the time


@dataclass(frozen=True, slots=True)
class Moved:
    """All bytes are stored and verified."""

    sha256: str
    etag: str


@dataclass(frozen=True, slots=True)
class Paused:
    """The function's time is nearly over. The checkpoint says where the next function continues."""


@dataclass(slots=True, kw_only=True)
class FileTransfer:
    """Transfers `file` to `key`, from `checkpoint` on if there is one.

    `remaining` returns the seconds that the function has left. `origin`: the S3 object range that contains the file's
    bytes unchanged, if any. The bytes are then only read to verify them, and S3 copies the parts.
    """

    file: SourceFile
    key: str
    open_range: Callable[[int, int], ByteStream]
    uploads: MultipartUploads
    lease: Lease
    remaining: Callable[[], float]
    checkpoint: Checkpoint | None = None
    origin: ObjectRange | None = None
    settings: StreamSettings = field(default_factory=StreamSettings)

    _hasher: FileHasher = field(init=False)
    _window: PartWindow = field(init=False)
    _connections: Connections = field(init=False)
    _downloader: PartDownloader = field(init=False)
    _uploader: PartUploader = field(init=False)
    _saved_parts: int = 0

    def __post_init__(self) -> None:
        file, point = self.file, self.checkpoint
        self._hasher = FileHasher(file.digest, file.size, point.hash_state if point is not None else None)
        self._window = PartWindow(
            size=file.size,
            part_size=point.part_size if point is not None else self.settings.part_size(file.size),
            hasher=self._hasher,
            parts=point.parts if point is not None else (),
            state=point.hash_state if point is not None else None,
        )
        self._saved_parts = len(self._window.parts)

    def run(self) -> Moved | Paused:
        """Transfer until the file is stored and verified, or the function's time is nearly over.

        Raises the last error of the source or the store when all reconnects have failed. After a TransientError, the
        uploaded parts are saved in a checkpoint. DigestMismatchError, SourceChangedError and UploadGoneError discard
        the upload and the checkpoint instead, so that the next transfer starts at the first byte. LeaseLostError and
        TaskEndedError discard nothing.
        """
        self._begin()
        try:
            if not self._window.is_stored and self._move():
                self._pause()
                return Paused()
            return self._finish()
        except (DigestMismatchError, SourceChangedError, UploadGoneError):
            self._discard()
            raise
        except TransientError:
            self._save()
            raise

    @property
    def advanced(self) -> bool:
        """Return whether this transfer stored bytes that no checkpoint had before."""
        return self._window.stored_bytes > (self.checkpoint.offset if self.checkpoint else 0)

    def _begin(self) -> None:
        point = self.checkpoint
        self._uploader = PartUploader(
            uploads=self.uploads,
            key=self.key,
            upload_id=point.upload_id if point is not None else self.uploads.create_upload(self.key),
            window=self._window,
            threads=self.settings.uploaders,
            origin=self.origin,
        )
        buffers = max(3, min(self.settings.buffers, _BUFFER_BUDGET // self._window.part_size))
        self._window.allocate(buffers)
        self._connections = Connections(
            file=self.file,
            open_range=self.open_range,
            settings=self.settings,
            stopping=self._window.stopping,
            limit=min(self.settings.connections, buffers - 1),
            etag=point.source_etag if point is not None else None,
        )
        self._downloader = PartDownloader(
            connections=self._connections, window=self._window, on_received=self._uploader.upload_received
        )

    def _move(self) -> bool:
        """Return True if the function's time is nearly over, False when all parts are stored."""
        paused = False
        try:
            self._downloader.start()
            paused = self._watch()
        except ModelhaulError as error:
            self._window.fail(error)
        finally:
            self._window.stop()
            self._downloader.close()
            self._uploader.close()
            self._window.free()
        failure, self._window.error = self._window.error, None
        if failure is not None:
            try:
                raise failure
            finally:
                # Without this, the traceback and `failure` form a reference cycle that keeps this frame in memory.
                del failure
        return paused

    def _watch(self) -> bool:
        settings, window, connections = self.settings, self._window, self._connections
        saved = renewed = measured = time.monotonic()
        spacing = max(settings.checkpoint_bytes, self.file.size // settings.checkpoints)
        received = connections.received
        while window.wait(_TICK):
            now = time.monotonic()
            if self.remaining() < settings.stop_before:
                return True
            new_parts = len(window.parts) - self._saved_parts
            if new_parts and (new_parts * window.part_size >= spacing or now - saved >= settings.heartbeat):
                self._save()
                saved = renewed = now
            elif now - renewed >= settings.heartbeat:
                self.lease.renew()
                renewed = now
            if now - measured >= settings.rate_window:
                self._downloader.widen((connections.received - received) / (now - measured))
                measured, received = now, connections.received
        return False

    def _save(self) -> None:
        parts, state = self._window.read_stored()
        if state is None or len(parts) == self._saved_parts:
            return
        self.lease.save_checkpoint(
            Checkpoint(
                upload_id=self._uploader.upload_id,
                part_size=self._window.part_size,
                offset=min(len(parts) * self._window.part_size, self.file.size),
                parts=parts,
                hash_state=state,
                source_etag=self._connections.etag,
            )
        )
        self._saved_parts = len(parts)

    def _pause(self) -> None:
        if self._window.parts and self._window.state is None:
            raise FileTooLargeError(
                f"The transfer of {self.file.path} did not finish within one function invocation, and cannot be "
                "resumed because libcrypto 3 is not available. Ask an operator to check the runtime of the functions."
            )
        self._save()

    def _finish(self) -> Moved:
        sha256 = self._hasher.verify(self.file.path)
        # If this function dies after the next call, the checkpoint covers the whole file, and the next function does
        # not read the source again.
        self._save()
        # Another function may have leased the file while this function was delayed. Its object must not be replaced.
        self.lease.confirm()
        etag = self.uploads.complete_upload(self.key, self._uploader.upload_id, self._window.parts, size=self.file.size)
        return Moved(sha256, etag)

    def _discard(self) -> None:
        """Delete the checkpoint, then abort the upload.

        Without the lease, deleting the checkpoint raises LeaseLostError, and the upload is kept, because another
        function may be using it.
        """
        self.lease.discard_checkpoint()
        self.uploads.abort_upload(self.key, self._uploader.upload_id)
