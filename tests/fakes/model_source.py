import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.errors import FileMissingError, InvalidReferenceError, ModelNotFoundError, RevisionNotFoundError
from modelhaul.domain.files import SourceFile
from modelhaul.domain.model_cards import ModelCard
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.ports.byte_streams import ByteStream
from modelhaul.ports.model_sources import FollowedSource, ModelResolver, ModelSource
from modelhaul_sources.references import check_revision

type Files = dict[str, bytes]

_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)
_LARGE = 256 * 1024


class HubSource(ModelResolver, FollowedSource, ModelSource, Protocol):
    """A source that also finds models by name, and compares revisions."""


class InMemoryStream(ByteStream):
    ranged = True

    def __init__(self, source: "InMemoryModelSource", path: str, content: bytes, start: int, end: int) -> None:
        self.offset = start
        self.etag = _hash_sha256(content)
        self._source = source
        self._path = path
        self._content = content[:end]
        self._position = start

    def readinto(self, buffer: memoryview) -> int:
        self._source.on_read(self._path, self._position)
        piece = self._content[self._position : self._position + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        self._source.bytes_read[self._path] += len(piece)
        return len(piece)

    def close(self) -> None:
        return


@dataclass
class InMemoryModelSource:
    """`models`: name to branch to path to content, which may change at any time, and the branch's commit with it.

    As on the Hub, large files have a sha256 as digest and small ones git's sha1. `refusals` has what to raise for
    a name. `on_list`, and `on_read` with the path and the offset in the file, may raise what the source then
    raises; `served` gives the bytes that are sent for a path's own. `bytes_read` counts what was sent by
    path, `cards` has the cards by name. `resolved` has the names that were resolved.
    """

    models: dict[str, dict[str, Files]] = field(default_factory=dict)
    old_names: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, Exception] = field(default_factory=dict)
    on_list: Callable[[], None] = lambda: None
    on_read: Callable[[str, int], None] = lambda _path, _offset: None
    served: Callable[[str, bytes], bytes] = lambda _path, content: content
    bytes_read: Counter[str] = field(default_factory=Counter)
    prepared: list[str] = field(default_factory=list)
    kind: Source = Source.HUGGINGFACE
    cards: dict[str, ModelCard] = field(default_factory=dict)
    resolved: list[str] = field(default_factory=list)

    def resolve(self, name: str, revision: str) -> ResolvedModel:
        if not _NAME.fullmatch(name):
            raise InvalidReferenceError(f"{name!r} cannot be a model")
        check_revision(revision)
        self.resolved.append(name)
        name = self.old_names.get(name, name)
        if name in self.refusals:
            raise self.refusals[name]
        branch = self.models.get(name, {}).get(revision)
        commit = revision if branch is None else _hash_files(branch)
        model = ResolvedModel(self.kind, name, revision, commit, card=self.cards.get(name))
        self._find_files(model)
        return model

    def resolve_moved(self, name: str, revision: str, commit: str) -> ResolvedModel | None:
        model = self.resolve(name, revision)
        return None if (model.name, model.commit) == (name, commit) else model

    def is_rewritten(self, model: ResolvedModel, earlier: str) -> None:
        return

    def find_missing_remedy(self, name: str) -> None:
        return

    def list_files(self, model: ResolvedModel) -> Iterator[SourceFile]:
        self.on_list()
        for path, content in self._find_files(model).items():
            if len(content) > _LARGE:
                digest = Digest(Algorithm.SHA256, _hash_sha256(content))
            else:
                blob = b"blob %d\0" % len(content) + content
                digest = Digest(Algorithm.GIT_SHA1, hashlib.sha1(blob).hexdigest())
            yield SourceFile(path, len(content), digest)

    def open_range(self, model: ResolvedModel, file: SourceFile, start: int, end: int) -> InMemoryStream:
        content = self._find_files(model).get(file.path)
        if content is None:
            raise FileMissingError(f"{file.path} is no longer there")
        return InMemoryStream(self, file.path, self.served(file.path, content), start, end)

    def prepare_files(self, files: Sequence[SourceFile]) -> None:
        self.prepared += [file.path for file in files]

    def locate(self, model: ResolvedModel, file: SourceFile) -> None:
        return

    def prefix(self, name: str, revision: str = "main") -> str:
        return self.resolve(name, revision).prefix

    def _find_files(self, model: ResolvedModel) -> Files:
        if model.name not in self.models:
            raise ModelNotFoundError(f"there is no model {model.name}")
        for files in self.models[model.name].values():
            if _hash_files(files) == model.commit:
                return files
        raise RevisionNotFoundError(f"{model.name} has no revision {model.revision!r}")


def _hash_files(files: Files) -> str:
    listing = "".join(f"{path}:{_hash_sha1(content)}" for path, content in sorted(files.items()))
    return hashlib.sha1(listing.encode()).hexdigest()


# Each request needs the hashes of all files. A cached object is found again by its identity, without reading it.
@lru_cache(maxsize=32)
def _hash_sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@lru_cache(maxsize=32)
def _hash_sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
