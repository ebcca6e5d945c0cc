"""GitHub repositories, Git LFS included, as a `modelhaul.ports.model_sources.ModelSource`; without git."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from urllib.parse import quote

import requests

from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.errors import (
    CredentialsRefusedError,
    EmptyModelError,
    FileMissingError,
    RequiredFilesError,
    UnexpectedResponseError,
)
from modelhaul.domain.file_selection import choose_files
from modelhaul.domain.files import FileKind, SourceFile
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.ports.byte_streams import ByteStream, read_verified
from modelhaul.ports.clock import Clock
from modelhaul.ports.rate_limits import RateLimitStore
from modelhaul_sources.download import HttpDownloader
from modelhaul_sources.github_api import TOKEN_SECRET, GitHubApi, TreeEntry, check_reference, parse_name
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.http_client import DEFAULT_TIMEOUTS, HttpClient, Timeouts
from modelhaul_sources.lfs import POINTER_SIZES, LfsStore, Pointer, parse_pointer
from modelhaul_sources.rate_budget import RateBudget

_KINDS = {"120000": FileKind.SYMLINK, "160000": FileKind.SUBMODULE}
# Where a file's bytes are: kept with its record.
_RAW, _BLOB, _LFS = "raw", "blob", "lfs"
_READ_CONCURRENCY = 16
# Above so many files of a pointer's size, only those are looked into that are likely to be one.
_MAX_POINTER_READS = 500
_MAX_CACHED = 20_000
_WEIGHTS = {".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".npz", ".onnx", ".pt", ".pth", ".safetensors", ".tflite"}


class GitHubSource:
    """GitHub at `api_url` and `site_url`. Public files come from `raw_url`, which costs nothing of the API's budget; if
    it is empty, and for private repositories, from the API.

    `token` is asked for at each call. It is sent to the API and the LFS server, and nowhere else.
    """

    def __init__(
        self,
        policy: HostPolicy,
        rate_limits: RateLimitStore,
        *,
        site_url: str,
        raw_url: str,
        token: Callable[[], str | None] | None = None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        clock: Clock = time.time,
    ) -> None:
        self._raw_url = raw_url.rstrip("/")
        self._find_secret = token
        client = HttpClient(policy, timeouts=timeouts)
        self._downloader = HttpDownloader(policy, timeouts=timeouts)
        advice = (
            ""
            if token
            else " A token in the secret of the parameter GitHubTokenSecret raises it from 60 to 5,000 an hour."
        )
        who = "with the token" if token else "without a token"

        def open_budget(name: str, advice: str = "") -> RateBudget:
            return RateBudget(rate_limits, name, advice=advice, clock=clock)

        self._raw_budget = open_budget("GitHub's raw host")
        self._api = GitHubApi(policy.endpoint, client, open_budget(f"GitHub's API {who}", advice), self._find_token)
        lfs_budget = open_budget(f"GitHub's LFS server {who}")
        self._lfs = LfsStore(site_url, client, self._downloader, lfs_budget, self._find_token, clock=clock)
        # Contents of blobs that were read as perhaps pointers: a listing that is tried again does not read them again.
        self._looked_into: dict[str, Pointer | None] = {}

    def resolve(self, name: str, revision: str) -> ResolvedModel:
        owner, repository = parse_name(name)
        check_reference(revision)
        found = self._api.find_repository(owner, repository)
        return ResolvedModel(Source.GITHUB, found.name, revision, self._api.find_commit(found.name, revision))

    def list_files(self, model: ResolvedModel) -> Iterator[SourceFile]:
        """Two calls of the API, more only for a tree that GitHub cuts off; LFS objects are asked for in hundreds."""
        found = self._api.find_repository(*parse_name(model.name))
        where = _BLOB if found.private or not self._raw_url else _RAW
        blobs: list[SourceFile] = []
        for entry in self._api.list_tree(model.name, model.commit):
            file = _read_file(entry, where)
            if file.kind is FileKind.FILE:
                blobs.append(file)
            else:
                yield file
        pointers = self._find_pointers(model, blobs)
        # What is not asked for may be missing.
        taken = {file.path for file in _choose(model, blobs)}
        self._lfs.check_objects(model.name, {path: pointer for path, pointer in pointers.items() if path in taken})
        for file in blobs:
            pointer = pointers.get(file.path)
            if pointer is None:
                yield file
            else:
                yield SourceFile(file.path, pointer.size, Digest(Algorithm.SHA256, pointer.oid), _LFS)

    def prepare_files(self, files: Sequence[SourceFile]) -> None:
        self._lfs.prepare(_to_pointer(file) for file in files if file.locator == _LFS)

    def open_range(self, model: ResolvedModel, file: SourceFile, start: int, end: int) -> ByteStream:
        if file.locator == _LFS:
            return self._lfs.open_range(model.name, _to_pointer(file), file.path, start, end)
        if file.locator == _BLOB:
            return self._open_blob(model, file, start, end)
        self._raw_budget.check()
        url = f"{self._raw_url}/{model.name}/{model.commit}/{quote(file.path)}"
        return self._downloader.open_range(url, start, end, file.size, check=self._check_raw)

    def locate(self, model: ResolvedModel, file: SourceFile) -> None:
        """GitHub's files do not lie in S3 where it could copy them from."""

    def _open_blob(self, model: ResolvedModel, file: SourceFile, start: int, end: int) -> ByteStream:
        def check(response: requests.Response) -> None:
            if response.status_code == requests.codes.not_found:
                raise FileMissingError(
                    f"{file.path} is no longer there: {model.name} is gone, or hidden from the token"
                )
            self._api.check_response(response, model.name, model.commit)

        url = self._api.find_blob_url(model.name, file.digest.value)
        return self._downloader.open_range(url, start, end, file.size, self._api.blob_headers(), check=check)

    def _check_raw(self, response: requests.Response) -> None:
        if response.status_code == requests.codes.too_many_requests:
            raise self._raw_budget.refuse(response.headers)

    def _find_pointers(self, model: ResolvedModel, files: Sequence[SourceFile]) -> Mapping[str, Pointer]:
        """What is a pointer tells its content, so all of a pointer's size are read; if those are very many, such as
        have been read already, and are named in .gitattributes or like weights.
        """
        candidates = [file for file in files if file.size in POINTER_SIZES]
        if len(candidates) > _MAX_POINTER_READS:
            is_declared = self._read_attributes(model, files)
            candidates = [f for f in candidates if is_declared(f.path) or PurePosixPath(f.path).suffix in _WEIGHTS]
        if len(self._looked_into) > _MAX_CACHED:
            self._looked_into.clear()
        unread = {f.digest.value: f for f in candidates if f.digest.value not in self._looked_into}
        with ThreadPoolExecutor(_READ_CONCURRENCY, thread_name_prefix="pointers") as pool:
            for sha, content in zip(unread, pool.map(lambda f: self._read(model, f), unread.values()), strict=True):
                self._looked_into[sha] = parse_pointer(content)
        found = {file.path: self._looked_into[file.digest.value] for file in candidates}
        return {path: pointer for path, pointer in found.items() if pointer is not None}

    def _read_attributes(self, model: ResolvedModel, files: Sequence[SourceFile]) -> Callable[[str], bool]:
        """Whether a path may be in LFS, by the repository's .gitattributes."""
        # Only very large repositories need it.
        from modelhaul_sources.git_attributes import match_lfs_paths  # noqa: PLC0415

        attributes = [f for f in files if PurePosixPath(f.path).name == ".gitattributes" and f.size]
        return match_lfs_paths({file.path: self._read(model, file) for file in attributes})

    def _read(self, model: ResolvedModel, file: SourceFile) -> bytes:
        """A small file's verified content."""
        with self.open_range(model, file, 0, file.size) as stream:
            return read_verified(stream, file)

    def _find_token(self) -> str | None:
        token = ((self._find_secret() if self._find_secret else None) or "").strip()
        if token.isascii() and token.isprintable() and " " not in token:
            return token or None
        raise CredentialsRefusedError(f"{TOKEN_SECRET} is not a bare token")


def _choose(model: ResolvedModel, files: Sequence[SourceFile]) -> Sequence[SourceFile]:
    """What the planner will choose; nothing if it is going to refuse that, with its own words."""
    try:
        return choose_files(model, files)
    except (EmptyModelError, RequiredFilesError):
        return []


def _read_file(entry: TreeEntry, where: str) -> SourceFile:
    digest = Digest(Algorithm.GIT_SHA1, entry.sha)
    if kind := _KINDS.get(entry.mode):
        return SourceFile(entry.path, entry.size, digest, kind=kind)
    if entry.type != "blob":
        raise UnexpectedResponseError(f"GitHub lists {entry.path!r} as a {entry.type[:20]!r}")
    return SourceFile(entry.path, entry.size, digest, where)


def _to_pointer(file: SourceFile) -> Pointer:
    return Pointer(file.digest.value, file.size)
