"""Byte ranges over HTTP that are either exactly what was asked for, or an error."""

import contextlib
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import requote_uri
from urllib3 import HTTPSConnectionPool
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError

from modelhaul.errors import (
    AccessRequiredError,
    FileMissingError,
    ModelhaulError,
    RateLimitedError,
    SourceUnavailableError,
    StalledTransferError,
    UnexpectedAnswerError,
    UntrustedHostError,
)
from modelhaul_sources.hosts import HostPolicy

_MAX_REDIRECTS = 5
# As fast as larger reads, and small enough for a slow source to be left in time.
_READ_SIZE = 256 * 1024
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")
_LENGTH = re.compile(r"[0-9]{1,15}")
_SECONDS = re.compile(r"[0-9]{1,9}")
# https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-09.html
_RATE_LIMIT_RESET = re.compile(r";\s*t\s*=\s*([0-9]{1,9})")
# A body up to this size is read to its end, so that its connection can be used again.
_MAX_DRAINED = 64 * 1024


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds for a connection, for the next byte, and for the next 256 KiB."""

    connect: float = 10
    read: float = 20
    stalled: float = 30


DEFAULT_TIMEOUTS = Timeouts()


class HttpByteStream:
    """An answer's body, as `modelhaul.ports.ByteStream`. One thread reads it; any thread may close it."""

    def __init__(
        self,
        response: requests.Response,
        *,
        span: range,
        etag: str | None,
        ranged: bool,
        timeouts: Timeouts,
    ) -> None:
        """`span` are the positions in the file to hand out, with which the body must end."""
        self.offset = span.start
        self.etag = etag
        self.ranged = ranged
        self._response = response
        self._place = describe_url(response.url)
        self._left = len(span)
        self._timeouts = timeouts
        self._reading_since: float | None = None
        self._stalled = False
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="stalled-read", daemon=True).start()

    def readinto(self, buffer: memoryview) -> int:
        size = min(len(buffer), self._left, _READ_SIZE)
        if not size:
            return 0
        data = self._read(size)
        if not data:
            raise SourceUnavailableError(f"{self._place} ended {self._left:,} bytes early")
        buffer[: len(data)] = data
        self._left -= len(data)
        if not self._left and self._read(1):
            raise UnexpectedAnswerError(f"{self._place} sent more than the file has")
        return len(data)

    def close(self) -> None:
        self._closed.set()
        if self._reading_since is not None:
            self._interrupt()
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def _read(self, size: int) -> bytes:
        """Up to `size` bytes, fewer only where the body ends."""
        self._reading_since = time.monotonic()
        failure: Exception | None = None
        data = b""
        try:
            data = self._response.raw.read(size, decode_content=False)
        except (HTTPError, HTTPException, OSError, ValueError, AttributeError) as error:
            # The last two: the connection was closed, by another thread, under a read.
            failure = error
        finally:
            self._reading_since = None
        # First, since a TLS connection that was shut down under a read can yield ciphertext.
        if self._stalled or isinstance(failure, ReadTimeoutError):
            raise StalledTransferError(f"{self._place} sends nothing, or next to nothing")
        if failure is not None or self._closed.is_set():
            raise SourceUnavailableError(f"the connection to {self._place} broke")
        return data

    def _watch(self) -> None:
        """The socket's own timeout starts again with every byte, so a trickle needs another one."""
        while not self._closed.wait(self._timeouts.stalled / 10):
            since = self._reading_since
            if since is not None and time.monotonic() - since > self._timeouts.stalled:
                self._stalled = True
                self._interrupt()
                return

    def _interrupt(self) -> None:
        # ValueError, RuntimeError: the read came to its end meanwhile. OSError: the other side closed first.
        with contextlib.suppress(ValueError, RuntimeError, OSError):
            self._response.raw.shutdown()


class HttpDownloader:
    """Opens byte ranges of files at addresses that `policy` allows. Safe to use from several threads.

    It takes no proxy, credentials or certificates from the environment and keeps no cookies; `connections`
    stay open for each host.
    """

    def __init__(self, policy: HostPolicy, *, timeouts: Timeouts = DEFAULT_TIMEOUTS, connections: int = 32) -> None:
        self._policy = policy
        self._timeouts = timeouts
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers["User-Agent"] = "modelhaul"
        self._session.mount("https://", _GuardedAdapter(policy, pool_maxsize=connections))
        self._session.mount("http://", HTTPAdapter(pool_maxsize=connections))

    def open_range(
        self, url: str, start: int, end: int, size: int, headers: Mapping[str, str] | None = None
    ) -> HttpByteStream:
        """Opens bytes `start` to `end` (excluded) of a file of `size` bytes. `headers` go to the first origin
        only. The etag is the `X-Linked-Etag` of a redirect if there is one, since a CDN's own may differ from
        edge to edge.

        Raises FileMissingError, AccessRequiredError (by the first origin), UntrustedHostError,
        RateLimitedError, SourceUnavailableError, UnexpectedAnswerError. Their words have no query string,
        which is where signatures are.
        """
        asked = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        origin = first_origin = self._policy.check_url(url)
        own_headers = dict(headers or {})
        linked_etag: str | None = None
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._send(url, own_headers | asked)
            target = self._session.get_redirect_target(response)
            if target is None:
                try:
                    if response.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                        raise _describe_refusal(response, at_first_origin=origin == first_origin)
                    return _open_body(response, start, end, size, linked_etag, self._timeouts)
                except ModelhaulError:
                    _release(response)
                    raise
            linked_etag = linked_etag or response.headers.get("X-Linked-Etag")
            _release(response)
            url = requote_uri(urljoin(url, target))
            origin = self._policy.check_url(url)
            if origin != first_origin:
                own_headers.clear()
        raise UnexpectedAnswerError(f"{describe_url(url)}: more than {_MAX_REDIRECTS} redirects")

    def _send(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        try:
            return self._session.get(
                url,
                headers=dict(headers),
                stream=True,
                allow_redirects=False,
                timeout=(self._timeouts.connect, self._timeouts.read),
            )
        except requests.Timeout:
            reason = "does not answer in time"
        except requests.exceptions.SSLError:
            reason = "has no valid TLS certificate, or broke the connection"
        except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError):
            # The last four come out of urllib3 and http.client as they are for some malformed answers.
            reason = "cannot be reached, or does not answer in HTTP"
        raise SourceUnavailableError(f"{describe_url(url)} {reason}")


def describe_url(url: str) -> str:
    """The URL without its query, which may hold a signature, and without credentials."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _describe_refusal(response: requests.Response, *, at_first_origin: bool) -> ModelhaulError:
    """What an answer that is not the bytes asked for means. A refusal elsewhere than at the first origin is
    a signed address that has expired, and the next try gets a new one.
    """
    place, status = describe_url(response.url), response.status_code
    if waiting := describe_waiting(place, status, response.headers):
        return waiting
    match status:
        case HTTPStatus.NOT_FOUND | HTTPStatus.GONE:
            return FileMissingError(f"{place} is no longer there")
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN if at_first_origin:
            return AccessRequiredError(f"{place} may not be read with the access that is configured")
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return SourceUnavailableError(f"{place}: the temporary address has expired")
        case _:
            return UnexpectedAnswerError(f"{place} answered with status {status}")


def describe_waiting(place: str, status: int, headers: Mapping[str, str]) -> ModelhaulError | None:
    """RateLimitedError for 429, SourceUnavailableError for 408 and 5xx, with the source's waiting time."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimitedError(f"{place} limits how often it is asked", retry_after=read_retry_after(headers))
    if status == HTTPStatus.REQUEST_TIMEOUT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return SourceUnavailableError(
            f"{place} answered with status {status}", retry_after=read_retry_after(headers, rate_limit=False)
        )
    return None


def read_retry_after(headers: Mapping[str, str], *, rate_limit: bool = True) -> float | None:
    """Seconds from `Retry-After` (seconds or a date), else from the reset time of `RateLimit`, else None."""
    value = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    with contextlib.suppress(ValueError):
        at = parsedate_to_datetime(value)
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    reset = _RATE_LIMIT_RESET.search(headers.get("RateLimit", "")) if rate_limit else None
    return float(reset[1]) if reset else None


def _open_body(
    response: requests.Response, start: int, end: int, size: int, linked_etag: str | None, timeouts: Timeouts
) -> HttpByteStream:
    place, headers = describe_url(response.url), response.headers
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnexpectedAnswerError(f"{place} answered with Content-Encoding {encoding[:40]!r}")
    ranged = response.status_code == HTTPStatus.PARTIAL_CONTENT
    if ranged:
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if match is None or tuple(map(int, match.groups())) != (start, end - 1, size):
            raise UnexpectedAnswerError(
                f"{place} was asked for bytes {start}-{end - 1}/{size} and answered with another range"
            )
    expected = end - start if ranged else size
    length = headers.get("Content-Length")
    if length is not None and (not _LENGTH.fullmatch(length) or int(length) != expected):
        raise UnexpectedAnswerError(f"{place} announces a length other than {expected:,} bytes")
    etag = linked_etag or headers.get("ETag")
    return HttpByteStream(
        response,
        span=range(start, end) if ranged else range(size),
        etag=etag.removeprefix("W/").strip('"') if etag else None,
        ranged=ranged,
        timeouts=timeouts,
    )


def _release(response: requests.Response) -> None:
    length = response.headers.get("Content-Length", "")
    with contextlib.suppress(HTTPError, HTTPException, OSError, ValueError):
        if _LENGTH.fullmatch(length) and int(length) <= _MAX_DRAINED:
            response.raw.read(int(length), decode_content=False)
    response.close()


class _GuardedAdapter(HTTPAdapter):
    def __init__(self, policy: HostPolicy, *, pool_maxsize: int) -> None:
        self._policy = policy
        super().__init__(pool_maxsize=pool_maxsize)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        policy = self._policy

        class GuardedConnection(HTTPSConnection):
            def connect(self) -> None:
                """Checks the address that was connected to, before anything is asked of it."""
                super().connect()
                try:
                    policy.check_address(self.host, self.sock.getpeername()[0])
                except UntrustedHostError:
                    self.close()
                    raise

        class GuardedPool(HTTPSConnectionPool):
            ConnectionCls = GuardedConnection

        self.poolmanager.pool_classes_by_scheme = {"https": GuardedPool}
