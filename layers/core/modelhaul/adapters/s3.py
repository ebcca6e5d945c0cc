"""The ObjectStore over Amazon S3."""

import base64
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from itertools import batched
from typing import IO, TYPE_CHECKING, cast

import boto3
from botocore.config import Config
from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

from modelhaul.adapters.aws import CALL_ERRORS, read_error_code
from modelhaul.errors import ObjectGoneError, StorageUnavailableError, TransientError, UploadGoneError
from modelhaul.model import Part

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

_MIB = 1024 * 1024
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_MAX_PARTS = 10_000
_MIN_PART_SIZE = 5 * _MIB
_MAX_PART_SIZE = 5 * 1024 * _MIB

# S3 copies up to 5 GB by one call, but parts that are copied side by side are done sooner than any read timeout.
_SINGLE_COPY_LIMIT = 1024 * _MIB
_COPY_PART_SIZE = 512 * _MIB
_PARALLEL_COPIES = 32
_MAX_DELETE_KEYS = 1000
_READ_ATTEMPTS = 3

_ERRORS: dict[str, type[TransientError]] = {
    "NoSuchUpload": UploadGoneError,
    "InvalidPart": UploadGoneError,
    "NoSuchKey": ObjectGoneError,
    "404": ObjectGoneError,  # an answer without a body
    "PreconditionFailed": ObjectGoneError,
}


def create_s3_client(region: str) -> "S3Client":
    """A client that hashes no payload itself: over TLS that halves the CPU of an upload.

    S3 still checks every part and object against the checksum that the adapter sends along.
    """
    return boto3.client(
        "s3",
        region_name=region,
        config=Config(
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={
                "payload_signing_enabled": False,
                # A local stack has no host name for each bucket.
                "addressing_style": "path" if os.environ.get("AWS_ENDPOINT_URL") else "auto",
            },
            retries={"mode": "standard", "total_max_attempts": 4},
            connect_timeout=3,
            read_timeout=60,
            max_pool_connections=32,
            tcp_keepalive=True,
        ),
    )


class S3ObjectStore:
    """Thread-safe, as its client is. Objects above `single_copy_limit` bytes are copied in parts."""

    def __init__(
        self,
        client: "S3Client",
        bucket: str,
        *,
        single_copy_limit: int = _SINGLE_COPY_LIMIT,
        copy_part_size: int = _COPY_PART_SIZE,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._single_copy_limit = single_copy_limit
        self._copy_part_size = copy_part_size

    def put(self, key: str, body: bytes | memoryview, *, sha256: str) -> str:
        with _translate_errors("PutObject"):
            answer = self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=_open_buffer(body),
                ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
            )
        return _strip_quotes(answer["ETag"])

    def create_upload(self, key: str) -> str:
        with _translate_errors("CreateMultipartUpload"):
            answer = self._client.create_multipart_upload(Bucket=self._bucket, Key=key, ChecksumAlgorithm="CRC32")
        return answer["UploadId"]

    def upload_part(self, key: str, upload_id: str, number: int, body: memoryview, *, crc32: int) -> Part:
        if not 1 <= number <= _MAX_PARTS:
            raise ValueError(f"part number {number} is not between 1 and {_MAX_PARTS:,}")
        if not 1 <= len(body) <= _MAX_PART_SIZE:
            raise ValueError(f"a part has between 1 byte and 5 GiB, not {len(body):,} bytes")
        with _translate_errors("UploadPart"):
            answer = self._client.upload_part(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=_open_buffer(body),
                ChecksumCRC32=_encode_crc32(crc32),
            )
        return Part(number, _strip_quotes(answer["ETag"]), crc32)

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], *, size: int) -> str:
        if [part.number for part in parts] != list(range(1, len(parts) + 1)):
            raise ValueError("parts are numbered 1, 2, 3, …, in order")
        if not 1 <= len(parts) <= _MAX_PARTS:
            raise ValueError(f"an upload has between 1 and {_MAX_PARTS:,} parts, not {len(parts):,}")
        if size <= (len(parts) - 1) * _MIN_PART_SIZE:
            raise ValueError(f"{len(parts)} parts of {size:,} bytes: every part but the last has 5 MiB or more")
        return self._complete(
            key,
            upload_id,
            [
                {
                    "PartNumber": part.number,
                    "ETag": f'"{part.etag}"',
                    "ChecksumCRC32": _encode_crc32(part.crc32),
                }
                for part in parts
            ],
            size,
        )

    def abort_upload(self, key: str, upload_id: str) -> None:
        with suppress(UploadGoneError), _translate_errors("AbortMultipartUpload"):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)

    def list_uploads(self, prefix: str) -> Iterator[tuple[str, str]]:
        with _translate_errors("ListMultipartUploads"):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                for upload in page.get("Uploads", []):
                    yield upload["Key"], upload["UploadId"]

    def copy(self, source_key: str, key: str, *, size: int, etag: str) -> str:
        if size > self._single_copy_limit:
            return self._copy_in_parts(source_key, key, size=size, etag=etag)
        with _translate_errors("CopyObject"):
            answer = self._client.copy_object(
                Bucket=self._bucket,
                Key=key,
                CopySource={"Bucket": self._bucket, "Key": source_key},
                CopySourceIfMatch=f'"{etag}"',
            )
        return _strip_quotes(answer["CopyObjectResult"]["ETag"])

    def read(self, key: str, start: int, end: int) -> bytes:
        if start >= end:  # HTTP has no empty range
            if self.find_object(key) is None:
                raise ObjectGoneError("S3 GetObject failed: NoSuchKey")
            return b""
        try:
            return self._read_range(key, f"bytes={start}-{end - 1}")
        except CALL_ERRORS as error:
            if read_error_code(error) == "InvalidRange":
                return b""
            raise _translate("GetObject", error) from error

    def find_object(self, key: str) -> tuple[int, str] | None:
        try:
            head = self._client.head_object(Bucket=self._bucket, Key=key)
        except CALL_ERRORS as error:
            if read_error_code(error) == "404":
                return None
            raise _translate("HeadObject", error) from error
        return head["ContentLength"], _strip_quotes(head["ETag"])

    def delete(self, keys: Iterable[str]) -> None:
        for batch in batched(keys, _MAX_DELETE_KEYS, strict=False):
            with _translate_errors("DeleteObjects"):
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                )
            if errors := answer.get("Errors"):
                codes = ", ".join(sorted({error.get("Code", "Unknown") for error in errors}))
                raise StorageUnavailableError(f"S3 DeleteObjects failed for {len(errors)} objects: {codes}")

    def _complete(self, key: str, upload_id: str, parts: "Sequence[CompletedPartTypeDef]", size: int) -> str:
        try:
            answer = self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}
            )
        except CALL_ERRORS as error:
            code = read_error_code(error)
            if code == "EntityTooSmall":
                raise ValueError("a part other than the last has less than 5 MiB") from error
            if code == "NoSuchUpload":
                found = self.find_object(key)
                if found is not None and found[0] == size:
                    return found[1]
            raise _translate("CompleteMultipartUpload", error) from error
        return _strip_quotes(answer["ETag"])

    def _copy_in_parts(self, source_key: str, key: str, *, size: int, etag: str) -> str:
        part_size = max(self._copy_part_size, math.ceil(size / _MAX_PARTS))
        # Without a checksum of ours: S3 checks what it copies, and there is none to compare it with.
        with _translate_errors("CreateMultipartUpload"):
            upload_id = self._client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]

        def copy_part(number: int, start: int) -> "CompletedPartTypeDef":
            with _translate_errors("UploadPartCopy"):
                answer = self._client.upload_part_copy(
                    Bucket=self._bucket,
                    Key=key,
                    UploadId=upload_id,
                    PartNumber=number,
                    CopySource={"Bucket": self._bucket, "Key": source_key},
                    CopySourceIfMatch=f'"{etag}"',
                    CopySourceRange=f"bytes={start}-{min(start + part_size, size) - 1}",
                )
            return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

        starts = range(0, size, part_size)
        try:
            with ThreadPoolExecutor(_PARALLEL_COPIES) as pool:
                parts = list(pool.map(copy_part, range(1, len(starts) + 1), starts))
            return self._complete(key, upload_id, parts, size)
        except BaseException:
            # If this fails too, the bucket's lifecycle rule aborts the upload; the first error says more.
            with suppress(StorageUnavailableError):
                self.abort_upload(key, upload_id)
            raise

    def _read_range(self, key: str, range_header: str) -> bytes:
        for attempt in range(1, _READ_ATTEMPTS + 1):
            answer = self._client.get_object(Bucket=self._bucket, Key=key, Range=range_header)
            try:
                with closing(answer["Body"]) as body:
                    return body.read()
            except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
                # botocore repeats a call whose answer does not come, but not one whose body breaks off.
                if attempt == _READ_ATTEMPTS:
                    raise
        raise AssertionError


class _BufferReader:
    """A buffer as the seekable file that botocore sends and rewinds, `read(n)` without a copy.

    It gives views, of 1 MiB also where less is asked for: urllib3 asks for 16 KiB and sends whatever comes,
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
        view = self._buffer[self._position : self._position + max(size, _MIB)]
        self._position += len(view)
        return view

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = (0, self._position, len(self._buffer))[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position


def _open_buffer(body: bytes | memoryview) -> "IO[bytes]":
    return cast("IO[bytes]", _BufferReader(memoryview(body)))


def _encode_crc32(crc32: int) -> str:
    return base64.b64encode(crc32.to_bytes(4, "big")).decode()


def _strip_quotes(etag: str) -> str:
    return etag.strip('"')


def _translate(operation: str, error: Exception) -> TransientError:
    code = read_error_code(error)
    return _ERRORS.get(code, StorageUnavailableError)(f"S3 {operation} failed: {code}")


@contextmanager
def _translate_errors(operation: str) -> Iterator[None]:
    try:
        yield
    except CALL_ERRORS as error:
        raise _translate(operation, error) from error
