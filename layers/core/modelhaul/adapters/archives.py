"""ArchiveStore on Amazon S3."""

import contextlib
import json
import logging
import math
import threading
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, cast

from urllib3.exceptions import HTTPError, ReadTimeoutError

from modelhaul.adapters.aws import CALL_ERRORS, read_error_code
from modelhaul.adapters.s3_client import (
    ARCHIVE_REPLACED,
    MAX_PART_SIZE,
    encode_crc32,
    find_object,
    strip_quotes,
    translate,
    translate_errors,
)
from modelhaul.domain.archives import MAX_PARTS, MAX_PUT_SIZE, Archive, UploadPart, UploadTicket, list_parts
from modelhaul.domain.errors import (
    ArchiveReplacedError,
    SourceUnavailableError,
    StalledTransferError,
    StorageUnavailableError,
    UnexpectedResponseError,
)
from modelhaul.domain.keys import outcome_key
from modelhaul.ports.byte_streams import ByteStream
from modelhaul.ports.clock import Clock

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from urllib3 import HTTPResponse

logger = logging.getLogger(__name__)

_MIB = 1024 * 1024
_PARTS_ABOVE = 64_000_000  # bytes; an interrupted PUT restarts at the first byte
_MIN_PART_SIZE = 16 * _MIB
_READ_SIZE = _MIB
_MAX_REOPENS = 3
_MAX_OUTCOME_ATTEMPTS = 5
_MAX_OUTCOME_KEY = 1010  # bytes; `outcomes/` and `.json` add up to the limit of 1,024
_CREATED_AT = "created-at"  # metadata of an outcome
# Error codes of a conditional PutObject whose condition does not hold:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
_CONDITION_CODES = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey")


class S3ArchiveStore:
    """The incoming bucket. Thread-safe. `client` must come from `create_s3_client`.

    Archives above `parts_above` bytes are uploaded in parts of at least `min_part_size` bytes.
    """

    def __init__(
        self,
        client: "S3Client",
        bucket: str,
        *,
        clock: Clock = time.time,
        parts_above: int = _PARTS_ABOVE,
        min_part_size: int = _MIN_PART_SIZE,
    ) -> None:
        self.bucket = bucket
        self._client = client
        self._clock = clock
        self._parts_above = parts_above
        self._min_part_size = min_part_size

    def find_archive(self, key: str) -> tuple[int, str] | None:
        return find_object(self._client, self.bucket, key)

    def open_range(self, key: str, start: int, end: int, *, etag: str) -> "S3ByteStream":
        return S3ByteStream(lambda position: self._open_body(key, position, end, etag), start, end, etag=etag)

    def put_archive(self, key: str, body: bytes) -> str:
        with translate_errors("PutObject"):
            response = self._client.put_object(
                Bucket=self.bucket, Key=key, Body=body, ChecksumCRC32=encode_crc32(zlib.crc32(body))
            )
        return strip_quotes(response["ETag"])

    def delete_archive(self, key: str) -> None:
        with translate_errors("DeleteObject"):
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def open_upload(self, key: str, size: int, *, seconds: float, single_put: bool = False) -> UploadTicket:
        """Return presigned URLs to upload exactly `size` bytes.

        Content-Length is a signed header of each URL, so that S3 rejects any other number of bytes
        (https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html).

        Raises ValueError if a single PUT or 1,000 parts of 5 GiB are not sufficient.
        """
        if single_put and size > MAX_PUT_SIZE:
            raise ValueError(f"{size:,} bytes exceed one PUT.")
        if single_put or size <= self._parts_above:
            return self._sign_put(key, size, seconds)
        part_size = max(self._min_part_size, math.ceil(size / MAX_PARTS / _MIB) * _MIB)
        if part_size > MAX_PART_SIZE:
            raise ValueError(f"{size:,} bytes exceed {MAX_PARTS:,} parts.")
        with translate_errors("CreateMultipartUpload"):
            upload_id = self._client.create_multipart_upload(Bucket=self.bucket, Key=key)["UploadId"]
        return self._sign_parts(key, list_parts(size, part_size), upload_id, part_size, seconds)

    def renew_upload(self, archive: Archive, *, seconds: float, parts: Collection[int] | None = None) -> UploadTicket:
        if archive.size is None:
            raise ValueError(f"{archive.key} has no size.")
        if archive.upload_id is None or archive.part_size is None:
            if not set(parts or ()) <= {1}:
                raise ValueError("a single PUT has no parts")
            return self._sign_put(archive.key, archive.size, seconds)
        spans = list_parts(archive.size, archive.part_size)
        if parts is not None:
            if unknown := set(parts) - spans.keys():
                raise ValueError(f"there are no parts {sorted(unknown)[:10]}")
            spans = {number: spans[number] for number in sorted(parts)}
        return self._sign_parts(archive.key, spans, archive.upload_id, archive.part_size, seconds)

    def _sign_put(self, key: str, size: int, seconds: float) -> UploadTicket:
        url = self._presign("put_object", key, seconds, ContentLength=size)
        return UploadTicket(self._find_expiry(seconds), put_url=url)

    def _sign_parts(
        self, key: str, spans: Mapping[int, tuple[int, int]], upload_id: str, part_size: int, seconds: float
    ) -> UploadTicket:
        def presign(operation: str, **parameters: object) -> str:
            return self._presign(operation, key, seconds, UploadId=upload_id, **parameters)

        return UploadTicket(
            self._find_expiry(seconds),
            parts=tuple(
                UploadPart(number, presign("upload_part", PartNumber=number, ContentLength=end - start), start, end)
                for number, (start, end) in spans.items()
            ),
            complete_url=presign("complete_multipart_upload"),
            abort_url=presign("abort_multipart_upload"),
            upload_id=upload_id,
            part_size=part_size,
        )

    def _presign(self, operation: str, key: str, seconds: float, **parameters: object) -> str:
        with translate_errors(operation):
            return self._client.generate_presigned_url(
                operation, {"Bucket": self.bucket, "Key": key, **parameters}, ExpiresIn=math.floor(seconds)
            )

    def _find_expiry(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(self._clock() + seconds, UTC)

    def abort_uploads(self, key: str) -> None:
        with translate_errors("ListMultipartUploads"):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=key)
            found = [(u["Key"], u["UploadId"]) for page in pages for u in page.get("Uploads", [])]
        for found_key, upload_id in found:
            if found_key != key:
                continue
            try:
                self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)
            except CALL_ERRORS as error:
                if read_error_code(error) != "NoSuchUpload":
                    raise translate("AbortMultipartUpload", error) from error

    def write_outcome(self, key: str, outcome: Mapping[str, Any], *, created_at: datetime) -> None:
        if len(key.encode()) > _MAX_OUTCOME_KEY:
            logger.warning("outcome not written: key too long", extra={"key": key})
            return
        outcome_object = outcome_key(key)
        body = json.dumps(outcome, indent=2).encode()
        created = created_at.astimezone(UTC).isoformat(timespec="microseconds")
        for _ in range(_MAX_OUTCOME_ATTEMPTS):
            found = self._read_outcome(outcome_object)
            if found is not None and found[0] > _rank_outcome(created, outcome):
                return
            if self._put_outcome(outcome_object, body, created, None if found is None else found[1]):
                return
        raise StorageUnavailableError(f"The outcome was not written: {_MAX_OUTCOME_ATTEMPTS} conflicting writes.")

    def _read_outcome(self, key: str) -> tuple[tuple[str, bool], str] | None:
        """Return the rank and the ETag of the stored outcome, None if there is none."""
        try:
            response = self._client.get_object(Bucket=self.bucket, Key=key)
            with contextlib.closing(response["Body"]) as body:
                content = body.read()
        except CALL_ERRORS as error:
            if read_error_code(error) == "NoSuchKey":
                return None
            raise translate("GetObject", error) from error
        try:
            rank = _rank_outcome(response["Metadata"][_CREATED_AT], json.loads(content))
        except (ValueError, KeyError, AttributeError):
            rank = ("", False)  # not an outcome of this version of Modelhaul, so it can be replaced
        return rank, response["ETag"]

    def _put_outcome(self, key: str, body: bytes, created: str, etag: str | None) -> bool:
        """Replace the outcome that has this ETag (None: create it). Return False if another write came first."""
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        try:
            self._client.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=body,
                ContentType="application/json",
                Metadata={_CREATED_AT: created},
                **condition,
            )
        except CALL_ERRORS as error:
            if read_error_code(error) in _CONDITION_CODES:
                return False
            raise translate("PutObject", error) from error
        return True

    def _open_body(self, key: str, start: int, end: int, etag: str) -> "HTTPResponse":
        try:
            response = self._client.get_object(
                Bucket=self.bucket, Key=key, Range=f"bytes={start}-{end - 1}", IfMatch=f'"{etag}"'
            )
        except CALL_ERRORS as error:
            if read_error_code(error) in ("NoSuchKey", "PreconditionFailed"):
                raise ArchiveReplacedError(ARCHIVE_REPLACED) from error
            raise translate("GetObject", error) from error
        # `__enter__` of botocore's body returns the body of urllib3, which another thread can shut down during a read.
        body = cast("HTTPResponse", response["Body"].__enter__())
        if not response.get("ContentRange", "").startswith(f"bytes {start}-{end - 1}/"):
            body.close()
            content_range = response.get("ContentRange", "")
            raise UnexpectedResponseError(
                f"S3 returned the range {content_range!r} instead of bytes {start}-{end - 1}."
            )
        return body


class S3ByteStream(ByteStream):
    """Bytes `start` to `end` (excluded) of an object.

    `open_body` opens the bytes from a given position. It is called again when the connection breaks.
    """

    ranged = True

    def __init__(self, open_body: "Callable[[int], HTTPResponse]", start: int, end: int, *, etag: str) -> None:
        self.offset = start
        self.etag = etag
        self._open_body = open_body
        self._position = start
        self._end = end
        self._reading = False
        self._stalled = False
        self._closed = False
        self._replacing = threading.Lock()
        self._body = open_body(start)

    def readinto(self, buffer: memoryview) -> int:
        wanted = min(len(buffer), self._end - self._position, _READ_SIZE)
        if not wanted:
            return 0
        for attempt in range(_MAX_REOPENS + 1):
            if attempt:
                self._reopen()
            if data := self._read(wanted):
                buffer[: len(data)] = data
                self._position += len(data)
                return len(data)
        left = self._end - self._position
        if self._stalled:
            raise StalledTransferError(f"S3 stopped sending data; {left:,} bytes were not received.")
        raise SourceUnavailableError(f"S3 ended the response {left:,} bytes early, {_MAX_REOPENS + 1} times in a row.")

    def close(self) -> None:
        with self._replacing:
            self._closed = True
            body = self._body
        if self._reading:
            # The body cannot be closed during a read, so it is shut down first. ValueError, RuntimeError: the read has
            # ended in the meantime. OSError: S3 has closed the connection.
            with contextlib.suppress(ValueError, RuntimeError, OSError):
                body.shutdown()
        body.close()

    def _read(self, size: int) -> bytes:
        """Read up to `size` bytes. Return an empty result if the connection breaks."""
        data = b""
        self._reading, self._stalled = True, False
        try:
            if not self._closed:
                # `read` is twice as fast as `readinto` in urllib3.
                data = self._body.read(size)
        except (HTTPError, HTTPException, OSError, ValueError, AttributeError) as error:
            # ValueError, AttributeError: another thread closed the body during the read.
            self._stalled = isinstance(error, ReadTimeoutError)
        finally:
            self._reading = False
        # A TLS connection that is shut down during a read can return ciphertext.
        if self._closed:
            raise SourceUnavailableError("The stream was closed during the read.")
        return data

    def _reopen(self) -> None:
        body = self._open_body(self._position)
        with self._replacing:
            self._body = body
            if self._closed:  # `close` has closed only the previous body
                body.close()


def _rank_outcome(created: str, outcome: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the rank of an outcome. An outcome must not be replaced by one of a lower rank."""
    return created, outcome.get("task_status") != "PENDING"
