"""The part of a file that one function transfers: segment after segment, until there is nothing left for it.

Each connection fills part buffers from a small pool, uploaders store full parts, and the hash follows in the file's
order. At any time at most `buffers` parts are in memory, whatever the file's size, and nothing touches the disk.

    source ──ranged GETs──► [part][part][part][part] ──UploadPart──► S3
                                 └─ sha256, in order; its state comes from the function with the segment before
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from modelhaul.domain.digests import FileHasher
from modelhaul.domain.errors import ModelhaulError
from modelhaul.domain.files import Part, SourceFile
from modelhaul.domain.objects import ObjectRange
from modelhaul.ports.byte_streams import ByteStream
from modelhaul.ports.multipart_uploads import MultipartUploads
from modelhaul.transfer.downloads import PartDownloader
from modelhaul.transfer.lease import Lease
from modelhaul.transfer.ranges import Connections
from modelhaul.transfer.segments import SegmentClaims, SegmentLostError
from modelhaul.transfer.settings import MIB, StreamSettings
from modelhaul.transfer.uploads import PartUploader
from modelhaul.transfer.window import PartBuffer, PartWindow

_BUFFER_BUDGET = 144 * MIB  # bytes; with the interpreter and its libraries, a function needs less than 256 MB
_TICK = 0.5  # seconds between two checks of the time


class Stop(Enum):
    """Why a function stopped."""

    HASHED = auto()  # the file is stored and hashed
    OUT_OF_TIME = auto()  # the function's time is nearly over
    NOTHING_LEFT = auto()  # other functions have all remaining segments
    RESTART = auto()  # the function must start again with other segments


def count_buffers(part_size: int, settings: StreamSettings) -> int:
    """Return the number of parts in memory. An upload with more parts is recorded when the source has responded."""
    return max(3, min(settings.buffers, _BUFFER_BUDGET // part_size))


@dataclass(slots=True, kw_only=True)
class SegmentMover:
    """Transfers segments of `file`. Its first segments are those that `claims` has already.

    `lease`: the function leads the transfer, and waits for the segments of other functions. None for other functions.
    """

    file: SourceFile
    key: str
    open_range: Callable[[int, int], ByteStream]
    uploads: MultipartUploads
    claims: SegmentClaims
    lease: Lease | None
    remaining: Callable[[], float]
    origin: ObjectRange | None
    settings: StreamSettings

    published: list[Part] = field(default_factory=list)
    """The parts that this function has stored and hashed."""
    is_resumable: bool = field(init=False)
    _segments: list[range] = field(init=False)
    _window: PartWindow = field(init=False)
    _connections: Connections = field(init=False)
    _downloader: PartDownloader = field(init=False)
    _uploader: PartUploader = field(init=False)
    _limit: int = field(init=False)  # parts of a segment, and of the memory
    _is_shared: bool = field(init=False)
    _polled_at: float = 0.0
    _progressed_at: float = 0.0
    _progress: tuple[int, int] = (0, 0)  # hashed parts of all functions, received bytes of this one
    _renewed_at: float = 0.0
    _counted: tuple[int, int] = (0, 0)  # hashed bytes of all functions, and those with what this one has received

    def __post_init__(self) -> None:
        upload, settings = self.claims.upload, self.settings
        self.is_resumable = FileHasher(self.file.digest, self.file.size).export_state() is not None
        self._limit = count_buffers(upload.part_size, settings)
        self._window = PartWindow(
            size=upload.size, part_size=upload.part_size, buffers=min(self._limit, upload.count - upload.hashed)
        )
        self._connections = Connections(
            file=self.file,
            open_range=self.open_range,
            settings=settings,
            stopping=self._window.stopping,
            limit=min(settings.connections, self._limit - 1),
            find_end=self._find_end,
            on_open=self._window.notify,
            needs_ranges=self.lease is None,
            etag=upload.source_etag,
        )
        self._uploader = PartUploader(
            uploads=self.uploads,
            key=self.key,
            upload_id=upload.upload_id,
            window=self._window,
            threads=settings.uploaders,
            origin=self.origin,
        )
        self._downloader = PartDownloader(
            connections=self._connections, window=self._window, on_received=self._uploader.upload_received
        )
        self._is_shared = self.lease is None or self.claims.is_shared
        self._segments = upload.list_segments(self.claims.owner)
        self._counted = (upload.offset, upload.offset)

    @property
    def hasher(self) -> FileHasher | None:
        return self._window.hasher

    @property
    def has_parts(self) -> bool:
        """Return whether the file has parts that are stored and hashed."""
        hashed = self.claims.upload.hashed
        return hashed > 0 or bool(self._window.read_done(hashed + 1)[0])

    def run(self) -> Stop:
        """Transfer segments until there is a reason to stop.

        Raises the first error of the source, the store and the lease. The parts that are stored by then can be saved.
        """
        window = self._window
        stop = Stop.RESTART
        for segment in self._segments:
            window.add(segment)
        try:
            self._downloader.start()
            stop = self._coordinate()
        except SegmentLostError:
            pass
        except ModelhaulError as error:
            window.fail(error)
        finally:
            window.stop()
            self._downloader.close()
            self._uploader.close()
            window.free()
        failure, window.error = window.error, None
        if failure is not None and stop is not Stop.HASHED:
            try:
                raise failure
            finally:
                # Without this, the traceback and `failure` form a reference cycle that keeps this frame in memory.
                del failure
        return stop

    def save(self) -> None:
        """Record the parts that are stored and hashed, of an incomplete segment as well.

        Raises LeaseLostError, SegmentLostError, TaskEndedError.
        """
        self._check_segments()
        hashed = self.claims.upload.hashed
        parts, states = self._window.read_done(hashed + 1)
        if parts and states[-1] is not None:
            self._record_upload()
            self._advance(parts, states[-1])
        offset = self.claims.upload.offset
        if self.lease is not None and (offset, offset) != self._counted:
            self._count(self.lease, offset, offset)

    def _find_end(self, part: PartBuffer) -> int:
        """Return the end of the function's segments, or beyond while no other function has a segment."""
        end = self._window.find_end(part)
        if self._is_shared:
            return end
        return max(end, min(part.start + part.filled + self.settings.span, self.file.size))

    def _coordinate(self) -> Stop:
        settings, window, claims = self.settings, self._window, self.claims
        self._renewed_at = self._progressed_at = time.monotonic()
        while True:
            if self.remaining() < settings.stop_before:
                return Stop.OUT_OF_TIME
            if self._connections.is_open and claims.upload.count > self._limit:
                self._record_upload()
            self._check_segments()
            self._publish()
            self._is_shared |= claims.is_shared
            if claims.upload.is_hashed:
                return Stop.HASHED
            now = time.monotonic()
            self._notice_progress(now)
            if (stop := self._find_work()) is not None:
                return stop
            self._send_heartbeats(now)
            self._downloader.widen_if_slow(now)
            window.wait(self._find_pause())
            if window.error is not None:
                return Stop.RESTART  # not carried out: `run` raises the error

    def _record_upload(self) -> None:
        if self.is_resumable:
            connections = self._connections
            self.claims.record(source_etag=connections.etag, ranged=connections.is_ranged)

    def _publish(self) -> None:
        """Record complete segments, and pass on the hash state at the end of the last one."""
        hashed = self.claims.upload.hashed
        parts, states = self._window.read_done(hashed + 1)
        complete = 0
        for segment in list(self._segments):
            if segment.stop - 1 <= hashed + len(parts):
                complete = segment.stop - 1
                self._segments.remove(segment)
        if complete > hashed:
            self._advance(parts[: complete - hashed], states[complete - hashed - 1])

    def _advance(self, parts: list[Part], state: bytes | None) -> None:
        self.claims.advance(parts, state)
        self.published += parts

    def _check_segments(self) -> None:
        """Raise SegmentLostError if another function has claimed one of the segments that this one works on.

        Its hash may continue from bytes that differ from the stored ones.
        """
        if not set(self._segments) <= set(self.claims.upload.list_segments(self.claims.owner)):
            raise SegmentLostError

    def _find_work(self) -> Stop | None:
        """Claim a segment if there is memory for it, and hash the first one if all parts before it are hashed."""
        claims, window = self.claims, self._window
        self._resume_hash()
        if window.needs_segment(ahead=not self._is_shared):
            # With several connections, a function claims single parts. Otherwise, the hash of a claimed part would wait
            # for parts that this function has not downloaded yet.
            limit = 1 if self._is_shared and self._connections.wanted > 1 else self._limit
            segment = claims.claim(limit, self._segments)
            if segment is not None:
                self._segments = sorted([*self._segments, segment], key=lambda s: s.start)
                window.add(segment)
                self._resume_hash()
            elif not self._segments and self.lease is None:
                return Stop.NOTHING_LEFT
        if self._is_waiting and time.monotonic() - self._polled_at >= self._find_pause():
            return self._poll()
        return None

    def _resume_hash(self) -> None:
        upload, following = self.claims.upload, self.claims.upload.hashed + 1
        if following > self._window.next_hashed and any(following in segment for segment in self._segments):
            self._window.resume_hash(following, FileHasher(self.file.digest, self.file.size, upload.hash_state))
            self._window.notify()

    @property
    def _is_waiting(self) -> bool:
        """Return whether other functions have the parts before the function's first segment, or all that is left."""
        return not self._segments or self._segments[0].start > self._window.next_hashed

    def _find_pause(self) -> float:
        """Return the seconds until the next reading of the upload, or the next check of the time."""
        upload = self.claims.upload
        if not self._is_waiting:
            return _TICK
        following = self._segments[0].start if self._segments else upload.count + 1
        distance = (following - 1 - upload.hashed) / self._limit
        return min(_TICK, self.settings.poll * max(1, distance))

    def _poll(self) -> Stop | None:
        """Read the upload. Take over the segment that all others wait for if nobody has it."""
        claims, hashed = self.claims, self.claims.upload.hashed
        claims.refresh()
        self._polled_at = time.monotonic()
        self._check_segments()
        if claims.upload.hashed > hashed:
            self._window.notify()
        elif self._segments and self._window.is_full and claims.take_over(self._limit):
            return Stop.RESTART
        elif self.lease is None and self._polled_at - self._progressed_at >= self.settings.patience:
            return Stop.NOTHING_LEFT
        return None

    def _notice_progress(self, now: float) -> None:
        progress = (self.claims.upload.hashed, self._connections.received)
        if progress != self._progress:
            self._progress, self._progressed_at = progress, now

    def _send_heartbeats(self, now: float) -> None:
        if now - self.claims.changed_at >= self.settings.heartbeat and self._segments:
            self.claims.renew()
        if self.lease is None:
            return
        upload = self.claims.upload
        moved = upload.offset + self._window.count_received(upload.hashed + 1)
        has_moved = (upload.offset, moved) != self._counted
        if now - self._renewed_at >= (self.settings.progress if has_moved else self.settings.heartbeat):
            if has_moved:
                self._count(self.lease, upload.offset, moved)
            else:
                self.lease.renew()
            self._renewed_at = now

    def _count(self, lease: Lease, hashed: int, moved: int) -> None:
        lease.record_offset(moved)
        self._counted = (hashed, moved)
