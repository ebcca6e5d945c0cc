"""MessagePack, in which Flax stores weights: https://github.com/msgpack/msgpack/blob/master/spec.md

flax.serialization has three extension types: arrays, complex numbers and numpy scalars. They do not run code.
"""

from enum import Enum, auto

from modelhaul.domain.findings import ContentReport
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.windows import ContentError, Cursor

_MAX_VALUES = 2_000_000
_MAX_DEPTH = 512  # nested values: msgpack's own limit
_FLAX_TYPES = {1, 2, 3}


class _Head(Enum):
    """Meaning of the number in the table, by the first byte of a value."""

    SKIP = auto()  # number of bytes that follow
    ITEMS = auto()  # number of values that follow
    DATA = auto()  # width of the length that follows, before the data
    ARRAY = auto()  # width of the number of values that follows
    MAP = auto()  # width of the number of pairs that follows
    FIXED_EXTENSION = auto()  # number of bytes that follow a type
    EXTENSION = auto()  # width of the length that follows, before a type and the data


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
    """Inspect a file that is one map, with extension types of Flax only."""
    cursor = Cursor(read, 0, size)
    try:
        _read_map(cursor)
    except ContentError as error:
        return ContentReport("msgpack", str(error))
    return ContentReport("msgpack", f"{cursor.left:,} bytes follow the map" if cursor.left else None)


def _read_map(cursor: Cursor) -> None:
    first = cursor.take(1)[0]
    if first not in _MAPS:
        raise ContentError("File is not a map of weights")
    left = [_read_value(cursor, first)]
    for _ in range(_MAX_VALUES):
        while left and not left[-1]:
            left.pop()
        if not left:
            return
        left[-1] -= 1
        left.append(_read_value(cursor, cursor.take(1)[0]))
        if len(left) > _MAX_DEPTH:
            raise ContentError(f"File has more than {_MAX_DEPTH} nested values")
    raise ContentError(f"File has more than {_MAX_VALUES:,} values")


def _read_value(cursor: Cursor, first: int) -> int:
    """Skip a value with this first byte, or the head of an array or map. Return the number of its items."""
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
            raise ContentError(f"Unknown type {first:#04x} before byte {cursor.position:,}")
    return 0


def _skip_extension(cursor: Cursor, length: int) -> None:
    extension = int.from_bytes(cursor.take(1), signed=True)
    if extension not in _FLAX_TYPES:
        raise ContentError(f"Unknown extension type {extension} before byte {cursor.position:,}")
    cursor.skip(length)


def _take_number(cursor: Cursor, length: int) -> int:
    return int.from_bytes(cursor.take(length))
