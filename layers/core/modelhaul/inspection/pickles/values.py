"""Values on an unpickler's stack. Each is an integer: its kind in the lowest four bits, its payload in the others.

The payload is what is known about the value: the number itself, the position of a text, or an index into a table.
Four million values take 32 MB.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

KIND_MASK: Final = 15
PAYLOAD_SHIFT: Final = 4
LENGTH_BITS: Final = 8  # of a text, in its payload; the position in all texts is in the bits above
MAX_TEXT: Final = 2**LENGTH_BITS - 1  # bytes of a text that is known
DATA, NAME, TEXT, GLOBAL, TUPLE, BUILT, INT, LIST, DICT, SET, PERSISTENT, DTYPE = range(12)
"""Kinds. NAME is a string that STACK_GLOBAL accepts. TEXT is a string of Python 2, whose encoding is an option."""
OTHER, NONE, TRUE, FALSE, MAGIC = (DATA | payload << PAYLOAD_SHIFT for payload in range(5))
"""Values of the kind DATA. MAGIC is the number at the start of torch's legacy files."""
UNSET: Final = -1  # a memo index without a value


@dataclass(frozen=True, slots=True)
class Import:
    module: str
    name: str


@dataclass(slots=True)
class Dtype:
    """A numpy dtype. `item_size` is in bytes; None if a part of the dtype is not known."""

    text: str
    item_size: int | None = None
    has_state: bool = False


class Unknown(Enum):
    UNKNOWN = "unknown"


type Value = int | str | bool | tuple["Value", ...] | Import | Dtype | Unknown | None
"""A value as far as it is known."""

CONSTANTS: Final[dict[int, Value]] = {NONE: None, TRUE: True, FALSE: False}


def read_int(value: int) -> int | None:
    """Return the number that a value is; None for other values."""
    return value >> PAYLOAD_SHIFT if value & KIND_MASK == INT else None
