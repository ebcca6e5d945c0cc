"""The state of an unpickler between opcodes: the values on its stack and in its memo."""

from array import array

from modelhaul.inspection.pickles.source import DeadStreamError, Source
from modelhaul.inspection.pickles.values import (
    BUILT,
    DICT,
    INT,
    KIND_MASK,
    LENGTH_BITS,
    MAGIC,
    MAX_TEXT,
    OTHER,
    PAYLOAD_SHIFT,
    TUPLE,
    UNSET,
)

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py
_RECENT = 4_096  # tuples and dictionaries whose items are known
_MAX_ITEMS = 16  # of a tuple, and pairs of a dictionary, whose items are known
_MAX_INT = 2**48  # integers below are known by their value


class UnpicklerState:
    """The stack with its marks, and the memo. Deviations from canonical pickles go to the notes of `source`.

    `is_first`: the unpickler has read no pickle before, so that its memo is empty. `fence` is the size of the stack at
    the last mark.
    """

    def __init__(self, source: Source, *, is_first: bool) -> None:
        self.source = source
        self.stack = array("q")
        self.marks = array("q")  # sizes of the stack
        self.fence = 0
        self.memo = array("q")
        self.is_memo_complete = is_first
        self._texts = bytearray()  # all texts, one after another
        self._recent: list[tuple[int, ...] | None] = [None] * _RECENT
        self._serial = 0  # of the last tuple or dictionary

    def require(self, count: int) -> None:
        """Raise DeadStreamError if there are fewer values after the last mark."""
        if len(self.stack) - self.fence < count:
            raise DeadStreamError

    def push_mark(self) -> None:
        self.fence = len(self.stack)
        self.marks.append(self.fence)

    def pop_mark(self) -> int:
        """Return the position of the mark in the stack. Raises DeadStreamError."""
        if not self.marks:
            raise DeadStreamError
        position = self.marks.pop()
        self.fence = self.marks[-1] if self.marks else 0
        return position

    def push_text(self, text: bytes | None, kind: int) -> None:
        if text is None:
            self.stack.append(OTHER)
        else:
            self.stack.append((len(self._texts) << LENGTH_BITS | len(text)) << PAYLOAD_SHIFT | kind)
            self._texts += text

    def push_int(self, value: int | None) -> None:
        if value is not None and -_MAX_INT < value < _MAX_INT:
            self.stack.append(value << PAYLOAD_SHIFT | INT)
        else:
            self.stack.append(MAGIC if value == _TORCH_MAGIC else OTHER)

    def push_items(self, items: tuple[int, ...] | None, kind: int) -> None:
        """Push a tuple or dictionary. Its items are known while it is one of the last 4,096."""
        self._serial += 1
        self._recent[self._serial % _RECENT] = items
        self.stack.append(self._serial << PAYLOAD_SHIFT | kind)

    def push_tuple(self, start: int) -> None:
        """Replace the values from position `start` of the stack by a tuple of them."""
        items = tuple(self.stack[start:]) if len(self.stack) - start <= _MAX_ITEMS else None
        del self.stack[start:]
        self.push_items(items, TUPLE)

    def set_items(self, start: int) -> None:
        """Set the pairs from position `start` in the value before it. Raises DeadStreamError."""
        if start <= self.fence or (len(self.stack) - start) % 2:
            raise DeadStreamError
        target = self.stack[start - 1]
        if target & KIND_MASK == DICT:
            serial = target >> PAYLOAD_SHIFT
            if self._serial - serial < _RECENT:
                items = self._recent[serial % _RECENT]
                is_known = items is not None and len(items) + len(self.stack) - start <= 2 * _MAX_ITEMS
                self._recent[serial % _RECENT] = (items or ()) + tuple(self.stack[start:]) if is_known else None
        elif target & KIND_MASK != BUILT:
            self.source.note("sets items of a value that is not a dictionary")
        del self.stack[start:]

    def add_items(self, start: int, kind: int) -> None:
        """Add the values from position `start` to the value before it, which must be of `kind` or BUILT.

        Raises DeadStreamError.
        """
        if start <= self.fence:
            raise DeadStreamError
        if self.stack[start - 1] & KIND_MASK not in (kind, BUILT):
            self.source.note("adds items to a value that is not a list or set")
        del self.stack[start:]

    def put(self, index: int | None) -> None:
        """Store the top of the stack in the memo. Raises DeadStreamError.

        Picklers number from 0, except for cPickle of Python 2, which numbers from 1.
        """
        self.require(1)
        if index == 1 and not self.memo:
            self.memo.append(UNSET)
        if index == len(self.memo):
            self.memo.append(self.stack[-1])
        else:
            self.source.note("stores to its memo out of order")
            self.is_memo_complete = False

    def get(self, index: int | None) -> None:
        """Push a value of the memo. Raises DeadStreamError for an index that was never stored."""
        value = self.memo[index] if index is not None and index < len(self.memo) else UNSET
        if value == UNSET:
            if self.is_memo_complete and index is not None:
                raise DeadStreamError
            self.source.note("reads a memo index that was not stored")
            value = OTHER
        self.stack.append(value)

    def find_text(self, value: int) -> str:
        """Return the text of a value of the kind NAME or TEXT."""
        start, length = value >> PAYLOAD_SHIFT + LENGTH_BITS, value >> PAYLOAD_SHIFT & MAX_TEXT
        return self._texts[start : start + length].decode("utf-8", "replace")

    def find_items(self, value: int) -> tuple[int, ...] | None:
        """Return the items of a tuple or dictionary; None if they are not known."""
        serial = value >> PAYLOAD_SHIFT
        return self._recent[serial % _RECENT] if self._serial - serial < _RECENT else None
