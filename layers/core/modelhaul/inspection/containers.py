"""Files that hold other files: ZIP archives of torch, numpy, Keras and others, and what is compressed.

Each member is inspected as a file of its own. An archive is clean if all of its members are.
"""

import bz2
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from modelhaul.archives.entries import ArchiveLimits, Entry, Method, Refusal
from modelhaul.archives.reader import ArchiveReader, open_memory
from modelhaul.domain.errors import ArchiveRefusedError
from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity, limit_findings
from modelhaul.inspection.loaders import is_text_name, is_unpickled, may_be_unpickled
from modelhaul.inspection.opened import OpenedFile, open_bytes
from modelhaul.inspection.pickles import numpy_arrays
from modelhaul.inspection.windows import ContentError

type InspectMember = Callable[[OpenedFile], ContentReport]

ZIP_MAGIC = b"PK\x03\x04"
END_MAGIC = b"PK\x05\x06"
_TAIL = 66_000  # bytes: a ZIP's end record, and the longest comment behind it
_ZIP_LIMITS = ArchiveLimits(max_entries=100_000, max_entry_bytes=10**12, max_total_bytes=10**13, max_ratio=1032)
_MEMBER_HEAD = 2048  # bytes of a member that are read first
_MAX_IN_MEMORY = 32 * 1024 * 1024  # bytes of a member, or of what is compressed
_MAX_COMPRESSED = 34 * 1024 * 1024  # bytes of a compressed file
_PIECE = 1024  # bytes that are decompressed at once
_MAX_STREAMS = 100  # compressed streams one after another
_MAX_INFLATED = 256 * 1024 * 1024  # bytes of all members of an archive that are inflated
_MAX_JSON = 16 * 1024 * 1024  # bytes in all members of an archive
_SERIALIZED = b":serialized:"
_MAX_OPENED = 2_000  # members of an archive that are read beyond their first bytes
_MAX_HEAD_REQUESTS = 10_000
_MAX_DEPTH = 3  # nested archives and compressions
_TOO_DEEP = "archives are nested too deeply"
_MAX_PICKLES = 4 * 1024 * 1024  # bytes of an archive's pickles that the second scanner sees
# What is not inspected, and has one reading all the same.
_LIMITS = {Refusal.TOO_MANY_ENTRIES, Refusal.TOO_LARGE, Refusal.BOMB, Refusal.ENCRYPTED, Refusal.METHOD}
_MAX_FINDINGS = 20
_MAX_REASONS = 3
# torch.export stores each tensor's bytes in a member of its own.
_RAW_TENSOR = re.compile(r".*\bdata/(?:weights/weight|constants/tensor)_\d+")
_MAX_DICTIONARY = 68 * 1024 * 1024  # bytes that an LZMA decompressor may take

_OUT_OF_MEMORY = "Memory usage limit"  # as the lzma module says it

_DECOMPRESSORS: dict[str, tuple[tuple[bytes, ...], Callable[[], Any]]] = {
    "gzip": ((b"\x1f\x8b",), lambda: zlib.decompressobj(31)),
    "bzip2": ((b"BZh",), bz2.BZ2Decompressor),
    "xz": ((b"\xfd7zXZ\x00",), lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_DICTIONARY)),
    "lzma": ((b"]\x00",), lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MAX_DICTIONARY)),
    "zlib": ((b"x\x01", b"x\x5e", b"x\x9c", b"x\xda"), zlib.decompressobj),
}
"""By the bytes that files begin with."""
# Two bytes are not enough to tell zlib's streams, nor three those of old LZMA files, from other content.
_UNCERTAIN = {"zlib", "lzma"}
_PADDED = {"gzip", "xz"}
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

    It goes by the checksum of the first header: the V7 format has no magic. Zeros are an archive without members, in
    which torch finds nothing.
    """
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
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
    """Inspects the content of a compressed file; None if the file is not compressed."""
    opaque = next((name for magic, name in _OPAQUE.items() if file.head.startswith(magic)), None)
    if opaque is not None:
        is_loadable = file.is_unpickled or may_be_unpickled(file.path)
        return ContentReport(opaque, f"{opaque} is not decompressed", is_loadable=is_loadable)
    for name, (magics, _) in _DECOMPRESSORS.items():
        if file.head.startswith(magics):
            return _inspect_decompressed(file, name, magics, inspect_member)
    return None


def _inspect_decompressed(
    file: OpenedFile, name: str, magics: tuple[bytes, ...], inspect_member: InspectMember
) -> ContentReport | None:
    if file.depth >= _MAX_DEPTH:
        return ContentReport(name, _TOO_DEEP, is_loadable=True)
    try:
        content, is_whole = _decompress_streams(file.read(0, min(file.size, _MAX_COMPRESSED)), name, magics)
    except _LimitError as error:
        return ContentReport(name, str(error), is_loadable=True)
    is_whole &= file.size <= _MAX_COMPRESSED
    path = _strip_suffix(file.path)
    inner = inspect_member(open_bytes(path, content, file))
    if is_whole:
        return replace(inner, format=f"{inner.format} in {name}")
    if name in _UNCERTAIN and not inner.is_loadable and len(content) <= _MAX_IN_MEMORY:
        # Raw data that begins like a compressed stream.
        return None
    # An unpickler's reader decompresses piece by piece, and runs what precedes the damage.
    reason = f"{name} data that is damaged, longer than 32 MiB, or followed by other data"
    is_unread = bool(content) and not is_text_name(path)
    return replace(inner, format=f"{inner.format} in {name}", reason=reason, unread=is_unread or file.is_unpickled)


def _decompress_streams(data: bytes, name: str, magics: tuple[bytes, ...]) -> tuple[bytes, bool]:
    """What is compressed, at most 32 MiB and a byte, and whether it is all that readers find. Raises _LimitError.

    Readers of gzip, bzip2 and xz continue with the next stream in the file, those of gzip and xz after zeros.
    """
    content = bytearray()
    for _ in range(_MAX_STREAMS):
        rest = _decompress(_DECOMPRESSORS[name][1](), data, content)
        if rest is None:
            break
        data = rest.lstrip(b"\0") if name in _PADDED else rest
        if not data:
            return bytes(content), True
        if name in _UNCERTAIN or not data.startswith(magics):
            break
    return bytes(content), False


def _decompress(decompressor: Any, data: bytes, content: bytearray) -> bytes | None:
    """Adds one stream to the content, and returns what follows it; None for a damaged stream, or above 32 MiB.

    Raises _LimitError for a dictionary that is too large.
    It goes by pieces smaller than those of any reader, so that as much precedes the damage as a reader finds.
    """
    for position in range(0, len(data), _PIECE):
        piece: bytes | None = data[position : position + _PIECE]
        while piece is not None and not decompressor.eof:
            try:
                content += decompressor.decompress(piece, _MAX_IN_MEMORY + 1 - len(content))
            except lzma.LZMAError as error:
                if _OUT_OF_MEMORY in str(error):
                    # Readers without this limit go on.
                    raise _LimitError(f"{error}: {_MAX_DICTIONARY:,} bytes") from None
                return None
            except (zlib.error, OSError, EOFError):
                return None
            if len(content) > _MAX_IN_MEMORY:
                return None
            piece = _find_rest(decompressor)
        if decompressor.eof:
            return bytes(decompressor.unused_data) + data[position + _PIECE :]
    return None


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
        return ContentReport("zip", _TOO_DEEP, is_loadable=True)
    reader = ArchiveReader(
        lambda start, end: open_memory(file.read(start, end))(0, end - start), file.size, _ZIP_LIMITS
    )
    try:
        return _Inspection(file, reader, inspect_member).run()
    except ArchiveRefusedError as error:
        if error.reason in _LIMITS:
            return ContentReport("zip", f"a ZIP archive that is not inspected ({error.reason})", is_loadable=True)
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
    json_size: int = 0
    is_unread: bool = False

    def run(self) -> ContentReport:
        entries = [entry for entry in self.reader.entries if not entry.is_directory]
        names = {entry.name for entry in entries}
        kind = "keras" if self.file.path.lower().endswith(".keras") else identify_zip(names)
        self.findings += _find_programs(kind, names)
        for entry, head in self.reader.read_heads(entries, _MEMBER_HEAD, max_requests=_MAX_HEAD_REQUESTS):
            # torch takes its storages for data, and numpy a member that begins like an array for one.
            if not _is_storage(entry.name, names) or head.startswith(numpy_arrays.MAGIC):
                self._inspect(entry, head, kind)
        is_for_loaders = self.file.is_unpickled or kind not in ("keras", "zip")
        return ContentReport(
            kind,
            "; ".join(self.reasons[:_MAX_REASONS]) or None,
            limit_findings(self.findings, _MAX_FINDINGS),
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
            self.file.budget,
            kind == "torchscript",
        )
        try:
            if len(head) < min(entry.size, _MEMBER_HEAD):
                # The compressed data begins with blocks that hold nothing.
                member = replace(member, head=member.fetch(0, min(entry.size, _MEMBER_HEAD)))
            self._count_json(entry)
            report = self.inspect_member(member)
            if entry.name == "data" and _SERIALIZED in member.read(0, min(entry.size, _MAX_IN_MEMORY)):
                finding = Finding(FindingKind.PICKLE_IMPORT, Severity.HIGH, "pickles in base64, for Stable-Baselines3")
                report = replace(report, findings=(*report.findings, finding))
        except _LimitError as error:
            self.reasons.append(f"{entry.name[:80]}: {error}")
            self.is_unread = True
            return
        if entry.name == "config.json":
            report = _inspect_keras_config(report, member)
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

    def _count_json(self, entry: Entry) -> None:
        """Raises _LimitError."""
        if entry.name.endswith(".json"):
            self.json_size += entry.size
            if self.json_size > _MAX_JSON:
                raise _LimitError("too much JSON in one archive")

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
    from modelhaul.inspection.formats.keras import inspect_keras_config  # noqa: PLC0415 - few models have one

    try:
        return replace(report, findings=(*report.findings, *inspect_keras_config(member.read(0, member.size))))
    except ContentError as error:
        return replace(report, reason=str(error))


def _is_raw_tensor(kind: str, name: str, report: ContentReport) -> bool:
    return kind == "torch-export" and not report.is_loadable and _RAW_TENSOR.fullmatch(name) is not None


def _is_storage(name: str, names: Collection[str]) -> bool:
    """Whether the member is a torch storage: `model/data/0`, described by the pickle `model/data.pkl`."""
    folder, _, number = name.rpartition("/")
    return number.isdecimal() and f"{folder}.pkl" in names
