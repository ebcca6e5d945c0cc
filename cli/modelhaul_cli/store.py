"""Access to S3 by presigned URLs."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests

from modelhaul_cli.errors import (
    CommandError,
    ExpiredError,
    NotFoundError,
    UnavailableError,
    UploadLostError,
    UsageError,
)
from modelhaul_cli.http_session import BODY_TIMEOUT, TIMEOUT, open_session, translate_network_errors
from modelhaul_cli.urls import check_url, is_loopback

CHUNK_SIZE = 256 * 1024
_XML = {"Content-Type": "application/xml"}
FILE_CHANGED_REMEDY = "Run the same command again when the file no longer changes."
_ERROR_CODE = re.compile(r"<Code>([A-Za-z]{1,80})</Code>")
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList
# A wrong length is not among them: S3 then responds with 403 SignatureDoesNotMatch.
_EXPIRED_CODES = {"AccessDenied", "ExpiredToken", "InvalidToken", "RequestExpired"}
_LOST_CODES = {"InvalidPart", "InvalidPartOrder", "NoSuchUpload"}
_TRANSIENT_CODES = {"InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown"}


class TransferCancelledError(Exception):
    """The transfer was cancelled because another transfer failed or the user interrupted the command."""


class FileSlice:
    """Bytes `start` to `end` (exclusive) of a file as a request body that is read while it is sent.

    `count` is called with the size of each chunk. Reading raises TransferCancelledError once `stopped` is set.
    """

    def __init__(
        self, path: Path, start: int, end: int, *, count: Callable[[int], None], stopped: threading.Event
    ) -> None:
        self.sent = 0
        self._size = end - start
        self._count = count
        self._stopped = stopped
        self._path = path
        self._file = path.open("rb")
        self._file.seek(start)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(CHUNK_SIZE):
            yield chunk

    def read(self, size: int = CHUNK_SIZE) -> bytes:
        if self._stopped.is_set():
            raise TransferCancelledError
        chunk = self._file.read(min(size, self._size - self.sent))
        if not chunk and self.sent < self._size:
            raise UsageError(
                "The file changed during the upload", f"{self._path} was truncated.", remedy=FILE_CHANGED_REMEDY
            )
        self.sent += len(chunk)
        self._count(len(chunk))
        return chunk

    def close(self) -> None:
        self._file.close()


class ObjectStore:
    """Each method makes a single attempt; retries are up to the caller. Thread-safe."""

    def __init__(self) -> None:
        self._local, self._remote = open_session("http://localhost"), open_session("https://s3.amazonaws.com")

    def put(self, url: str, body: FileSlice) -> str:
        """Upload a body and return its ETag. Raises ExpiredError, UploadLostError, UnavailableError, CommandError."""
        response = self._send("PUT", url, timeout=BODY_TIMEOUT, data=body)
        return response.headers.get("ETag", "")

    def complete(self, url: str, etags: Mapping[int, str]) -> None:
        """Complete a multipart upload of parts with these numbers and ETags. Raises the same errors as `put`."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
            for number, etag in sorted(etags.items())
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"
        response = self._send("POST", url, timeout=BODY_TIMEOUT, data=body.encode(), headers=_XML)
        # S3 may send the status 200 before the upload completes; the body then contains the error.
        if code := _ERROR_CODE.search(response.text):
            raise create_store_error(HTTPStatus.INTERNAL_SERVER_ERROR, code.group(1))

    def open(self, url: str, start: int) -> requests.Response:
        """Open an object from `start` on. The status is 206, or 200 if S3 ignored the range and sends the whole
        object. The caller closes the response.

        Raises the same errors as `put`, and NotFoundError.
        """
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
        return self._send("GET", url, headers=headers, stream=True)

    def read(self, url: str) -> bytes:
        with self.open(url, 0) as response, translate_network_errors("S3"):
            return response.content

    def read_json(self, url: str) -> object:
        with self.open(url, 0) as response, translate_network_errors("S3"):
            try:
                return response.json()
            except ValueError:
                raise UnavailableError("Unexpected response from S3", "The body is not JSON.") from None

    def _send(
        self, method: str, url: str, *, timeout: tuple[float, float] = TIMEOUT, **content: Any
    ) -> requests.Response:
        check_url(url, "presigned URL")
        session = self._local if is_loopback(url) else self._remote
        with translate_network_errors("S3"):
            try:
                response = session.request(method, url, timeout=timeout, allow_redirects=False, **content)
            except requests.ReadTimeout:
                if "data" not in content:
                    raise
                # Not an UnreachableError, which counts as an outage: the whole body was sent.
                detail = f"S3 did not respond within {timeout[1]:.0f} s after the body was sent."
                raise UnavailableError("No response from S3", detail) from None
            if response.status_code < HTTPStatus.MULTIPLE_CHOICES:
                return response
            with response:
                code = _ERROR_CODE.search(response.text)
        raise create_store_error(response.status_code, code.group(1) if code else "")


def create_store_error(status: int, code: str) -> CommandError:
    """Return the error for an error response of S3 with this error code."""
    detail = f"S3 responded with {status} {code}".rstrip() + "."
    if code in _LOST_CODES:
        return UploadLostError(detail)
    if code in _TRANSIENT_CODES or (status >= HTTPStatus.INTERNAL_SERVER_ERROR and code not in _EXPIRED_CODES):
        return UnavailableError("S3 failed to process the request", detail)
    if code in _EXPIRED_CODES or (status == HTTPStatus.FORBIDDEN and not code):
        return ExpiredError(detail)
    if status == HTTPStatus.NOT_FOUND:
        return NotFoundError("Object not found in S3", detail)
    return CommandError("S3 rejected the request", detail)
