"""Forward reading of a file in windows, and the error of the format parsers."""

from collections.abc import Iterator

from modelhaul.domain.json_streams import ReadRange

WINDOW = 1024 * 1024  # bytes of one read
MAX_PIECE = 16 * 1024 * 1024  # bytes that `Cursor.take` returns at once
_MAX_SHIFT = 70  # bits: a varint of 64 bits has up to ten bytes of seven bits


class ContentError(Exception):
    """The content violates its format. The message is the reason of the report, in one line."""


def read_windows(read: ReadRange, start: int, end: int, window: int = WINDOW) -> Iterator[bytes]:
    """Yield bytes `start` to `end` (excluded), in pieces of at most `window` bytes."""
    for begin in range(start, end, window):
        yield read(begin, min(begin + window, end))


class Cursor:
    """A position in bytes `start` to `end` (excluded) of a file. `skip` does not read."""

    def __init__(self, read: ReadRange, start: int, end: int, window: int = WINDOW) -> None:
        self._read = read
        self._window = window
        self._buffer_start = start
        self._buffer = b""
        self.position = start
        self.end = end

    @property
    def left(self) -> int:
        return self.end - self.position

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes. Raises ContentError past the end, and for more than MAX_PIECE."""
        if count > MAX_PIECE:
            raise ContentError(f"Value has {count:,} bytes; the limit is {MAX_PIECE:,}")
        offset = self.position - self._buffer_start
        if offset + count > len(self._buffer):
            self._fill(count)
            offset = 0
        self.position += count
        return self._buffer[offset : offset + count]

    def skip(self, count: int) -> None:
        """Skip `count` bytes. Raises ContentError past the end."""
        if count > self.left:
            raise ContentError(f"Data ends within a value at byte {self.end:,}")
        self.position += count

    def take_varint(self) -> int:
        """Return a number of up to 64 bits in LEB128, in its shortest form. Raises ContentError."""
        value = shift = 0
        while shift < _MAX_SHIFT:
            offset = self.position - self._buffer_start
            if offset >= len(self._buffer):
                self._fill(1)
                offset = 0
            byte = self._buffer[offset]
            self.position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the last byte
                if value >> 64 or (shift and not byte):
                    break
                return value
            shift += 7
        raise ContentError(f"Varint that ends at byte {self.position:,} is not in its shortest form")

    def _fill(self, count: int) -> None:
        """Fill the buffer from the position, with `count` bytes or more. Raises ContentError."""
        if count > self.left:
            raise ContentError(f"Data ends within a value at byte {self.end:,}")
        offset = self.position - self._buffer_start
        kept = self._buffer[offset:] if offset >= 0 else b""
        wanted = min(max(count, self._window), self.left)
        self._buffer = kept + self._read(self.position + len(kept), self.position + wanted)
        self._buffer_start = self.position
