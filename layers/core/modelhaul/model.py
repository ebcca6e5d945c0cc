"""Models, their files and the blobs that files share."""

import json
import re
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from modelhaul.digest import Digest
from modelhaul.errors import FileTooLargeError, InvalidReferenceError
from modelhaul.findings import FileInspection, FileVerdict
from modelhaul.selection import WHOLE, Selection

_MODEL_NAMESPACE = uuid.UUID("6f1c9f3e-6d0c-5d61-9a3c-0f6a4b1f7c55")

MAX_FILE_SIZE = 500_000_000_000  # bytes; the Hub's own limit for one file
_MAX_RECORDED = 100  # flags in a model's record
_MIN_RECORDED = 8
_LONGEST_FLAG = 300  # characters
_MAX_ERROR_DETAIL = 1000  # characters in a model's record, of which one transaction writes 90
MAX_KEY_BYTES = 1024  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
# Control characters, and what neither UTF-8 nor an SQS message can carry.
_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


class Source(StrEnum):
    HUGGINGFACE = "HUGGINGFACE"
    GITHUB = "GITHUB"
    LOCAL = "LOCAL"


class ModelStatus(StrEnum):
    IMPORTING = "IMPORTING"
    READY = "READY"
    WITHDRAWING = "WITHDRAWING"  # failed while it was being published: what became visible is removed first
    FAILED = "FAILED"
    DELETING = "DELETING"  # nobody is shown it any more; its objects go, and then its record


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """One immutable version of a model at its source, or the part of it that `selection` takes.

    `name` is the source's canonical name, `commit` what `revision` stood for when it was asked. A model from an
    archive has no upstream commit: there it is the task's id. `root` says where among its task's files the model's
    own lie: `""`, or a directory with the trailing slash.
    """

    source: Source
    name: str
    revision: str
    commit: str
    root: str = ""
    selection: Selection = WHOLE

    @property
    def model_id(self) -> str:
        """UUIDv5 of `source:name@commit`: aliases of one version meet, a moved branch is another model,
        and so is each selection of a part.

        For a model from an archive, of `local:name` in lower case.
        """
        if self.source is Source.LOCAL:
            return str(uuid.uuid5(_MODEL_NAMESPACE, f"local:{self.name.lower()}"))
        return _identify(self.source, self.name, self.commit, self.selection)

    @property
    def prefix(self) -> str:
        """Where the files lie in the models bucket, with the trailing slash. A part lies beside the whole."""
        part = "" if self.selection.is_whole else f"-partial-{self.model_id}"
        return f"models/{self.source.lower()}/{self.name}/{self.commit}{part}/"

    def locate(self, path: str) -> str | None:
        """The key of the task's file `path` in the models bucket; None if it is not this model's."""
        return self.prefix + path.removeprefix(self.root) if path.startswith(self.root) else None

    def describe(self) -> str:
        """As people are told, so that versions and parts of a model can be told apart."""
        if self.source is Source.LOCAL:
            return self.name
        part = "" if self.selection.is_whole else f" ({self.selection.describe()})"
        return f"{self.name} at commit {self.commit[:12]}{part}"


@lru_cache(maxsize=128)  # each file of a part is located by it
def _identify(source: Source, name: str, commit: str, selection: Selection) -> str:
    part = "" if selection.is_whole else f"+{json.dumps(asdict(selection))}"
    return str(uuid.uuid5(_MODEL_NAMESPACE, f"{source.lower()}:{name}@{commit}{part}"))


class PicklePolicy(StrEnum):
    """What becomes of a model with a pickle that could run something when it is loaded."""

    BLOCK = "block"  # it fails, and is removed
    WARN = "warn"  # it is published, and its record says so
    OFF = "off"  # files are not inspected


class GateVerdict(StrEnum):
    CLEAN = "clean"  # every file was recognized, by its whole content, as a format that cannot run code
    UNSAFE = "unsafe"  # a file can run code; published because the policy only warns
    UNSCANNED = "unscanned"  # the policy is off, or a file is code or was not recognized: `flags` names it


class SecondOpinion(StrEnum):
    """Another scanner's, on the pickles that the gate has read."""

    CLEAN = "clean"
    UNVERIFIED = "unverified"  # it could not tell, of one at least, or did not answer
    MALICIOUS = "malicious"


@dataclass(frozen=True, slots=True)
class PickleOpinion:
    """At most 20 `reasons`, of what is MALICIOUS."""

    verdict: SecondOpinion
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the inspection of a published model found.

    `reasons` (at most 20) say why it is UNSAFE, `flags` what a reader should know: `kind: path` of findings,
    `not-scanned: path: reason`, `incomplete: index: …`, `left-out: path: reason`. `files` has each published file,
    `scanned` (path, sha256) those that a loader of pickles reads, `left_out` the paths of files that were not
    published. `second_opinion` is None if there was no pickle to ask about.
    """

    verdict: GateVerdict
    reasons: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    scanned: tuple[tuple[str, str], ...] = ()
    second_opinion: SecondOpinion | None = None
    files: tuple[FileInspection, ...] = ()
    left_out: tuple[str, ...] = ()

    def shorten(self, models: int = 1) -> "GateReport":
        """What fits into a model's record, files first that are not clean.

        DynamoDB limits a record to 400 KB, and the `models` that one task ends with to 4 MB in one transaction.
        """
        kept = max(_MIN_RECORDED, _MAX_RECORDED // models)
        flags = tuple(flag if len(flag) <= _LONGEST_FLAG else f"{flag[:_LONGEST_FLAG]}…" for flag in self.flags)
        files = sorted(self.files, key=lambda file: (file.verdict is FileVerdict.CLEAN, file.path))
        return replace(
            self,
            flags=flags[:kept],
            scanned=self.scanned[:kept],
            files=tuple(file.shorten() for file in files[: kept // 2]),
            left_out=self.left_out[: kept // 4],
        )


@dataclass(frozen=True, slots=True)
class ModelError:
    """Why the import of one model failed, in the terms of `ModelhaulError`."""

    type: str
    detail: str
    retryable: bool

    def shorten(self) -> "ModelError":
        """The form for a model's record: at most 1,000 characters of detail."""
        if len(self.detail) <= _MAX_ERROR_DETAIL:
            return self
        return replace(self, detail=f"{self.detail[: _MAX_ERROR_DETAIL - 1]}…")


@dataclass(frozen=True, slots=True)
class Model:
    """A model's record: the claim of one task while it is IMPORTING, the catalog's entry once it is READY.

    `error` says why its last import failed; it is None unless the model is FAILED, WITHDRAWING or DELETING.
    """

    model_id: str
    resolved: ResolvedModel
    status: ModelStatus
    task_id: str
    created_at: datetime
    updated_at: datetime
    files: int = 0
    size: int = 0
    gate: GateReport | None = None
    error: ModelError | None = None


@dataclass(frozen=True, slots=True)
class ModelPage:
    """Models, newest first; `cursor` asks for those that follow, None at the end."""

    models: tuple[Model, ...]
    cursor: str | None


class ModelRoots:
    """Tells which of a task's models a file belongs to, by its path in the task."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._by_root = {model.resolved.root: model for model in models}

    def find_owner(self, path: str) -> Model:
        directory = path.partition("/")[0]
        return self._by_root.get(f"{directory}/") or self._by_root[""]


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
        return f"staging/{self.task_id}/{self.file.path}"


@dataclass(frozen=True, slots=True)
class FileResult:
    """A file that is stored and verified. `reused`: its content was stored before, and was copied inside S3."""

    file: SourceFile
    sha256: str
    etag: str
    reused: bool


@dataclass(frozen=True, slots=True)
class ObjectRange:
    """Bytes `start` to `end` (excluded) of an S3 object, as long as its ETag is `etag`."""

    bucket: str
    key: str
    etag: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Archive:
    """A ZIP in the incoming bucket. `size` (bytes) and `etag` are None until it has arrived.

    `file_name` is what its owner calls it, `model_name` the name asked for the model or models in it.
    """

    key: str
    file_name: str
    model_name: str | None = None
    size: int | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class SkippedDirectory:
    """A directory of an archive that is no valid model, and what it lacks."""

    directory: str
    lacks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UploadPart:
    """`method` PUT on `url` with bytes `start` to `end` (excluded) of the file."""

    number: int
    url: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class UploadTicket:
    """Presigned leave to store one object: `put_url` for all of it, or `parts` and then `complete_url`.

    `complete_url` takes S3's CompleteMultipartUpload by POST, `abort_url` a DELETE. `upload_id` is S3's, of a
    multipart upload.
    """

    expires_at: datetime
    put_url: str | None = None
    parts: tuple[UploadPart, ...] = ()
    complete_url: str | None = None
    abort_url: str | None = None
    upload_id: str | None = None


@dataclass(frozen=True, slots=True)
class Blob:
    """Verified content that lies in the models bucket under `key`, unchanged as long as its ETag is `etag`."""

    sha256: str
    key: str
    size: int
    etag: str


def is_path(path: str) -> bool:
    """Whether a file may be stored under this path: relative, POSIX, without `..` or what a key cannot carry."""
    segments = path.split("/")
    return not (_UNFIT.search(path) or "\\" in path or any(s in ("", ".", "..") for s in segments))


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
