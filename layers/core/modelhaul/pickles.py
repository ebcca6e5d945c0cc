"""What a pickle would import, told by its opcodes: nothing is ever unpickled.

Default-deny: a pickle is clean if all that it imports is on a list of what tensors, arrays and plain containers are
rebuilt with, and every byte of it can be accounted for.
https://docs.python.org/3/library/pickletools.html
"""

import ast
import io
import pickletools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from modelhaul.archive import ArchiveLimits, Entry
from modelhaul.archive_reading import ArchiveReader, open_memory
from modelhaul.errors import ArchiveRefusedError

type ReadRange = Callable[[int, int], bytes]
"""Bytes `start` to `end` (excluded) of a file."""

_SUFFIXES = {
    ".bin", ".ckpt", ".dat", ".dill", ".joblib", ".npy", ".npz", ".p", ".pickle", ".pkl", ".pt", ".pth", ".pyt", ".th",
}  # fmt: skip
_MOST_BYTES = 64 * 1024 * 1024  # of one pickle
_MOST_KEPT = 4 * 1024 * 1024  # bytes of a file's pickles, for a second opinion
_MOST_OPCODES = 4_000_000
_MOST_PICKLES = 1_000  # in a row
_MOST_REASONS = 20
_LONGEST_REASON = 200  # characters
_WINDOW = 256 * 1024
_TAIL = 66_000  # bytes: a ZIP's end record, and the longest comment behind it
_ZIP_LIMITS = ArchiveLimits(max_entries=100_000, max_entry_bytes=10**12, max_total_bytes=10**13, max_ratio=1032)
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py
_PICKLES_BEFORE_STORAGES = 5  # magic number, protocol, system, the object, the storages' keys
_BEGINNINGS = {b"\x80" + bytes([protocol]) for protocol in range(6)}
_NPY_MAGIC = b"\x93NUMPY"
_LONGEST_NPY_HEADER = 1024 * 1024
_TAR_MAGIC = slice(257, 262)
_COMPRESSED = (
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\x00",
    b"]\x00\x00",
    b"x\x01",
    b"x\x9c",
    b"x\xda",
    b"x\x5e",
    b"\x04\x22\x4d\x18",
)

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
_WITHOUT_EFFECT = {"PROTO", "FRAME"}
# Nothing of these is written by torch, and they only help to hide what is called.
_REFUSED = {"EXT1", "EXT2", "EXT4", "PERSID", "NEXT_BUFFER", "READONLY_BUFFER"}


class PickleVerdict(StrEnum):
    CLEAN = "clean"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class PickleReport:
    """At most 20 `reasons`, such as `imports os.system`; none if it is clean. `content`: the pickles themselves, one
    behind the other, without what lies around them; None above 4 MiB, or where there is no telling.
    """

    verdict: PickleVerdict
    reasons: tuple[str, ...] = ()
    content: bytes | None = field(default=None, compare=False, repr=False)


class _LimitError(Exception):
    pass


def is_pickle_name(path: str) -> bool:
    """Whether programs that load models would take a file of this name for a pickle."""
    return PurePosixPath(path).suffix.lower() in _SUFFIXES


def inspect_pickle(read: ReadRange, size: int) -> PickleReport | None:
    """None for what is no pickle in any form. Raises what `read` raises."""
    head = read(0, min(size, 512))
    if head.startswith(b"PK\x03\x04"):
        return _inspect_zip(read, size)
    if b"PK\x05\x06" in read(max(0, size - _TAIL), size):
        return _block("a ZIP archive lies behind other bytes")
    if head.startswith(_NPY_MAGIC):
        return _inspect_array(read, size)
    if head[_TAR_MAGIC] == b"ustar":
        return _block("a checkpoint in a tar archive, which cannot be looked through")
    if head.startswith(_COMPRESSED):
        return _block("a compressed pickle, which cannot be looked through")
    return _inspect_stream(_RangeReader(read, 0, size))


def _block(*reasons: str) -> PickleReport:
    shown = dict.fromkeys("".join(c if c.isprintable() else "?" for c in r)[:_LONGEST_REASON] for r in reasons)
    return PickleReport(PickleVerdict.BLOCKED, tuple(shown)[:_MOST_REASONS])


def _judge(reasons: list[str]) -> PickleReport:
    return _block(*reasons) if reasons else PickleReport(PickleVerdict.CLEAN)


class _RangeReader(io.RawIOBase):
    """A part of a file, read by ranges. Raises _LimitError once more was read than a pickle may have."""

    def __init__(self, read: ReadRange, start: int, end: int) -> None:
        super().__init__()
        self._read = read
        self._position = start
        self._end = end
        self._left = _MOST_BYTES

    def readable(self) -> bool:
        return True

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


class _Recorder:
    """Hands out what is read of a file, and keeps it. It has no `tell`, which a stream of ranges does not have."""

    def __init__(self, window: _RangeReader) -> None:
        self._stream: io.BufferedReader[Any] = io.BufferedReader(window, _WINDOW)
        self._kept: bytearray | None = bytearray()

    @property
    def content(self) -> bytes | None:
        return None if self._kept is None else bytes(self._kept)

    def peek(self, size: int) -> bytes:
        return self._stream.peek(size)[:size]

    def read(self, size: int) -> bytes:
        return self._keep(self._stream.read(size))

    def readline(self) -> bytes:
        return self._keep(self._stream.readline())

    def _keep(self, data: bytes) -> bytes:
        if self._kept is not None and len(self._kept) + len(data) > _MOST_KEPT:
            self._kept = None
        elif self._kept is not None:
            self._kept += data
        return data


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
        elif name in {"GLOBAL", "INST"}:
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


def _read_index(argument: object) -> int:
    return argument if isinstance(argument, int) else int(str(argument))


def _inspect_stream(window: _RangeReader) -> PickleReport | None:
    """Pickles, one behind the other to the end; None if not even the first can be one."""
    source = _Recorder(window)
    report = _inspect_pickles(source)
    return replace(report, content=source.content) if report is not None else None


def _inspect_pickles(source: _Recorder) -> PickleReport | None:
    reasons: list[str] = []
    most = _MOST_PICKLES
    for number in range(_MOST_PICKLES):
        if number >= most:
            return _judge(reasons)
        walk, first = _Walk(), b""
        try:
            first = source.peek(2)
            if not first:
                return _judge(reasons) if number else None
            with warnings.catch_warnings():
                # Of texts whose escapes are none.
                warnings.simplefilter("ignore")
                walk.run(source)
        except _LimitError:
            return _block(*reasons, *walk.reasons, "is too large to be looked through")
        except (ValueError, EOFError, IndexError, KeyError, OverflowError, RecursionError, SyntaxError, MemoryError):
            # What comes before the fault is run all the same when it is loaded.
            if not number and not walk.imported and first not in _BEGINNINGS:
                return None
            return _block(*reasons, *walk.reasons, "is not a pickle to its end")
        reasons += walk.reasons
        if not number and walk.is_torch_magic:
            most = _PICKLES_BEFORE_STORAGES
    return _block(*reasons, "holds too many pickles to be looked through")


def _inspect_zip(read: ReadRange, size: int) -> PickleReport | None:
    reader = ArchiveReader(lambda start, end: open_memory(read(start, end))(0, end - start), size, _ZIP_LIMITS)
    reports: list[PickleReport] = []
    try:
        for entry in reader.files:
            suffix = PurePosixPath(entry.name).suffix.lower()
            if suffix not in {".pkl", ".npy", ".pickle"}:
                continue
            if entry.size > _MOST_BYTES and suffix != ".npy":
                reports.append(_block(f"{entry.name}: is too large to be looked through"))
                continue
            if suffix == ".npy":
                report = _inspect_array_entry(reader, entry)
            else:
                content = reader.read_entry(entry)
                report = inspect_pickle(_read_bytes(content), len(content)) or _block("is not a pickle to its end")
            if report is not None:
                reports.append(report)
    except ArchiveRefusedError as error:
        return _block(f"its ZIP archive is not to be trusted: {error.detail}")
    if not reports:
        return None
    judged = _judge([reason for report in reports for reason in report.reasons])
    return replace(judged, content=_join_contents(reports))


def _join_contents(reports: Sequence[PickleReport]) -> bytes | None:
    contents = [report.content for report in reports if report.content is not None]
    whole = len(contents) == len(reports) and sum(map(len, contents)) <= _MOST_KEPT
    return b"".join(contents) if whole else None


def _inspect_array(read: ReadRange, size: int) -> PickleReport | None:
    """A numpy array of objects is a pickle behind its header."""
    head = read(0, min(size, _LONGEST_NPY_HEADER))
    begins = _find_objects(head)
    if begins is None:
        return None
    if begins < 0:
        return _block("is no numpy array whose header can be read")
    return _inspect_stream(_RangeReader(read, begins, size)) or _block("is not a pickle to its end")


def _inspect_array_entry(reader: ArchiveReader, entry: Entry) -> PickleReport | None:
    head = bytearray(min(entry.size, _LONGEST_NPY_HEADER))
    view, filled = memoryview(head), 0
    with reader.open_entry(entry) as stream:
        while filled < len(head) and (received := stream.readinto(view[filled:])):
            filled += received
    if head.startswith(_NPY_MAGIC) and _find_objects(bytes(head)) is None:
        return None
    if entry.size > _MOST_BYTES:
        return _block(f"{entry.name}: is too large to be looked through")
    content = reader.read_entry(entry)
    return inspect_pickle(_read_bytes(content), len(content)) or _block(f"{entry.name}: is no numpy array")


def _find_objects(head: bytes) -> int | None:
    """Where behind a `.npy` header the objects begin: None if there are none, -1 if the header cannot be read.

    https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    width = 2 if head[6:7] == b"\x01" else 4
    begins = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    try:
        header = ast.literal_eval(head[8 + width : begins].decode("latin-1").strip())
        described = header["descr"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        return -1
    if len(head) < begins:
        return -1
    return begins if _has_objects(described) else None


def _has_objects(described: object) -> bool:
    """Whether a dtype, or a field of it, holds Python objects; also what cannot be told."""
    match described:
        case str():
            return described.lstrip("<>|=")[:1] in {"O", ""}
        case [*fields] if isinstance(described, list):
            return not all(isinstance(f, tuple) and len(f) > 1 and not _has_objects(f[1]) for f in fields)
        case (subtype, _):
            return _has_objects(subtype)
    return True


def _read_bytes(content: bytes) -> ReadRange:
    return lambda start, end: content[start:end]
