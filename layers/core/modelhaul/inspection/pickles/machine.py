"""Abstract interpretation of one pickle: the kinds of values that an unpickler has on its stack and in its memo.

Nothing is imported, called or built. A value is an integer: its kind in the lowest four bits, and what is known of it
in the others. Four million values take 32 MB.
https://github.com/python/cpython/blob/3.13/Lib/pickletools.py describes the opcodes.
"""

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelhaul.inspection.pickles import opcodes
from modelhaul.inspection.pickles.joblib_arrays import (
    ALIGNMENT,
    Dtype,
    Import,
    Unknown,
    Value,
    count_bytes,
    finish_dtype,
    make_dtype,
)
from modelhaul.inspection.pickles.opcodes import TORCH_MAGIC, DeadStreamError, NotCanonicalError, Source

_DTYPE_NAMES = Import("numpy", "dtype")
JOBLIB_ARRAY: Final = Import("joblib.numpy_pickle", "NumpyArrayWrapper")
# For the object dtype it returns its argument, which may be a class, whose attributes BUILD must not set.
_SCALARS = {Import("numpy.core.multiarray", "scalar"), Import("numpy._core.multiarray", "scalar")}
_MAX_IMPORTS = 100  # listed
_MAX_SHOWN = 200  # characters of a listed module or name
_MAX_STORAGES = 100_000
_MAX_DTYPES = 1_024
_RECENT = 4_096  # tuples and dictionaries whose items are known
_MAX_ITEMS = 16  # of one of them
_SMALL = 2**48  # integers below are known by their value

_MASK = 15
_SHIFT = 4
_LENGTH_BITS = 8
_DATA, _NAME, _TEXT, _GLOBAL, _TUPLE, _BUILT, _INT, _LIST, _DICT, _SET, _PERSISTENT, _DTYPE = range(12)
"""Kinds. _NAME is a string that STACK_GLOBAL accepts; _TEXT is a string of Python 2, whose decoding is an option."""
_OTHER, _NONE, _TRUE, _FALSE, MAGIC = (_DATA | number << _SHIFT for number in range(5))
"""Values of the kind _DATA; MAGIC is the number that torch's old files begin with."""
_CONSTANTS: dict[int, Value] = {_NONE: None, _TRUE: True, _FALSE: False}
_UNSET = -1  # in the memo


@dataclass(frozen=True, slots=True)
class Storage:
    """A torch storage: the name of its class, and the number of its elements."""

    kind: str
    elements: int


class AllowedImports:
    """The allow-list, with a number from 1 for each import. Imports from packages in `ignored` are not listed."""

    def __init__(self, allowed: Mapping[str, set[str]], ignored: tuple[str, ...] = ()) -> None:
        pairs = [Import(module, name) for module, names in allowed.items() for name in sorted(names)]
        self.numbers = {(pair.module, pair.name): number for number, pair in enumerate(pairs, 1)}
        self.imports = [None, *pairs]
        self.ignored = tuple(f"{package}." for package in ignored)


class PickleMachine:
    """Runs the pickle that begins where `source` is.

    `is_first`: the unpickler has read nothing before. `is_plain`: the unpickler does not read joblib arrays.

    `imports` are the imports that are not allowed, as (module, name), at most 100. `spans` are the bytes that were
    opcodes, as (start, end). Both are also valid after an error.
    """

    def __init__(
        self, source: Source, allowed: AllowedImports, *, is_first: bool = True, is_plain: bool = False
    ) -> None:
        self.source = source
        self.imports: dict[tuple[str, str], None] = {}
        self.has_reached_import = False
        self.has_odd_persistent_ids = False
        self.has_joblib_arrays = False
        self.has_joblib_objects = False
        self.storages: dict[str, Storage] = {}
        self.begins = source.position
        self.spans = [(source.position, source.position)]
        self.is_plain = is_plain
        self.stack = array("q")
        self.marks = array("q")  # the stack's sizes at each
        self.fence = 0  # the last mark
        self.memo = array("q")
        self.is_memo_certain = is_first
        self.level = 1  # the highest protocol whose opcodes it may have; 0 and 1 are not named
        self._allowed = allowed
        self._arena = bytearray()  # all texts
        self._recent: list[tuple[int, ...] | None] = [None] * _RECENT
        self._serial = 0
        self._dtypes: list[Dtype] = []

    def run(self) -> int:
        """Return the pickle's value: MAGIC, or one for `read_int`.

        Raises DeadStreamError, NotCanonicalError, LimitError and UnparsedError. Other deviations from canonical pickles
        are in the source's notes.
        """
        source = self.source
        while True:
            byte = source.read_opcode()
            step = _TABLE[byte]
            if step is None:
                raise DeadStreamError
            if step.protocol > self.level:
                source.note(f"has opcode {step.name} in a pickle of protocol {self.level}")
                self.level = step.protocol
            step.apply(self, step.read(source))
            source.end_frame()
            if byte == _STOP:
                return self._stop()

    def _stop(self) -> int:
        self.source.check_no_frame()
        self.end_span()
        if len(self.stack) != 1 or self.marks:
            self.source.note("leaves more than one value")
        return self.stack[-1]

    def end_span(self) -> None:
        """Mark the current position as the end of the opcodes."""
        self.spans[-1] = (self.spans[-1][0], self.source.position)

    def need(self, count: int) -> None:
        """Raises DeadStreamError if there are fewer values after the last mark."""
        if len(self.stack) - self.fence < count:
            raise DeadStreamError

    def push_mark(self) -> None:
        self.fence = len(self.stack)
        self.marks.append(self.fence)

    def pop_mark(self) -> int:
        """Return its position in the stack. Raises DeadStreamError."""
        if not self.marks:
            raise DeadStreamError
        at = self.marks.pop()
        self.fence = self.marks[-1] if self.marks else 0
        return at

    def push_text(self, text: bytes | None, kind: int) -> None:
        if text is None:
            self.stack.append(_OTHER)
        else:
            self.stack.append((len(self._arena) << _LENGTH_BITS | len(text)) << _SHIFT | kind)
            self._arena += text

    def push_int(self, value: int | None) -> None:
        if value is not None and -_SMALL < value < _SMALL:
            self.stack.append(value << _SHIFT | _INT)
        else:
            self.stack.append(MAGIC if value == TORCH_MAGIC else _OTHER)

    def push_items(self, items: tuple[int, ...] | None, kind: int) -> None:
        """Push a tuple or dictionary. Its items are known while it is one of the last 4,096."""
        self._serial += 1
        self._recent[self._serial % _RECENT] = items
        self.stack.append(self._serial << _SHIFT | kind)

    def push_tuple(self, at: int) -> None:
        """Replace the stack from `at` by a tuple of it."""
        items = tuple(self.stack[at:]) if len(self.stack) - at <= _MAX_ITEMS else None
        del self.stack[at:]
        self.push_items(items, _TUPLE)

    def set_items(self, at: int) -> None:
        """Set pairs from `at` in the value before it. Raises DeadStreamError."""
        if at <= self.fence or (len(self.stack) - at) % 2:
            raise DeadStreamError
        target = self.stack[at - 1]
        if target & _MASK == _DICT:
            serial = target >> _SHIFT
            if self._serial - serial < _RECENT:
                items = self._recent[serial % _RECENT]
                is_known = items is not None and len(items) + len(self.stack) - at <= 2 * _MAX_ITEMS
                self._recent[serial % _RECENT] = (items or ()) + tuple(self.stack[at:]) if is_known else None
        elif target & _MASK != _BUILT:
            self.source.note("sets items of a value that is not a dictionary")
        del self.stack[at:]

    def add_items(self, at: int, kind: int) -> None:
        """Add values from `at` to the one before, which must be of `kind` or built. Raises DeadStreamError."""
        if at <= self.fence:
            raise DeadStreamError
        if self.stack[at - 1] & _MASK not in (kind, _BUILT):
            self.source.note("adds items to a value that is not a list or set")
        del self.stack[at:]

    def put(self, index: int | None) -> None:
        """Raises DeadStreamError. Picklers number from 0, except for cPickle of Python 2, which numbers from 1."""
        self.need(1)
        if index == 1 and not self.memo:
            self.memo.append(_UNSET)
        if index == len(self.memo):
            self.memo.append(self.stack[-1])
        else:
            self.source.note("stores to its memo out of order")
            self.is_memo_certain = False

    def get(self, index: int | None) -> None:
        """Raises DeadStreamError for an index that was never stored."""
        value = self.memo[index] if index is not None and index < len(self.memo) else _UNSET
        if value == _UNSET:
            if self.is_memo_certain and index is not None:
                raise DeadStreamError
            self.source.note("reads a memo index that was not stored")
            value = _OTHER
        self.stack.append(value)

    def import_name(self, names: tuple[str, str]) -> None:
        self.has_reached_import = True
        number = self._allowed.numbers.get(names, 0)
        is_ignored = f"{names[0]}.".startswith(self._allowed.ignored)
        if not number and not is_ignored and len(self.imports) < _MAX_IMPORTS:
            self.imports[names[0][:_MAX_SHOWN], names[1][:_MAX_SHOWN]] = None
        self.stack.append(number << _SHIFT | _GLOBAL)

    def import_from_stack(self) -> None:
        """Raises DeadStreamError."""
        self.need(2)
        name, module = self.stack.pop(), self.stack.pop()
        if module & _MASK == name & _MASK == _NAME:
            self.import_name((self._find_text(module), self._find_text(name)))
        else:
            self.has_reached_import = True
            self.source.note("imports a name that is not a plain string")
            self.stack.append(_GLOBAL)

    def call(self, callee: int, arguments: int) -> int:
        """Return the call's result."""
        if callee & _MASK != _GLOBAL:
            self.source.note("calls a value that is not an import")
            return _OTHER
        if arguments & _MASK != _TUPLE:
            self.source.note("calls with arguments that are not a tuple")
        imported = self._allowed.imports[callee >> _SHIFT]
        if imported in _SCALARS:
            return _OTHER
        if imported == _DTYPE_NAMES and len(self._dtypes) < _MAX_DTYPES:
            self._dtypes.append(make_dtype(self._describe(arguments)))
            return len(self._dtypes) - 1 << _SHIFT | _DTYPE
        return callee & ~_MASK | _BUILT

    def set_state(self) -> None:
        """Raises DeadStreamError, UnparsedError, and NotCanonicalError."""
        self.need(2)
        state = self.stack.pop()
        target = self.stack[-1]
        if target & _MASK == _DTYPE:
            finish_dtype(self._dtypes[target >> _SHIFT], self._describe(state))
        elif target & _MASK != _BUILT:
            self.source.note("sets the state of a value that no call returned")
        elif self._allowed.imports[target >> _SHIFT] == JOBLIB_ARRAY and not self.is_plain:
            self._read_array(state)

    def find_persistent(self) -> None:
        """Resolve a persistent ID as torch does. Raises DeadStreamError.

        ('storage', class, key, device, elements[, view]), or ('module', class, file, source), which is the class.
        """
        self.need(1)
        value = self.stack.pop()
        self.stack.append(_PERSISTENT)
        match self._describe(value):
            case ("storage", Import(_, kind), str(key), str(), int(elements)) | (
                "storage", Import(_, kind), str(key), str(), int(elements), _
            ) if len(self.storages) < _MAX_STORAGES:  # fmt: skip
                storage = Storage(kind, elements)
                self.has_odd_persistent_ids |= self.storages.setdefault(key, storage) != storage
            case ("module", _, _, _) if items := self._recall(value):
                self.stack[-1] = items[1]
            case _:
                self.has_odd_persistent_ids = True

    def read_int(self, value: int) -> int | None:
        return value >> _SHIFT if value & _MASK == _INT else None

    def _find_text(self, value: int) -> str:
        begins, length = value >> _SHIFT + _LENGTH_BITS, value >> _SHIFT & opcodes.MAX_NAME
        return self._arena[begins : begins + length].decode("utf-8", "replace")

    def _recall(self, value: int) -> tuple[int, ...] | None:
        """Return the items of a tuple or dictionary; None if they are not known."""
        serial = value >> _SHIFT
        return self._recent[serial % _RECENT] if self._serial - serial < _RECENT else None

    def _describe(self, value: int, depth: int = 2) -> Value:
        """Return what is known of a value, with tuples in it to that depth."""
        kind, payload = value & _MASK, value >> _SHIFT
        if kind == _INT:
            return payload
        if kind in (_NAME, _TEXT):
            return self._find_text(value)
        if kind == _GLOBAL:
            return self._allowed.imports[payload] or Unknown.UNKNOWN
        if kind == _DTYPE:
            return self._dtypes[payload]
        if kind == _TUPLE and depth and (items := self._recall(value)) is not None:
            return tuple(self._describe(item, depth - 1) for item in items)
        return _CONSTANTS.get(value, Unknown.UNKNOWN)

    def _describe_dictionary(self, value: int) -> dict[str, Value]:
        """Return a dictionary's items; none if they are not known, or a key is not a string."""
        items = (self._recall(value) if value & _MASK == _DICT else None) or ()
        described = [self._describe(item) for item in items]
        pairs = dict(zip(map(str, described[::2]), described[1::2], strict=True))
        return pairs if all(isinstance(key, str) for key in described[::2]) else {}

    def _read_array(self, state: int) -> None:
        """Raises DeadStreamError, LimitError, UnparsedError, and NotCanonicalError."""
        self.source.end_frame()
        self.source.check_no_frame()
        self.end_span()
        self.has_joblib_arrays = True
        length = count_bytes(self._describe_dictionary(state))
        if length is None:
            self.has_joblib_objects = True
            self._run_nested()
        else:
            padding = self.source.take_number(1)
            if not 0 < padding <= ALIGNMENT or self.source.take(padding).strip(b"\xff"):
                raise NotCanonicalError("has a joblib array with padding that joblib does not write")
            self.source.skip(length)
        self.spans.append((self.source.position, self.source.position))

    def _run_nested(self) -> None:
        nested = PickleMachine(self.source, self._allowed, is_plain=True)
        try:
            nested.run()
        finally:
            nested.end_span()
            self.imports |= nested.imports
            self.spans += nested.spans


@dataclass(frozen=True, slots=True)
class _Step[A]:
    """An opcode: how to read its argument, and its effect. `protocol` is the lowest that has it."""

    name: str
    protocol: int
    read: Callable[[Source], A]
    apply: Callable[[PickleMachine, A], None]


def _push(value: int) -> Callable[[PickleMachine, object], None]:
    return lambda machine, _: machine.stack.append(value)


def _push_text(kind: int) -> Callable[[PickleMachine, bytes | None], None]:
    return lambda machine, text: machine.push_text(text, kind)


def _push_int(machine: PickleMachine, value: int | None) -> None:
    machine.push_int(value)


def _push_tuple(count: int) -> Callable[[PickleMachine, None], None]:
    def apply(machine: PickleMachine, _: None) -> None:
        machine.need(count)
        machine.push_tuple(len(machine.stack) - count)

    return apply


def _push_marked_tuple(machine: PickleMachine, _: None) -> None:
    machine.push_tuple(machine.pop_mark())


def _push_empty_dict(machine: PickleMachine, _: None) -> None:
    machine.push_items((), _DICT)


def _push_marked(kind: int) -> Callable[[PickleMachine, None], None]:
    """Build a list or a frozen set."""

    def apply(machine: PickleMachine, _: None) -> None:
        del machine.stack[machine.pop_mark() :]
        machine.stack.append(kind)

    return apply


def _push_marked_dict(machine: PickleMachine, _: None) -> None:
    at = machine.pop_mark()
    if (len(machine.stack) - at) % 2:
        raise DeadStreamError
    del machine.stack[at:]
    machine.push_items(None, _DICT)


def _mark(machine: PickleMachine, _: None) -> None:
    machine.push_mark()


def _append(machine: PickleMachine, _: None) -> None:
    machine.add_items(len(machine.stack) - 1, _LIST)


def _append_marked(kind: int) -> Callable[[PickleMachine, None], None]:
    return lambda machine, _: machine.add_items(machine.pop_mark(), kind)


def _set_item(machine: PickleMachine, _: None) -> None:
    machine.set_items(len(machine.stack) - 2)


def _set_marked_items(machine: PickleMachine, _: None) -> None:
    machine.set_items(machine.pop_mark())


def _pop(machine: PickleMachine, _: None) -> None:
    if machine.marks and machine.fence == len(machine.stack):
        machine.pop_mark()
    else:
        machine.need(1)
        machine.stack.pop()


def _pop_marked(machine: PickleMachine, _: None) -> None:
    del machine.stack[machine.pop_mark() :]


def _duplicate(machine: PickleMachine, _: None) -> None:
    machine.need(1)
    machine.source.note("uses DUP")
    machine.stack.append(machine.stack[-1])


def _get(machine: PickleMachine, index: int | None) -> None:
    machine.get(index)


def _put(machine: PickleMachine, index: int | None) -> None:
    machine.put(index)


def _memoize(machine: PickleMachine, _: None) -> None:
    if machine.memo and machine.memo[0] == _UNSET:
        machine.put(None)
    else:
        machine.put(len(machine.memo))


def _import(machine: PickleMachine, names: tuple[str, str]) -> None:
    machine.import_name(names)


def _import_from_stack(machine: PickleMachine, _: None) -> None:
    machine.import_from_stack()


def _reduce(machine: PickleMachine, _: None) -> None:
    machine.need(2)
    arguments = machine.stack.pop()
    machine.stack[-1] = machine.call(machine.stack[-1], arguments)


def _new_with_keywords(machine: PickleMachine, _: None) -> None:
    machine.need(3)
    if machine.stack.pop() & _MASK != _DICT:
        machine.source.note("calls with keywords that are not a dictionary")
    _reduce(machine, None)


def _call_marked(machine: PickleMachine, _: None) -> None:
    at = machine.pop_mark()
    if at == len(machine.stack):
        raise DeadStreamError
    callee = machine.stack[at]
    machine.push_tuple(at + 1)
    machine.stack.pop()
    machine.stack[-1] = machine.call(callee, _TUPLE)


def _import_and_call(machine: PickleMachine, names: tuple[str, str]) -> None:
    # Python's unpickler imports before it looks for the mark.
    machine.import_name(names)
    callee = machine.stack.pop()
    del machine.stack[machine.pop_mark() :]
    machine.stack.append(machine.call(callee, _TUPLE))


def _set_state(machine: PickleMachine, _: None) -> None:
    machine.set_state()


def _find_persistent(machine: PickleMachine, _: None) -> None:
    machine.find_persistent()


def _push_buffer(machine: PickleMachine, _: None) -> None:
    machine.source.note("uses out-of-band buffers")
    machine.stack.append(_OTHER)


def _protect_buffer(machine: PickleMachine, _: None) -> None:
    machine.need(1)
    machine.source.note("uses out-of-band buffers")


def _name_protocol(machine: PickleMachine, protocol: int) -> None:
    if machine.source.opcode_position != machine.begins:
        machine.source.note("declares its protocol after its beginning")
    machine.level = max(machine.level, protocol)


def _check_stop(machine: PickleMachine, _: None) -> None:
    machine.need(1)


def _do_nothing(_: PickleMachine, __: None) -> None:
    """The source handles frames."""


_NOTHING = opcodes.read_nothing
_STOP = ord(".")
_STEPS: dict[bytes, _Step[Any]] = {  # Any: each has its own type of argument
    b"(": _Step("MARK", 0, _NOTHING, _mark),
    b".": _Step("STOP", 0, _NOTHING, _check_stop),
    b"0": _Step("POP", 0, _NOTHING, _pop),
    b"1": _Step("POP_MARK", 1, _NOTHING, _pop_marked),
    b"2": _Step("DUP", 0, _NOTHING, _duplicate),
    b"F": _Step("FLOAT", 0, opcodes.read_float_line, _push(_OTHER)),
    b"I": _Step("INT", 0, opcodes.read_int_line, _push_int),
    b"J": _Step("BININT", 1, opcodes.read_int(4, 0x10000), _push_int),
    b"K": _Step("BININT1", 1, opcodes.read_int(1, 0), _push_int),
    b"L": _Step("LONG", 0, opcodes.read_long_line, _push_int),
    b"M": _Step("BININT2", 1, opcodes.read_int(2, 0x100), _push_int),
    b"N": _Step("NONE", 0, _NOTHING, _push(_NONE)),
    b"P": _Step("PERSID", 0, opcodes.read_persistent_line, _push(_PERSISTENT)),
    b"Q": _Step("BINPERSID", 1, _NOTHING, _find_persistent),
    b"R": _Step("REDUCE", 0, _NOTHING, _reduce),
    b"S": _Step("STRING", 0, opcodes.read_quoted_line, _push_text(_TEXT)),
    b"T": _Step("BINSTRING", 1, opcodes.read_text(4, is_unicode=False, lowest=0x100), _push_text(_TEXT)),
    b"U": _Step("SHORT_BINSTRING", 1, opcodes.read_text(1, is_unicode=False), _push_text(_TEXT)),
    b"V": _Step("UNICODE", 0, opcodes.read_unicode_line, _push(_OTHER)),
    b"X": _Step("BINUNICODE", 1, opcodes.read_text(4, is_unicode=True), _push_text(_NAME)),
    b"a": _Step("APPEND", 0, _NOTHING, _append),
    b"b": _Step("BUILD", 0, _NOTHING, _set_state),
    b"c": _Step("GLOBAL", 0, opcodes.read_import("utf-8"), _import),
    b"d": _Step("DICT", 0, _NOTHING, _push_marked_dict),
    b"}": _Step("EMPTY_DICT", 1, _NOTHING, _push_empty_dict),
    b"e": _Step("APPENDS", 1, _NOTHING, _append_marked(_LIST)),
    b"g": _Step("GET", 0, opcodes.read_index_line, _get),
    b"h": _Step("BINGET", 1, opcodes.read_index(1, 0), _get),
    b"i": _Step("INST", 0, opcodes.read_import("ascii"), _import_and_call),
    b"j": _Step("LONG_BINGET", 1, opcodes.read_index(4, 0x100), _get),
    b"l": _Step("LIST", 0, _NOTHING, _push_marked(_LIST)),
    b"]": _Step("EMPTY_LIST", 1, _NOTHING, _push(_LIST)),
    b"o": _Step("OBJ", 1, _NOTHING, _call_marked),
    b"p": _Step("PUT", 0, opcodes.read_index_line, _put),
    b"q": _Step("BINPUT", 1, opcodes.read_index(1, 0), _put),
    b"r": _Step("LONG_BINPUT", 1, opcodes.read_index(4, 0x100), _put),
    b"s": _Step("SETITEM", 0, _NOTHING, _set_item),
    b"t": _Step("TUPLE", 0, _NOTHING, _push_marked_tuple),
    b")": _Step("EMPTY_TUPLE", 1, _NOTHING, _push_tuple(0)),
    b"u": _Step("SETITEMS", 1, _NOTHING, _set_marked_items),
    b"G": _Step("BINFLOAT", 1, opcodes.read_fixed(8), _push(_OTHER)),
    b"\x80": _Step("PROTO", 0, opcodes.read_protocol, _name_protocol),
    b"\x81": _Step("NEWOBJ", 2, _NOTHING, _reduce),
    b"\x82": _Step("EXT1", 2, opcodes.read_extension(1), _push(_GLOBAL)),
    b"\x83": _Step("EXT2", 2, opcodes.read_extension(2), _push(_GLOBAL)),
    b"\x84": _Step("EXT4", 2, opcodes.read_extension(4), _push(_GLOBAL)),
    b"\x85": _Step("TUPLE1", 2, _NOTHING, _push_tuple(1)),
    b"\x86": _Step("TUPLE2", 2, _NOTHING, _push_tuple(2)),
    b"\x87": _Step("TUPLE3", 2, _NOTHING, _push_tuple(3)),
    b"\x88": _Step("NEWTRUE", 2, _NOTHING, _push(_TRUE)),
    b"\x89": _Step("NEWFALSE", 2, _NOTHING, _push(_FALSE)),
    b"\x8a": _Step("LONG1", 2, opcodes.read_long, _push_int),
    b"\x8b": _Step("LONG4", 2, opcodes.skip_long, _push(_OTHER)),
    b"B": _Step("BINBYTES", 3, opcodes.skip_bytes(4, 0x100), _push(_OTHER)),
    b"C": _Step("SHORT_BINBYTES", 3, opcodes.skip_bytes(1), _push(_OTHER)),
    b"\x8c": _Step("SHORT_BINUNICODE", 4, opcodes.read_text(1, is_unicode=True), _push_text(_NAME)),
    b"\x8d": _Step("BINUNICODE8", 4, opcodes.read_text(8, is_unicode=True, lowest=2**32), _push_text(_NAME)),
    b"\x8e": _Step("BINBYTES8", 4, opcodes.skip_bytes(8, 2**32), _push(_OTHER)),
    b"\x8f": _Step("EMPTY_SET", 4, _NOTHING, _push(_SET)),
    b"\x90": _Step("ADDITEMS", 4, _NOTHING, _append_marked(_SET)),
    b"\x91": _Step("FROZENSET", 4, _NOTHING, _push_marked(_OTHER)),
    b"\x92": _Step("NEWOBJ_EX", 4, _NOTHING, _new_with_keywords),
    b"\x93": _Step("STACK_GLOBAL", 4, _NOTHING, _import_from_stack),
    b"\x94": _Step("MEMOIZE", 4, _NOTHING, _memoize),
    b"\x95": _Step("FRAME", 4, opcodes.read_frame, _do_nothing),
    b"\x96": _Step("BYTEARRAY8", 5, opcodes.skip_bytes(8), _push(_OTHER)),
    b"\x97": _Step("NEXT_BUFFER", 5, _NOTHING, _push_buffer),
    b"\x98": _Step("READONLY_BUFFER", 5, _NOTHING, _protect_buffer),
}
_TABLE = [_STEPS.get(bytes([byte])) for byte in range(256)]
