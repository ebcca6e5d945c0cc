"""Files that hold other files: ZIP archives of torch, numpy, Keras and others, and what is compressed.

Each member is inspected as a file of its own. An archive is clean if all of its members are.
"""

import bz2
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from modelhaul.archives.entries import ArchiveLimits, Entry, Method, Refusal
from modelhaul.archives.reader import ArchiveReader, open_memory
from modelhaul.errors import ArchiveRefusedError
from modelhaul.findings import ContentReport, Finding, FindingKind, Severity
from modelhaul.inspection.loaders import is_unpickled
from modelhaul.inspection.opened import OpenedFile, open_bytes
from modelhaul.inspection.windows import ContentError

type InspectMember = Callable[[OpenedFile], ContentReport]

ZIP_MAGIC = b"PK\x03\x04"
END_MAGIC = b"PK\x05\x06"
_TAIL = 66_000  # bytes: a ZIP's end record, and the longest comment behind it
_ZIP_LIMITS = ArchiveLimits(max_entries=100_000, max_entry_bytes=10**12, max_total_bytes=10**13, max_ratio=1032)
_MEMBER_HEAD = 2048  # bytes of a member that are read first
_MAX_IN_MEMORY = 32 * 1024 * 1024  # bytes of a member, or of what is compressed
_MAX_INFLATED = 256 * 1024 * 1024  # bytes of all members of an archive that are inflated
_MAX_OPENED = 2_000  # members of an archive that are read beyond their first bytes
_MAX_HEAD_REQUESTS = 10_000
_MAX_DEPTH = 3  # archives and compressions inside each other
_MAX_PICKLES = 4 * 1024 * 1024  # bytes of an archive's pickles that the second scanner sees
# What is not inspected, and has one reading all the same.
_LIMITS = {Refusal.TOO_MANY_ENTRIES, Refusal.TOO_LARGE, Refusal.BOMB, Refusal.ENCRYPTED, Refusal.METHOD}
_MAX_FINDINGS = 20
_MAX_REASONS = 3
# torch.export stores each tensor's bytes in a member of its own.
_RAW_TENSOR = re.compile(r".*\bdata/(?:weights/weight|constants/tensor)_\d+")
_MAX_DICTIONARY = 64 * 1024 * 1024  # bytes that an LZMA decompressor may take

_DECOMPRESSORS: dict[str, tuple[tuple[bytes, ...], Callable[[], Any]]] = {
    "gzip": ((b"\x1f\x8b",), lambda: zlib.decompressobj(31)),
    "bzip2": ((b"BZh",), bz2.BZ2Decompressor),
    "xz": ((b"\xfd7zXZ\x00",), lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_DICTIONARY)),
    "lzma": ((b"]\x00\x00",), lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MAX_DICTIONARY)),
    "zlib": ((b"x\x01", b"x\x5e", b"x\x9c", b"x\xda"), zlib.decompressobj),
}
"""By the bytes that files begin with."""
# Two bytes are not enough to tell zlib's streams, nor three those of old LZMA files, from other content.
_UNCERTAIN = {"zlib", "lzma"}
_OPAQUE = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22M\x18": "lz4", b"ZF0x": "joblib's old compression"}

_CODE_ARCHIVES = {
    ".egg": "Python imports it",
    ".jar": "Java loads it",
    ".mar": "TorchServe runs its handler",
    ".nemo": "NeMo loads it",
    ".whl": "pip installs it",
}
"""What happens to the code in them, by their suffixes."""


def is_tar(head: bytes) -> bool:
    """Whether Python's tarfile, with which torch reads its first format, takes this for an archive.

    It goes by the checksum of the first header: the V7 format has no magic. Zeros are an empty archive.
    """
    block = head[: tarfile.BLOCKSIZE]
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return len(block) == tarfile.BLOCKSIZE and not any(block)
    return True


def has_archive_end(file: OpenedFile) -> bool:
    """Whether readers that look for a ZIP's end record would find one."""
    return END_MAGIC in file.read(max(0, file.size - _TAIL), file.size)


def report_hidden_archive() -> ContentReport:
    finding = Finding(FindingKind.AMBIGUOUS_ARCHIVE, Severity.HIGH, "a ZIP archive follows other bytes")
    return ContentReport("zip", "not an archive from its first byte", (finding,), is_loadable=True)


def find_code_archive(path: str) -> Finding | None:
    suffix = PurePosixPath(path).suffix.lower()
    if suffix not in _CODE_ARCHIVES:
        return None
    return Finding(FindingKind.CODE_ARCHIVE, Severity.MEDIUM, f"an archive of code: {_CODE_ARCHIVES[suffix]}")


def inspect_compressed(file: OpenedFile, inspect_member: InspectMember) -> ContentReport | None:
    """What is compressed, by what is in it; None if nothing is."""
    opaque = next((name for magic, name in _OPAQUE.items() if file.head.startswith(magic)), None)
    if opaque is not None:
        return ContentReport(opaque, f"{opaque} is not decompressed", is_loadable=file.is_unpickled)
    for name, (magics, open_decompressor) in _DECOMPRESSORS.items():
        if file.head.startswith(magics):
            return _inspect_decompressed(file, name, open_decompressor(), inspect_member)
    return None


def _inspect_decompressed(
    file: OpenedFile, name: str, decompressor: Any, inspect_member: InspectMember
) -> ContentReport | None:
    if file.depth >= _MAX_DEPTH:
        return ContentReport(name, "too many archives inside each other", is_loadable=True)
    content = bytearray()
    position = 0
    try:
        while not decompressor.eof and position < file.size and len(content) <= _MAX_IN_MEMORY:
            piece = file.read(position, position + len(file.head))
            position += len(piece)
            content += _decompress(decompressor, piece, _MAX_IN_MEMORY + 1 - len(content))
    except (zlib.error, OSError, EOFError, lzma.LZMAError):
        # An unpickler's reader decompresses piece by piece, and may run what precedes the damage.
        if not content:
            return None if name in _UNCERTAIN else ContentReport(name, "damaged")
        decompressor = None
    inner = inspect_member(
        open_bytes(_strip_suffix(file.path), bytes(content), is_unpickled=file.is_unpickled, depth=file.depth + 1)
    )
    is_whole = decompressor is not None and decompressor.eof and not decompressor.unused_data and position == file.size
    reason = inner.reason if is_whole else f"{name} data that is damaged, longer than 32 MiB, or followed by other data"
    return replace(inner, format=f"{inner.format} in {name}", reason=reason)


def _decompress(decompressor: Any, piece: bytes, limit: int) -> bytes:
    inflated: bytes = decompressor.decompress(piece, limit)
    # zlib's object keeps what it has not read, and the others keep it inside.
    while len(inflated) < limit and not decompressor.eof and (rest := _find_rest(decompressor)) is not None:
        more: bytes = decompressor.decompress(rest, limit - len(inflated))
        if not more:
            break
        inflated += more
    return inflated


def _find_rest(decompressor: Any) -> bytes | None:
    """What is to be given to the decompressor again; None if it needs new input."""
    if isinstance(decompressor, (bz2.BZ2Decompressor, lzma.LZMADecompressor)):
        return None if decompressor.needs_input else b""
    rest: bytes = decompressor.unconsumed_tail
    return rest or None


def _strip_suffix(path: str) -> str:
    return path.removesuffix(PurePosixPath(path).suffix)


def inspect_zip(file: OpenedFile, inspect_member: InspectMember) -> ContentReport:
    """A ZIP archive, by all of its members but torch's storages, which are declared by the pickle beside them."""
    if file.depth >= _MAX_DEPTH:
        return ContentReport("zip", "too many archives inside each other", is_loadable=True)
    reader = ArchiveReader(
        lambda start, end: open_memory(file.read(start, end))(0, end - start), file.size, _ZIP_LIMITS
    )
    try:
        return _Inspection(file, reader, inspect_member).run()
    except ArchiveRefusedError as error:
        if error.reason in _LIMITS:
            return ContentReport("zip", error.detail, is_loadable=True)
        finding = Finding(
            FindingKind.AMBIGUOUS_ARCHIVE, Severity.HIGH, f"a ZIP archive that is refused: {error.detail}"
        )
        return ContentReport("zip", "the archive is refused", (finding,), is_loadable=True)


@dataclass(slots=True)
class _Inspection:
    """Of one ZIP archive. Raises ArchiveRefusedError."""

    file: OpenedFile
    reader: ArchiveReader
    inspect_member: InspectMember
    findings: list[Finding] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    pickles: list[bytes | None] = field(default_factory=list)
    inflated: int = 0
    opened: int = 0
    is_unread: bool = False

    def run(self) -> ContentReport:
        entries = [entry for entry in self.reader.entries if not entry.is_directory]
        names = {entry.name for entry in entries}
        kind = identify_zip(names)
        self.findings += _find_programs(kind, names)
        # numpy takes any member of an .npz for a pickle or an array.
        is_numpy = self.file.path.lower().endswith(".npz")
        members = entries if is_numpy else list(_leave_out_storages(entries))
        for entry, head in self.reader.read_heads(members, _MEMBER_HEAD, most_requests=_MAX_HEAD_REQUESTS):
            self._inspect(entry, head, kind)
        is_for_loaders = self.file.is_unpickled or kind not in ("keras", "zip")
        return ContentReport(
            kind,
            "; ".join(self.reasons[:_MAX_REASONS]) or None,
            tuple(self.findings[:_MAX_FINDINGS]),
            is_loadable=is_for_loaders or bool(self.pickles),
            pickles=self._join_pickles(),
            unread=(is_for_loaders and bool(self.reasons)) or self.is_unread,
        )

    def _inspect(self, entry: Entry, head: bytes, kind: str) -> None:
        member = OpenedFile(
            entry.name,
            entry.size,
            head,
            _MemberReader(self, entry),
            is_unpickled(entry.name),
            self.file.depth + 1,
        )
        try:
            report = self.inspect_member(member)
        except _LimitError as error:
            self.reasons.append(f"{entry.name[:80]}: {error}")
            self.is_unread = True
            return
        if kind == "keras" and entry.name == "config.json":
            report = _inspect_keras_config(report, member)
        if kind == "torchscript" and entry.name.endswith(".pkl"):
            report = replace(report, findings=tuple(f for f in report.findings if " __torch__." not in f.detail))
        self.findings += [replace(f, detail=f"{entry.name[:80]}: {f.detail}") for f in report.findings]
        if report.reason is not None and not _is_raw_tensor(kind, entry.name, report):
            self.reasons.append(f"{entry.name[:80]}: {report.reason}")
        self.is_unread |= report.is_unread or (member.is_unpickled and report.reason is not None)
        if report.is_loadable:
            self.pickles.append(report.pickles)

    def _join_pickles(self) -> bytes | None:
        found = [content for content in self.pickles if content is not None]
        is_whole = len(found) == len(self.pickles) and sum(map(len, found)) <= _MAX_PICKLES
        return b"".join(found) if is_whole else None

    def count(self, size: int) -> None:
        """Raises _LimitError."""
        self.opened += 1
        self.inflated += size
        if self.opened > _MAX_OPENED or self.inflated > _MAX_INFLATED:
            raise _LimitError("too many members, or bytes, to inspect in one archive")


class _LimitError(Exception):
    pass


@dataclass(slots=True)
class _MemberReader:
    """Reads a member beyond its head: a stored one by ranges, a deflated one whole. Raises _LimitError."""

    inspection: _Inspection
    entry: Entry
    begin: int | None = None
    content: bytes | None = None

    def __call__(self, start: int, end: int) -> bytes:
        if self.entry.method is Method.STORED:
            if self.begin is None:
                self.inspection.count(0)
                self.begin = self.inspection.reader.find_data(self.entry)
            return self.inspection.file.read(self.begin + start, self.begin + end)
        if self.content is None:
            if self.entry.size > _MAX_IN_MEMORY:
                raise _LimitError(f"deflated, and larger than {_MAX_IN_MEMORY // 2**20} MiB")
            self.inspection.count(self.entry.size)
            self.content = self.inspection.reader.read_entry(self.entry)
        return self.content[start:end]


def identify_zip(names: Collection[str]) -> str:
    """Which program's archive it is, by the names of its members."""
    bases = {PurePosixPath(name).name for name in names}
    if "constants.pkl" in bases and "data.pkl" in bases:
        return "torchscript"
    if any(name.endswith(".data/extern_modules") for name in names):
        return "torch-package"
    if "data.pkl" in bases:
        return "torch-zip"
    if "archive_format" in bases or any(name.endswith(".pt2_archive") for name in names):
        return "torch-export"
    if {"config.json", "metadata.json"} <= set(names):
        return "keras"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"


def _find_programs(kind: str, names: Collection[str]) -> Iterator[Finding]:
    if kind == "torchscript":
        yield Finding(FindingKind.TORCHSCRIPT, Severity.HIGH, "a TorchScript program: torch.jit.load runs it")
    if kind == "torch-package":
        yield Finding(FindingKind.TORCH_PACKAGE, Severity.HIGH, "Python sources that torch.package runs")
    if kind == "torch-export":
        for name in sorted(names):
            if name.endswith((".so", ".dll", ".dylib")):
                detail = f"{name[:80]}: a native library that torch loads with the model"
                yield Finding(FindingKind.NATIVE_LIBRARY, Severity.HIGH, detail)


def _inspect_keras_config(report: ContentReport, member: OpenedFile) -> ContentReport:
    from modelhaul.inspection.keras import inspect_keras_config  # noqa: PLC0415 - few models have one

    try:
        return replace(report, findings=(*report.findings, *inspect_keras_config(member.read(0, member.size))))
    except ContentError as error:
        return replace(report, reason=str(error))


def _is_raw_tensor(kind: str, name: str, report: ContentReport) -> bool:
    return kind == "torch-export" and not report.is_loadable and _RAW_TENSOR.fullmatch(name) is not None


def _leave_out_storages(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Those that are not torch's: `model/data/0`, beside the pickle `model/data.pkl` that tells what is in it."""
    names = {entry.name for entry in entries}
    for entry in entries:
        folder, _, number = entry.name.rpartition("/")
        if not (number.isdecimal() and f"{folder}.pkl" in names):
            yield entry
