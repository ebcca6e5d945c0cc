"""A model source over a shelf of bytes, whose failures a test scripts."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from modelhaul.digest import Algorithm, Digest
from modelhaul.errors import ModelNotFoundError, RevisionNotFoundError
from modelhaul.model import ResolvedModel, Source, SourceFile
from modelhaul.ports import ByteStream

LARGE = 8 * 1024 * 1024  # above this the shelf publishes sha256, below git's sha1, as the Hub does


class _ShelfStream(ByteStream):
    ranged = True
    etag: str | None = "shelf"

    def __init__(self, shelf: "ShelfSource", path: str, content: bytes, offset: int) -> None:
        self._shelf = shelf
        self._path = path
        self._content = content
        self._read = 0
        self.offset = offset

    def readinto(self, buffer: memoryview) -> int:
        self._shelf.on_read(self._path, self.offset + self._read)
        piece = self._content[self._read : self._read + len(buffer)]
        buffer[: len(piece)] = piece
        self._read += len(piece)
        self._shelf.bytes_read[self._path] += len(piece)
        return len(piece)

    def close(self) -> None:
        return

    def __enter__(self) -> "_ShelfStream":
        return self

    def __exit__(self, *args: object) -> None:
        return


@dataclass
class ShelfSource:
    """`models`: name to revision to path to content. `on_read` may raise what a source raises."""

    models: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    on_read: Callable[[str, int], None] = lambda path, offset: None
    on_list: Callable[[], None] = lambda: None
    served: Callable[[str, bytes], bytes] = lambda path, content: content
    bytes_read: Counter[str] = field(default_factory=Counter)

    def resolve(self, name: str, revision: str) -> ResolvedModel:
        if name not in self.models:
            raise ModelNotFoundError(f"no model {name}")
        if revision not in self.models[name]:
            raise RevisionNotFoundError(f"no revision {revision}")
        return ResolvedModel(Source.HUGGINGFACE, name, revision, self._commit(name, revision))

    def list_files(self, model: ResolvedModel) -> Iterator[SourceFile]:
        self.on_list()
        for path, content in self._find(model).items():
            yield describe(path, content)

    def open_range(self, model: ResolvedModel, file: SourceFile, start: int, end: int) -> ByteStream:
        content = self.served(file.path, self._find(model)[file.path])
        return _ShelfStream(self, file.path, content[start:end], start)

    def prefix(self, name: str, revision: str = "main") -> str:
        return self.resolve(name, revision).prefix

    def _commit(self, name: str, revision: str) -> str:
        files = self.models[name][revision]
        listing = "".join(f"{p}:{hashlib.sha1(c).hexdigest()}" for p, c in sorted(files.items()))
        return hashlib.sha1(listing.encode()).hexdigest()

    def _find(self, model: ResolvedModel) -> dict[str, bytes]:
        revisions = self.models[model.name]
        return next(files for r, files in revisions.items() if self._commit(model.name, r) == model.commit)


def describe(path: str, content: bytes) -> SourceFile:
    if len(content) > LARGE:
        return SourceFile(path, len(content), Digest(Algorithm.SHA256, hashlib.sha256(content).hexdigest()))
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return SourceFile(path, len(content), Digest(Algorithm.GIT_SHA1, git))
