"""What a pickle would import, told by its opcodes: nothing is ever unpickled.

Default-deny: a pickle is clean if all that it imports is on a list of what tensors, arrays and plain containers are
rebuilt with, and every byte of it can be accounted for.
https://docs.python.org/3/library/pickletools.html
"""

import codecs
import io
import pickletools
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from modelhaul.json_streams import ReadRange

_MOST_BYTES = 64 * 1024 * 1024  # that are read of one pickle
MOST_KEPT = 4 * 1024 * 1024  # bytes of a file's pickles, for a second opinion
_ALWAYS_READ = 255  # bytes of an argument
_LONGEST_ARGUMENT = 4 * 1024 * 1024  # bytes that are held in memory
_MOST_OPCODES = 4_000_000
_MOST_PICKLES = 1_000  # in a row
_MOST_REASONS = 20
_LONGEST_REASON = 200  # characters
_WINDOW = 256 * 1024
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py
_PICKLES_BEFORE_STORAGES = 5  # magic number, protocol, system, the object, the storages' keys
_BEGINNINGS = {b"\x80" + bytes([protocol]) for protocol in range(6)}

_CONTAINERS = {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "range", "set"}
_CONTAINERS |= {"slice", "str", "tuple"}
_STORAGES = {
    f"{kind}Storage"
    for kind in (
        "BFloat16", "Bool", "Byte", "Char", "ComplexDouble", "ComplexFloat", "Double", "Float", "Half", "Int", "Long",
        "QInt32", "QInt8", "QUInt2x4", "QUInt4x2", "QUInt8", "Short", "Typed", "Untyped",
        "Float8_e4m3fn", "Float8_e4m3fnuz", "Float8_e5m2", "Float8_e5m2fnuz", "UInt16", "UInt32", "UInt64",
    )
}  # fmt: skip
_TENSORS = {
    f"{kind}Tensor"
    for kind in ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
}  # fmt: skip
_DTYPES = {
    "bfloat16", "bits16", "bits1x8", "bits2x4", "bits4x2", "bits8", "bool", "complex128", "complex32", "complex64",
    "double", "float", "float16", "float32", "float4_e2m1fn_x2", "float64", "float8_e4m3fn", "float8_e4m3fnuz",
    "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "half", "int", "int16", "int32", "int64", "int8", "long",
    "qint32", "qint8", "quint2x4", "quint4x2", "quint8", "short", "uint16", "uint32", "uint64", "uint8",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)),
}  # fmt: skip
_QUANTIZATIONS = {
    "per_channel_affine", "per_channel_affine_float_qparams", "per_channel_symmetric", "per_tensor_affine",
    "per_tensor_symmetric",
}  # fmt: skip
_REBUILDERS = {
    "_rebuild_device_tensor_from_cpu_tensor", "_rebuild_device_tensor_from_numpy",
    "_rebuild_meta_tensor_no_storage", "_rebuild_nested_tensor", "_rebuild_parameter",
    "_rebuild_parameter_with_state", "_rebuild_qtensor", "_rebuild_sparse_csr_tensor", "_rebuild_sparse_tensor",
    "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_wrapper_subclass",
}  # fmt: skip
_ALLOWED: dict[str, set[str]] = {
    "builtins": _CONTAINERS,
    "__builtin__": _CONTAINERS | {"long", "unicode", "xrange"},
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "_codecs": {"encode"},  # how protocol 2 writes bytes: encode(text, "latin1")
    "torch": _STORAGES | _TENSORS | _DTYPES | _QUANTIZATIONS | {"Size", "Tensor", "device"},
    "torch.storage": {"TypedStorage", "UntypedStorage", "_TypedStorage", "_UntypedStorage"},
    "torch.cuda": _STORAGES | _TENSORS,
    "torch.sparse": _TENSORS,
    "torch.cuda.sparse": _TENSORS,
    "torch._utils": _REBUILDERS,
    "torch._tensor": {"_rebuild_from_type_v2"},
    "torch.nn.parameter": {"Buffer", "Parameter"},
    "torch.serialization": {"_get_layout"},
    "torch.torch_version": {"TorchVersion"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
    "numpy": {"dtype", "ndarray"},
}
"""What torch's own `weights_only` loader allows, and what numpy and plain containers need."""

_STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_IMPORTS = {"GLOBAL", "INST"}
_CALLS = {"BUILD", "INST", "NEWOBJ", "NEWOBJ_EX", "OBJ", "REDUCE"}
_MODULE = re.compile(r"[\w.]+ ")  # before the name in it
_NUMBER = re.compile(rb"[\s+-]*[0-9]")
_WITHOUT_EFFECT = {"PROTO", "FRAME"}
# Nothing of these is written by torch, and they only help to hide what is called.
_REFUSED = {"EXT1", "EXT2", "EXT4", "PERSID", "NEXT_BUFFER", "READONLY_BUFFER"}


class PickleVerdict(StrEnum):
    CLEAN = "clean"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class PickleReport:
    """At most 20 `reasons`, such as `imports os.system`; none if it is clean. `content`: the pickles themselves, one
    behind the other, without what lies around them; None above 4 MiB, or where there is no telling. `unread`: members
    of an archive that could not be looked into.
    """

    verdict: PickleVerdict
    reasons: tuple[str, ...] = ()
    content: bytes | None = field(default=None, compare=False, repr=False)
    unread: tuple[str, ...] = ()


class _LimitError(Exception):
    def __str__(self) -> str:
        return "is too large to be looked through"


class _FrameError(Exception):
    """A frame does not end with an opcode. C's unpickler then leaves out the rest of it, and reads other opcodes."""

    def __str__(self) -> str:
        return "has a frame that ends within an opcode"


def block(*reasons: str) -> PickleReport:
    """Of what has these reasons not to be unpickled."""
    shown = dict.fromkeys("".join(c if c.isprintable() else "?" for c in r)[:_LONGEST_REASON] for r in reasons)
    return PickleReport(PickleVerdict.BLOCKED, tuple(shown)[:_MOST_REASONS])


def judge(reasons: Sequence[str]) -> PickleReport:
    """Blocked if there are reasons to."""
    return block(*reasons) if reasons else PickleReport(PickleVerdict.CLEAN)


class _RangeReader(io.RawIOBase):
    """A part of a file, read by ranges. Raises _LimitError once more was read than is looked through of a pickle."""

    def __init__(self, read: ReadRange, start: int, end: int) -> None:
        super().__init__()
        self._read = read
        self._position = start
        self._end = end
        self._left = _MOST_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = (0, self._position, self._end)[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = min(len(buffer), self._end - self._position)
        if count <= 0:
            return 0
        if self._left <= 0:
            raise _LimitError
        data = self._read(self._position, self._position + count)
        buffer[: len(data)] = data
        self._position += len(data)
        self._left -= len(data)
        return len(data)


class _SkippedArgument(bytes):
    """As long as it is in the file, and empty: pickletools asks for no more."""

    _length: int

    def __new__(cls, length: int) -> Self:
        skipped = super().__new__(cls)
        skipped._length = length
        return skipped

    def __len__(self) -> int:
        return self._length


class _Recorder:
    """Hands out what is read of a file, and keeps it. It has no `tell`, as nobody asks for the places of opcodes."""

    def __init__(self, window: _RangeReader, size: int) -> None:
        self._stream: io.BufferedReader[Any] = io.BufferedReader(window, _WINDOW)
        self._size = size
        self._kept: bytearray | None = bytearray()
        self._last = b""
        self._position = 0
        self._frame_end = 0

    @property
    def content(self) -> bytes | None:
        return None if self._kept is None else bytes(self._kept)

    def peek(self, size: int) -> bytes:
        return self._stream.peek(size)[:size]

    def follow(self, opcode: str, argument: Any) -> None:
        """Tells it of each opcode. Raises _FrameError."""
        if opcode in ("FRAME", "STOP") and self._position < self._frame_end:
            raise _FrameError
        if opcode == "FRAME":
            self._frame_end = self._position + argument

    def read(self, size: int) -> bytes:
        """Raises _FrameError."""
        if size > _ALWAYS_READ and size > self._size - self._stream.tell():
            return b""
        if size > _LONGEST_ARGUMENT:
            return self._skip(size)
        self._last = self._stream.read(size)
        return self._keep(self._last)

    def readline(self) -> bytes:
        """The argument of the opcode that was read before it. Raises _LimitError, _FrameError."""
        line = self._keep(self._stream.readline(_LONGEST_ARGUMENT))
        if len(line) == _LONGEST_ARGUMENT:
            raise _LimitError
        # What unpicklers take and pickletools does not: a number in hexadecimal, a text that torch reads as UTF-8.
        if self._last in (b"I", b"L") and _NUMBER.match(line) and not line.strip(b"L\n").isdigit():
            return b"0\n" if line.endswith(b"\n") else line
        return _hide_text(line) if self._last == b"S" else line

    def _skip(self, size: int) -> bytes:
        """An argument that can only be data: no name is as long."""
        self._kept = None
        self._stream.seek(size, io.SEEK_CUR)
        self._move(size)
        return _SkippedArgument(size)

    def _move(self, size: int) -> None:
        begins, self._position = self._position, self._position + size
        if begins < self._frame_end < self._position:
            raise _FrameError

    def _keep(self, data: bytes) -> bytes:
        self._move(len(data))
        if self._kept is not None and len(self._kept) + len(data) > MOST_KEPT:
            self._kept = None
        elif self._kept is not None:
            self._kept += data
        return data


def _hide_text(line: bytes) -> bytes:
    """A quoted text that is not ASCII, as one that can be read and is no name."""
    quote, text = line[:1], line[:-1]
    try:
        is_ascii = codecs.escape_decode(text)[0].isascii()
    except ValueError:
        return line
    return line if is_ascii or not text.endswith(quote) else quote + b"?" + quote + b"\n"


@dataclass(slots=True)
class _Walk:
    """One pickle's opcodes."""

    reasons: list[str] = field(default_factory=list)
    imported: bool = False
    """Whether it imports anything at all, or would."""
    is_torch_magic: bool = False
    _memo: dict[int, str | None] = field(default_factory=dict)
    _top: list[str | None] = field(default_factory=lambda: [None, None])
    """The two topmost values of the stack, as far as they are plain texts."""

    def run(self, source: "_Recorder") -> None:
        """Raises ValueError and others where it is no pickle, _LimitError."""
        for number, (opcode, argument, _) in enumerate(pickletools.genops(source)):  # type: ignore[arg-type]
            if number >= _MOST_OPCODES:
                raise _LimitError
            source.follow(opcode.name, argument)
            if not number and opcode.name == "STOP":
                raise ValueError("ends before it begins")
            # On a stack without two values it fails, as do extensions that nobody registered: bytes that are no pickle
            # may well begin like that.
            self.imported |= opcode.name in _IMPORTS or (opcode.name == "STACK_GLOBAL" and number > 1)
            self._step(opcode.name, argument)

    def _step(self, name: str, argument: object) -> None:
        if name in _REFUSED:
            self._add(f"uses the opcode {name}")
        if name in _STRINGS:
            self._push(str(argument))
        elif name in _GETS:
            self._push(self._memo.get(_read_index(argument)))
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._top[1]
        elif name in _PUTS:
            self._memo[_read_index(argument)] = self._top[1]
        elif name in _IMPORTS:
            module, _, attribute = str(argument).partition(" ")
            self._import(module, attribute)
        elif name == "STACK_GLOBAL":
            module_name, attribute_name = self._top
            if module_name is None or attribute_name is None:
                self._add("imports something whose name is hidden")
            else:
                self._import(module_name, attribute_name)
        elif name not in _WITHOUT_EFFECT:
            self.is_torch_magic |= argument == _TORCH_MAGIC
            self._push(None)
            self._push(None)

    def _import(self, module: str, name: str) -> None:
        self._push(None)
        self._push(None)
        if name not in _ALLOWED.get(module, ()):
            self._add(f"imports {module}.{name}")

    def _push(self, text: str | None) -> None:
        self._top = [self._top[1], text]

    def _add(self, reason: str) -> None:
        if len(self.reasons) <= _MOST_REASONS:
            self.reasons.append(reason)


def begins_to_run(head: bytes, size: int) -> bool:
    """Whether the first bytes of a file of `size` are pickles of which one imports and calls something, or may come to
    it behind them. They are followed as unpicklers do, which stop where their stack is empty: text hardly ever gets as
    far.
    """
    source = _Recorder(_RangeReader(lambda start, end: head[start:end], 0, len(head)), size)
    imported = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            while source.peek(1):
                stack: list[object] = []
                for opcode, argument, _ in pickletools.genops(source):  # type: ignore[arg-type]
                    source.follow(opcode.name, argument)
                    is_import = opcode.name in _IMPORTS
                    if not _apply(opcode, stack) or (is_import and not _MODULE.match(str(argument))):
                        return False
                    imported |= is_import or opcode.name == "STACK_GLOBAL"
                    if imported and opcode.name in _CALLS:
                        return True
    except (_LimitError, _FrameError):
        return True
    except (ValueError, EOFError, IndexError, KeyError, OverflowError, SyntaxError):
        # An import by itself runs a module; words one below the other look like one, but for the protocol in front.
        return (imported and head[:2] in _BEGINNINGS) or (len(head) < size and not source.peek(1))
    return bool(head)


def _apply(opcode: pickletools.OpcodeInfo, stack: list[object]) -> bool:
    """What the opcode does to the stack; False if it cannot."""
    mark = pickletools.markobject
    takes = list(opcode.stack_before)
    if mark in takes or (opcode.name == "POP" and stack and stack[-1] is mark):
        if mark not in stack:
            return False
        while stack.pop() is not mark:
            pass
        takes = takes[: takes.index(mark)] if mark in takes else []
    if len(stack) < len(takes):
        return False
    del stack[len(stack) - len(takes) :]
    stack.extend(opcode.stack_after)
    return True


def _read_index(argument: object) -> int:
    return argument if isinstance(argument, int) else int(str(argument))


def inspect_stream(read: ReadRange, start: int, end: int) -> PickleReport | None:
    """Pickles in bytes `start` to `end` (excluded), one behind the other; None if not even the first can be one."""
    source = _Recorder(_RangeReader(read, start, end), end)
    report = _inspect_pickles(source)
    return replace(report, content=source.content) if report is not None else None


def _inspect_pickles(source: _Recorder) -> PickleReport | None:
    reasons: list[str] = []
    most = _MOST_PICKLES
    for number in range(_MOST_PICKLES):
        if number >= most:
            return judge(reasons)
        walk, first = _Walk(), b""
        try:
            first = source.peek(2)
            if not first:
                return judge(reasons) if number else None
            with warnings.catch_warnings():
                # Of texts whose escapes are none.
                warnings.simplefilter("ignore")
                walk.run(source)
        except (_LimitError, _FrameError) as error:
            return block(*reasons, *walk.reasons, str(error))
        except (ValueError, EOFError, IndexError, KeyError, OverflowError, RecursionError, SyntaxError, MemoryError):
            # What comes before the fault is run all the same when it is loaded.
            if not number and not walk.imported and first not in _BEGINNINGS:
                return None
            return block(*reasons, *walk.reasons, "is not a pickle to its end")
        reasons += walk.reasons
        if not number and walk.is_torch_magic:
            most = _PICKLES_BEFORE_STORAGES
    return block(*reasons, "holds too many pickles to be looked through")
