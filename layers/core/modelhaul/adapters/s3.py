"""The ObjectStore over Amazon S3."""

import base64
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from itertools import batched
from typing import IO, TYPE_CHECKING, cast

from botocore.config import Config
from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

from modelhaul.adapters.aws import CALL_ERRORS, create_client, read_error_code
from modelhaul.domain.errors import (
    ArchiveReplacedError,
    ObjectGoneError,
    StorageUnavailableError,
    TransientError,
    UploadGoneError,
)
from modelhaul.domain.files import Part
from modelhaul.domain.objects import ObjectRange

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, GetObjectOutputTypeDef

_MIB = 1024 * 1024
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_MAX_PARTS = 10_000
_MIN_PART_SIZE = 5 * _MIB
MAX_PART_SIZE = 5 * 1024 * _MIB

# S3 copies up to 5 GB by one call, but parts that are copied side by side are done sooner than any read timeout.
SINGLE_COPY_LIMIT = 1024 * _MIB
COPY_PART_SIZE = 512 * _MIB
PARALLEL_COPIES = 32
_MAX_DELETE_KEYS = 1000
_READ_ATTEMPTS = 3

ARCHIVE_REPLACED = "The archive was overwritten or deleted while it was being read. Send it again."

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
    client: S3Client = create_client(
        "s3",
        region,
        Config(
            # Without this, the addresses that are presigned for some regions have the old signature, which covers
            # neither the length of what is sent nor any other header.
            signature_version="s3v4",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={
                "payload_signing_enabled": False,
                # A local stack has no host name for each bucket. "auto" would presign for the global endpoint, which
                # redirects to the region of a new bucket, where the signature is not good.
                "addressing_style": "path" if os.environ.get("AWS_ENDPOINT_URL") else "virtual",
            },
            retries={"mode": "standard", "total_max_attempts": 4},
            connect_timeout=3,
            read_timeout=60,
            max_pool_connections=32,
            tcp_keepalive=True,
        ),
    )
    return client


class S3ObjectStore:
    """Thread-safe, as its client is. Objects above `single_copy_limit` bytes are copied in parts."""

    def __init__(
        self,
        client: "S3Client",
        bucket: str,
        *,
        single_copy_limit: int = SINGLE_COPY_LIMIT,
        copy_part_size: int = COPY_PART_SIZE,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._single_copy_limit = single_copy_limit
        self._copy_part_size = copy_part_size

    def put(self, key: str, body: bytes | memoryview, *, sha256: str) -> str:
        with translate_errors("PutObject"):
            answer = self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=_open_buffer(body),
                ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
            )
        return strip_quotes(answer["ETag"])

    def create_upload(self, key: str) -> str:
        with translate_errors("CreateMultipartUpload"):
            answer = self._client.create_multipart_upload(Bucket=self._bucket, Key=key, ChecksumAlgorithm="CRC32")
        return answer["UploadId"]

    def upload_part(self, key: str, upload_id: str, number: int, body: memoryview, *, crc32: int) -> Part:
        _check_part(number, len(body))
        with translate_errors("UploadPart"):
            answer = self._client.upload_part(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=_open_buffer(body),
                ChecksumCRC32=encode_crc32(crc32),
            )
        return Part(number, strip_quotes(answer["ETag"]), crc32)

    def copy_part(self, key: str, upload_id: str, number: int, source: ObjectRange, *, crc32: int) -> Part:
        """The upload was created with CRC32, so S3 computes and answers the CRC-32 of what it copied
        (https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyPartResult.html). Completing it needs each part's
        (https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompletedPart.html), copied ones included
        (https://github.com/boto/s3transfer/issues/241), and another than S3 has is an InvalidPart.

        The object that is copied from must have more than 5 MiB
        (https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html).
        """
        _check_part(number, source.end - source.start)
        span = f"bytes={source.start}-{source.end - 1}"
        try:
            answer = self._client.upload_part_copy(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                CopySource={"Bucket": source.bucket, "Key": source.key},
                CopySourceIfMatch=f'"{source.etag}"',
                CopySourceRange=span,
            )
            copied = answer["CopyPartResult"]
            if copied.get("ChecksumCRC32") == encode_crc32(crc32):
                return Part(number, strip_quotes(copied["ETag"]), crc32)
            # A store that does not tell what it copied (a local stack) is sent the bytes, which it does check.
            body = _read_whole(
                lambda: self._client.get_object(
                    Bucket=source.bucket, Key=source.key, Range=span, IfMatch=f'"{source.etag}"'
                )
            )
        except CALL_ERRORS as error:
            if read_error_code(error) in ("NoSuchKey", "PreconditionFailed"):
                raise ArchiveReplacedError(ARCHIVE_REPLACED) from error
            raise _translate("UploadPartCopy", error) from error
        return self.upload_part(key, upload_id, number, memoryview(body), crc32=crc32)

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
                    "ChecksumCRC32": encode_crc32(part.crc32),
                }
                for part in parts
            ],
            size,
        )

    def abort_upload(self, key: str, upload_id: str) -> None:
        with suppress(UploadGoneError), translate_errors("AbortMultipartUpload"):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)

    def list_uploads(self, prefix: str) -> Iterator[tuple[str, str]]:
        with translate_errors("ListMultipartUploads"):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                for upload in page.get("Uploads", []):
                    yield upload["Key"], upload["UploadId"]

    def copy(self, source_key: str, key: str, *, size: int, etag: str) -> str:
        if size > self._single_copy_limit:
            return self._copy_in_parts(source_key, key, size=size, etag=etag)
        with translate_errors("CopyObject"):
            answer = self._client.copy_object(
                Bucket=self._bucket,
                Key=key,
                CopySource={"Bucket": self._bucket, "Key": source_key},
                CopySourceIfMatch=f'"{etag}"',
            )
        return strip_quotes(answer["CopyObjectResult"]["ETag"])

    def read(self, key: str, start: int, end: int) -> bytes:
        if start >= end:  # HTTP has no empty range
            if self.find_object(key) is None:
                raise ObjectGoneError("S3 GetObject failed: NoSuchKey")
            return b""
        try:
            return _read_whole(
                lambda: self._client.get_object(Bucket=self._bucket, Key=key, Range=f"bytes={start}-{end - 1}")
            )
        except CALL_ERRORS as error:
            if read_error_code(error) == "InvalidRange":
                return b""
            raise _translate("GetObject", error) from error

    def find_object(self, key: str) -> tuple[int, str] | None:
        return find_object(self._client, self._bucket, key)

    def delete(self, keys: Iterable[str]) -> None:
        for batch in batched(keys, _MAX_DELETE_KEYS, strict=False):
            with translate_errors("DeleteObjects"):
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                )
            if errors := answer.get("Errors"):
                codes = ", ".join(sorted({error.get("Code", "Unknown") for error in errors}))
                raise StorageUnavailableError(f"S3 DeleteObjects failed for {len(errors)} objects: {codes}")

    def sign_read(self, key: str, *, seconds: int) -> str:
        with translate_errors("presigning GetObject"):
            return self._client.generate_presigned_url(
                "get_object", Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=seconds
            )

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
        return strip_quotes(answer["ETag"])

    def _copy_in_parts(self, source_key: str, key: str, *, size: int, etag: str) -> str:
        part_size = max(self._copy_part_size, math.ceil(size / _MAX_PARTS))
        # Without a checksum of ours: S3 checks what it copies, and there is none to compare it with.
        with translate_errors("CreateMultipartUpload"):
            upload_id = self._client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]

        def copy_part(number: int, start: int) -> "CompletedPartTypeDef":
            with translate_errors("UploadPartCopy"):
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
            with ThreadPoolExecutor(PARALLEL_COPIES) as pool:
                parts = list(pool.map(copy_part, range(1, len(starts) + 1), starts))
            return self._complete(key, upload_id, parts, size)
        except BaseException:
            # If this fails too, the bucket's lifecycle rule aborts the upload; the first error says more.
            with suppress(StorageUnavailableError):
                self.abort_upload(key, upload_id)
            raise


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


def find_object(client: "S3Client", bucket: str, key: str) -> tuple[int, str] | None:
    """(size in bytes, ETag), None if there is none. Raises StorageUnavailableError."""
    try:
        head = client.head_object(Bucket=bucket, Key=key)
    except CALL_ERRORS as error:
        if read_error_code(error) == "404":
            return None
        raise _translate("HeadObject", error) from error
    return head["ContentLength"], strip_quotes(head["ETag"])


def _read_whole(get_object: "Callable[[], GetObjectOutputTypeDef]") -> bytes:
    """Raises CALL_ERRORS."""
    for attempt in range(1, _READ_ATTEMPTS + 1):
        answer = get_object()
        try:
            with closing(answer["Body"]) as body:
                return body.read()
        except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
            # botocore repeats a call whose answer does not come, but not one whose body breaks off.
            if attempt == _READ_ATTEMPTS:
                raise
    raise AssertionError


def _check_part(number: int, size: int) -> None:
    if not 1 <= number <= _MAX_PARTS:
        raise ValueError(f"part number {number} is not between 1 and {_MAX_PARTS:,}")
    if not 1 <= size <= MAX_PART_SIZE:
        raise ValueError(f"a part has between 1 byte and 5 GiB, not {size:,} bytes")


def _open_buffer(body: bytes | memoryview) -> "IO[bytes]":
    return cast("IO[bytes]", _BufferReader(memoryview(body)))


def encode_crc32(crc32: int) -> str:
    """As S3 has it: big-endian, in base64."""
    return base64.b64encode(crc32.to_bytes(4, "big")).decode()


def strip_quotes(etag: str) -> str:
    return etag.strip('"')


def _translate(operation: str, error: Exception) -> TransientError:
    code = read_error_code(error)
    return _ERRORS.get(code, StorageUnavailableError)(f"S3 {operation} failed: {code}")


@contextmanager
def translate_errors(operation: str) -> Iterator[None]:
    """Turns what a client raises into TransientError, with the service's code and never its message."""
    try:
        yield
    except CALL_ERRORS as error:
        raise _translate(operation, error) from error
