"""ZIP archives of torch, numpy, Keras and other programs.

Each entry is inspected as a file. An archive is clean if all of its entries are clean.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from modelhaul.archives.entries import ArchiveLimits, Entry, Method, Refusal
from modelhaul.archives.reader import ArchiveReader, open_memory
from modelhaul.domain.errors import ArchiveRefusedError
from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity, limit_findings
from modelhaul.inspection.containers import MAX_DEPTH, MAX_IN_MEMORY, TOO_DEEP, ContainerLimitError, InspectMember
from modelhaul.inspection.loaders import is_unpickled
from modelhaul.inspection.opened import OpenedFile
from modelhaul.inspection.pickles import numpy_arrays
from modelhaul.inspection.windows import ContentError

ZIP_MAGIC = b"PK\x03\x04"
END_MAGIC = b"PK\x05\x06"
_TAIL = 66_000  # bytes: the end record of a ZIP archive, and the longest comment after it
_ZIP_LIMITS = ArchiveLimits(max_entries=100_000, max_entry_bytes=10**12, max_total_bytes=10**13, max_ratio=1032)
_MEMBER_HEAD = 2048  # bytes of an entry that are read first
_MAX_INFLATED = 256 * 1024 * 1024  # bytes of all entries of an archive, decompressed
_MAX_JSON = 16 * 1024 * 1024  # bytes in all entries of an archive
_MAX_OPENED = 2_000  # entries of an archive that are read beyond their first bytes
_MAX_HEAD_REQUESTS = 10_000
_MAX_PICKLES = 4 * 1024 * 1024  # bytes of an archive's pickles, for the second scanner
_MAX_FINDINGS = 20
_MAX_REASONS = 3
_MAX_NAME = 80  # characters of an entry's name in a finding
# Refusals of archives that are not inspected, but that all readers read in the same way.
_NOT_INSPECTED = {Refusal.TOO_MANY_ENTRIES, Refusal.TOO_LARGE, Refusal.BOMB, Refusal.ENCRYPTED, Refusal.METHOD}
_PRECEDED = "ZIP archive is preceded by other data"
_STABLE_BASELINES = b":serialized:"
# torch.export stores each tensor's bytes in a separate entry.
_RAW_TENSOR = re.compile(r".*\bdata/(?:weights/weight|constants/tensor)_\d+")


def has_archive_end(file: OpenedFile) -> bool:
    """Return whether readers that search for a ZIP end record would find one."""
    return END_MAGIC in file.read(max(0, file.size - _TAIL), file.size)


def report_hidden_archive() -> ContentReport:
    """Return the report of a file that contains a ZIP archive, but does not start with one."""
    finding = Finding(FindingKind.AMBIGUOUS_ARCHIVE, Severity.HIGH, _PRECEDED)
    return ContentReport("zip", _PRECEDED, (finding,), is_loadable=True)


def inspect_zip(file: OpenedFile, inspect_member: InspectMember) -> ContentReport:
    """Inspect all entries of a ZIP archive except torch's storages, which the pickle beside them declares."""
    if file.depth >= MAX_DEPTH:
        return ContentReport("zip", TOO_DEEP, is_loadable=True)
    reader = ArchiveReader(
        lambda start, end: open_memory(file.read(start, end))(0, end - start), file.size, _ZIP_LIMITS
    )
    try:
        return _ZipInspection(file, reader, inspect_member).run()
    except ArchiveRefusedError as error:
        if error.reason in _NOT_INSPECTED:
            return ContentReport("zip", f"Unsupported: ZIP archive ({error.reason})", is_loadable=True)
        finding = Finding(FindingKind.AMBIGUOUS_ARCHIVE, Severity.HIGH, f"Invalid ZIP archive: {error.detail}")
        return ContentReport("zip", "ZIP archive is invalid", (finding,), is_loadable=True)


@dataclass(slots=True)
class _ZipInspection:
    """Inspection of one ZIP archive. Methods raise ArchiveRefusedError."""

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
            # torch reads its storages as data, but numpy reads an entry that begins like an array as an array.
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
        shown_name = entry.name[:_MAX_NAME]
        try:
            if len(head) < min(entry.size, _MEMBER_HEAD):
                # The compressed data begins with empty blocks.
                member = replace(member, head=member.fetch(0, min(entry.size, _MEMBER_HEAD)))
            self._count_json(entry)
            report = self.inspect_member(member)
            if entry.name == "data" and _STABLE_BASELINES in member.read(0, min(entry.size, MAX_IN_MEMORY)):
                detail = "Base64-encoded pickles, which Stable-Baselines3 loads"
                finding = Finding(FindingKind.PICKLE_IMPORT, Severity.HIGH, detail)
                report = replace(report, findings=(*report.findings, finding))
        except ContainerLimitError as error:
            self.reasons.append(f"{shown_name}: {error}")
            self.is_unread = True
            return
        if entry.name == "config.json":
            report = _inspect_keras_config(report, member)
        self.findings += [replace(f, detail=f"{shown_name}: {f.detail}") for f in report.findings]
        if report.reason is not None and not _is_raw_tensor(kind, entry.name, report):
            self.reasons.append(f"{shown_name}: {report.reason}")
        self.is_unread |= report.is_unread or (member.is_unpickled and report.reason is not None)
        if report.is_loadable:
            self.pickles.append(report.pickles)

    def _join_pickles(self) -> bytes | None:
        found = [content for content in self.pickles if content is not None]
        is_whole = len(found) == len(self.pickles) and sum(map(len, found)) <= _MAX_PICKLES
        return b"".join(found) if is_whole else None

    def _count_json(self, entry: Entry) -> None:
        """Raise ContainerLimitError if the archive contains too much JSON."""
        if entry.name.endswith(".json"):
            self.json_size += entry.size
            if self.json_size > _MAX_JSON:
                raise ContainerLimitError(f"Archive contains more than {_MAX_JSON // 2**20} MiB of JSON")

    def count_opened(self, inflated: int) -> None:
        """Count an entry that is read beyond its head. Raises ContainerLimitError."""
        self.opened += 1
        self.inflated += inflated
        if self.opened > _MAX_OPENED:
            raise ContainerLimitError(f"Archive has more than {_MAX_OPENED:,} entries to inspect")
        if self.inflated > _MAX_INFLATED:
            raise ContainerLimitError(f"Archive has more than {_MAX_INFLATED:,} decompressed bytes to inspect")


@dataclass(slots=True)
class _MemberReader:
    """Reads an entry beyond its head: a stored entry by ranges, a deflated entry whole. Raises ContainerLimitError."""

    inspection: _ZipInspection
    entry: Entry
    start: int | None = None
    content: bytes | None = None

    def __call__(self, start: int, end: int) -> bytes:
        if self.entry.method is Method.STORED:
            if self.start is None:
                self.inspection.count_opened(0)
                self.start = self.inspection.reader.find_data(self.entry)
            return self.inspection.file.read(self.start + start, self.start + end)
        if self.content is None:
            if self.entry.size > MAX_IN_MEMORY:
                raise ContainerLimitError(f"Deflated entry is larger than {MAX_IN_MEMORY // 2**20} MiB")
            self.inspection.count_opened(self.entry.size)
            self.content = self.inspection.reader.read_entry(self.entry)
        return self.content[start:end]


def identify_zip(names: Collection[str]) -> str:
    """Return the format of an archive, by the names of its entries."""
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
        yield Finding(FindingKind.TORCHSCRIPT, Severity.HIGH, "TorchScript program, which torch.jit.load runs")
    if kind == "torch-package":
        yield Finding(FindingKind.TORCH_PACKAGE, Severity.HIGH, "Python sources, which torch.package runs")
    if kind == "torch-export":
        for name in sorted(names):
            if name.endswith((".so", ".dll", ".dylib")):
                detail = f"{name[:_MAX_NAME]}: Native code, which torch loads with the model"
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
    """Return whether the entry is a torch storage: `model/data/0`, described by the pickle `model/data.pkl`."""
    folder, _, number = name.rpartition("/")
    return number.isdecimal() and f"{folder}.pkl" in names
