"""Transfer of a large file in virtual time, with the real claims of segments."""

from collections.abc import Callable
from typing import Protocol

from bench.pace import Pace
from bench.virtual_time import VirtualTime
from modelhaul.domain.files import Part, SourceFile
from modelhaul.domain.segments import FileUpload
from modelhaul.transfer.engine import Left, Moved, Paused, can_be_continued
from modelhaul.transfer.lease import Lease
from modelhaul.transfer.segments import SegmentClaims
from modelhaul.transfer.settings import StreamSettings

_IDLE_PAUSE = 0.5  # seconds, as in modelhaul.transfer.mover
_JOIN_POLLS = 4  # as in modelhaul.transfer.engine


class VirtualStore(Protocol):
    def put_large(self, key: str, size: int) -> str: ...


class VirtualTransfer:
    """Replaces FileTransfer: takes the time to download, hash and store segments, and waits for those of other
    functions.

    A segment is hashed while it is downloaded, from the time at which the parts before it are hashed. If more than the
    last part is left, the function hashes it before it downloads more. Otherwise, it hashes and stores the last part
    while it downloads the next segment.
    """

    def __init__(
        self,
        *,
        time: VirtualTime,
        pace: Pace,
        file: SourceFile,
        key: str,
        uploads: VirtualStore,
        claims: SegmentClaims,
        lease: Lease | None,
        remaining: Callable[[], float],
        settings: StreamSettings,
        **_: object,
    ) -> None:
        self.advanced = False
        self._time, self._pace, self._file, self._key, self._store = time, pace, file, key, uploads
        self._claims, self._lease, self._remaining, self._settings = claims, lease, remaining, settings
        self._is_shared = lease is None
        self._segment: range | None = None  # downloaded, but not recorded
        self._complete_at = 0.0  # when it is hashed and stored
        self._received_at = 0.0  # when the download ended
        self._recorded = 0  # parts
        self._renewed = time()
        self._counted = 0

    def run(self) -> Moved | Paused | Left:
        claims, lease = self._claims, self._lease
        if lease is not None:
            self._start()
        elif (upload := self._await_upload()) is None or upload.is_hashed:
            return Left(may_return=upload is None)
        self._received_at, self._counted = self._time(), claims.upload.offset
        while True:
            if self._remaining() < self._settings.stop_before:
                self._record()
                claims.release()
                self._count(0)
                return Paused()
            self._is_shared |= claims.is_shared
            segment = claims.claim(self._settings.buffers, [self._segment] if self._segment else [])
            if segment is not None:
                self._move(segment)
            elif self._segment is not None:
                self._record()
            elif lease is None:
                return Left(claims.upload.is_hashed)
            elif claims.upload.is_hashed:
                break
            else:
                self._poll(claims.upload.count + 1)
            self._count(self._settings.progress)
        if self._recorded < claims.upload.count:
            claims.list_parts()
        lease.confirm()
        return Moved(self._key, self._file.digest.value, self._store.put_large(self._key, self._file.size))

    def _start(self) -> None:
        """Start the upload, or continue it."""
        claims, size = self._claims, self._file.size
        if not claims.is_recorded and claims.find() is None:
            key = self._key if can_be_continued(self._file, self._settings) else None
            part_size = self._settings.part_size(size)
            claims.start(FileUpload(upload_id="upload", size=size, part_size=part_size, object_key=key))
            self._time.pass_time(self._pace.other_s3)
        self._time.pass_time(self._pace.source_response)
        if claims.upload.count > self._settings.buffers:
            claims.record(source_etag="etag", ranged=True)

    def _await_upload(self) -> FileUpload | None:
        """Wait until the leading function has started the upload, for a limited time."""
        waited, pause = 0.0, _JOIN_POLLS * self._settings.poll
        while (upload := self._claims.find()) is None and waited < self._settings.join:
            self._time.pass_time(pause)
            waited += pause
        return upload

    def _move(self, segment: range) -> None:
        """Download the segment, and record the one before it meanwhile."""
        time, pace, claims = self._time, self._pace, self._claims
        part_size = claims.upload.part_size
        size = min(len(segment) * part_size, claims.upload.size - (segment.start - 1) * part_size)
        last = min(size, part_size)
        # A single function claims ahead, and continues with the same response.
        started_at = time() + pace.source_response if self._is_shared else self._received_at
        self._received_at = received_at = started_at + size / pace.rate
        continues = self._segment is not None and self._segment.stop == segment.start
        self._record()
        while claims.upload.hashed < segment.start - 1:
            self._poll(segment.start)
        late = last if continues else max(last, size - pace.busy_hash_rate * max(0.0, received_at - time()))
        hashed_at = max(received_at, time()) + late / pace.hash_rate
        self._segment, self._complete_at = segment, max(hashed_at, received_at + last / pace.rate)
        time.set_time(max(time(), hashed_at if late > last else received_at))
        if self._complete_at <= time():
            self._record()

    def _record(self) -> None:
        """Record the downloaded segment when it is hashed and stored."""
        if self._segment is None:
            return
        self._time.set_time(max(self._time(), self._complete_at))
        self._claims.advance([Part(number, "0" * 32, 0) for number in self._segment], bytes(208))
        self._recorded += len(self._segment)
        self._segment = None
        self.advanced = True

    def _poll(self, following: int) -> None:
        """Wait for the parts before `following`, and read the upload."""
        distance = (following - 1 - self._claims.upload.hashed) / self._settings.buffers
        self._time.pass_time(min(_IDLE_PAUSE, self._settings.poll * max(1, distance)))
        self._claims.refresh()
        if self._time() - self._renewed >= self._settings.heartbeat:
            self._claims.renew()
            self._renewed = self._time()
            if self._lease is not None:
                self._lease.renew()

    def _count(self, spacing: float) -> None:
        offset = self._claims.upload.offset
        if self._lease is not None and offset != self._counted and self._time() - self._renewed >= spacing:
            self._lease.record_offset(offset)
            self._counted, self._renewed = offset, self._time()
