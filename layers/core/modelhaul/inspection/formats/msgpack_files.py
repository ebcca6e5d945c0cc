"""MessagePack, as Flax stores weights in: https://github.com/msgpack/msgpack/blob/master/spec.md

flax.serialization knows three extension types: arrays, complex numbers and numpy's scalars. None runs code.
"""

from enum import Enum, auto

from modelhaul.domain.findings import ContentReport
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.windows import ContentError, Cursor

_MAX_VALUES = 2_000_000
_MAX_DEPTH = 512  # nested values: msgpack's own limit
_FLAX_TYPES = {1, 2, 3}


class _Head(Enum):
    """What the first byte of a value says of the number beside it in the table."""

    SKIP = auto()  # so many bytes follow
    ITEMS = auto()  # so many values follow
    DATA = auto()  # the length of the data follows in so many bytes
    ARRAY = auto()  # the number of values
    MAP = auto()  # the number of pairs
    FIXED_EXTENSION = auto()  # a type, and so many bytes
    EXTENSION = auto()  # the length of the data, then the type


_HEADS = {
    **dict.fromkeys((*range(0x80), *range(0xE0, 0x100)), (_Head.SKIP, 0)),
    **{0x80 + count: (_Head.ITEMS, 2 * count) for count in range(16)},
    **{0x90 + count: (_Head.ITEMS, count) for count in range(16)},
    **{0xA0 + length: (_Head.SKIP, length) for length in range(32)},
    0xC0: (_Head.SKIP, 0),
    0xC2: (_Head.SKIP, 0),
    0xC3: (_Head.SKIP, 0),
    0xC4: (_Head.DATA, 1),
    0xC5: (_Head.DATA, 2),
    0xC6: (_Head.DATA, 4),
    0xC7: (_Head.EXTENSION, 1),
    0xC8: (_Head.EXTENSION, 2),
    0xC9: (_Head.EXTENSION, 4),
    0xCA: (_Head.SKIP, 4),
    0xCB: (_Head.SKIP, 8),
    **{0xCC + power: (_Head.SKIP, 1 << power) for power in range(4)},
    **{0xD0 + power: (_Head.SKIP, 1 << power) for power in range(4)},
    **{0xD4 + power: (_Head.FIXED_EXTENSION, 1 << power) for power in range(5)},
    0xD9: (_Head.DATA, 1),
    0xDA: (_Head.DATA, 2),
    0xDB: (_Head.DATA, 4),
    0xDC: (_Head.ARRAY, 2),
    0xDD: (_Head.ARRAY, 4),
    0xDE: (_Head.MAP, 2),
    0xDF: (_Head.MAP, 4),
}
_MAPS = {*range(0x81, 0x90), 0xDE, 0xDF}


def inspect_msgpack(read: ReadRange, size: int) -> ContentReport:
    """One map, with extension types of Flax only, to the end of the file."""
    cursor = Cursor(read, 0, size)
    try:
        _read_map(cursor)
    except ContentError as error:
        return ContentReport("msgpack", str(error))
    return ContentReport("msgpack", f"{cursor.left:,} bytes after its end" if cursor.left else None)


def _read_map(cursor: Cursor) -> None:
    first = cursor.take(1)[0]
    if first not in _MAPS:
        raise ContentError("is not a map of weights")
    left = [_read_value(cursor, first)]
    for _ in range(_MAX_VALUES):
        while left and not left[-1]:
            left.pop()
        if not left:
            return
        left[-1] -= 1
        left.append(_read_value(cursor, cursor.take(1)[0]))
        if len(left) > _MAX_DEPTH:
            raise ContentError(f"more than {_MAX_DEPTH} nested values")
    raise ContentError(f"more than {_MAX_VALUES:,} values")


def _read_value(cursor: Cursor, first: int) -> int:
    """Skip a value with this first byte, or the head of an array or map. Return how many values belong to it."""
    head, number = _HEADS.get(first, (None, 0))
    match head:
        case _Head.SKIP:
            cursor.skip(number)
        case _Head.ITEMS:
            return number
        case _Head.DATA:
            cursor.skip(_take_number(cursor, number))
        case _Head.ARRAY:
            return _take_number(cursor, number)
        case _Head.MAP:
            return 2 * _take_number(cursor, number)
        case _Head.EXTENSION | _Head.FIXED_EXTENSION:
            _skip_extension(cursor, number if head is _Head.FIXED_EXTENSION else _take_number(cursor, number))
        case _:
            raise ContentError(f"unknown type {first:#04x} before byte {cursor.position:,}")
    return 0


def _skip_extension(cursor: Cursor, length: int) -> None:
    if cursor.take(1)[0] not in _FLAX_TYPES:
        raise ContentError(f"an extension type that Flax does not know, before byte {cursor.position:,}")
    cursor.skip(length)


def _take_number(cursor: Cursor, length: int) -> int:
    return int.from_bytes(cursor.take(length))
