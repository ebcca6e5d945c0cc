"""GitHub repositories with Git LFS, as a `modelhaul.ports.model_sources.ModelSource`. It does not need git."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from urllib.parse import quote

import requests

from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.errors import (
    EmptyModelError,
    FileMissingError,
    RequiredFilesError,
    RevisionNotFoundError,
    UnexpectedResponseError,
)
from modelhaul.domain.file_selection import choose_files
from modelhaul.domain.files import FileKind, SourceFile
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.ports.byte_streams import ByteStream, read_verified
from modelhaul.ports.clock import Clock
from modelhaul.ports.rate_limits import RateLimitStore
from modelhaul_sources.download import HttpDownloader
from modelhaul_sources.github_api import GitHubApi, Repository, TreeEntry, check_reference, parse_name
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.http_client import DEFAULT_TIMEOUTS, HttpClient, Timeouts
from modelhaul_sources.lfs import POINTER_SIZES, LfsStore, Pointer, parse_pointer
from modelhaul_sources.rate_budget import RateBudget
from modelhaul_sources.tokens import GITHUB_PARAMETER, read_token

_KINDS = {"120000": FileKind.SYMLINK, "160000": FileKind.SUBMODULE}
# Locators: where the content of a file is downloaded from.
_RAW, _BLOB, _LFS = "raw", "blob", "lfs"
RESOLVE_TIMEOUTS = Timeouts(connect=2, read=6, stalled=1.5)
"""For API requests, whose functions have 25 seconds for the two responses of `resolve`."""

_SHARED_LIMIT = (
    " Without a token, GitHub allows 60 requests an hour for each IP address, which others in AWS may share."
)
_TOKEN_REMEDY = (
    f"Try again after the time that the message names, or ask an operator to configure a token in {GITHUB_PARAMETER}: "
    "with a token, the limit is 5,000 requests an hour."
)
_READ_CONCURRENCY = 16
# If more files have the size of a pointer, only the likely pointers are read.
_MAX_POINTER_READS = 500
_MAX_CACHED = 20_000
_WEIGHT_SUFFIXES = {
    ".bin",
    ".ckpt",
    ".gguf",
    ".h5",
    ".msgpack",
    ".npz",
    ".onnx",
    ".pt",
    ".pth",
    ".safetensors",
    ".tflite",
}


class GitHubSource:
    """GitHub, with its API at `policy.endpoint` and its LFS server at `site_url`.

    Public files are downloaded from `raw_url`, which does not count against the rate limit of the API. Files of private
    repositories, or all files if `raw_url` is empty, are downloaded from the API. `token` is called for each request.
    The token is sent to the API and the LFS server only.
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
        self._read_secret = token
        client = HttpClient(policy, timeouts=timeouts)
        self._downloader = HttpDownloader(policy, timeouts=timeouts)
        access = "with a token" if token else "no token"

        def open_budget(name: str, cause: str = "", remedy: str | None = None) -> RateBudget:
            return RateBudget(rate_limits, name, cause=cause, remedy=remedy, clock=clock)

        self._raw_budget = open_budget("GitHub raw content host")
        advice = ("", None) if token else (_SHARED_LIMIT, _TOKEN_REMEDY)
        self._api = GitHubApi(policy.endpoint, client, open_budget(f"GitHub API ({access})", *advice), self._find_token)
        lfs_budget = open_budget(f"GitHub LFS server ({access})")
        self._lfs = LfsStore(site_url, client, self._downloader, lfs_budget, self._find_token, clock=clock)
        # By the blob's SHA-1. A retried listing does not read the blobs again.
        self._pointers: dict[str, Pointer | None] = {}

    def resolve(self, name: str, revision: str) -> ResolvedModel:
        owner, repository = parse_name(name)
        check_reference(revision)
        found = self._api.find_repository(owner, repository)
        try:
            commit = self._api.find_commit(found.name, revision)
        except RevisionNotFoundError as error:
            _suggest_branch(error, found, revision)
            raise
        return ResolvedModel(Source.GITHUB, found.name, revision, commit)

    def resolve_moved(self, name: str, revision: str, commit: str) -> ResolvedModel | None:
        """Take one request if nothing has moved, which does not count against the rate limit of a token."""
        owner, repository = parse_name(name)
        check_reference(revision)
        try:
            found = self._api.compare_commit(name, revision, commit)
        except RevisionNotFoundError as error:
            # GitHub responds in the same way if the repository is gone.
            _suggest_branch(error, self._api.find_repository(owner, repository), revision)
            raise
        if found == (commit, False):
            return None
        canonical = self._api.find_repository(owner, repository).name
        if (canonical, found.commit) == (name, commit):
            return None
        return ResolvedModel(Source.GITHUB, canonical, revision, found.commit)

    def is_rewritten(self, model: ResolvedModel, earlier: str) -> bool:
        return self._api.is_rewritten(model.name, model.commit, earlier)

    def find_missing_remedy(self, name: str) -> None:
        """Return None: the error has the remedy."""

    def list_files(self, model: ResolvedModel) -> Iterator[SourceFile]:
        """List the files in two calls of the API, or more if GitHub truncates the tree.

        LFS objects are checked in batches of a hundred.
        """
        found = self._api.find_repository(*parse_name(model.name))
        locator = _BLOB if found.private or not self._raw_url else _RAW
        blobs: list[SourceFile] = []
        for entry in self._api.list_tree(model.name, model.commit):
            file = _read_file(entry, locator)
            if file.kind is FileKind.FILE:
                blobs.append(file)
            else:
                yield file
        pointers = self._find_pointers(model, blobs)
        # LFS objects that are not selected may be missing.
        chosen = {file.path for file in _choose(model, blobs)}
        self._lfs.check_objects(model.name, {path: pointer for path, pointer in pointers.items() if path in chosen})
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
        """Return None: S3 cannot copy the files of GitHub."""

    def _open_blob(self, model: ResolvedModel, file: SourceFile, start: int, end: int) -> ByteStream:
        def check(response: requests.Response) -> None:
            if response.status_code == requests.codes.not_found:
                raise FileMissingError(
                    f"{file.path} cannot be downloaded: GitHub has no repository {model.name}, or the token in "
                    f"{GITHUB_PARAMETER} cannot read it.",
                    remedy="Check that the repository still exists. If it does, ask an operator to check that the "
                    "configured token can read it. Then submit the import again.",
                )
            self._api.check_response(response, model.name, model.commit)

        url = self._api.build_blob_url(model.name, file.digest.value)
        return self._downloader.open_range(url, start, end, file.size, self._api.build_blob_headers(), check=check)

    def _check_raw(self, response: requests.Response) -> None:
        if response.status_code == requests.codes.too_many_requests:
            raise self._raw_budget.record_refusal(response.headers)

    def _find_pointers(self, model: ResolvedModel, files: Sequence[SourceFile]) -> Mapping[str, Pointer]:
        """Return the LFS pointers among the files, by path.

        Only its content identifies a pointer, so all files with the size of a pointer are read. If there are too many
        of them, only those that .gitattributes assigns to LFS or that have the suffix of weights are read.
        """
        candidates = [file for file in files if file.size in POINTER_SIZES]
        if len(candidates) > _MAX_POINTER_READS:
            is_declared = self._read_attributes(model, files)
            candidates = [
                f for f in candidates if is_declared(f.path) or PurePosixPath(f.path).suffix in _WEIGHT_SUFFIXES
            ]
        if len(self._pointers) > _MAX_CACHED:
            self._pointers.clear()
        unread = {f.digest.value: f for f in candidates if f.digest.value not in self._pointers}
        with ThreadPoolExecutor(_READ_CONCURRENCY, thread_name_prefix="pointers") as pool:
            for sha, content in zip(unread, pool.map(lambda f: self._read(model, f), unread.values()), strict=True):
                self._pointers[sha] = parse_pointer(content)
        found = {file.path: self._pointers[file.digest.value] for file in candidates}
        return {path: pointer for path, pointer in found.items() if pointer is not None}

    def _read_attributes(self, model: ResolvedModel, files: Sequence[SourceFile]) -> Callable[[str], bool]:
        """Return a function that tells whether a path may be in LFS according to the repository's .gitattributes."""
        # Imported here because only very large repositories need it.
        from modelhaul_sources.git_attributes import match_lfs_paths  # noqa: PLC0415

        attributes = [f for f in files if PurePosixPath(f.path).name == ".gitattributes" and f.size]
        return match_lfs_paths({file.path: self._read(model, file) for file in attributes})

    def _read(self, model: ResolvedModel, file: SourceFile) -> bytes:
        """Return the verified content of a small file."""
        with self.open_range(model, file, 0, file.size) as stream:
            return read_verified(stream, file)

    def _find_token(self) -> str | None:
        return read_token(self._read_secret, GITHUB_PARAMETER)


def _choose(model: ResolvedModel, files: Sequence[SourceFile]) -> Sequence[SourceFile]:
    """Return the files that the planner will choose, or no files if the planner will reject the selection."""
    try:
        return choose_files(model, files)
    except (EmptyModelError, RequiredFilesError):
        return []


def _read_file(entry: TreeEntry, locator: str) -> SourceFile:
    digest = Digest(Algorithm.GIT_SHA1, entry.sha)
    if kind := _KINDS.get(entry.mode):
        return SourceFile(entry.path, entry.size, digest, kind=kind)
    if entry.type != "blob":
        raise UnexpectedResponseError(f"GitHub listed {entry.path!r} with the unknown type {entry.type[:20]!r}.")
    return SourceFile(entry.path, entry.size, digest, locator)


def _to_pointer(file: SourceFile) -> Pointer:
    return Pointer(file.digest.value, file.size)


def _suggest_branch(error: RevisionNotFoundError, repository: Repository, revision: str) -> None:
    if error.remedy is None and repository.default_branch not in (None, revision):
        error.remedy = (
            f"Import the default branch {repository.default_branch!r} of the repository, or another branch, tag or "
            "commit that exists."
        )
