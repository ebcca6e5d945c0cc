"""Files of a model, from their listing to their verification."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from modelhaul.domain.digests import Digest
from modelhaul.domain.errors import FileTooLargeError, InvalidReferenceError
from modelhaul.domain.gate import FileCheck
from modelhaul.domain.keys import MAX_KEY_BYTES, is_path, staging_prefix
from modelhaul.domain.models import ResolvedModel

MAX_FILE_SIZE = 500_000_000_000  # bytes; the Hub's own limit for one file


class FileKind(StrEnum):
    """Type of a path in a model. Only files are transferred; symlinks and submodules are recorded, but not followed."""

    FILE = "file"
    SYMLINK = "symlink"
    SUBMODULE = "submodule"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as its source lists it: POSIX path, size in bytes, published digest.

    The digest of a symlink is its blob's, the digest of a submodule its commit. The path is relative to the model and
    prefixed with the model's `root`, so that it is unique within a task. `locator` is an opaque string by which the
    source finds the file; it is stored with the record and passed back to the source.
    """

    path: str
    size: int
    digest: Digest
    locator: str = ""
    kind: FileKind = FileKind.FILE


@dataclass(frozen=True, slots=True)
class Part:
    """One uploaded part of an S3 multipart upload: 1-based number, ETag (32 hex), CRC-32."""

    number: int
    etag: str
    crc32: int


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of a task: first planned, then stored and verified (`sha256`, `etag`), then checked (`check`).

    `reused`: its content was already stored, and was copied within S3.
    """

    task_id: str
    file: SourceFile
    sha256: str | None = None
    etag: str | None = None
    reused: bool = False
    check: FileCheck | None = None

    @property
    def staging_key(self) -> str:
        return staging_prefix(self.task_id) + self.file.path

    @property
    def is_done(self) -> bool:
        """Return whether the file is stored, verified and checked. Symlinks and submodules are done from the start."""
        return self.file.kind is not FileKind.FILE or (self.sha256 is not None and self.check is not None)


@dataclass(frozen=True, slots=True)
class FileGroup:
    """Files of a task that a function transfers and checks together.

    `number` is unique within the plan. `offset`: the bytes of the first file that is not stored yet, as far as they
    have arrived. `continued`: the bytes that an ended import has stored, and that were not transferred again.
    """

    plan_id: str
    number: int
    records: tuple[FileRecord, ...]
    offset: int = 0
    lease_until: float = 0.0
    continued: int = 0

    @property
    def is_done(self) -> bool:
        """Return whether all files are done."""
        return all(record.is_done for record in self.records)

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(record.file.size for record in self.records)

    def advance(self, offset: int, continued: int) -> "FileGroup":
        """Record the offset. A file that is transferred from its first byte again continues nothing."""
        return replace(self, offset=offset, continued=max(continued, min(self.continued, offset)))

    def merge(self, records: Iterable[FileRecord]) -> "FileGroup":
        """Return the group with the state of `records`. Files that are done, or not in the group, do not change."""
        given = {record.file.path: record for record in records if record.sha256 is not None}
        merged = tuple(
            old if old.is_done or new is None else replace(new, task_id=old.task_id, file=old.file)
            for old in self.records
            for new in [given.get(old.file.path)]
        )
        stored_more = any(new.sha256 and not old.sha256 for old, new in zip(self.records, merged, strict=True))
        return replace(self, records=merged, offset=0 if stored_more else self.offset)

    def count(self) -> "FileCounts":
        """Return the group's part of the plan's counts. The bytes of a file count when it is stored."""
        files = [record for record in self.records if record.file.kind is FileKind.FILE]
        stored = [record for record in files if record.sha256 is not None]
        return FileCounts(
            files_done=sum(record.is_done for record in files),
            bytes_done=sum(record.file.size for record in stored) + self.offset,
            bytes_reused=sum(record.file.size for record in stored if record.reused) + self.continued,
        )


@dataclass(frozen=True, slots=True)
class FileCounts:
    """Counts of a plan. `bytes_done` includes `bytes_reused`, and the offsets in unfinished files. `bytes_reused`
    includes the bytes that ended imports have stored.
    """

    files_done: int = 0
    bytes_done: int = 0
    bytes_reused: int = 0
    groups_copied: int = 0


@dataclass(slots=True)
class FileList:
    """Collects a model's files, and rejects files that cannot be stored."""

    model: ResolvedModel
    files: list[SourceFile] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def add(self, file: SourceFile) -> None:
        """Add a file. Raises InvalidReferenceError for an unsafe or duplicate path, FileTooLargeError above 500 GB."""
        path = file.path
        if not is_path(path):
            raise InvalidReferenceError(
                f"Path {path!r} is not allowed. A path must be relative, and must not have empty, '.' or '..' "
                "segments, backslashes or control characters."
            )
        if len((self.model.locate(path) or path).encode()) > MAX_KEY_BYTES:
            raise InvalidReferenceError(f"Path {path[:80]!r}… exceeds the S3 key limit of 1,024 bytes.")
        if path in self._seen:
            raise InvalidReferenceError(
                f"The source lists the file {path!r} twice.",
                remedy="Report the invalid file list to the operator of the source.",
            )
        if file.size > MAX_FILE_SIZE:
            raise FileTooLargeError(f"{path} has {file.size:,} bytes. The limit for one file is 500 GB.")
        self._seen.add(path)
        self.files.append(file)
