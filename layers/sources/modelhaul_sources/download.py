"""Byte ranges over HTTP that are either exactly what was asked for, or an error."""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import Self, cast

import requests
from urllib3.exceptions import HTTPError

from modelhaul.domain.errors import (
    AccessRequiredError,
    FileMissingError,
    ModelhaulError,
    SourceUnavailableError,
    StalledTransferError,
    UnexpectedResponseError,
)
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.http_client import (
    DEFAULT_TIMEOUTS,
    LENGTH,
    HttpClient,
    Timeouts,
    describe_url,
    describe_waiting,
    release,
)

# As fast as larger reads, and small enough for a slow source to be left in time.
_READ_SIZE = 256 * 1024
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")


class HttpByteStream:
    """An answer's body, as `modelhaul.ports.byte_streams.ByteStream`. One thread reads it; any thread may close it."""

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
        # http.client's answer below urllib3's, which would make bytes of all that it reads: a copy, and pages to clear.
        self._body = cast("HTTPResponse", response.raw._fp)  # noqa: SLF001
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
        count = self._read(buffer[:size])
        if not count:
            raise SourceUnavailableError(f"{self._place} ended {self._left:,} bytes early")
        self._left -= count
        if not self._left:
            if self._read(memoryview(bytearray(1))):
                raise UnexpectedResponseError(f"{self._place} sent more than the file has")
            self._response.raw.release_conn()
        return count

    def close(self) -> None:
        self._closed.set()
        if self._reading_since is not None:
            self._interrupt()
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def _read(self, buffer: memoryview) -> int:
        """Fills the buffer, less of it only where the body ends, and returns how many bytes came."""
        self._reading_since = time.monotonic()
        failure: Exception | None = None
        count = 0
        try:
            count = self._body.readinto(buffer)
        except (HTTPError, HTTPException, OSError, ValueError, AttributeError) as error:
            # The last two: the connection was closed, by another thread, under a read.
            failure = error
        finally:
            self._reading_since = None
        # First, since a TLS connection that was shut down under a read can yield ciphertext.
        if self._stalled or isinstance(failure, TimeoutError):
            raise StalledTransferError(f"{self._place} sends nothing, or next to nothing")
        if failure is not None or self._closed.is_set():
            raise SourceUnavailableError(f"the connection to {self._place} broke")
        return count

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
    """Opens byte ranges of files at addresses that `policy` allows. Safe to use from several threads."""

    def __init__(self, policy: HostPolicy, *, timeouts: Timeouts = DEFAULT_TIMEOUTS, connections: int = 32) -> None:
        self._client = HttpClient(policy, timeouts=timeouts, connections=connections)
        self._timeouts = timeouts

    def open_range(
        self,
        url: str,
        start: int,
        end: int,
        size: int,
        headers: Mapping[str, str] | None = None,
        *,
        check: Callable[[requests.Response], None] = lambda _: None,
    ) -> HttpByteStream:
        """Opens bytes `start` to `end` (excluded) of a file of `size` bytes. `headers` go to the first origin
        only. `check` sees the last answer first, and may raise what it means. The etag is the `X-Linked-Etag` of a
        redirect if there is one, since a CDN's own may differ from edge to edge.

        Raises FileMissingError, AccessRequiredError (by the first origin), UntrustedHostError,
        RateLimitedError, SourceUnavailableError, UnexpectedResponseError. Their words have no query string,
        which is where signatures are.
        """
        asked = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        answer = self._client.send("GET", url, own_headers=headers or {}, headers=asked)
        response = answer.response
        try:
            check(response)
            if response.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                raise _describe_refusal(response, at_first_origin=answer.at_first_origin)
            linked_etag = next((h["X-Linked-Etag"] for h in answer.redirects if "X-Linked-Etag" in h), None)
            return _open_body(response, start, end, size, linked_etag, self._timeouts)
        except ModelhaulError:
            release(response)
            raise


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
            return UnexpectedResponseError(f"{place} answered with status {status}")


def _open_body(
    response: requests.Response, start: int, end: int, size: int, linked_etag: str | None, timeouts: Timeouts
) -> HttpByteStream:
    place, headers = describe_url(response.url), response.headers
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnexpectedResponseError(f"{place} answered with Content-Encoding {encoding[:40]!r}")
    ranged = response.status_code == HTTPStatus.PARTIAL_CONTENT
    if ranged:
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if match is None or tuple(map(int, match.groups())) != (start, end - 1, size):
            raise UnexpectedResponseError(
                f"{place} was asked for bytes {start}-{end - 1}/{size} and answered with another range"
            )
    expected = end - start if ranged else size
    length = headers.get("Content-Length")
    if length is not None and (not LENGTH.fullmatch(length) or int(length) != expected):
        raise UnexpectedResponseError(f"{place} announces a length other than {expected:,} bytes")
    etag = linked_etag or headers.get("ETag")
    return HttpByteStream(
        response,
        span=range(start, end) if ranged else range(size),
        etag=etag.removeprefix("W/").strip('"') if etag else None,
        ranged=ranged,
        timeouts=timeouts,
    )
