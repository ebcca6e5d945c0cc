"""Git LFS: pointers, the batch API, and downloads from the URLs that it returns.

https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md
"""

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from itertools import batched, islice
from typing import Any

import requests

from modelhaul.domain.errors import (
    AccessRequiredError,
    ContentMismatchError,
    CredentialsRefusedError,
    FileMissingError,
    FileTooLargeError,
    ModelhaulError,
    SourceQuotaError,
    SourceUnavailableError,
    UnexpectedResponseError,
)
from modelhaul.ports.byte_streams import ByteStream
from modelhaul.ports.clock import Clock
from modelhaul_sources.download import HttpDownloader
from modelhaul_sources.http_client import HttpClient, create_retryable_error, create_status_error, describe_url
from modelhaul_sources.rate_budget import RateBudget
from modelhaul_sources.tokens import GITHUB_PARAMETER

POINTER_SIZES = range(115, 1024)
"""The sizes of a pointer in bytes: at least those of three lines in the oldest format, and less than 1,024."""

_POINTER = re.compile(
    rb"version (?:https://git-lfs\.github\.com/spec/v1|https://hawser\.github\.com/spec/v1|http://git-media\.io/v/2)\r?\n"
    rb"(?:ext-[0-9]-[^ \r\n]+ sha256:[0-9a-f]{64}\r?\n)*"
    rb"oid sha256:([0-9a-f]{64})\r?\n"
    rb"size ([0-9]{1,18})\s*"
)
_BATCH_SIZE = 100
_MEDIA_TYPE = "application/vnd.git-lfs+json"
_MAX_JSON = 4 * 1024 * 1024
_MAX_ERROR = 64 * 1024
_DEFAULT_LIFETIME = 3600.0  # seconds; that of GitHub's download URLs
_EXPIRY_MARGIN = 60.0  # seconds before its expiry at which a download URL is renewed
_BANDWIDTH_EXCEEDED = 509
_QUOTA_EXCEEDED = re.compile(r"lfs budget|data quota|bandwidth|over its quota", re.IGNORECASE)
_MISSING_OBJECT_REMEDY = (
    "Ask the owner of the repository to push the content (git lfs push --all origin), or exclude the file with an "
    "ignore pattern. Then submit the import again."
)
_IGNORED_HEADERS = {"host", "content-length", "transfer-encoding", "connection", "range", "accept-encoding"}
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,100}")
_HEADER_VALUE = re.compile(r"[ -~]{0,4096}")


@dataclass(frozen=True, slots=True)
class Pointer:
    """`oid` is the content's sha256 in hex, `size` its size in bytes."""

    oid: str
    size: int


def parse_pointer(data: bytes) -> Pointer | None:
    """Return None if the data is not a pointer."""
    match = _POINTER.fullmatch(data)
    return Pointer(match[1].decode(), int(match[2])) if match and len(data) in POINTER_SIZES else None


@dataclass(frozen=True, slots=True)
class _Download:
    href: str
    headers: Mapping[str, str]
    expires_at: float


class LfsStore:
    """The LFS objects of the repositories `{site}/{name}.git`. Safe to use from several threads.

    `.lfsconfig` is ignored: it could send the token to any server.
    """

    def __init__(
        self,
        site: str,
        client: HttpClient,
        downloader: HttpDownloader,
        budget: RateBudget,
        token: Callable[[], str | None],
        *,
        clock: Clock = time.time,
    ) -> None:
        self._site = site.rstrip("/")
        self._client = client
        self._downloader = downloader
        self._budget = budget
        self._find_token = token
        self._clock = clock
        self._prepared: dict[str, Pointer] = {}
        self._downloads: dict[tuple[str, str], _Download] = {}
        self._lock = threading.Lock()

    def check_objects(self, name: str, pointers: Mapping[str, Pointer]) -> None:
        """Check that the objects of these paths can be downloaded. Raises the errors of `open_range`."""
        paths = {pointer: path for path, pointer in pointers.items()}
        for batch in batched(paths, _BATCH_SIZE, strict=False):
            objects = self._request_objects(name, batch)
            for pointer in batch:
                self._read_download(objects, pointer, paths[pointer])

    def prepare(self, pointers: Iterable[Pointer]) -> None:
        """Prepare to request the download URLs of these objects in batches."""
        with self._lock:
            self._prepared = {pointer.oid: pointer for pointer in pointers}
            self._downloads.clear()

    def open_range(self, name: str, pointer: Pointer, path: str, start: int, end: int) -> ByteStream:
        """Open bytes `start` to `end` (excluded) of an object. A download URL that has expired is renewed.

        Raises FileMissingError, FileTooLargeError, AccessRequiredError, SourceQuotaError, CredentialsRefusedError,
        UntrustedHostError, SourceRefusedError, ContentMismatchError, RateLimitedError, SourceUnavailableError,
        UnexpectedResponseError.
        """
        download = self._find_download(name, pointer, path)
        try:
            return self._open(download, pointer, start, end)
        except AccessRequiredError:
            # The server denies access with a download URL that has expired.
            with self._lock:
                if self._downloads.get((name, pointer.oid)) is download:
                    del self._downloads[name, pointer.oid]
        try:
            return self._open(self._find_download(name, pointer, path), pointer, start, end)
        except AccessRequiredError:
            raise UnexpectedResponseError(
                f"{path} cannot be downloaded: the LFS server denied access with a new download URL."
            ) from None

    def _open(self, download: _Download, pointer: Pointer, start: int, end: int) -> ByteStream:
        return self._downloader.open_range(
            download.href, start, end, pointer.size, download.headers, check=_check_download
        )

    def _find_download(self, name: str, pointer: Pointer, path: str) -> _Download:
        with self._lock:
            download = self._downloads.get((name, pointer.oid))
            if download is not None and download.expires_at - _EXPIRY_MARGIN > self._clock():
                return download
            others = (p for p in self._prepared.values() if (name, p.oid) not in self._downloads and p != pointer)
            batch = [pointer, *islice(others, _BATCH_SIZE - 1)]
            objects = self._request_objects(name, batch)
            for other in batch[1:]:
                # An error of another object is raised when that object is opened.
                try:
                    self._downloads[name, other.oid] = self._read_download(objects, other, other.oid)
                except ModelhaulError:
                    self._prepared.pop(other.oid, None)
            download = self._downloads[name, pointer.oid] = self._read_download(objects, pointer, path)
            return download

    def _request_objects(self, name: str, pointers: Iterable[Pointer]) -> dict[str, Any]:
        """Return the entries of the batch API's response, by oid."""
        self._budget.check()
        body = {
            "operation": "download",
            "transfers": ["basic"],
            "hash_algo": "sha256",
            "objects": [{"oid": p.oid, "size": p.size} for p in pointers],
        }
        headers = {"Accept": _MEDIA_TYPE, "Content-Type": _MEDIA_TYPE}
        if token := self._find_token():
            # The format that git uses. GitHub accepts any user name.
            credentials = base64.b64encode(f"x-access-token:{token}".encode()).decode()
            headers["Authorization"] = f"Basic {credentials}"
        url = f"{self._site}/{name}.git/info/lfs/objects/batch"
        response = self._client.send("POST", url, own_headers=headers, headers={}, json=body).response
        self._budget.record_response(response.headers)
        if response.status_code != HTTPStatus.OK:
            raise self._create_error(response, name)
        try:
            objects = json.loads(self._client.read(response, max_bytes=_MAX_JSON))["objects"]
            return {entry["oid"]: entry for entry in objects}
        except (KeyError, TypeError, ValueError, RecursionError):
            raise UnexpectedResponseError(f"The LFS server returned an invalid response for {name}.") from None

    def _read_download(self, objects: Mapping[str, Any], pointer: Pointer, path: str) -> _Download:
        try:
            entry = objects[pointer.oid]
            if entry.get("error"):
                raise _create_object_error(int(entry["error"]["code"]), str(entry["error"].get("message", "")), path)
            if (size := entry.get("size", pointer.size)) != pointer.size:
                raise ContentMismatchError(
                    f"{path} has the size {str(size)[:20]} on the LFS server, but {pointer.size} in its pointer."
                )
            action = entry["actions"]["download"]
            href = str(action["href"])
            lifetime = float(action.get("expires_in") or 0) or _read_lifetime(action.get("expires_at"), self._clock())
            return _Download(href, dict(_read_headers(action.get("header") or {})), self._clock() + lifetime)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UnexpectedResponseError(f"The LFS server returned an invalid download URL for {path}.") from None

    def _create_error(self, response: requests.Response, name: str) -> ModelhaulError:
        status = response.status_code
        try:
            text = self._client.read(response, max_bytes=_MAX_ERROR).decode("utf-8", "replace")
        except (SourceUnavailableError, UnexpectedResponseError):
            text = ""
        if status == _BANDWIDTH_EXCEEDED or _QUOTA_EXCEEDED.search(text):
            return _create_quota_error(name)
        if status == HTTPStatus.TOO_MANY_REQUESTS or response.headers.get("x-ratelimit-remaining") == "0":
            return self._budget.record_refusal(response.headers)
        if retryable := create_retryable_error(describe_url(response.url), status, response.headers):
            return retryable
        if status == HTTPStatus.UNAUTHORIZED and self._find_token():
            return CredentialsRefusedError(
                f"The LFS server of {name} rejected the token in {GITHUB_PARAMETER}. The token may have expired."
            )
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
            return AccessRequiredError(
                f"The LFS server denied access to the objects of {name}. The token in {GITHUB_PARAMETER} needs "
                "permission to read the repository's contents."
            )
        return create_status_error(f"The LFS server responded with status {status} for {name}.", status)


def _check_download(response: requests.Response) -> None:
    if response.status_code == _BANDWIDTH_EXCEEDED:
        raise _create_quota_error(describe_url(response.url))
    # 400: of S3, if the credentials that signed the URL have expired.
    if response.status_code in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise AccessRequiredError("The download URL of the LFS server has expired.")


def _create_object_error(code: int, text: str, path: str) -> ModelhaulError:
    if code == _BANDWIDTH_EXCEEDED or _QUOTA_EXCEEDED.search(text):
        return _create_quota_error(path)
    match code:
        case HTTPStatus.NOT_FOUND:
            return FileMissingError(
                f"{path} is a Git LFS pointer whose content was never pushed to the LFS server of the repository.",
                remedy=_MISSING_OBJECT_REMEDY,
            )
        case HTTPStatus.GONE:
            return FileMissingError(
                f"{path} is a Git LFS pointer whose content was removed from the LFS server.",
                remedy=_MISSING_OBJECT_REMEDY,
            )
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return FileTooLargeError(f"{path} exceeds the size limit of the LFS server.")
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return AccessRequiredError(
                f"The LFS server denied access to {path}. The token in {GITHUB_PARAMETER} needs permission to read the "
                "repository's contents."
            )
        case _:
            return create_retryable_error(f"The LFS server (object {path})", code, {}) or create_status_error(
                f"The LFS server responded with error {code} for {path}.", code
            )


def _create_quota_error(name: str) -> SourceQuotaError:
    return SourceQuotaError(
        f"{name} cannot be downloaded: the repository has exceeded its Git LFS budget on GitHub. The budget is renewed "
        "every month."
    )


def _read_headers(headers: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the headers for a download without those that the client sets. Raises ValueError for an invalid header."""
    for name, value in headers.items():
        if not isinstance(value, str) or not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ValueError("invalid header")
        if name.lower() not in _IGNORED_HEADERS:
            yield name, value


def _read_lifetime(expires_at: object, now: float) -> float:
    """Return the seconds until `expires_at`. Raises ValueError for an invalid time."""
    if not isinstance(expires_at, str):
        return _DEFAULT_LIFETIME
    return max(0.0, datetime.fromisoformat(expires_at).timestamp() - now)
