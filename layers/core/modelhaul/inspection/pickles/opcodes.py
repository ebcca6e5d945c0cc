"""Arguments of pickle opcodes, read as C's unpickler and Python's own read them.

Both accept input that no pickler writes, and read some of it differently. Input with one reading is noted as not
canonical, and reading continues. Input with two readings raises NotCanonicalError.
https://github.com/python/cpython/blob/3.13/Modules/_pickle.c, https://github.com/python/cpython/blob/3.13/Lib/pickle.py
"""

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Never

from modelhaul.domain.json_streams import ReadRange

_MAX_OPCODES = 4_000_000  # in all pickles of a file
MAX_NAME: Final = 255  # bytes of a string that can be a name
_MAX_READ_IN_ALL = 1024 * 1024 * 1024  # bytes that are read of all pickles in a file
_MAX_READ = 64 * 1024 * 1024  # bytes read from a file; data that is skipped is not read
_MAX_LINE = 4 * 1024 * 1024  # bytes of an argument that a newline ends
_MAX_NAME_LINE = 64 * 1024  # bytes; no file's path is as long
_MAX_INT_DIGITS = 4_300  # Python's own limit
_FIRST_WINDOW = 64 * 1024  # bytes of the first read; each next one is four times as large
_WINDOW_BEHIND_DATA = 16 * 1024  # bytes of the first read after data that was skipped
_LAST_WINDOW = 1024 * 1024
_MAX_NOTES = 20
_MIN_PROTOCOL, _MAX_PROTOCOL = 2, 5  # that a pickle names; those below have no opcode for it
_MAX_SIZE = 2**63 - 1  # of a Py_ssize_t
_UINT8 = 0xFF
_SIGNED = 4  # bytes of integers that have a sign; those of one and two have none
_LONG_BYTES = 8  # of an integer as torch's C++ writes it, whatever its value
_INF: Final = 2**64

TORCH_MAGIC: Final = 0x1950A86A20F9469CFC6C  # torch/serialization.py


class DeadStreamError(Exception):
    """Every unpickler fails at this byte."""


class NotCanonicalError(Exception):
    """Unpicklers continue after this byte, but read different opcodes. No pickler writes this."""


class LimitError(Exception):
    """The pickle exceeds a limit of the inspection."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that no pickler writes, at byte `position` of the file."""

    message: str
    position: int

    def __str__(self) -> str:
        return f"{self.message} at byte {self.position:,}"


@dataclass(slots=True)
class Budget:
    """What is read of the pickles in one file, those in its archives included."""

    opcodes: int = _MAX_OPCODES
    size: int = _MAX_READ_IN_ALL


class Source:
    """Bytes `start` to `end` (excluded) of a file, read by windows of up to 1 MiB.

    `notes` are the first 20 findings that are not canonical. Raises what `read` raises.
    """

    __slots__ = (
        "_at",
        "_base",
        "_budget",
        "_frame_end",
        "_left",
        "_opcode_at",
        "_read",
        "_size",
        "_window",
        "end",
        "notes",
    )

    def __init__(self, read: ReadRange, start: int, end: int, budget: Budget | None = None) -> None:
        self._read = read
        self._base = start  # the window's position in the file
        self._window = b""
        self._at = 0  # in the window
        self._opcode_at = start
        self._size = _FIRST_WINDOW
        self._budget = budget or Budget()
        self._left = _MAX_READ
        self._frame_end = _INF
        self.end = end
        self.notes: list[Note] = []

    @property
    def opcode_position(self) -> int:
        return self._opcode_at

    @property
    def position(self) -> int:
        return self._base + self._at

    def note(self, message: str) -> None:
        if len(self.notes) < _MAX_NOTES:
            self.notes.append(Note(message, self._opcode_at))

    def read_opcode(self) -> int:
        """Return the next byte. Notes refer to its position. Raises DeadStreamError and LimitError."""
        self._budget.opcodes -= 1
        if self._budget.opcodes < 0:
            raise LimitError
        if self._at == len(self._window):
            self._fill(1)
        self._opcode_at = self._base + self._at
        byte = self._window[self._at]
        self._at += 1
        return byte

    def take(self, count: int) -> bytes:
        """Raises DeadStreamError if there are fewer bytes, and NotCanonicalError."""
        stop = self._at + count
        if self._base + stop > self._frame_end:
            self._leave_frame()
        if stop > len(self._window):
            self._fill(count)
            stop = self._at + count
        data = self._window[self._at : stop]
        self._at = stop
        return data

    def take_number(self, count: int) -> int:
        """An unsigned number of `count` bytes. Raises DeadStreamError and NotCanonicalError."""
        return int.from_bytes(self.take(count), "little")

    def take_line(self, most: int = _MAX_LINE) -> tuple[bytes, bool]:
        """Return the bytes up to the next newline or the end, and whether there is a newline.

        Raises LimitError and NotCanonicalError.
        """
        found = self._window.find(b"\n", self._at)
        searched = len(self._window) - self._at
        while found < 0:
            left = self.end - self.position
            if searched == left or self.position + searched >= self._frame_end:
                return self.take(left), False
            if searched > most:
                raise LimitError
            self._fill(min(left, max(searched * 4, _FIRST_WINDOW), most + 1))
            found = self._window.find(b"\n", self._at + searched)
            searched = len(self._window) - self._at
        if self._base + found >= self._frame_end:
            self._leave_frame()
        line = self._window[self._at : found]
        self._at = found + 1
        return line, True

    def skip(self, count: int) -> None:
        """Skip `count` bytes without reading them. Raises DeadStreamError if there are fewer, and NotCanonicalError."""
        if self.position + count > self._frame_end:
            self._leave_frame()
        if count > self.end - self.position:
            raise DeadStreamError
        self._at += count
        if self._at > len(self._window):
            self._base += self._at
            self._window, self._at, self._size = b"", 0, _WINDOW_BEHIND_DATA

    def begin_frame(self, length: int) -> None:
        """Raises NotCanonicalError for a nested frame: unpicklers drop the rest of the outer one."""
        if self._frame_end != _INF:
            raise NotCanonicalError("has a nested frame")
        if length:
            self._frame_end = self.position + length
        else:
            self.note("has an empty frame")

    def end_frame(self) -> None:
        """End the frame if it ends here. Called after each opcode."""
        if self._base + self._at == self._frame_end:
            self._frame_end = _INF

    def _leave_frame(self) -> Never:
        """C's unpickler drops the rest of the frame, and reads the argument from the bytes after the frame."""
        raise NotCanonicalError("has a frame that ends within an opcode")

    def check_no_frame(self) -> None:
        """Raises NotCanonicalError if the frame does not end here, where the pickle ends or raw bytes begin."""
        if self._frame_end != _INF:
            raise NotCanonicalError("has a frame that extends past the pickle")

    def read_back(self, start: int, end: int) -> bytes:
        """Return bytes of the file, from the window if it has them."""
        if self._base <= start and end <= self._base + len(self._window):
            return self._window[start - self._base : end - self._base]
        return self._read(start, end)

    def _fill(self, count: int) -> None:
        """Read until the window has `count` bytes from the current position."""
        kept = self._window[self._at :]
        begins = self._base + self._at + len(kept)
        if count - len(kept) > self.end - begins:
            raise DeadStreamError
        if self._left <= 0 or self._budget.size <= 0:
            raise LimitError
        data = self._read(begins, min(begins + max(count - len(kept), self._size), self.end))
        self._budget.size -= len(data)
        self._left -= len(data)
        self._size = min(self._size * 4, _LAST_WINDOW)
        self._base += self._at
        self._window, self._at = kept + data, 0


def read_nothing(_: Source) -> None:
    return None


def skip_bytes(width: int, lowest: int = 0) -> Callable[[Source], None]:
    """Skip data that follows its length of `width` bytes. Lengths below `lowest` have another opcode."""

    def read(source: Source) -> None:
        length = source.take_number(width)
        if length > _MAX_SIZE:
            raise DeadStreamError
        source.skip(length)
        if length < lowest:
            source.note("uses a longer opcode for data than its length needs")

    return read


def read_text(width: int, *, is_unicode: bool, lowest: int = 0) -> Callable[[Source], bytes | None]:
    """Read a string of up to 255 bytes; None for a longer one, which is skipped."""

    def read(source: Source) -> bytes | None:
        length = source.take_number(width)
        if length < lowest:
            source.note("uses a longer opcode for a string than its length needs")
        if length > MAX_NAME:
            source.skip(length)
            return None
        text = source.take(length)
        if is_unicode and not text.isascii():
            try:
                text.decode("utf-8", "surrogatepass")
            except UnicodeDecodeError:
                raise DeadStreamError from None
        return text

    return read


def read_int(width: int, lowest: int) -> Callable[[Source], int]:
    """Read an integer, signed if `width` is 4. Values from 0 up to `lowest` have a shorter opcode."""

    def read(source: Source) -> int:
        value = int.from_bytes(source.take(width), "little", signed=width == _SIGNED)
        if 0 <= value < lowest:
            source.note("uses more bytes for an integer than it needs")
        return value

    return read


def read_index(width: int, lowest: int) -> Callable[[Source], int]:
    def read(source: Source) -> int:
        index = source.take_number(width)
        if index < lowest:
            source.note("uses more bytes for a memo index than it needs")
        return index

    return read


def read_long(source: Source) -> int:
    data = source.take(source.take_number(1))
    value = int.from_bytes(data, "little", signed=True)
    shortest = (value if value >= 0 else ~value).bit_length() // 8 + 1
    if len(data) not in (0, shortest, _LONG_BYTES):
        source.note("uses more bytes for an integer than it needs")
    return value


def skip_long(source: Source) -> None:
    length = int.from_bytes(source.take(4), "little", signed=True)
    if length < 0:
        raise DeadStreamError
    source.skip(length)
    if length <= _UINT8:
        source.note("uses more bytes for an integer than it needs")


def read_fixed(width: int) -> Callable[[Source], None]:
    def read(source: Source) -> None:
        source.take(width)

    return read


# What C's strtol and strtod, which stop at NUL, or Python's int and float may accept.
_LOOSE_INT = re.compile(rb"[\s+-]*[0-9]|[^\n]*\x00")
_LOOSE_FLOAT = re.compile(rb"[\s+-]*(?:[0-9.]|inf|nan)|[^\n]*\x00", re.IGNORECASE)
_INT = re.compile(rb"-?[1-9][0-9]{0,18}|0|0[01]")
_LONG = re.compile(rb"-?[1-9][0-9]*L|0L")
_FLOAT = re.compile(rb"-?(?:[0-9]{1,40}(?:\.[0-9]{1,40})?(?:e[+-]?[0-9]{1,3})?|inf|nan)")
_INDEX = re.compile(rb"0|[1-9][0-9]{0,8}")
_QUOTED = re.compile(
    rb"'(?:[^'\\\x00-\x1f\x7f-\xff]|\\[\\'nrt]|\\x[0-9a-f]{2})*+'"
    rb'|"(?:[^"\\\x00-\x1f\x7f-\xff]|\\[\\nrt]|\\x[0-9a-f]{2})*+"'
)
_ESCAPED = re.compile(rb"(?:[^\\\x00]|\\u[0-9a-f]{4}|\\U[0-9a-f]{8})*+")


def _read_line(source: Source, loose: re.Pattern[bytes], strict: re.Pattern[bytes], what: str) -> bytes | None:
    """None for a line that is not canonical. Raises DeadStreamError for a line that no unpickler accepts."""
    line, is_whole = source.take_line()
    if is_whole and strict.fullmatch(line):
        return line
    if not is_whole or not loose.match(line):
        raise DeadStreamError
    source.note(f"has {what} in a form that no pickler writes")
    return None


def read_int_line(source: Source) -> int | None:
    line = _read_line(source, _LOOSE_INT, _INT, "an integer")
    return None if line is None else int(line)


def read_long_line(source: Source) -> int | None:
    line = _read_line(source, _LOOSE_INT, _LONG, "an integer")
    if line is not None and len(line) > _MAX_INT_DIGITS:
        source.note("has an integer of too many digits")
    return None if line is None or len(line) > MAX_NAME else int(line[:-1])


def read_float_line(source: Source) -> None:
    _read_line(source, _LOOSE_FLOAT, _FLOAT, "a number")


def read_index_line(source: Source) -> int | None:
    """None for an index that is not canonical: unpicklers may read it differently."""
    line = _read_line(source, _LOOSE_INT, _INDEX, "an index")
    return None if line is None else int(line)


def read_quoted_line(source: Source) -> bytes | None:
    line, is_whole = source.take_line()
    if not is_whole or len(line) < 2 or line[0] != line[-1] or line[0] not in b"'\"":  # noqa: PLR2004 - the quotes
        raise DeadStreamError
    if not _QUOTED.fullmatch(line):
        source.note("has a quoted string in a form that no pickler writes")
        return None
    text = line[1:-1]
    return text if len(text) <= MAX_NAME and b"\\" not in text else None


def read_unicode_line(source: Source) -> None:
    line, is_whole = source.take_line()
    if not is_whole:
        raise DeadStreamError
    if not _ESCAPED.fullmatch(line):
        source.note("has a string with escapes that no pickler writes")


def read_import(encoding: str) -> Callable[[Source], tuple[str, str]]:
    """Read module and name. Python's unpickler accepts a last line without a newline, C's does not."""

    def read(source: Source) -> tuple[str, str]:
        module = _read_name_line(source, encoding)
        if not module:
            raise DeadStreamError
        return module, _read_name_line(source, encoding)

    return read


def _read_name_line(source: Source, encoding: str) -> str:
    try:
        line, is_whole = source.take_line(_MAX_NAME_LINE)
    except LimitError:
        _decode_line(source.take(_MAX_NAME_LINE), encoding, is_whole=False)
        raise
    if not is_whole:
        # Python's unpickler removes the last character, whether or not it is a newline.
        source.note("has an import without a newline at its end")
        line = line[:-1]
    return _decode_line(line, encoding, is_whole=True)


def _decode_line(line: bytes, encoding: str, *, is_whole: bool) -> str:
    """Raises DeadStreamError for invalid text."""
    try:
        return line.decode(encoding) if is_whole else codecs.getincrementaldecoder(encoding)().decode(line)
    except UnicodeDecodeError:
        raise DeadStreamError from None


def read_persistent_line(source: Source) -> None:
    source.take_line()
    source.note("has a persistent ID in a line of text")


def read_extension(width: int) -> Callable[[Source], None]:
    def read(source: Source) -> None:
        if int.from_bytes(source.take(width), "little", signed=width == _SIGNED) <= 0:
            raise DeadStreamError
        source.note("uses an extension code")

    return read


def read_protocol(source: Source) -> int:
    protocol = source.take_number(1)
    if protocol > _MAX_PROTOCOL:
        raise DeadStreamError
    if protocol < _MIN_PROTOCOL:
        source.note(f"declares protocol {protocol}")
    return protocol


def read_frame(source: Source) -> None:
    length = source.take_number(8)
    if length > _MAX_SIZE:
        raise DeadStreamError
    source.begin_frame(length)
