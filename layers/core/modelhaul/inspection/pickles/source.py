"""The bytes of a pickle, read in windows, with the limits of the inspection and the frames of protocol 4."""

from dataclasses import dataclass
from typing import Final, Never

from modelhaul.domain.json_streams import ReadRange

_MAX_OPCODES = 4_000_000  # in all pickles of a file
_MAX_FILE_READ = 1024 * 1024 * 1024  # bytes read for all pickles of a file
_MAX_SOURCE_READ = 64 * 1024 * 1024  # bytes read by one source; skipped data is not read
_MAX_LINE = 4 * 1024 * 1024  # bytes of an argument that ends with a newline
_FIRST_WINDOW = 64 * 1024  # bytes of the first read; each further read is four times as large
_WINDOW_AFTER_SKIP = 16 * 1024  # bytes of the first read after skipped data
_LAST_WINDOW = 1024 * 1024
_MAX_NOTES = 20
_NO_FRAME: Final = 2**64


class DeadStreamError(Exception):
    """Every unpickler fails at this byte."""


class NotCanonicalError(Exception):
    """Unpicklers continue after this byte, but read different opcodes. No pickler writes this.

    The message continues the sentence "Pickle …".
    """


class LimitError(Exception):
    """The pickle exceeds a limit of the inspection."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that no pickler writes, at byte `position` of the file. `message` continues the sentence "Pickle …"."""

    message: str
    position: int

    def __str__(self) -> str:
        return f"Pickle {self.message} (byte {self.position:,})"


@dataclass(slots=True)
class Budget:
    """Opcodes and bytes that may still be read of the pickles in one file and in its archives."""

    opcodes: int = _MAX_OPCODES
    size: int = _MAX_FILE_READ


class Source:
    """Bytes `start` to `end` (excluded) of a file, read in windows of up to 1 MiB.

    `notes` are the first 20 deviations from canonical pickles. Methods raise what `read` raises.
    """

    __slots__ = (
        "_budget",
        "_frame_end",
        "_offset",
        "_opcode_position",
        "_read",
        "_remaining",
        "_window",
        "_window_size",
        "_window_start",
        "end",
        "notes",
    )

    def __init__(self, read: ReadRange, start: int, end: int, budget: Budget | None = None) -> None:
        self._read = read
        self._window = b""
        self._window_start = start  # position in the file
        self._window_size = _FIRST_WINDOW  # of the next read
        self._offset = 0  # in the window
        self._opcode_position = start
        self._budget = budget or Budget()
        self._remaining = _MAX_SOURCE_READ
        self._frame_end = _NO_FRAME
        self.end = end
        self.notes: list[Note] = []

    @property
    def opcode_position(self) -> int:
        return self._opcode_position

    @property
    def position(self) -> int:
        return self._window_start + self._offset

    def note(self, message: str) -> None:
        if len(self.notes) < _MAX_NOTES:
            self.notes.append(Note(message, self._opcode_position))

    def read_opcode(self) -> int:
        """Return the next byte. Notes refer to its position. Raises DeadStreamError and LimitError."""
        self._budget.opcodes -= 1
        if self._budget.opcodes < 0:
            raise LimitError
        if self._offset == len(self._window):
            self._fill(1)
        self._opcode_position = self._window_start + self._offset
        byte = self._window[self._offset]
        self._offset += 1
        return byte

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes. Raises DeadStreamError if there are fewer, and NotCanonicalError."""
        stop = self._offset + count
        if self._window_start + stop > self._frame_end:
            self._refuse_split_opcode()
        if stop > len(self._window):
            self._fill(count)
            stop = self._offset + count
        data = self._window[self._offset : stop]
        self._offset = stop
        return data

    def take_number(self, count: int) -> int:
        """Return an unsigned number of `count` bytes. Raises DeadStreamError and NotCanonicalError."""
        return int.from_bytes(self.take(count), "little")

    def take_line(self, limit: int = _MAX_LINE) -> tuple[bytes, bool]:
        """Return the bytes up to the next newline or the end, and whether there is a newline.

        Raises LimitError for more than `limit` bytes, and NotCanonicalError.
        """
        found = self._window.find(b"\n", self._offset)
        searched = len(self._window) - self._offset
        while found < 0:
            rest = self.end - self.position
            if searched == rest or self.position + searched >= self._frame_end:
                return self.take(rest), False
            if searched > limit:
                raise LimitError
            self._fill(min(rest, max(searched * 4, _FIRST_WINDOW), limit + 1))
            found = self._window.find(b"\n", self._offset + searched)
            searched = len(self._window) - self._offset
        if self._window_start + found >= self._frame_end:
            self._refuse_split_opcode()
        line = self._window[self._offset : found]
        self._offset = found + 1
        return line, True

    def skip(self, count: int) -> None:
        """Skip `count` bytes without reading them. Raises DeadStreamError if there are fewer, and NotCanonicalError."""
        if self.position + count > self._frame_end:
            self._refuse_split_opcode()
        if count > self.end - self.position:
            raise DeadStreamError
        self._offset += count
        if self._offset > len(self._window):
            self._window_start += self._offset
            self._window, self._offset, self._window_size = b"", 0, _WINDOW_AFTER_SKIP

    def begin_frame(self, length: int) -> None:
        """Begin a frame at the current position.

        Raises NotCanonicalError for a nested frame: unpicklers drop the rest of the outer one.
        """
        if self._frame_end != _NO_FRAME:
            raise NotCanonicalError("has a nested frame")
        if length:
            self._frame_end = self.position + length
        else:
            self.note("has an empty frame")

    def end_frame(self) -> None:
        """End the frame if it ends at the current position. Called after each opcode."""
        if self._window_start + self._offset == self._frame_end:
            self._frame_end = _NO_FRAME

    def check_no_frame(self) -> None:
        """Raise NotCanonicalError if a frame continues here, where the pickle ends or raw bytes begin."""
        if self._frame_end != _NO_FRAME:
            raise NotCanonicalError("has a frame that extends past the pickle")

    def read_back(self, start: int, end: int) -> bytes:
        """Return bytes of the file, from the window if it contains them."""
        if self._window_start <= start and end <= self._window_start + len(self._window):
            return self._window[start - self._window_start : end - self._window_start]
        return self._read(start, end)

    def _refuse_split_opcode(self) -> Never:
        """C's unpickler drops the rest of the frame, and reads the argument from the bytes after the frame."""
        raise NotCanonicalError("has a frame that ends within an opcode")

    def _fill(self, count: int) -> None:
        """Read until the window has `count` bytes from the current position. Raises DeadStreamError and LimitError."""
        kept = self._window[self._offset :]
        start = self._window_start + self._offset + len(kept)
        if count - len(kept) > self.end - start:
            raise DeadStreamError
        if self._remaining <= 0 or self._budget.size <= 0:
            raise LimitError
        data = self._read(start, min(start + max(count - len(kept), self._window_size), self.end))
        self._budget.size -= len(data)
        self._remaining -= len(data)
        self._window_size = min(self._window_size * 4, _LAST_WINDOW)
        self._window_start += self._offset
        self._window, self._offset = kept + data, 0
