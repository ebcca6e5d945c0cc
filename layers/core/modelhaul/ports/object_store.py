"""The models bucket."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from modelhaul.domain.files import Part
from modelhaul.domain.objects import ObjectRange


class ObjectStore(Protocol):
    """The models bucket. Every method raises StorageUnavailableError when S3 does not do it after its own retries."""

    def put(self, key: str, body: bytes | memoryview, *, sha256: str) -> str:
        """Stores an object that fits in memory, which S3 checks against `sha256` (hex). Returns the ETag."""

    def create_upload(self, key: str) -> str:
        """Starts a multipart upload and returns its id."""

    def upload_part(self, key: str, upload_id: str, number: int, body: memoryview, *, crc32: int) -> Part:
        """Uploads a part, which S3 checks against `crc32`. Raises UploadGoneError."""

    def copy_part(self, key: str, upload_id: str, number: int, source: ObjectRange, *, crc32: int) -> Part:
        """Has S3 copy the range, which may be another bucket's, as a part. `crc32` is what its bytes have; S3 holds
        them against it when the upload is completed.

        Raises UploadGoneError, ArchiveReplacedError if the source is gone or its ETag is not `source.etag`.
        """

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], *, size: int) -> str:
        """Makes the object of exactly these parts and returns its ETag.

        If the upload is gone and an object of `size` bytes is there, that is this upload, completed by a call
        whose reply was lost. Raises UploadGoneError if it is gone, or a part is not the one given; ValueError
        unless the parts are 1..n in order, n <= 10,000, and all but the last have 5 MiB or more.
        """

    def abort_upload(self, key: str, upload_id: str) -> None:
        """An upload that is not there is aborted already."""

    def list_uploads(self, prefix: str) -> Iterator[tuple[str, str]]:
        """(key, upload id) of all unfinished multipart uploads below `prefix`."""

    def copy(self, source_key: str, key: str, *, size: int, etag: str) -> str:
        """Copies inside the bucket, large objects in parallel parts, and returns the new ETag.

        Raises ObjectGoneError if the source is missing or its ETag is not `etag`; leaves no unfinished upload.
        """

    def read(self, key: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (excluded) of an object, fewer if it ends before. Raises ObjectGoneError."""

    def find_object(self, key: str) -> tuple[int, str] | None:
        """The object's (size in bytes, ETag), None if there is none."""

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects, in batches; missing ones are deleted already."""

    def sign_read(self, key: str, *, seconds: int) -> str:
        """An address from which anybody can GET the object for so long, whole or by ranges. It is not looked for."""
