"""Abstract interpretation of one pickle: the imports, calls and storages that an unpickler would request.

Nothing is imported, called or built.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from modelhaul.inspection.pickles.joblib_arrays import JOBLIB_ARRAY, make_dtype, set_dtype_state
from modelhaul.inspection.pickles.source import Source
from modelhaul.inspection.pickles.state import UnpicklerState
from modelhaul.inspection.pickles.values import (
    BUILT,
    CONSTANTS,
    DICT,
    DTYPE,
    GLOBAL,
    INT,
    KIND_MASK,
    NAME,
    OTHER,
    PAYLOAD_SHIFT,
    PERSISTENT,
    TEXT,
    TUPLE,
    Dtype,
    Import,
    Unknown,
    Value,
)

_NUMPY_DTYPE = Import("numpy", "dtype")
# With the object dtype, `scalar` returns its argument, which may be a class. BUILD must not set attributes of that
# class.
_SCALARS = {Import("numpy.core.multiarray", "scalar"), Import("numpy._core.multiarray", "scalar")}
_MAX_IMPORTS = 100  # listed
_MAX_LISTED_NAME = 200  # characters of a listed module or name
_MAX_STORAGES = 100_000
_MAX_DTYPES = 1_024


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


class PickleMachine(UnpicklerState):
    """An unpickler for the pickle at the position of `source`.

    `is_first`: the unpickler has read no pickle before. `is_plain`: the unpickler does not read joblib arrays.

    `imports` are the imports that are not allowed, as (module, name), at most 100. `spans` are the bytes that were
    opcodes, as (start, end). Both are also valid after an error. `protocol` is the highest protocol whose opcodes the
    pickle may contain. It is 1 for a pickle of protocol 0 or 1, which has no PROTO opcode to declare its protocol.
    """

    def __init__(
        self, source: Source, allowed: AllowedImports, *, is_first: bool = True, is_plain: bool = False
    ) -> None:
        super().__init__(source, is_first=is_first)
        self.allowed = allowed
        self.imports: dict[tuple[str, str], None] = {}
        self.storages: dict[str, Storage] = {}
        self.has_reached_import = False
        self.has_unknown_persistent_ids = False
        self.has_joblib_arrays = False
        self.has_joblib_objects = False
        self.is_plain = is_plain
        self.protocol = 1
        self.start = source.position
        self.spans = [(source.position, source.position)]
        self._dtypes: list[Dtype] = []

    def end_span(self) -> None:
        """Mark the current position as the end of the opcodes."""
        self.spans[-1] = (self.spans[-1][0], self.source.position)

    def begin_span(self) -> None:
        """Mark the current position as the beginning of further opcodes."""
        self.spans.append((self.source.position, self.source.position))

    def import_name(self, names: tuple[str, str]) -> None:
        self.has_reached_import = True
        number = self.allowed.numbers.get(names, 0)
        is_ignored = f"{names[0]}.".startswith(self.allowed.ignored)
        if not number and not is_ignored and len(self.imports) < _MAX_IMPORTS:
            self.imports[names[0][:_MAX_LISTED_NAME], names[1][:_MAX_LISTED_NAME]] = None
        self.stack.append(number << PAYLOAD_SHIFT | GLOBAL)

    def import_from_stack(self) -> None:
        """Import the module and name on the stack. Raises DeadStreamError."""
        self.require(2)
        name, module = self.stack.pop(), self.stack.pop()
        if module & KIND_MASK == name & KIND_MASK == NAME:
            self.import_name((self.find_text(module), self.find_text(name)))
        else:
            self.has_reached_import = True
            self.source.note("imports a name that is not a plain string")
            self.stack.append(GLOBAL)

    def call(self, callee: int, arguments: int) -> int:
        """Return the result of a call."""
        if callee & KIND_MASK != GLOBAL:
            self.source.note("calls an object that was not imported")
            return OTHER
        if arguments & KIND_MASK != TUPLE:
            self.source.note("calls an object with arguments that are not a tuple")
        imported = self.allowed.imports[callee >> PAYLOAD_SHIFT]
        if imported in _SCALARS:
            return OTHER
        if imported == _NUMPY_DTYPE and len(self._dtypes) < _MAX_DTYPES:
            self._dtypes.append(make_dtype(self._describe(arguments)))
            return len(self._dtypes) - 1 << PAYLOAD_SHIFT | DTYPE
        return callee & ~KIND_MASK | BUILT

    def build(self) -> int | None:
        """Set the state of a value. Return the state of a joblib array, whose bytes follow, else None.

        Raises DeadStreamError.
        """
        self.require(2)
        state = self.stack.pop()
        target = self.stack[-1]
        if target & KIND_MASK == DTYPE:
            set_dtype_state(self._dtypes[target >> PAYLOAD_SHIFT], self._describe(state))
        elif target & KIND_MASK != BUILT:
            self.source.note("sets the state (BUILD) of an object that was not created by a call")
        elif self.allowed.imports[target >> PAYLOAD_SHIFT] == JOBLIB_ARRAY and not self.is_plain:
            return state
        return None

    def load_persistent(self) -> None:
        """Resolve a persistent ID as torch does. Raises DeadStreamError.

        ('storage', class, key, device, elements[, view]), or ('module', class, file, source), which is the class.
        """
        self.require(1)
        value = self.stack.pop()
        self.stack.append(PERSISTENT)
        match self._describe(value):
            case ("storage", Import(_, kind), str(key), str(), int(elements)) | (
                "storage", Import(_, kind), str(key), str(), int(elements), _
            ) if len(self.storages) < _MAX_STORAGES:  # fmt: skip
                storage = Storage(kind, elements)
                self.has_unknown_persistent_ids |= self.storages.setdefault(key, storage) != storage
            case ("module", _, _, _) if items := self.find_items(value):
                self.stack[-1] = items[1]
            case _:
                self.has_unknown_persistent_ids = True

    def describe_dictionary(self, value: int) -> dict[str, Value]:
        """Return the items of a dictionary; empty if they are not known, or if a key is not a string."""
        items = (self.find_items(value) if value & KIND_MASK == DICT else None) or ()
        described = [self._describe(item) for item in items]
        pairs = dict(zip(map(str, described[::2]), described[1::2], strict=True))
        return pairs if all(isinstance(key, str) for key in described[::2]) else {}

    def _describe(self, value: int, depth: int = 2) -> Value:
        """Return what is known about a value, with nested tuples to that depth."""
        kind, payload = value & KIND_MASK, value >> PAYLOAD_SHIFT
        if kind == INT:
            return payload
        if kind in (NAME, TEXT):
            return self.find_text(value)
        if kind == GLOBAL:
            return self.allowed.imports[payload] or Unknown.UNKNOWN
        if kind == DTYPE:
            return self._dtypes[payload]
        if kind == TUPLE and depth and (items := self.find_items(value)) is not None:
            return tuple(self._describe(item, depth - 1) for item in items)
        return CONSTANTS.get(value, Unknown.UNKNOWN)
