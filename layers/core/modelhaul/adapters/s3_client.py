"""The S3 client, and functions that all S3 adapters share."""

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from typing import IO, TYPE_CHECKING, Any, cast

from botocore.config import Config
from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

from modelhaul.adapters.aws import CALL_ERRORS, create_client, is_temporary, read_error_code
from modelhaul.domain.errors import ObjectGoneError, StorageUnavailableError, TransientError, UploadGoneError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

MIB = 1024 * 1024
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
MAX_PARTS = 10_000
MAX_PART_SIZE = 5 * 1024 * MIB

# Parts that all copies of a store together request at the same time.
PARALLEL_COPIES = 128
# More threads than connections would open a connection for each of their requests.
_MAX_CONNECTIONS = PARALLEL_COPIES + 32

ARCHIVE_REPLACED = "The archive was overwritten or deleted while it was being read."

_READ_ATTEMPTS = 3
_ERRORS: dict[str, type[TransientError]] = {
    "NoSuchUpload": UploadGoneError,
    "InvalidPart": UploadGoneError,
    "NoSuchKey": ObjectGoneError,
    "404": ObjectGoneError,  # a response without a body
    "PreconditionFailed": ObjectGoneError,
}


def create_s3_client(region: str) -> "S3Client":
    """Return a client that does not sign payloads: over TLS, this halves the CPU of an upload.

    S3 verifies every part and object against the checksum that the adapter sends.
    """
    client: S3Client = create_client(
        "s3",
        region,
        Config(
            # By default, URLs for some regions are presigned with signature version 2, which does not cover headers
            # such as Content-Length.
            signature_version="s3v4",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={
                "payload_signing_enabled": False,
                # A local stack has no host name for each bucket. "auto" presigns for the global endpoint, which
                # redirects to the region of a new bucket, where the signature is invalid.
                "addressing_style": "path" if os.environ.get("AWS_ENDPOINT_URL") else "virtual",
            },
            retries={"mode": "standard", "total_max_attempts": 4},
            connect_timeout=3,
            read_timeout=60,
            max_pool_connections=_MAX_CONNECTIONS,
            tcp_keepalive=True,
        ),
    )
    _load_certificates_once(client)
    return client


def _load_certificates_once(client: Any) -> None:
    """By default, urllib3 loads the 140 root certificates for each connection: 8 s of CPU for 128 connections."""
    context = client._endpoint.http_session._manager.connection_pool_kw["ssl_context"]  # noqa: SLF001 - no public name
    context.load_verify_locations = cache(context.load_verify_locations)


class _BufferReader:
    """Reads a buffer without copying it, as the seekable file that botocore sends and rewinds.

    `read` returns views of 1 MiB even if fewer bytes are requested: urllib3 requests 16 KiB and sends what it receives,
    and fewer, larger TLS writes cost less.
    """

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._position = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def read(self, size: int = -1) -> bytes | memoryview:
        if size < 0:
            rest = bytes(self._buffer[self._position :])
            self._position = len(self._buffer)
            return rest
        view = self._buffer[self._position : self._position + max(size, MIB)]
        self._position += len(view)
        return view

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = (0, self._position, len(self._buffer))[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position


def find_object(client: "S3Client", bucket: str, key: str) -> tuple[int, str] | None:
    """Return (size in bytes, ETag), or None if the object does not exist. Raises StorageUnavailableError."""
    try:
        head = client.head_object(Bucket=bucket, Key=key)
    except CALL_ERRORS as error:
        if read_error_code(error) == "404":
            return None
        raise translate("HeadObject", error) from error
    return head["ContentLength"], strip_quotes(head["ETag"])


def read_whole(get_object: "Callable[[], GetObjectOutputTypeDef]") -> bytes:
    """Return the object's body, reading it again if the connection breaks. Raises CALL_ERRORS."""
    for attempt in range(1, _READ_ATTEMPTS + 1):
        response = get_object()
        try:
            with closing(response["Body"]) as body:
                return body.read()
        except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
            # botocore retries a call without a response, but not a response whose body ends early.
            if attempt == _READ_ATTEMPTS:
                raise
    raise AssertionError


def open_buffer(body: bytes | memoryview) -> "IO[bytes]":
    return cast("IO[bytes]", _BufferReader(memoryview(body)))


def encode_crc32(crc32: int) -> str:
    """Return the checksum as S3 encodes it: big-endian, in base64."""
    return base64.b64encode(crc32.to_bytes(4, "big")).decode()


def strip_quotes(etag: str) -> str:
    return etag.strip('"')


def translate(operation: str, error: Exception) -> TransientError:
    """Translate an error of the client. The result has the service's error code, but not its message."""
    code = read_error_code(error)
    detail = f"S3 {operation} failed ({code})."
    if code in _ERRORS:
        return _ERRORS[code](detail)
    return StorageUnavailableError(detail, is_outage=is_temporary(error))


@contextmanager
def translate_errors(operation: str) -> Iterator[None]:
    """Raise a TransientError for each error of the client."""
    try:
        yield
    except CALL_ERRORS as error:
        raise translate(operation, error) from error
