"""Read the ranges of one file from its source, over several connections."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from modelhaul.domain.errors import (
    ContentMismatchError,
    ModelhaulError,
    RateLimitedError,
    SourceChangedError,
    SourceUnavailableError,
    TransientError,
    UnexpectedResponseError,
)
from modelhaul.domain.files import SourceFile
from modelhaul.ports.byte_streams import ByteStream
from modelhaul.transfer.settings import StreamSettings
from modelhaul.transfer.window import PartBuffer

logger = logging.getLogger(__name__)


class RangesIgnoredError(Exception):
    """The source returned the whole file instead of a range, so only the first connection of the first function can
    continue.
    """


@dataclass(slots=True, kw_only=True)
class Connections:
    """State that the connections to a file's source share.

    `find_end` returns the end of the bytes that a single connection should request from the start of a part on.
    `on_open` is called after the first response. `needs_ranges`: other functions read other segments of the file.
    `etag`: the source's ETag of the content. `wanted`: the desired number of connections, at most `limit`. `received`:
    the number of received bytes. `is_ranged`: the source has not ignored a range. `stopping` ends every read.
    """

    file: SourceFile
    open_range: Callable[[int, int], ByteStream]
    settings: StreamSettings
    stopping: threading.Event
    limit: int
    find_end: Callable[[PartBuffer], int]
    on_open: Callable[[], None]
    needs_ranges: bool = False
    etag: str | None = None
    wanted: int = 1
    received: int = 0
    is_open: bool = False
    is_ranged: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _streams: dict[int, ByteStream] = field(default_factory=dict)

    def keep_one(self) -> None:
        """Continue with the first connection only."""
        with self._lock:
            self.limit = self.wanted = 1
            self.is_ranged = False

    def check_content(self, stream: ByteStream) -> None:
        """Raise SourceChangedError if the stream has other content than the first stream."""
        with self._lock:
            if self.etag is None:
                self.etag = stream.etag
            elif stream.etag is not None and stream.etag != self.etag:
                raise SourceChangedError(f"{self.file.path} changed at its source during the transfer.")

    def register(self, index: int, stream: ByteStream) -> None:
        """Register the stream of connection `index`, so that `close` closes it."""
        with self._lock:
            self._streams[index] = stream
            if self.stopping.is_set():  # `close` may have run already
                stream.close()

    def close(self) -> None:
        """Close all streams, which ends reads that wait for a slow source."""
        with self._lock:
            streams = list(self._streams.values())
        for stream in streams:
            stream.close()


@dataclass(slots=True)
class _Span:
    """An open response. `position`: the offset in the file of its next byte. `end`: the end of its range."""

    stream: ByteStream
    position: int
    end: int


def _is_outage(error: ModelhaulError) -> bool:
    return isinstance(error, TransientError) and error.is_outage


@dataclass(slots=True)
class RangeReader:
    """One connection: fills parts, and reconnects when the response breaks."""

    connections: Connections
    index: int
    _span: _Span | None = None

    def fill(self, part: PartBuffer, on_received: Callable[[PartBuffer], None]) -> None:
        """Fill the part. Use the open response if its next byte is the next byte of the part, else a new request.

        `on_received` is called after each read. Returns early if the transfer is stopping. Raises RangesIgnoredError,
        SourceChangedError, RateLimitedError, and the last error of the source when all reconnects have failed. A
        ContentMismatchError also has reconnects: a single response can be wrong.
        """
        connections, failures = self.connections, 0
        stopping, settings = connections.stopping, connections.settings
        while part.filled < part.size and not stopping.is_set():
            try:
                received = self._read(part)
            except (TransientError, ContentMismatchError) as error:
                if stopping.is_set():
                    return
                if isinstance(error, RateLimitedError | SourceChangedError) or failures == settings.reconnects:
                    raise
                if settings.is_outage and not connections.is_open and _is_outage(error):
                    raise
                self.close()
                logger.info(
                    "connection interrupted; reconnecting",
                    extra={
                        "path": connections.file.path,
                        "offset": part.start + part.filled,
                        "detail": error.detail,
                    },
                )
                stopping.wait(settings.reconnect_delay * 2**failures)
                failures += 1
                continue
            part.filled += received
            connections.received += received
            on_received(part)

    def close(self) -> None:
        """Close the open response, if there is one."""
        if self._span is not None:
            self._span.stream.close()
        self._span = None

    def _read(self, part: PartBuffer) -> int:
        position = part.start + part.filled
        if self._span is None or self._span.position != position or self._span.position == self._span.end:
            self.close()
            self._span = self._open_span(part)
        span = self._span
        wanted = min(self.connections.settings.chunk, part.size - part.filled, span.end - position)
        received = self._read_some(span.stream, part.buffer[part.filled : part.filled + wanted])
        span.position += received
        return received

    def _open_span(self, part: PartBuffer) -> _Span:
        connections = self.connections
        start = part.start + part.filled
        # A single connection requests the following parts in the same response. With several connections, each requests
        # only its own part.
        end = connections.find_end(part) if connections.wanted == 1 else part.start + part.size
        stream = connections.open_range(start, end)
        try:
            connections.check_content(stream)
            if not stream.ranged:
                end = connections.file.size
                if connections.needs_ranges:
                    raise RangesIgnoredError
                if self.index == 0:
                    connections.keep_one()
            if stream.offset > start:
                raise UnexpectedResponseError(
                    f"{connections.file.path}: the source returned bytes starting at {stream.offset:,} instead of "
                    f"{start:,}."
                )
            if stream.offset < start and self.index > 0:
                raise RangesIgnoredError
            self._skip(stream, start - stream.offset, part.buffer[part.filled : part.size])
        except BaseException:
            stream.close()
            raise
        connections.register(self.index, stream)
        if not connections.is_open:
            connections.is_open = True
            connections.on_open()
        return _Span(stream, start, end)

    def _skip(self, stream: ByteStream, count: int, scratch: memoryview) -> None:
        while count and not self.connections.stopping.is_set():
            count -= self._read_some(stream, scratch[: min(count, len(scratch), self.connections.settings.chunk)])

    def _read_some(self, stream: ByteStream, buffer: memoryview) -> int:
        received = stream.readinto(buffer)
        if received == 0:
            raise SourceUnavailableError(f"{self.connections.file.path}: the source's response ended early.")
        return received
