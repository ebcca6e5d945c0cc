"""Files of a model, from listing to verified."""

from dataclasses import dataclass, field
from enum import StrEnum

from modelhaul.domain.digests import Digest
from modelhaul.domain.errors import FileTooLargeError, InvalidReferenceError
from modelhaul.domain.keys import MAX_KEY_BYTES, is_path, staging_prefix
from modelhaul.domain.models import ResolvedModel

MAX_FILE_SIZE = 500_000_000_000  # bytes; the Hub's own limit for one file


class FileKind(StrEnum):
    """What a path of a model is. Only files are moved; the others are recorded and not followed."""

    FILE = "file"
    SYMLINK = "symlink"
    SUBMODULE = "submodule"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file as its source lists it: POSIX path, bytes, published digest (a symlink's is its blob's, a submodule's
    its commit).

    The path is relative to the model, with the model's `root` before it: unique within a task. `locator` is the
    source's own note of where it finds the file, kept with the record and given back.
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
class Checkpoint:
    """Where the move of one large file stands: what another function needs to go on from `offset`.

    `parts` are 1..n without a gap, `hash_state` is the FileHasher's after `offset` bytes, `source_etag`
    what the source called the content.
    """

    upload_id: str
    part_size: int
    offset: int
    parts: tuple[Part, ...]
    hash_state: bytes
    source_etag: str | None = None


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of a task: planned, perhaps leased and checkpointed, at last verified (`sha256`, `etag` set)."""

    task_id: str
    file: SourceFile
    done: bool = False
    sha256: str | None = None
    etag: str | None = None
    reused: bool = False
    checkpoint: Checkpoint | None = None
    lease_until: float = 0.0

    @property
    def staging_key(self) -> str:
        return staging_prefix(self.task_id) + self.file.path


@dataclass(frozen=True, slots=True)
class FileResult:
    """A file that is stored and verified. `reused`: its content was stored before, and was copied inside S3."""

    file: SourceFile
    sha256: str
    etag: str
    reused: bool


@dataclass(slots=True)
class FileList:
    """Collects a model's files and refuses what cannot be stored."""

    model: ResolvedModel
    files: list[SourceFile] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def add(self, file: SourceFile) -> None:
        """Raises InvalidReferenceError for a path that is unsafe or twice there, FileTooLargeError above 500 GB."""
        path = file.path
        if not is_path(path):
            raise InvalidReferenceError(f"the model has a file with an unsafe path: {path!r}")
        if len((self.model.locate(path) or path).encode()) > MAX_KEY_BYTES:
            raise InvalidReferenceError(f"the path is too long for an S3 key (1,024 bytes): {path[:80]!r}…")
        if path in self._seen:
            raise InvalidReferenceError(f"the source lists the file twice: {path!r}")
        if file.size > MAX_FILE_SIZE:
            raise FileTooLargeError(f"{path} has {file.size:,} bytes; the limit for one file is 500 GB")
        self._seen.add(path)
        self.files.append(file)
