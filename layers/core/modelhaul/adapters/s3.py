"""ObjectStore on Amazon S3."""

import base64
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import batched
from typing import TYPE_CHECKING
from urllib.parse import quote

from modelhaul.adapters.aws import CALL_ERRORS, is_temporary_code, read_error_code
from modelhaul.adapters.s3_client import (
    MAX_PARTS,
    MIB,
    PARALLEL_COPIES,
    find_object,
    open_buffer,
    read_whole,
    strip_quotes,
    translate,
    translate_errors,
)
from modelhaul.adapters.s3_uploads import FullChecksum, S3MultipartUploads
from modelhaul.domain.errors import ObjectGoneError, StorageUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, GetObjectRequestTypeDef

# A single call can copy up to 5 GB, but may exceed the read timeout. Parallel copies of parts do not.
SINGLE_COPY_LIMIT = 1024 * MIB
COPY_PART_SIZE = 256 * MIB
_MAX_DELETE_KEYS = 1000


class S3ObjectStore(S3MultipartUploads):
    """Implements ObjectStore, and MultipartUploads: objects above `single_copy_limit` bytes are copied in parts.

    Thread-safe, as its client is. All copies share `PARALLEL_COPIES` threads for their parts.
    """

    def __init__(
        self,
        client: "S3Client",
        bucket: str,
        *,
        single_copy_limit: int = SINGLE_COPY_LIMIT,
        copy_part_size: int = COPY_PART_SIZE,
    ) -> None:
        super().__init__(client, bucket)
        self._single_copy_limit = single_copy_limit
        self._copy_part_size = copy_part_size
        self._part_copiers = ThreadPoolExecutor(PARALLEL_COPIES, "copy-part")  # starts threads as they are needed

    def put(self, key: str, body: bytes | memoryview, *, sha256: str) -> str:
        with translate_errors("PutObject"):
            response = self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=open_buffer(body),
                ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
            )
        return strip_quotes(response["ETag"])

    def copy(self, source_key: str, key: str, *, size: int, etag: str) -> str:
        if size > self._single_copy_limit:
            return self._copy_in_parts(source_key, key, size=size, etag=etag)
        with translate_errors("CopyObject"):
            response = self._client.copy_object(
                Bucket=self._bucket,
                Key=key,
                CopySource={"Bucket": self._bucket, "Key": source_key},
                CopySourceIfMatch=f'"{etag}"',
            )
        return strip_quotes(response["CopyObjectResult"]["ETag"])

    def read(self, key: str, start: int, end: int, *, etag: str | None = None) -> bytes:
        if start >= end:  # HTTP ranges cannot be empty
            if self.find_object(key) is None:
                raise ObjectGoneError("S3 GetObject failed (NoSuchKey).")
            return b""
        request: GetObjectRequestTypeDef = {"Bucket": self._bucket, "Key": key, "Range": f"bytes={start}-{end - 1}"}
        if etag is not None:
            request["IfMatch"] = f'"{etag}"'
        try:
            return read_whole(lambda: self._client.get_object(**request))
        except CALL_ERRORS as error:
            if read_error_code(error) == "InvalidRange":
                return b""
            raise translate("GetObject", error) from error

    def find_object(self, key: str) -> tuple[int, str] | None:
        return find_object(self._client, self._bucket, key)

    def delete(self, keys: Iterable[str]) -> None:
        for batch in batched(keys, _MAX_DELETE_KEYS, strict=False):
            with translate_errors("DeleteObjects"):
                response = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                )
            if errors := response.get("Errors"):
                codes = sorted({error.get("Code", "Unknown") for error in errors})
                raise StorageUnavailableError(
                    f"S3 DeleteObjects failed for {len(errors)} of {len(batch)} objects ({', '.join(codes)}).",
                    is_outage=all(map(is_temporary_code, codes)),
                )

    def sign_read(self, key: str, *, seconds: int, file_name: str | None = None) -> str:
        parameters = {"Bucket": self._bucket, "Key": key}
        if file_name is not None:
            # RFC 6266: percent-encoded, because a name may have any characters.
            parameters["ResponseContentDisposition"] = f"attachment; filename*=UTF-8''{quote(file_name, safe='')}"
        with translate_errors("presigning GetObject"):
            return self._client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds)

    def _copy_in_parts(self, source_key: str, key: str, *, size: int, etag: str) -> str:
        part_size = max(self._copy_part_size, math.ceil(size / MAX_PARTS))
        upload_id, checksum = self._create_copy(source_key, key)

        def copy_part(number: int, start: int) -> "CompletedPartTypeDef":
            with translate_errors("UploadPartCopy"):
                response = self._client.upload_part_copy(
                    Bucket=self._bucket,
                    Key=key,
                    UploadId=upload_id,
                    PartNumber=number,
                    CopySource={"Bucket": self._bucket, "Key": source_key},
                    CopySourceIfMatch=f'"{etag}"',
                    CopySourceRange=f"bytes={start}-{min(start + part_size, size) - 1}",
                )
            return {"PartNumber": number, "ETag": response["CopyPartResult"]["ETag"]}

        copies = [
            self._part_copiers.submit(copy_part, number, start)
            for number, start in enumerate(range(0, size, part_size), 1)
        ]
        try:
            return self._complete_parts(key, upload_id, [copy.result() for copy in copies], size, checksum)
        except BaseException:
            # A part that S3 stores after the abort would remain.
            wait([copy for copy in copies if not copy.cancel()])
            # If this fails too, a lifecycle rule of the bucket aborts the upload. The first error says more.
            with suppress(StorageUnavailableError):
                self.abort_upload(key, upload_id)
            raise

    def _create_copy(self, source_key: str, key: str) -> tuple[str, FullChecksum]:
        """Return the ID of an upload for a copy, and the CRC-32 that S3 must verify the copy against.

        The CRC-32 is missing if S3 does not have one of the whole source object.
        """
        with translate_errors("HeadObject"):
            head = self._client.head_object(Bucket=self._bucket, Key=source_key, ChecksumMode="ENABLED")
        with translate_errors("CreateMultipartUpload"):
            if head.get("ChecksumType") != "FULL_OBJECT" or "ChecksumCRC32" not in head:
                return self._client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"], {}
            upload = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=key, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT"
            )
        return upload["UploadId"], {"ChecksumCRC32": head["ChecksumCRC32"], "ChecksumType": "FULL_OBJECT"}
