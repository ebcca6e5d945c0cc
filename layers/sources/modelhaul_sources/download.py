"""Download byte ranges over HTTP. A response that is not exactly the requested range is an error."""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import cast

import requests
from urllib3.exceptions import HTTPError

from modelhaul.domain.errors import (
    AccessRequiredError,
    ContentMismatchError,
    FileMissingError,
    ModelhaulError,
    SourceUnavailableError,
    StalledTransferError,
    UnexpectedResponseError,
)
from modelhaul.ports.byte_streams import ByteStream
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.http_client import (
    DEFAULT_TIMEOUTS,
    LENGTH,
    HttpClient,
    Timeouts,
    create_retryable_error,
    create_status_error,
    describe_url,
    release,
)

# Larger reads are not faster, and a slow source would be detected later.
_READ_SIZE = 256 * 1024
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")


class HttpByteStream(ByteStream):
    """The body of a response."""

    def __init__(
        self,
        response: requests.Response,
        *,
        span: range,
        size: int,
        etag: str | None,
        ranged: bool,
        timeouts: Timeouts,
    ) -> None:
        """`span`: the positions that the body holds in the file of `size` bytes. It must end with the last one."""
        self.offset = span.start
        self.etag = etag
        self.ranged = ranged
        self._response = response
        # The response of http.client below that of urllib3, which would copy all data into new bytes objects.
        self._body = cast("HTTPResponse", response.raw._fp)  # noqa: SLF001
        self._url = describe_url(response.url)
        self._left = len(span)
        self._is_last = span.stop == size
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
            raise SourceUnavailableError(f"The response from {self._url} ended {self._left:,} bytes early.")
        self._left -= count
        if not self._left:
            if self._read(memoryview(bytearray(1))):
                if self._is_last:
                    raise ContentMismatchError(f"{self._url} sent more bytes than the file has.")
                raise UnexpectedResponseError(f"The response from {self._url} has more bytes than the requested range.")
            self._response.raw.release_conn()
        return count

    def close(self) -> None:
        self._closed.set()
        if self._reading_since is not None:
            self._interrupt()
        self._response.close()

    def _read(self, buffer: memoryview) -> int:
        """Fill the buffer, or less of it at the end of the body, and return the number of bytes."""
        self._reading_since = time.monotonic()
        failure: Exception | None = None
        count = 0
        try:
            count = self._body.readinto(buffer)
        except (HTTPError, HTTPException, OSError, ValueError, AttributeError) as error:
            # ValueError, AttributeError: another thread closed the connection during the read.
            failure = error
        finally:
            self._reading_since = None
        # Checked before `count` is used: a TLS connection that was shut down during a read can return ciphertext.
        if self._stalled:
            raise StalledTransferError(
                f"The transfer from {self._url} stalled: fewer than {len(buffer):,} bytes in "
                f"{self._timeouts.stalled:g} seconds."
            )
        if isinstance(failure, TimeoutError):
            raise StalledTransferError(
                f"The transfer from {self._url} stalled: no data in {self._timeouts.read:g} seconds."
            )
        if failure is not None or self._closed.is_set():
            raise SourceUnavailableError(f"The connection to {self._url} was interrupted.")
        return count

    def _watch(self) -> None:
        """Interrupt a read that takes too long. The socket timeout does not: every received byte restarts it."""
        while not self._closed.wait(self._timeouts.stalled / 10):
            since = self._reading_since
            if since is not None and time.monotonic() - since > self._timeouts.stalled:
                self._stalled = True
                self._interrupt()
                return

    def _interrupt(self) -> None:
        # ValueError, RuntimeError: the read has just ended. OSError: the server closed the connection first.
        with contextlib.suppress(ValueError, RuntimeError, OSError):
            self._response.raw.shutdown()


class HttpDownloader:
    """Opens byte ranges of files at URLs that `policy` allows. Safe to use from several threads."""

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
        """Open bytes `start` to `end` (excluded) of a file of `size` bytes.

        `headers` are sent to the first origin only. `check` is called with the final response before its status is
        checked, and may raise an error. The stream's etag is the `X-Linked-Etag` of a redirect if there is one, because
        the ETag of a CDN may differ between edge locations.

        Raises FileMissingError, AccessRequiredError (of the first origin), SourceRefusedError, UntrustedHostError,
        ContentMismatchError if the file has another size, RateLimitedError, SourceUnavailableError and
        UnexpectedResponseError. Their messages have no query strings, as these hold signatures.
        """
        range_headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        result = self._client.send("GET", url, own_headers=headers or {}, headers=range_headers)
        response = result.response
        try:
            check(response)
            if response.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                raise _create_error(response, at_first_origin=result.at_first_origin)
            linked_etag = next((h["X-Linked-Etag"] for h in result.redirects if "X-Linked-Etag" in h), None)
            return _open_body(response, start, end, size, linked_etag, self._timeouts)
        except ModelhaulError:
            release(response)
            raise


def _create_error(response: requests.Response, *, at_first_origin: bool) -> ModelhaulError:
    """Return the error for a response that is not the requested range.

    If an origin other than the first denies access, its presigned URL has expired. The retry gets a new one.
    """
    url, status = describe_url(response.url), response.status_code
    if retryable := create_retryable_error(url, status, response.headers):
        return retryable
    match status:
        case HTTPStatus.NOT_FOUND | HTTPStatus.GONE:
            return FileMissingError(f"{url} no longer exists.")
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN if at_first_origin:
            return AccessRequiredError(f"{url} denied access (status {status}).")
        # 400: of S3, if the credentials that signed the URL have expired.
        case HTTPStatus.BAD_REQUEST | HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN if not at_first_origin:
            return UnexpectedResponseError(f"{url} responded with status {status}. The presigned URL may have expired.")
        case _:
            return create_status_error(f"{url} responded with status {status}.", status)


def _open_body(
    response: requests.Response, start: int, end: int, size: int, linked_etag: str | None, timeouts: Timeouts
) -> HttpByteStream:
    url, headers = describe_url(response.url), response.headers
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnexpectedResponseError(f"{url} responded with Content-Encoding {encoding[:40]!r} instead of 'identity'.")
    ranged = response.status_code == HTTPStatus.PARTIAL_CONTENT
    if ranged:
        content_range = headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(content_range)
        found = tuple(map(int, match.groups())) if match is not None else ()
        if found[:2] == (start, end - 1) and found[2] != size:
            raise ContentMismatchError(f"The file at {url} has {found[2]:,} bytes instead of {size:,}.")
        if found != (start, end - 1, size):
            raise UnexpectedResponseError(
                f"{url} responded with the range {content_range[:60]!r} instead of bytes {start}-{end - 1}/{size}."
            )
    expected = end - start if ranged else size
    length = headers.get("Content-Length")
    if length is not None and (not LENGTH.fullmatch(length) or int(length) != expected):
        if LENGTH.fullmatch(length) and int(length) > size - (start if ranged else 0):
            raise ContentMismatchError(f"{url} sent more bytes than the file has (Content-Length {length}).")
        raise UnexpectedResponseError(f"{url} responded with Content-Length {length[:40]!r} instead of {expected}.")
    etag = linked_etag or headers.get("ETag")
    return HttpByteStream(
        response,
        span=range(start, end) if ranged else range(size),
        size=size,
        etag=etag.removeprefix("W/").strip('"') if etag else None,
        ranged=ranged,
        timeouts=timeouts,
    )
