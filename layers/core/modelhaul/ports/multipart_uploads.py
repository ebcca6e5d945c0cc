"""Multipart uploads into the models bucket."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from modelhaul.domain.files import Part
from modelhaul.domain.objects import ObjectRange


class MultipartUploads(Protocol):
    """Every method raises StorageUnavailableError if S3 still fails after the client's retries."""

    def create_upload(self, key: str) -> str:
        """Start a multipart upload, and return its id."""

    def upload_part(self, key: str, upload_id: str, number: int, body: memoryview, *, crc32: int) -> Part:
        """Upload a part. S3 verifies it against `crc32`. Raises UploadGoneError."""

    def copy_part(self, key: str, upload_id: str, number: int, source: ObjectRange, *, crc32: int) -> Part:
        """Let S3 copy the range, which may be in another bucket, as a part. `crc32` is the CRC-32 of its bytes: S3
        verifies it when the upload is completed.

        Raises UploadGoneError, and ArchiveReplacedError if the source is gone or its ETag is not `source.etag`.
        """

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], *, size: int) -> str:
        """Create the object from exactly these parts, and return its ETag.

        If the upload is gone and an object of `size` bytes exists, an earlier call whose response was lost completed
        the upload. Raises UploadGoneError if the upload is gone or a part differs; ValueError unless the parts are 1..n
        in order, n <= 10,000, and all but the last have at least 5 MiB.
        """

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Abort the upload. No-op if it does not exist."""

    def list_uploads(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield (key, upload id) of all unfinished multipart uploads below `prefix`."""
