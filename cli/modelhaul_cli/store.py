"""The object store, as far as presigned addresses lead into it."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests

from modelhaul_cli.addresses import check_address, is_loopback
from modelhaul_cli.errors import CommandError, ExpiredError, NotFoundError, UnavailableError, UsageError
from modelhaul_cli.http_session import TIMEOUT, open_session, translate_network_errors

CHUNK = 256 * 1024
_CODE = re.compile(r"<Code>([A-Za-z]{1,80})</Code>")
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList
_EXPIRED = {"AccessDenied", "ExpiredToken", "InvalidPart", "InvalidPartOrder", "NoSuchUpload", "RequestExpired"}
_TRANSIENT = {"InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown"}


class StoppedReadingError(Exception):
    """Nobody waits for these bytes any more."""


class FileSlice:
    """Bytes `start` to `end` (excluded) of a file as the body of a request, read while they are sent.

    `count` is told of each piece; reading ends when `stopped` is set.
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
        while piece := self.read(CHUNK):
            yield piece

    def read(self, size: int = CHUNK) -> bytes:
        if self._stopped.is_set():
            raise StoppedReadingError
        piece = self._file.read(min(size, self._size - self.sent))
        if not piece and self.sent < self._size:
            raise UsageError("The file changed while it was being sent", f"{self._path} is shorter now.")
        self.sent += len(piece)
        self._count(len(piece))
        return piece

    def close(self) -> None:
        self._file.close()


class ObjectStore:
    """One try each: who calls decides about more. Thread-safe."""

    def __init__(self) -> None:
        self._local, self._remote = open_session("http://localhost"), open_session("https://s3.amazonaws.com")

    def put(self, url: str, body: FileSlice) -> str:
        """The ETag, as sent. Raises ExpiredError, UnavailableError, CommandError."""
        answer = self._send("PUT", url, data=body)
        return answer.headers.get("ETag", "")

    def complete(self, url: str, etags: Mapping[int, str]) -> None:
        """Joins the parts, whose numbers and ETags these are. Raises as `put`."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
            for number, etag in sorted(etags.items())
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"
        answer = self._send("POST", url, data=body.encode(), headers={"Content-Type": "application/xml"})
        # S3 begins its answer before it knows, and then an error comes with 200.
        if code := _CODE.search(answer.text):
            raise create_store_error(HTTPStatus.INTERNAL_SERVER_ERROR, code.group(1))

    def open(self, url: str, start: int) -> requests.Response:
        """The object from `start` on: its status is 206, or 200 for the whole of it. To be closed.

        Raises as `put`; NotFoundError.
        """
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
        return self._send("GET", url, headers=headers, stream=True)

    def read_json(self, url: str) -> object:
        with self.open(url, 0) as answer, translate_network_errors("The store"):
            try:
                return answer.json()
            except ValueError:
                raise UnavailableError("The store answers with something else", "That is no JSON.") from None

    def _send(self, method: str, url: str, **content: Any) -> requests.Response:
        check_address(url, "An address that the API gave")
        session = self._local if is_loopback(url) else self._remote
        with translate_network_errors("The store"):
            answer = session.request(method, url, timeout=TIMEOUT, allow_redirects=False, **content)
            if answer.status_code < HTTPStatus.MULTIPLE_CHOICES:
                return answer
            with answer:
                code = _CODE.search(answer.text)
        raise create_store_error(answer.status_code, code.group(1) if code else "")


def create_store_error(status: int, code: str) -> CommandError:
    """For an answer of S3, with the code in it."""
    words = f"It answers {status} {code}".rstrip() + "."
    if code in _TRANSIENT or (status >= HTTPStatus.INTERNAL_SERVER_ERROR and code not in _EXPIRED):
        return UnavailableError("The store does not do it", words)
    if code in _EXPIRED or status == HTTPStatus.FORBIDDEN:
        return ExpiredError(words)
    if status == HTTPStatus.NOT_FOUND:
        return NotFoundError("The store has no such object", words)
    return CommandError("The store refuses", words)
