"""The ArchiveStore over Amazon S3."""

import contextlib
import json
import logging
import math
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Self, cast

from urllib3.exceptions import HTTPError, ReadTimeoutError

from modelhaul.adapters.aws import CALL_ERRORS, read_error_code
from modelhaul.adapters.s3 import (
    ARCHIVE_REPLACED,
    MAX_PART_SIZE,
    encode_crc32,
    find_object,
    strip_quotes,
    translate_errors,
)
from modelhaul.domain.archives import UploadPart, UploadTicket
from modelhaul.domain.errors import (
    ArchiveReplacedError,
    SourceUnavailableError,
    StalledTransferError,
    StorageUnavailableError,
    UnexpectedResponseError,
)
from modelhaul.domain.keys import outcome_key
from modelhaul.ports.clock import Clock

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from urllib3 import HTTPResponse

logger = logging.getLogger(__name__)

_MIB = 1024 * 1024
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html
_MAX_PUT_SIZE = 5 * 1024 * _MIB
_MIN_PART_SIZE = 100 * _MIB
_MAX_PARTS = 1000
_READ_SIZE = _MIB
_REOPENINGS = 3
_OUTCOME_TRIES = 5
_MAX_OUTCOME_KEY = 1010  # bytes: with `outcomes/` and `.json` they are the 1,024 of a key
# What a conditional PutObject is refused with:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
_LOST_RACE = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey")


class S3ArchiveStore:
    """Thread-safe, as its client is, which must be one by `create_s3_client`. Archives above `max_put_size` bytes
    are uploaded in parts of `min_part_size` or more.
    """

    def __init__(
        self,
        client: "S3Client",
        bucket: str,
        *,
        clock: Clock = time.time,
        max_put_size: int = _MAX_PUT_SIZE,
        min_part_size: int = _MIN_PART_SIZE,
    ) -> None:
        self.bucket = bucket
        self._client = client
        self._clock = clock
        self._max_put_size = max_put_size
        self._min_part_size = min_part_size

    def find_archive(self, key: str) -> tuple[int, str] | None:
        return find_object(self._client, self.bucket, key)

    def open_range(self, key: str, start: int, end: int, *, etag: str) -> "S3ByteStream":
        return S3ByteStream(lambda position: self._open_body(key, position, end, etag), start, end, etag=etag)

    def put_archive(self, key: str, body: bytes) -> str:
        with translate_errors("PutObject"):
            answer = self._client.put_object(
                Bucket=self.bucket, Key=key, Body=body, ChecksumCRC32=encode_crc32(zlib.crc32(body))
            )
        return strip_quotes(answer["ETag"])

    def delete_archive(self, key: str) -> None:
        with translate_errors("DeleteObject"):
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def open_upload(self, key: str, size: int, *, seconds: float) -> UploadTicket:
        """Each address has the Content-Length among its signed headers, so that S3 refuses any other number of bytes
        (https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html). It ends before its time if
        the credentials that signed it do.

        Raises ValueError for more than 1,000 parts of 5 GiB.
        """
        expires_at = datetime.fromtimestamp(self._clock() + seconds, UTC)

        def presign(operation: str, **parameters: object) -> str:
            with translate_errors(operation):
                return self._client.generate_presigned_url(
                    operation, {"Bucket": self.bucket, "Key": key, **parameters}, ExpiresIn=math.floor(seconds)
                )

        if size <= self._max_put_size:
            return UploadTicket(expires_at, put_url=presign("put_object", ContentLength=size))
        part_size = max(self._min_part_size, math.ceil(size / _MAX_PARTS / _MIB) * _MIB)
        if part_size > MAX_PART_SIZE:
            raise ValueError(f"{size:,} bytes do not fit into {_MAX_PARTS:,} parts")
        with translate_errors("CreateMultipartUpload"):
            upload_id = self._client.create_multipart_upload(Bucket=self.bucket, Key=key)["UploadId"]
        spans = [(start, min(start + part_size, size)) for start in range(0, size, part_size)]
        return UploadTicket(
            expires_at,
            parts=tuple(
                UploadPart(
                    number,
                    presign("upload_part", UploadId=upload_id, PartNumber=number, ContentLength=end - start),
                    start,
                    end,
                )
                for number, (start, end) in enumerate(spans, 1)
            ),
            complete_url=presign("complete_multipart_upload", UploadId=upload_id),
            abort_url=presign("abort_multipart_upload", UploadId=upload_id),
            upload_id=upload_id,
        )

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
                if (code := read_error_code(error)) != "NoSuchUpload":
                    raise StorageUnavailableError(f"S3 AbortMultipartUpload failed: {code}") from error

    def write_outcome(self, key: str, outcome: Mapping[str, Any]) -> None:
        if len(key.encode()) > _MAX_OUTCOME_KEY:
            logger.warning("the archive's key is too long for an outcome beside it", extra={"key": key})
            return
        place = outcome_key(key)
        body = json.dumps(outcome, indent=2).encode()
        for _ in range(_OUTCOME_TRIES):
            found = self._read_outcome(place)
            if found is not None and found[0] > _rank_outcome(outcome):
                return
            if self._put_outcome(place, body, None if found is None else found[1]):
                return
        raise StorageUnavailableError("S3 PutObject failed: others wrote the same outcome each time")

    def _read_outcome(self, place: str) -> tuple[tuple[str, bool], str] | None:
        """Its rank and its ETag, None if there is none."""
        try:
            answer = self._client.get_object(Bucket=self.bucket, Key=place)
            with contextlib.closing(answer["Body"]) as body:
                content = body.read()
        except CALL_ERRORS as error:
            if (code := read_error_code(error)) == "NoSuchKey":
                return None
            raise StorageUnavailableError(f"S3 GetObject failed: {code}") from error
        try:
            rank = _rank_outcome(json.loads(content))
        except (ValueError, KeyError, TypeError):
            rank = ("", False)  # one that is not ours is replaced
        return rank, answer["ETag"]

    def _put_outcome(self, place: str, body: bytes, etag: str | None) -> bool:
        """False if the outcome there is no longer the one with this ETag (None: if there is one)."""
        put = self._client.put_object
        try:
            if etag is None:
                put(Bucket=self.bucket, Key=place, Body=body, ContentType="application/json", IfNoneMatch="*")
            else:
                put(Bucket=self.bucket, Key=place, Body=body, ContentType="application/json", IfMatch=etag)
        except CALL_ERRORS as error:
            if (code := read_error_code(error)) in _LOST_RACE:
                return False
            raise StorageUnavailableError(f"S3 PutObject failed: {code}") from error
        return True

    def _open_body(self, key: str, start: int, end: int, etag: str) -> "HTTPResponse":
        try:
            answer = self._client.get_object(
                Bucket=self.bucket, Key=key, Range=f"bytes={start}-{end - 1}", IfMatch=f'"{etag}"'
            )
        except CALL_ERRORS as error:
            code = read_error_code(error)
            if code in ("NoSuchKey", "PreconditionFailed"):
                raise ArchiveReplacedError(ARCHIVE_REPLACED) from error
            raise StorageUnavailableError(f"S3 GetObject failed: {code}") from error
        # As a context botocore's body is urllib3's, and only that can be ended under a read.
        body = cast("HTTPResponse", answer["Body"].__enter__())
        if not answer.get("ContentRange", "").startswith(f"bytes {start}-{end - 1}/"):
            body.close()
            raise UnexpectedResponseError(f"S3 was asked for bytes {start}-{end - 1} and answered with another range")
        return body


class S3ByteStream:
    """Bytes `start` to `end` (excluded) of an object, as `modelhaul.ports.byte_streams.ByteStream`.

    `open_body` opens them from a position on; it is called again when a body breaks off.
    """

    ranged = True

    def __init__(self, open_body: "Callable[[int], HTTPResponse]", start: int, end: int, *, etag: str) -> None:
        self.offset = start
        self.etag: str | None = etag
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
        for attempt in range(_REOPENINGS + 1):
            if attempt:
                self._reopen()
            if data := self._read(wanted):
                buffer[: len(data)] = data
                self._position += len(data)
                return len(data)
        left = self._end - self._position
        if self._stalled:
            raise StalledTransferError(f"S3 sends nothing of the last {left:,} bytes")
        raise SourceUnavailableError(f"S3's answer broke off {left:,} bytes early, again and again")

    def close(self) -> None:
        with self._replacing:
            self._closed = True
            body = self._body
        if self._reading:
            # Before the body, which cannot be closed while it is read. ValueError, RuntimeError: the read came to
            # its end meanwhile. OSError: the other side closed first.
            with contextlib.suppress(ValueError, RuntimeError, OSError):
                body.shutdown()
        body.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def _read(self, size: int) -> bytes:
        """Up to `size` bytes, none where the body breaks off."""
        data = b""
        self._reading, self._stalled = True, False
        try:
            if not self._closed:
                # Not readinto, which takes urllib3 twice the time.
                data = self._body.read(size)
        except (HTTPError, HTTPException, OSError, ValueError, AttributeError) as error:
            # The last two: the body was closed, by another thread, under the read.
            self._stalled = isinstance(error, ReadTimeoutError)
        finally:
            self._reading = False
        # A TLS connection that was shut down under a read can yield ciphertext.
        if self._closed:
            raise SourceUnavailableError("the archive's reading was given up")
        return data

    def _reopen(self) -> None:
        body = self._open_body(self._position)
        with self._replacing:
            self._body = body
            if self._closed:  # which closed the one before
                body.close()


def _rank_outcome(outcome: Mapping[str, Any]) -> tuple[str, bool]:
    """What may not be replaced by one of a lower rank."""
    created_at = outcome["created_at"]
    return created_at if isinstance(created_at, str) else "", outcome.get("task_status") != "PENDING"
