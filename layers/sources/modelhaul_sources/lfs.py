"""Git LFS: pointers, the batch API, and downloads by its links.

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
from itertools import batched
from typing import Any

import requests

from modelhaul.domain.errors import (
    AccessRequiredError,
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
from modelhaul_sources.http_client import HttpClient, describe_url, describe_waiting
from modelhaul_sources.rate_budget import RateBudget

POINTER_SIZES = range(115, 1024)
"""Bytes that a pointer can have: three lines, of which the oldest form's are the shortest, and less than 1,024."""

_POINTER = re.compile(
    rb"version (?:https://git-lfs\.github\.com/spec/v1|https://hawser\.github\.com/spec/v1|http://git-media\.io/v/2)\r?\n"
    rb"(?:ext-[0-9]-[^ \r\n]+ sha256:[0-9a-f]{64}\r?\n)*"
    rb"oid sha256:([0-9a-f]{64})\r?\n"
    rb"size ([0-9]{1,18})\s*"
)
_BATCH = 100
_MEDIA_TYPE = "application/vnd.git-lfs+json"
_MAX_JSON = 4 * 1024 * 1024
_LIFETIME = 3600.0  # seconds of a link that does not say; GitHub's
_MARGIN = 60.0  # seconds before a link's end at which it is not used any more
_BANDWIDTH_EXCEEDED = 509
_BUDGET = re.compile(r"lfs budget|data quota|bandwidth|over its quota", re.IGNORECASE)
_WITHHELD = {"host", "content-length", "transfer-encoding", "connection", "range", "accept-encoding"}
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,100}")
_HEADER_VALUE = re.compile(r"[ -~]{0,4096}")


@dataclass(frozen=True, slots=True)
class Pointer:
    """`oid` is the content's sha256 in hex, `size` its bytes."""

    oid: str
    size: int


def parse_pointer(data: bytes) -> Pointer | None:
    """None for what is no pointer."""
    match = _POINTER.fullmatch(data)
    return Pointer(match[1].decode(), int(match[2])) if match and len(data) in POINTER_SIZES else None


@dataclass(frozen=True, slots=True)
class _Link:
    href: str
    headers: Mapping[str, str]
    expires_at: float


class LfsStore:
    """The LFS objects of one site's repositories, `{site}/{name}.git`. Safe to use from several threads.

    `.lfsconfig` is not looked at: it could send the token anywhere.
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
        self._links: dict[tuple[str, str], _Link] = {}
        self._asking = threading.Lock()

    def check_objects(self, name: str, pointers: Mapping[str, Pointer]) -> None:
        """Whether the objects of these paths can be had. Raises what `open_range` raises, for the first that cannot."""
        paths = {pointer: path for path, pointer in pointers.items()}
        for batch in batched(paths, _BATCH, strict=False):
            answers = self._ask(name, batch)
            for pointer in batch:
                self._read_link(answers, pointer, paths[pointer])

    def prepare(self, pointers: Iterable[Pointer]) -> None:
        """Their links are asked for together, when the first of them is needed."""
        with self._asking:
            self._prepared = {pointer.oid: pointer for pointer in pointers}
            self._links.clear()

    def open_range(self, name: str, pointer: Pointer, path: str, start: int, end: int) -> ByteStream:
        """A link that has expired is renewed.

        Raises FileMissingError, FileTooLargeError, AccessRequiredError, SourceQuotaError, CredentialsRefusedError,
        UntrustedHostError, RateLimitedError, SourceUnavailableError, UnexpectedResponseError.
        """
        link = self._find_link(name, pointer, path)
        try:
            return self._open(link, pointer, start, end)
        except AccessRequiredError:
            # Signed links are refused like this once they have expired.
            with self._asking:
                if self._links.get((name, pointer.oid)) is link:
                    del self._links[name, pointer.oid]
        try:
            return self._open(self._find_link(name, pointer, path), pointer, start, end)
        except AccessRequiredError:
            raise SourceUnavailableError(f"{path}: the LFS server's links are refused where they lead") from None

    def _open(self, link: _Link, pointer: Pointer, start: int, end: int) -> ByteStream:
        return self._downloader.open_range(link.href, start, end, pointer.size, link.headers, check=_check_link)

    def _find_link(self, name: str, pointer: Pointer, path: str) -> _Link:
        with self._asking:
            link = self._links.get((name, pointer.oid))
            if link is not None and link.expires_at - _MARGIN > self._clock():
                return link
            others = (p for p in self._prepared.values() if (name, p.oid) not in self._links and p != pointer)
            together = [pointer, *(p for p, _ in zip(others, range(_BATCH - 1), strict=False))]
            answers = self._ask(name, together)
            for other in together[1:]:
                # What is wrong with one of them is said when it is opened itself.
                try:
                    self._links[name, other.oid] = self._read_link(answers, other, other.oid)
                except ModelhaulError:
                    self._prepared.pop(other.oid, None)
            link = self._links[name, pointer.oid] = self._read_link(answers, pointer, path)
            return link

    def _ask(self, name: str, pointers: Iterable[Pointer]) -> dict[str, Any]:
        self._budget.check()
        question = {
            "operation": "download",
            "transfers": ["basic"],
            "hash_algo": "sha256",
            "objects": [{"oid": p.oid, "size": p.size} for p in pointers],
        }
        headers = {"Accept": _MEDIA_TYPE, "Content-Type": _MEDIA_TYPE}
        if token := self._find_token():
            # As git sends it; GitHub asks for no particular user name.
            credentials = base64.b64encode(f"x-access-token:{token}".encode()).decode()
            headers["Authorization"] = f"Basic {credentials}"
        url = f"{self._site}/{name}.git/info/lfs/objects/batch"
        response = self._client.send("POST", url, own_headers=headers, headers={}, json=question).response
        self._budget.note(response.headers)
        if response.status_code != HTTPStatus.OK:
            raise self._describe_refusal(response, name)
        try:
            answer = json.loads(self._client.read(response, most=_MAX_JSON))
            return {entry["oid"]: entry for entry in answer["objects"]}
        except (KeyError, TypeError, ValueError, RecursionError):
            raise UnexpectedResponseError(f"what the LFS server says about {name} cannot be read") from None

    def _read_link(self, answers: Mapping[str, Any], pointer: Pointer, path: str) -> _Link:
        try:
            entry = answers[pointer.oid]
            if entry.get("error"):
                raise _describe_object_error(int(entry["error"]["code"]), str(entry["error"].get("message", "")), path)
            if entry.get("size", pointer.size) != pointer.size:
                raise UnexpectedResponseError(f"{path}: the LFS server says another size than the pointer")
            action = entry["actions"]["download"]
            href = str(action["href"])
            lifetime = float(action.get("expires_in") or 0) or _read_lifetime(action.get("expires_at"), self._clock())
            return _Link(href, dict(_read_headers(action.get("header") or {})), self._clock() + lifetime)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UnexpectedResponseError(f"{path}: the LFS server gives no link that can be read") from None

    def _describe_refusal(self, response: requests.Response, name: str) -> ModelhaulError:
        status = response.status_code
        try:
            words = self._client.read(response, most=64 * 1024).decode("utf-8", "replace")
        except (SourceUnavailableError, UnexpectedResponseError):
            words = ""
        if status == _BANDWIDTH_EXCEEDED or _BUDGET.search(words):
            return _describe_quota(name)
        if status == HTTPStatus.TOO_MANY_REQUESTS or response.headers.get("x-ratelimit-remaining") == "0":
            return self._budget.refuse(response.headers)
        if waiting := describe_waiting(describe_url(response.url), status, response.headers):
            return waiting
        if status == HTTPStatus.UNAUTHORIZED and self._find_token():
            return CredentialsRefusedError(
                f"the LFS server of {name} does not accept the token in the secret of the parameter GitHubTokenSecret"
            )
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
            return AccessRequiredError(
                f"the LFS server does not give out the objects of {name}; the token in the secret of the parameter "
                "GitHubTokenSecret must be allowed to read its contents"
            )
        return UnexpectedResponseError(f"the LFS server answered the question for {name} with status {status}")


def _check_link(response: requests.Response) -> None:
    if response.status_code == _BANDWIDTH_EXCEEDED:
        raise _describe_quota("the repository")
    if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise AccessRequiredError("the link has expired")


def _describe_object_error(code: int, words: str, path: str) -> ModelhaulError:
    if code == _BANDWIDTH_EXCEEDED or _BUDGET.search(words):
        return _describe_quota(path)
    match code:
        case HTTPStatus.NOT_FOUND:
            return FileMissingError(
                f"{path} is a Git LFS pointer whose content was never pushed to the LFS server of the repository"
            )
        case HTTPStatus.GONE:
            return FileMissingError(f"{path} is a Git LFS pointer whose content was removed from the LFS server")
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return FileTooLargeError(f"{path} is larger than the LFS server gives out")
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return AccessRequiredError(
                f"the LFS server does not give out {path}; the token in the secret of the parameter GitHubTokenSecret "
                "must be allowed to read the repository's contents"
            )
        case _:
            return UnexpectedResponseError(f"{path}: the LFS server answered with error {code}")


def _describe_quota(what: str) -> SourceQuotaError:
    return SourceQuotaError(
        f"{what}: the repository has exceeded its Git LFS budget on GitHub, which gives nothing out until its owner "
        "raises the budget or the month ends. Submit again then."
    )


def _read_headers(headers: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Raises ValueError for what cannot be a header, or is not the LFS server's to say."""
    for name, value in headers.items():
        if not isinstance(value, str) or not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ValueError("not a header")
        if name.lower() not in _WITHHELD:
            yield name, value


def _read_lifetime(expires_at: object, now: float) -> float:
    if not isinstance(expires_at, str):
        return _LIFETIME
    return max(0.0, datetime.fromisoformat(expires_at).timestamp() - now)
