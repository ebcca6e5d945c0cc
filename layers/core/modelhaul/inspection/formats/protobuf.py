"""Strict reader of Protocol Buffers by a schema: https://protobuf.dev/programming-guides/encoding/

Refuses unknown fields, groups, duplicates of fields that are not repeated, and numbers that are not in their shortest
form. Large values are skipped without reading them.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from modelhaul.inspection.windows import ContentError, Cursor

_MAX_DEPTH = 100  # nested messages: protobuf's own limit
_MAX_PACKED_READ = 4096  # bytes of packed numbers that are checked one by one
_MAX_FIELDS = 5_000_000  # of a file; they take half a minute
_WIRE_VARINT, _WIRE_FIXED64, _WIRE_LENGTH, _WIRE_FIXED32 = 0, 1, 2, 5
_SCALARS = {
    "int": _WIRE_VARINT,
    "fixed64": _WIRE_FIXED64,
    "fixed32": _WIRE_FIXED32,
    "bytes": _WIRE_LENGTH,
    "string": _WIRE_LENGTH,
}
_WIDTHS = {_WIRE_FIXED64: 8, _WIRE_FIXED32: 4}
_FIELD = re.compile(r"(\d+):(\w+):([\w.]+)(\*?)")


class Field(NamedTuple):
    """`kind` is int, fixed32, fixed64, bytes, string (which must be UTF-8) or the name of a message."""

    name: str
    kind: str
    is_repeated: bool


type Schema = Mapping[str, Mapping[int, Field]]


class Value(NamedTuple):
    """A requested field, or the end of a message (`value` is None).

    `place` is `Message.field`. At the end of a message it is the field of the parent that contains the message.
    """

    place: str
    value: bytes | int | None


@dataclass(slots=True)
class _Frame:
    """A message that is being read: its place in the parent, and the position of its end."""

    place: str
    message: str
    end: int
    seen: set[int] = field(default_factory=set)


def parse_schema(text: str) -> Schema:
    """Parse messages, each `Name number:field:kind …`, with `*` after the kind of repeated fields."""
    schema: dict[str, dict[int, Field]] = {}
    message = ""
    for line in text.strip().splitlines():
        if not line.startswith(" "):
            message = line.split(maxsplit=1)[0]
            schema[message] = {}
        for number, name, kind, repeated in _FIELD.findall(line):
            schema[message][int(number)] = Field(name, kind, bool(repeated))
    return schema


def read_message(cursor: Cursor, schema: Schema, message: str, wanted: Collection[str]) -> Iterator[Value]:
    """Yield the values of fields in `wanted` (`Message.field`, of scalar kinds), and the end of each message, in order.

    The message extends to the end of the cursor. Raises ContentError.
    """
    frames = [_Frame(message, message, cursor.end)]
    for _ in range(_MAX_FIELDS):
        while frames and cursor.position == frames[-1].end:
            yield Value(frames.pop().place, None)
        if not frames:
            return
        frame = frames[-1]
        number, wire = divmod(cursor.take_varint(), 8)
        known = schema[frame.message].get(number)
        if known is None:
            raise ContentError(f"Unknown field {number} of {frame.message} before byte {cursor.position:,}")
        if number in frame.seen and not known.is_repeated:
            raise ContentError(f"Duplicate field {known.name} of {frame.message} before byte {cursor.position:,}")
        frame.seen.add(number)
        place = f"{frame.message}.{known.name}"
        if known.kind in schema:
            frames.append(_enter_message(cursor, frame, place, known, wire))
            if len(frames) > _MAX_DEPTH:
                raise ContentError(f"File has more than {_MAX_DEPTH} nested messages")
        else:
            value = _take_value(cursor, known, wire, is_wanted=place in wanted)
            if place in wanted:
                yield Value(place, value)
        if cursor.position > frame.end:
            raise ContentError(f"{place} extends past the end of {frame.message} at byte {frame.end:,}")
    raise ContentError(f"File has more than {_MAX_FIELDS:,} fields")


def _enter_message(cursor: Cursor, parent: _Frame, place: str, known: Field, wire: int) -> _Frame:
    if wire != _WIRE_LENGTH:
        raise _refuse_wire(cursor, place, wire, _WIRE_LENGTH)
    end = cursor.take_varint() + cursor.position
    if end > parent.end:
        raise ContentError(f"{place} extends past the end of {parent.message} at byte {parent.end:,}")
    return _Frame(place, known.kind, end)


def _take_value(cursor: Cursor, known: Field, wire: int, *, is_wanted: bool) -> bytes | int:
    expected = _SCALARS[known.kind]
    if wire == _WIRE_LENGTH:
        length = cursor.take_varint()
        is_packed = known.is_repeated and expected != _WIRE_LENGTH
        if expected != _WIRE_LENGTH and not is_packed:
            raise _refuse_wire(cursor, known.name, wire, expected)
        if is_packed and length % (width := _WIDTHS.get(expected, 1)):
            raise ContentError(
                f"{known.name} has {length:,} packed bytes, which is not a multiple of {width}, before byte "
                f"{cursor.position:,}"
            )
        if is_packed and expected == _WIRE_VARINT:
            _check_packed(cursor, length)
        elif is_wanted or known.kind == "string":
            return _take_text(cursor, known, length)
        else:
            cursor.skip(length)
        return b""
    if wire != expected:
        raise _refuse_wire(cursor, known.name, wire, expected)
    if wire == _WIRE_VARINT:
        return cursor.take_varint()
    cursor.skip(_WIDTHS[wire])
    return b""


def _refuse_wire(cursor: Cursor, name: str, wire: int, expected: int) -> ContentError:
    return ContentError(f"{name} has the wire type {wire}, expected {expected}, before byte {cursor.position:,}")


def _take_text(cursor: Cursor, known: Field, length: int) -> bytes:
    text = cursor.take(length)
    if known.kind == "string":
        try:
            text.decode()
        except UnicodeDecodeError:
            raise ContentError(f"{known.name} is not valid UTF-8 before byte {cursor.position:,}") from None
    return text


def _check_packed(cursor: Cursor, length: int) -> None:
    """Skip packed numbers. If they have more than 4,096 bytes, only the last byte is read."""
    end = cursor.position + length
    if length > _MAX_PACKED_READ:
        cursor.skip(length - 1)
        if cursor.take(1)[0] & 0x80:
            raise ContentError(f"Packed field has a number that extends past byte {end:,}")
        return
    while cursor.position < end:
        cursor.take_varint()
    if cursor.position > end:
        raise ContentError(f"Packed field has a number that extends past byte {end:,}")
