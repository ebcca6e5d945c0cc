"""MultipartUploads on Amazon S3."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, TypedDict

from modelhaul.adapters.aws import CALL_ERRORS, read_error_code
from modelhaul.adapters.s3_client import (
    ARCHIVE_REPLACED,
    MAX_PART_SIZE,
    MAX_PARTS,
    MIB,
    encode_crc32,
    find_object,
    open_buffer,
    read_whole,
    strip_quotes,
    translate,
    translate_errors,
)
from modelhaul.domain.errors import ArchiveReplacedError, UploadGoneError
from modelhaul.domain.files import Part
from modelhaul.domain.objects import ObjectRange

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_MIN_PART_SIZE = 5 * MIB


class FullChecksum(TypedDict, total=False):
    """The CRC-32 of a whole object, in base64, as arguments of CompleteMultipartUpload."""

    ChecksumCRC32: str
    ChecksumType: Literal["FULL_OBJECT"]


class S3MultipartUploads:
    """Thread-safe, as its client is."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def create_upload(self, key: str) -> str:
        # S3 computes the CRC-32 of the object from those of its parts. Copies of the object are verified against it.
        with translate_errors("CreateMultipartUpload"):
            response = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=key, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT"
            )
        return response["UploadId"]

    def upload_part(self, key: str, upload_id: str, number: int, body: memoryview, *, crc32: int) -> Part:
        _check_part(number, len(body))
        with translate_errors("UploadPart"):
            response = self._client.upload_part(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=open_buffer(body),
                ChecksumCRC32=encode_crc32(crc32),
            )
        return Part(number, strip_quotes(response["ETag"]), crc32)

    def copy_part(self, key: str, upload_id: str, number: int, source: ObjectRange, *, crc32: int) -> Part:
        """Uploads are created with CRC32, so S3 computes and returns the CRC-32 of the bytes that it copies
        (https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyPartResult.html). Completing the upload needs the
        CRC-32 of each part (https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompletedPart.html), copied parts
        included (https://github.com/boto/s3transfer/issues/241). If it differs from S3's, S3 returns InvalidPart.

        The source object must have more than 5 MiB
        (https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html).
        """
        _check_part(number, source.end - source.start)
        span = f"bytes={source.start}-{source.end - 1}"
        try:
            response = self._client.upload_part_copy(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                CopySource={"Bucket": source.bucket, "Key": source.key},
                CopySourceIfMatch=f'"{source.etag}"',
                CopySourceRange=span,
            )
            copied = response["CopyPartResult"]
            if copied.get("ChecksumCRC32") == encode_crc32(crc32):
                return Part(number, strip_quotes(copied["ETag"]), crc32)
            # A local stack returns no checksum for a copied part. It verifies uploaded parts, so the part is uploaded.
            body = read_whole(
                lambda: self._client.get_object(
                    Bucket=source.bucket, Key=source.key, Range=span, IfMatch=f'"{source.etag}"'
                )
            )
        except CALL_ERRORS as error:
            if read_error_code(error) in ("NoSuchKey", "PreconditionFailed"):
                raise ArchiveReplacedError(ARCHIVE_REPLACED) from error
            raise translate("UploadPartCopy", error) from error
        return self.upload_part(key, upload_id, number, memoryview(body), crc32=crc32)

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], *, size: int) -> str:
        if [part.number for part in parts] != list(range(1, len(parts) + 1)):
            raise ValueError("parts are numbered 1, 2, 3, …, in order")
        if not 1 <= len(parts) <= MAX_PARTS:
            raise ValueError(f"an upload has between 1 and {MAX_PARTS:,} parts, not {len(parts):,}")
        if size <= (len(parts) - 1) * _MIN_PART_SIZE:
            raise ValueError(f"{len(parts)} parts of {size:,} bytes: every part but the last has 5 MiB or more")
        return self._complete_parts(
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

    def _complete_parts(
        self,
        key: str,
        upload_id: str,
        parts: "Sequence[CompletedPartTypeDef]",
        size: int,
        checksum: FullChecksum | None = None,
    ) -> str:
        try:
            response = self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}, **(checksum or {})
            )
        except CALL_ERRORS as error:
            code = read_error_code(error)
            if code == "EntityTooSmall":
                raise ValueError("a part other than the last has less than 5 MiB") from error
            if code == "NoSuchUpload":
                found = find_object(self._client, self._bucket, key)
                if found is not None and found[0] == size:
                    return found[1]
            raise translate("CompleteMultipartUpload", error) from error
        return strip_quotes(response["ETag"])


def _check_part(number: int, size: int) -> None:
    if not 1 <= number <= MAX_PARTS:
        raise ValueError(f"part number {number} is not between 1 and {MAX_PARTS:,}")
    if not 1 <= size <= MAX_PART_SIZE:
        raise ValueError(f"a part has between 1 byte and 5 GiB, not {size:,} bytes")
