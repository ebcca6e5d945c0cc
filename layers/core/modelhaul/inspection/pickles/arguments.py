"""Arguments of pickle opcodes, read as C's unpickler and Python's own read them.

Both accept input that no pickler writes, and read some of it differently. Input with one reading is noted as not
canonical, and reading continues. Input with two readings raises NotCanonicalError. Input that both refuse raises
DeadStreamError.
https://github.com/python/cpython/blob/3.13/Modules/_pickle.c, https://github.com/python/cpython/blob/3.13/Lib/pickle.py
"""

import codecs
import re
from collections.abc import Callable

from modelhaul.inspection.pickles.source import DeadStreamError, LimitError, Source
from modelhaul.inspection.pickles.values import MAX_TEXT

_MAX_NAME_LINE = 64 * 1024  # bytes; longer than any file's path
_MAX_INT_DIGITS = 4_300  # Python's own limit
_MIN_PROTOCOL, _MAX_PROTOCOL = 2, 5  # of the PROTO opcode; pickles of protocols 0 and 1 have none
_MAX_SIZE = 2**63 - 1  # of a Py_ssize_t
_MAX_UINT8 = 0xFF
_SIGNED_WIDTH = 4  # bytes of integers that have a sign; those of one and two bytes have none
_TORCH_LONG_SIZE = 8  # bytes of an integer that torch's C++ writes, whatever its value

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


def read_nothing(_: Source) -> None:
    return None


def skip_bytes(width: int, minimum: int = 0) -> Callable[[Source], None]:
    """Skip data that follows its length of `width` bytes. Lengths below `minimum` have a shorter opcode."""

    def read(source: Source) -> None:
        length = source.take_number(width)
        if length > _MAX_SIZE:
            raise DeadStreamError
        source.skip(length)
        if length < minimum:
            source.note("uses a longer opcode for data than the length requires")

    return read


def read_text(width: int, *, is_unicode: bool, minimum: int = 0) -> Callable[[Source], bytes | None]:
    """Read a string of up to 255 bytes. A longer string is skipped, and the result is None."""

    def read(source: Source) -> bytes | None:
        length = source.take_number(width)
        if length < minimum:
            source.note("uses a longer opcode for a string than the length requires")
        if length > MAX_TEXT:
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


def read_int(width: int, minimum: int) -> Callable[[Source], int]:
    """Read an integer, signed if `width` is 4. Values from 0 up to `minimum` (excluded) have a shorter opcode."""

    def read(source: Source) -> int:
        value = int.from_bytes(source.take(width), "little", signed=width == _SIGNED_WIDTH)
        if 0 <= value < minimum:
            source.note("uses more bytes for an integer than the value requires")
        return value

    return read


def read_index(width: int, minimum: int) -> Callable[[Source], int]:
    """Read a memo index. Indexes below `minimum` have a shorter opcode."""

    def read(source: Source) -> int:
        index = source.take_number(width)
        if index < minimum:
            source.note("uses more bytes for a memo index than the value requires")
        return index

    return read


def read_long(source: Source) -> int:
    data = source.take(source.take_number(1))
    value = int.from_bytes(data, "little", signed=True)
    shortest = (value if value >= 0 else ~value).bit_length() // 8 + 1
    if len(data) not in (0, shortest, _TORCH_LONG_SIZE):
        source.note("uses more bytes for an integer than the value requires")
    return value


def skip_long(source: Source) -> None:
    length = int.from_bytes(source.take(4), "little", signed=True)
    if length < 0:
        raise DeadStreamError
    source.skip(length)
    if length <= _MAX_UINT8:
        source.note("uses more bytes for an integer than the value requires")


def read_fixed(width: int) -> Callable[[Source], None]:
    def read(source: Source) -> None:
        source.take(width)

    return read


def _read_line(source: Source, loose: re.Pattern[bytes], strict: re.Pattern[bytes], name: str) -> bytes | None:
    """Return a canonical line; None for a line that is not canonical.

    Raises DeadStreamError for a line that no unpickler accepts.
    """
    line, is_whole = source.take_line()
    if is_whole and strict.fullmatch(line):
        return line
    if not is_whole or not loose.match(line):
        raise DeadStreamError
    source.note(f"has {name} in a form that no pickler writes")
    return None


def read_int_line(source: Source) -> int | None:
    line = _read_line(source, _LOOSE_INT, _INT, "an integer")
    return None if line is None else int(line)


def read_long_line(source: Source) -> int | None:
    line = _read_line(source, _LOOSE_INT, _LONG, "an integer")
    if line is not None and len(line) > _MAX_INT_DIGITS:
        source.note(f"has an integer of more than {_MAX_INT_DIGITS:,} digits")
    return None if line is None or len(line) > MAX_TEXT else int(line[:-1])


def read_float_line(source: Source) -> None:
    _read_line(source, _LOOSE_FLOAT, _FLOAT, "a number")


def read_index_line(source: Source) -> int | None:
    """Return None for an index that is not canonical: unpicklers may read it differently."""
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
    return text if len(text) <= MAX_TEXT and b"\\" not in text else None


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
    """Decode a line, or the beginning of one. Raises DeadStreamError for invalid text."""
    try:
        return line.decode(encoding) if is_whole else codecs.getincrementaldecoder(encoding)().decode(line)
    except UnicodeDecodeError:
        raise DeadStreamError from None


def read_persistent_line(source: Source) -> None:
    source.take_line()
    source.note("uses the text opcode PERSID")


def read_extension(width: int) -> Callable[[Source], None]:
    def read(source: Source) -> None:
        if int.from_bytes(source.take(width), "little", signed=width == _SIGNED_WIDTH) <= 0:
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
