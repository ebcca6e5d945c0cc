"""The transfer engine: one large file, from a source's ranges into an S3 multipart upload.

Fetchers fill part buffers from a small pool, every chunk is hashed in the file's order as it arrives, and
uploaders send a part as soon as it is full and hashed. At any time at most `buffers` parts are in memory, whatever
the file's size, and nothing touches the disk.

    source ──ranged GETs──► [part][part][part][part] ──UploadPart──► S3
                                 └─ sha256, crc32 in order
"""

import heapq
import logging
import math
import mmap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from isal import isal_zlib

from modelhaul.domain.digests import FileHasher
from modelhaul.domain.errors import (
    DigestMismatchError,
    FileTooLargeError,
    ModelhaulError,
    RateLimitedError,
    SourceChangedError,
    SourceUnavailableError,
    TransientError,
    UnexpectedResponseError,
    UploadGoneError,
)
from modelhaul.domain.files import Checkpoint, Part, SourceFile
from modelhaul.domain.objects import ObjectRange
from modelhaul.ports.byte_streams import ByteStream
from modelhaul.ports.object_store import ObjectStore

logger = logging.getLogger(__name__)

MIB = 1024 * 1024
MAX_PARTS = 10_000  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_BUFFER_BUDGET = 144 * MIB  # with the interpreter and its libraries this stays below 256 MB
_TICK = 0.5  # seconds between two looks at the clock


def choose_part_size(size: int) -> int:
    """Bytes of a part for a file of `size` bytes: 16 MiB up to 1 GiB, then 32 MiB, and above as 10,000 parts ask."""
    base = 16 * MIB if size <= 1024 * MIB else 32 * MIB
    needed = math.ceil(size / MAX_PARTS / (16 * MIB)) * 16 * MIB
    return max(base, needed)


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How a file is moved. Rates are bytes per second, times seconds, sizes bytes."""

    part_size: Callable[[int], int] = choose_part_size
    buffers: int = 4
    uploaders: int = 2
    connections: int = 3
    slow_rate: float = 60e6  # below this another connection may help: a function's network carries about 75 MB/s
    rate_window: float = 2.0
    chunk: int = 256 * 1024  # small enough that the hash finds it in the CPU's cache
    span: int = 8 * 1024 * MIB  # one GET: large as each costs a resolver request, bounded as some hosts refuse more
    reconnects: int = 3  # for each part, before the failure is the pipeline's to retry
    reconnect_delay: float = 0.5
    checkpoint_bytes: int = 256 * MIB
    checkpoints: int = 32  # of a file, but for the heartbeat's: each writes the list of all its parts anew
    heartbeat: float = 20.0
    stop_before: float = 75.0  # time kept at the end for what is in flight: a connection that opens, the uploads


@dataclass(frozen=True, slots=True)
class Moved:
    """All bytes are stored and verified."""

    sha256: str
    etag: str


@dataclass(frozen=True, slots=True)
class Paused:
    """The function's time is nearly over; the checkpoint says where to go on."""


@dataclass(slots=True)
class _Slot:
    """One part on its way. `filled` grows in its fetcher, `hashed` under the hash lock."""

    number: int
    start: int
    size: int
    buffer: memoryview
    filled: int = 0
    hashed: int = 0
    crc32: int = 0
    state: bytes | None = None


@dataclass(slots=True)
class _Span:
    """An open answer: `position` is where in the file its next byte belongs, `end` where it was asked to end."""

    stream: ByteStream
    position: int
    end: int


def _close(span: _Span | None) -> None:
    if span is not None:
        span.stream.close()


class _RangesIgnoredError(Exception):
    """A further connection got the whole file: the first one alone can go on."""


@dataclass(slots=True, kw_only=True)
class FileStream:
    """Moves `file` to `key`, from `checkpoint` on if there is one.

    `save` stores a checkpoint (None discards it) and may raise LeaseLostError or TaskEndedError, which end the
    move; `beat` is called between checkpoints to keep the lease; `remaining` gives the function's seconds left.
    If the file's bytes lie in S3 as they are, at `origin`, they are read to be verified, and S3 copies the parts.
    """

    file: SourceFile
    key: str
    open_range: Callable[[int, int], ByteStream]
    store: ObjectStore
    save: Callable[[Checkpoint | None], None]
    beat: Callable[[], None]
    remaining: Callable[[], float]
    checkpoint: Checkpoint | None = None
    origin: ObjectRange | None = None
    settings: StreamSettings = field(default_factory=StreamSettings)

    _upload_id: str = ""
    _part_size: int = 0
    _count: int = 0
    _etag: str | None = None
    _hasher: FileHasher = field(init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _hash_lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _error: BaseException | None = None
    _free: list[memoryview] = field(default_factory=list)
    _window: dict[int, _Slot] = field(default_factory=dict)
    _returned: list[tuple[int, _Slot]] = field(default_factory=list)
    _next_fetch: int = 1
    _next_hash: int = 1
    _ahead: dict[int, tuple[Part, bytes | None]] = field(default_factory=dict)
    _parts: list[Part] = field(default_factory=list)
    _state: bytes | None = None
    _saved_parts: int = 0
    _wanted: int = 1
    _limit: int = 1
    _fetchers: list[threading.Thread] = field(default_factory=list)
    _spans: dict[int, _Span] = field(default_factory=dict)
    _uploads: ThreadPoolExecutor = field(init=False)
    _received: int = 0

    def run(self) -> Moved | Paused:
        """Moves until the file is stored and verified, or time is nearly over.

        Raises what the source and the store raise once reconnecting did not help; what was uploaded by then is
        checkpointed. DigestMismatchError, SourceChangedError and UploadGoneError discard the upload and the
        checkpoint: the next try starts from the first byte.
        """
        self._begin()
        try:
            if self._stored_bytes < self.file.size and self._move():
                self._pause()
                return Paused()
            return self._finish()
        except (DigestMismatchError, SourceChangedError, UploadGoneError):
            self._discard()
            raise
        except TransientError:
            self._save()
            raise

    def _discard(self) -> None:
        """Ends the upload, and discards the checkpoint. Raises what `save` raises: then another function may be at work
        with an upload that a checkpoint names, which stays.
        """
        if self.checkpoint is None and not self._saved_parts:
            self.store.abort_upload(self.key, self._upload_id)  # no checkpoint names it
            self.save(None)
            return
        self.save(None)
        self.store.abort_upload(self.key, self._upload_id)

    @property
    def advanced(self) -> bool:
        """Whether this run stored bytes that no checkpoint had before."""
        return self._stored_bytes > (self.checkpoint.offset if self.checkpoint else 0)

    @property
    def _stored_bytes(self) -> int:
        return min(len(self._parts) * self._part_size, self.file.size)

    def _begin(self) -> None:
        point = self.checkpoint
        if point is None:
            self._part_size = self.settings.part_size(self.file.size)
            self._hasher = FileHasher(self.file.digest, self.file.size)
            self._upload_id = self.store.create_upload(self.key)
        else:
            self._part_size, self._upload_id, self._etag = point.part_size, point.upload_id, point.source_etag
            self._hasher = FileHasher(self.file.digest, self.file.size, point.hash_state)
            self._parts, self._state = list(point.parts), point.hash_state
        self._saved_parts = len(self._parts)
        self._next_fetch = self._next_hash = len(self._parts) + 1
        self._count = math.ceil(self.file.size / self._part_size)
        buffers = max(3, min(self.settings.buffers, _BUFFER_BUDGET // self._part_size))
        self._limit = min(self.settings.connections, buffers - 1)
        # Anonymous maps, because freeing one gives the memory back at once.
        missing = min(buffers, self._count - len(self._parts))
        self._free = [memoryview(mmap.mmap(-1, self._part_size)) for _ in range(missing)]

    def _move(self) -> bool:
        """True if it stopped for want of time, False once every part is uploaded."""
        self._uploads = ThreadPoolExecutor(self.settings.uploaders, thread_name_prefix="upload")
        paused = False
        try:
            self._start_fetcher()
            paused = self._watch()
        except ModelhaulError as error:
            self._fail(error)
        finally:
            self._stopping.set()
            with self._changed:
                self._changed.notify_all()
                open_spans = list(self._spans.values())
            for span in open_spans:
                span.stream.close()  # a read that waits for a slow source ends now
            for thread in self._fetchers:
                thread.join()
            self._uploads.shutdown(wait=True)
            # Nothing may hold on to the buffers, or a warm function keeps them until its garbage is collected.
            self._free, self._window, self._returned = [], {}, []
        failure, self._error = self._error, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # with the traceback it would be a circle that holds this frame
        return paused

    def _watch(self) -> bool:
        saved = beaten = measured = time.monotonic()
        spacing = max(self.settings.checkpoint_bytes, self.file.size // self.settings.checkpoints)
        received = self._received
        while True:
            with self._changed:
                if self._error is not None or len(self._parts) == self._count:
                    return False
                self._changed.wait(_TICK)
            now = time.monotonic()
            if self.remaining() < self.settings.stop_before:
                return True
            new_parts = len(self._parts) - self._saved_parts
            if new_parts and (new_parts * self._part_size >= spacing or now - saved >= self.settings.heartbeat):
                self._save()
                saved = beaten = now
            elif now - beaten >= self.settings.heartbeat:
                self.beat()
                beaten = now
            if now - measured >= self.settings.rate_window:
                self._widen((self._received - received) / (now - measured))
                measured, received = now, self._received

    def _widen(self, rate: float) -> None:
        """Opens one more connection if the source is what we wait for."""
        waiting_for_uploads = self._next_hash - 1 - len(self._parts) >= self.settings.uploaders
        if self._wanted < self._limit and rate < self.settings.slow_rate and not waiting_for_uploads:
            self._wanted += 1
            self._start_fetcher()

    def _pause(self) -> None:
        if self._parts and self._state is None:
            raise FileTooLargeError(
                f"{self.file.path} does not fit into one function's time, and without libcrypto 3 its move "
                "cannot be continued by another"
            )
        self._save()

    def _start_fetcher(self) -> None:
        index = len(self._fetchers)
        thread = threading.Thread(target=self._fetch, args=(index,), name=f"fetch-{index}", daemon=True)
        self._fetchers.append(thread)
        thread.start()

    def _fetch(self, index: int) -> None:
        span: _Span | None = None
        try:
            while (slot := self._take_slot(index)) is not None:
                try:
                    span = self._fill(slot, span, index)
                except _RangesIgnoredError:
                    with self._changed:
                        self._limit = self._wanted = 1
                        heapq.heappush(self._returned, (slot.number, slot))
                        self._changed.notify_all()
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread, which raises it
            self._fail(error)
        finally:
            _close(span)

    def _take_slot(self, index: int) -> _Slot | None:
        """The next part to fetch, in order, once a buffer is free; None when there is nothing left to do."""
        with self._changed:
            while not self._stopping.is_set() and index < self._wanted:
                if self._returned:
                    return heapq.heappop(self._returned)[1]
                if self._free and self._next_fetch <= self._count:
                    number = self._next_fetch
                    self._next_fetch += 1
                    start = (number - 1) * self._part_size
                    size = min(self._part_size, self.file.size - start)
                    slot = self._window[number] = _Slot(number, start, size, self._free.pop())
                    return slot
                self._changed.wait()
        return None

    def _fill(self, slot: _Slot, span: _Span | None, index: int) -> _Span | None:
        """Fills the part, from the open span if that stands just before it, reconnecting when it breaks."""
        failures = 0
        while slot.filled < slot.size and not self._stopping.is_set():
            position = slot.start + slot.filled
            try:
                if span is None or span.position != position or span.position == span.end:
                    _close(span)
                    span = None
                    span = self._open_span(slot, index)
                want = min(self.settings.chunk, slot.size - slot.filled, span.end - position)
                received = span.stream.readinto(slot.buffer[slot.filled : slot.filled + want])
                if received == 0:
                    raise SourceUnavailableError(f"{self.file.path}: the source's answer ended early")
            except TransientError as error:
                if self._stopping.is_set():
                    break
                if isinstance(error, RateLimitedError | SourceChangedError) or failures == self.settings.reconnects:
                    raise
                _close(span)
                span = None
                logger.info(
                    "the source's answer broke off; asking again for the rest",
                    extra={"path": self.file.path, "offset": position, "reason": error.detail},
                )
                self._stopping.wait(self.settings.reconnect_delay * 2**failures)
                failures += 1
                continue
            slot.filled += received
            span.position += received
            self._received += received
            if slot.number == self._next_hash or slot.filled == slot.size:
                self._hash_ready()
        return span

    def _open_span(self, slot: _Slot, index: int) -> _Span:
        start = slot.start + slot.filled
        # Alone, a connection reads on through the parts that follow; beside others each reads its own part.
        end = slot.start + slot.size if self._wanted > 1 else min(start + self.settings.span, self.file.size)
        stream = self.open_range(start, end)
        try:
            with self._changed:
                if self._etag is None:
                    self._etag = stream.etag
                elif stream.etag is not None and stream.etag != self._etag:
                    raise SourceChangedError(f"{self.file.path} changed at its source while it was being read")
                if not stream.ranged:
                    end = self.file.size
                    if index == 0:
                        self._limit = self._wanted = 1
            if stream.offset > start:
                raise UnexpectedResponseError(f"{self.file.path}: the source sent bytes from beyond what was asked for")
            if stream.offset < start and index > 0:
                raise _RangesIgnoredError
            self._skip(stream, start - stream.offset, slot.buffer[slot.filled : slot.size])
        except BaseException:
            stream.close()
            raise
        with self._changed:
            span = self._spans[index] = _Span(stream, start, end)
            if self._stopping.is_set():  # too late for _move to close it
                stream.close()
        return span

    def _skip(self, stream: ByteStream, count: int, scratch: memoryview) -> None:
        while count and not self._stopping.is_set():
            received = stream.readinto(scratch[: min(count, len(scratch), self.settings.chunk)])
            if received == 0:
                raise SourceUnavailableError(f"{self.file.path}: the source's answer ended early")
            count -= received

    def _hash_ready(self) -> None:
        """Hashes all that has arrived in order, and hands each part that is whole to the uploaders."""
        with self._hash_lock:
            while (slot := self._window.get(self._next_hash)) is not None:
                filled = slot.filled
                while slot.hashed < filled:
                    piece = slot.buffer[slot.hashed : min(slot.hashed + MIB, filled)]
                    self._hasher.update(piece)
                    slot.crc32 = isal_zlib.crc32(piece, slot.crc32)
                    slot.hashed += len(piece)
                if slot.hashed < slot.size:
                    return
                slot.state = self._hasher.export_state()
                self._next_hash += 1
                self._uploads.submit(self._upload, slot)

    def _upload(self, slot: _Slot) -> None:
        try:
            part = self._store_part(slot)
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread, which raises it
            self._fail(error)
            return
        with self._changed:
            self._ahead[slot.number] = (part, slot.state)
            while (following := self._ahead.pop(len(self._parts) + 1, None)) is not None:
                self._parts.append(following[0])
                self._state = following[1]
            del self._window[slot.number]
            self._free.append(slot.buffer)
            self._changed.notify_all()

    def _store_part(self, slot: _Slot) -> Part:
        if self.origin is None:
            body = slot.buffer[: slot.size]
            return self.store.upload_part(self.key, self._upload_id, slot.number, body, crc32=slot.crc32)
        start = self.origin.start + slot.start
        source = replace(self.origin, start=start, end=start + slot.size)
        return self.store.copy_part(self.key, self._upload_id, slot.number, source, crc32=slot.crc32)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._error is None:
                self._error = error
            self._stopping.set()
            self._changed.notify_all()

    def _save(self) -> None:
        with self._changed:
            parts, state = tuple(self._parts), self._state
        if state is None or len(parts) == self._saved_parts:
            return
        self.save(
            Checkpoint(
                upload_id=self._upload_id,
                part_size=self._part_size,
                offset=min(len(parts) * self._part_size, self.file.size),
                parts=parts,
                hash_state=state,
                source_etag=self._etag,
            )
        )
        self._saved_parts = len(parts)

    def _finish(self) -> Moved:
        sha256 = self._hasher.verify(self.file.path)
        # A function that dies after the next call finds the whole file here, and reads nothing again.
        self._save()
        # One that was held up so long that another has the file now must not replace what that one stored.
        self.beat()
        etag = self.store.complete_upload(self.key, self._upload_id, self._parts, size=self.file.size)
        return Moved(sha256, etag)
