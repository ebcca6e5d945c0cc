"""The forms in which files hold pickles: bare, in ZIP archives (torch, numpy, TorchServe), behind a numpy header.

Files and members of archives are known by what they begin with, as the libraries that load them know them. Names tell
only what need not be looked at, and what must be a pickle.
"""

import ast
import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from enum import Enum, auto
from pathlib import PurePosixPath
from typing import Any

from modelhaul.archives.directory import ArchiveLimits, Entry, Method
from modelhaul.archives.reader import ArchiveReader, open_memory
from modelhaul.errors import ArchiveRefusedError
from modelhaul.inspection.pickles import MOST_KEPT, PickleReport, begins_to_run, block, inspect_stream, judge
from modelhaul.json_streams import ReadRange

HEAD = 2048  # bytes of a file by which it is known
_PICKLES = {
    ".bin", ".ckpt", ".cloudpickle", ".dat", ".dill", ".distcp", ".joblib", ".npy", ".npz", ".p", ".pckl",
    ".pdopt", ".pdparams", ".pickle", ".pk", ".pkl", ".pt", ".pt2", ".ptl", ".pth", ".pyt", ".sav", ".th",
}  # fmt: skip
_COMPRESSIONS = {".bz2", ".gz", ".lz4", ".lzma", ".xz", ".z", ".zst"}
# What programs read as something else, whatever is in it; of models of tens of thousands of files nearly all.
_OTHERS = {
    ".arrow", ".avi", ".bat", ".bib", ".bmp", ".c", ".cc", ".cfg", ".conf", ".cpp", ".css", ".csv", ".cu", ".cuh",
    ".flac", ".gif", ".gguf", ".go", ".h", ".h5", ".hdf5", ".hpp", ".html", ".ico", ".ini", ".ipynb", ".java", ".jinja",
    ".jinja2", ".jpeg", ".jpg", ".js", ".json", ".jsonl", ".lock", ".log", ".m4a", ".md", ".mkv", ".mlir", ".mov",
    ".mp3", ".mp4", ".mpg", ".msgpack", ".ogg", ".onnx", ".opus", ".ot", ".parquet", ".pb", ".pbtxt", ".pdf", ".png",
    ".ps1", ".py", ".pyi",
    ".rs", ".rst", ".safetensors", ".sh", ".srt", ".svg", ".swift", ".tex", ".tflite", ".tif", ".tiff", ".toml", ".ts",
    ".tsv", ".ttf", ".txt", ".wasm", ".wav", ".webm", ".webp", ".woff2", ".xml", ".yaml", ".yml",
}  # fmt: skip
_OTHER_NAMES = {".gitattributes", ".gitignore", ".gitkeep", "CITATION", "LICENSE", "NOTICE", "README"}
_CERTAIN = {".npy", ".pickle", ".pkl"}
"""Of members that must be pickles, or arrays."""

_MOST_IN_MEMORY = 32 * 1024 * 1024  # bytes of a member
_MOST_INFLATED = 256 * 1024 * 1024  # bytes of all members of an archive
_MOST_OPENED = 2_000  # members of an archive that are read beyond their first bytes
_MOST_NESTED = 3  # archives in archives
_MOST_RUNS = 10_000  # requests for the beginnings of members
_MOST_UNREAD = 20
_TAIL = 66_000  # bytes: a ZIP's end record, and the longest comment behind it
_ZIP_LIMITS = ArchiveLimits(max_entries=100_000, max_entry_bytes=10**12, max_total_bytes=10**13, max_ratio=1032)
_ZIP_MAGIC = b"PK\x03\x04"
_NPY_MAGIC = b"\x93NUMPY"
_LONGEST_NPY_HEADER = 1024 * 1024
_TAR_MAGIC = slice(257, 262)
_GZIP, _BZIP2, _XZ, _LZMA = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"]\x00\x00"
_ZSTD, _LZ4 = b"\x28\xb5\x2f\xfd", b"\x04\x22M\x18"
_ZLIB = (b"x\x01", b"x\x5e", b"x\x9c", b"x\xda")
_OLD_JOBLIB = b"ZF0x"
_COMPRESSED = (_GZIP, _BZIP2, _XZ, _LZMA, _ZSTD, _LZ4, _OLD_JOBLIB, *_ZLIB)
_LARGEST_INFLATED = 2**29  # bytes of a file whose size is not known; text taken for a length is always more
_DICTIONARY = 64 * 1024 * 1024  # bytes that a decompressor may take

_DECOMPRESSORS: dict[tuple[bytes, ...], Callable[[], Any]] = {
    (_GZIP,): lambda: zlib.decompressobj(31),
    _ZLIB: zlib.decompressobj,
    (_BZIP2,): bz2.BZ2Decompressor,
    (_XZ, _LZMA): lambda: lzma.LZMADecompressor(memlimit=_DICTIONARY),
}
"""By what their files begin with."""


class Content(Enum):
    """What the first bytes of a file tell."""

    PICKLE = auto()  # it is or holds pickles, or may
    UNREADABLE = auto()  # it may hold anything, and cannot be looked into
    OTHER = auto()


def is_pickle_name(path: str) -> bool:
    """Whether programs that load models would take a file of this name for a pickle."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    while suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in _PICKLES


def is_other_name(path: str) -> bool:
    """Whether no program would take a file of this name for a pickle. Of others their first bytes tell."""
    place = PurePosixPath(path)
    return place.suffix.lower() in _OTHERS or place.name in _OTHER_NAMES


def recognize(head: bytes, size: int) -> Content:
    """By the first `HEAD` bytes of a file of `size`."""
    if head.startswith(_ZIP_MAGIC):
        return Content.PICKLE
    if head.startswith(_NPY_MAGIC):
        return Content.OTHER if _find_objects(head) is None else Content.PICKLE
    if head[_TAR_MAGIC] == b"ustar":
        return Content.UNREADABLE
    inflated = _inflate(head)
    if inflated is None:
        return Content.PICKLE if begins_to_run(head, size) else Content.OTHER
    if not inflated or inflated.startswith((_ZIP_MAGIC, *_COMPRESSED)):
        return Content.UNREADABLE
    is_all = len(head) == size and len(inflated) < HEAD
    return recognize(inflated, len(inflated) if is_all else _LARGEST_INFLATED)


def inspect_pickle(read: ReadRange, size: int, *, is_numpy: bool = False, nested: int = 0) -> PickleReport | None:
    """None for what is no pickle in any form. Raises what `read` raises.

    `is_numpy`: the file's name is that of numpy's archives, of whose members any can be a pickle; torch takes its
    storages for bytes. `nested`: how many archives the file lies in.
    """
    head = read(0, min(size, 512))
    if head.startswith(_ZIP_MAGIC):
        if nested == _MOST_NESTED:
            return block("too many archives in archives")
        return _inspect_zip(read, size, is_numpy=is_numpy, nested=nested)
    if b"PK\x05\x06" in read(max(0, size - _TAIL), size):
        return block("a ZIP archive lies behind other bytes")
    if head.startswith(_NPY_MAGIC):
        return _inspect_array(read, size)
    if head[_TAR_MAGIC] == b"ustar" or head.startswith(_COMPRESSED):
        form = "a compressed pickle" if head.startswith(_COMPRESSED) else "a checkpoint in a tar archive"
        return block(f"{form}, which cannot be looked through")
    return inspect_stream(read, 0, size)


def _inflate(head: bytes) -> bytes | None:
    """The beginning of what is compressed; nothing if that cannot be told, None if it is not compressed."""
    for magic, open_decompressor in _DECOMPRESSORS.items():
        if head.startswith(magic):
            try:
                inflated: bytes = open_decompressor().decompress(head, HEAD)
            except (zlib.error, OSError, lzma.LZMAError):
                return b"" if head.startswith(_XZ) else None
            return inflated
    return b"" if head.startswith((_ZSTD, _LZ4, _OLD_JOBLIB)) else None


def _inspect_zip(read: ReadRange, size: int, *, is_numpy: bool, nested: int) -> PickleReport | None:
    reader = ArchiveReader(lambda start, end: open_memory(read(start, end))(0, end - start), size, _ZIP_LIMITS)
    reports: list[PickleReport] = []
    unread: list[str] = []
    inflated = opened = 0
    try:
        entries = [entry for entry in reader.entries if not entry.is_directory]
        members = entries if is_numpy else list(_leave_out_storages(entries))
        for entry, head in reader.read_heads(members, HEAD, most_requests=_MOST_RUNS):
            content = recognize(head, entry.size)
            is_certain = PurePosixPath(entry.name).suffix.lower() in _CERTAIN and not head.startswith(_NPY_MAGIC)
            if content is Content.UNREADABLE and not is_certain:
                unread.append(entry.name)
            elif content is Content.PICKLE or is_certain:
                inflated += min(entry.size, _MOST_IN_MEMORY)
                opened += entry.size > len(head)
                if inflated > _MOST_INFLATED or opened > _MOST_OPENED:
                    return block("its ZIP archive is too large to be looked through")
                report = _inspect_member(read, reader, entry, head, nested)
                if report is None and is_certain:
                    report = block(f"{entry.name}: is not a pickle to its end")
                if report is not None:
                    reports.append(report)
                    unread += report.unread
    except ArchiveRefusedError as error:
        return block(f"its ZIP archive is not to be trusted: {error.detail}")
    if not reports and not unread:
        return None
    judged = judge([reason for report in reports for reason in report.reasons])
    joined = None if unread else _join_contents(reports)
    return replace(judged, content=joined, unread=tuple(unread[:_MOST_UNREAD]))


def _leave_out_storages(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Those that are not torch's: `model/data/0`, beside the pickle `model/data.pkl` that tells what is in it."""
    names = {entry.name for entry in entries}
    for entry in entries:
        folder, _, number = entry.name.rpartition("/")
        if not (number.isdecimal() and f"{folder}.pkl" in names):
            yield entry


def _inspect_member(
    read: ReadRange, reader: ArchiveReader, entry: Entry, head: bytes, nested: int
) -> PickleReport | None:
    is_numpy = entry.name.endswith(".npz")
    if entry.size <= _MOST_IN_MEMORY:
        is_all = len(head) == entry.size and zlib.crc32(head) == entry.crc32
        content = head if is_all else reader.read_entry(entry)
        return inspect_pickle(_read_bytes(content), len(content), is_numpy=is_numpy, nested=nested + 1)
    if entry.method is not Method.STORED:
        return block(f"{entry.name}: is too large to be looked through")
    begins = reader.find_data(entry)

    def read_within(start: int, end: int) -> bytes:
        return read(begins + start, begins + end)

    return inspect_pickle(read_within, entry.size, is_numpy=is_numpy, nested=nested + 1)


def _join_contents(reports: Sequence[PickleReport]) -> bytes | None:
    contents = [report.content for report in reports if report.content is not None]
    whole = len(contents) == len(reports) and sum(map(len, contents)) <= MOST_KEPT
    return b"".join(contents) if whole else None


def _inspect_array(read: ReadRange, size: int) -> PickleReport | None:
    """A numpy array of objects is a pickle behind its header."""
    head = read(0, min(size, _LONGEST_NPY_HEADER))
    begins = _find_objects(head)
    if begins is None:
        return None
    if begins < 0:
        return block("is no numpy array whose header can be read")
    return inspect_stream(read, begins, size) or block("is not a pickle to its end")


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
