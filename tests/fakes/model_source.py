import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from modelhaul.digest import Algorithm, Digest
from modelhaul.errors import (
    AccessRequiredError,
    FileMissingError,
    InvalidReferenceError,
    ModelDisabledError,
    ModelNotFoundError,
    RevisionNotFoundError,
    SourceUnavailableError,
)
from modelhaul.model import ResolvedModel, Source, SourceFile
from modelhaul_sources.references import check_revision

type Files = Mapping[str, bytes]

_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(slots=True)
class _Repository:
    name: str
    gated: bool
    disabled: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Files] = field(default_factory=dict)


class InMemoryStream:
    def __init__(self, content: bytes, start: int, end: int, *, ranged: bool, cut_at: int | None) -> None:
        self.offset = start if ranged else 0
        self.etag: str | None = hashlib.sha256(content).hexdigest()
        self.ranged = ranged
        self.closed = False
        self._content = content
        self._position = self.offset
        self._end = end
        self._cut_at = end if cut_at is None else min(max(cut_at, self.offset), end)

    def readinto(self, buffer: memoryview) -> int:
        piece = self._content[self._position : min(self._position + len(buffer), self._cut_at)]
        if not piece and self._position < self._end:
            raise SourceUnavailableError("the connection broke")
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> "InMemoryStream":
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


class InMemoryModelSource:
    """Models of any number of revisions. Files whose name ends in `.safetensors` have a sha256 as digest, the
    others git's sha1.

    `before` is called with the method's name and the model's, or `name/path` for `open_range`, and may raise
    what the method then raises. `serve` gives the bytes that are sent for a path's own; `cut_at` the position
    in a file, by path, at which its connections break. With `ranged` off every range is answered by the whole.
    """

    def __init__(self, source: Source = Source.HUGGINGFACE) -> None:
        self.before: Callable[[str, str], None] = lambda _method, _target: None
        self.serve: Callable[[str, bytes], bytes] = lambda _path, content: content
        self.cut_at: dict[str, int] = {}
        self.ranged = True
        self.opened: list[tuple[str, int, int]] = []
        """(path, start, end) of all ranges that were opened, in order."""
        self._source = source
        self._repositories: dict[str, _Repository] = {}

    def add_model(
        self,
        name: str,
        branches: Mapping[str, Files],
        *,
        old_names: Iterable[str] = (),
        gated: bool = False,
        disabled: bool = False,
    ) -> None:
        repository = _Repository(name, gated, disabled)
        for known_as in (name, *old_names):
            self._repositories[known_as] = repository
        for branch, files in branches.items():
            self.commit(name, branch, files)

    def commit(self, name: str, branch: str, files: Files) -> str:
        """Makes `files` the whole content of the branch and returns the commit."""
        repository = self._repositories[name]
        listing = "".join(f"{path} {hashlib.sha1(files[path]).hexdigest()}\n" for path in sorted(files))
        commit = hashlib.sha1(f"{repository.name}\n{listing}".encode()).hexdigest()
        repository.branches[branch] = commit
        repository.commits[commit] = dict(files)
        return commit

    def resolve(self, name: str, revision: str) -> ResolvedModel:
        if not _NAME.fullmatch(name):
            raise InvalidReferenceError(f"{name!r} cannot be a model")
        check_revision(revision)
        self.before("resolve", name)
        repository = self._repositories.get(name)
        if repository is None:
            raise ModelNotFoundError(f"there is no model {name}")
        if repository.disabled:
            raise ModelDisabledError(f"{name} is disabled")
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            raise RevisionNotFoundError(f"{name} has no revision {revision!r}")
        if repository.gated:
            raise AccessRequiredError(f"{name} is gated")
        return ResolvedModel(self._source, repository.name, revision, commit)

    def list_files(self, model: ResolvedModel) -> Iterator[SourceFile]:
        self.before("list_files", model.name)
        for path, content in sorted(self._find_files(model).items()):
            if path.endswith(".safetensors"):
                digest = Digest(Algorithm.SHA256, hashlib.sha256(content).hexdigest())
            else:
                blob = b"blob %d\0" % len(content) + content
                digest = Digest(Algorithm.GIT_SHA1, hashlib.sha1(blob).hexdigest())
            yield SourceFile(path, len(content), digest)

    def open_range(self, model: ResolvedModel, file: SourceFile, start: int, end: int) -> InMemoryStream:
        self.opened.append((file.path, start, end))
        self.before("open_range", f"{model.name}/{file.path}")
        content = self._find_files(model).get(file.path)
        if content is None:
            raise FileMissingError(f"{file.path} is no longer there")
        served = self.serve(file.path, content)
        return InMemoryStream(served, start, end, ranged=self.ranged, cut_at=self.cut_at.get(file.path))

    def _find_files(self, model: ResolvedModel) -> Files:
        repository = self._repositories.get(model.name)
        if repository is None:
            raise ModelNotFoundError(f"there is no model {model.name}")
        try:
            return repository.commits[model.commit]
        except KeyError:
            raise RevisionNotFoundError(f"{model.name} has no commit {model.commit}") from None
