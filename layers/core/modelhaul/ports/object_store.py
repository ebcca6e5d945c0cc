"""The models bucket."""

from collections.abc import Iterable
from typing import Protocol


class ObjectStore(Protocol):
    """Objects of the models bucket. Every method raises StorageUnavailableError if S3 still fails after the client's
    retries.
    """

    def put(self, key: str, body: bytes | memoryview, *, sha256: str) -> str:
        """Store an object that fits in memory, and return its ETag. S3 verifies it against `sha256` (hex)."""

    def copy(self, source_key: str, key: str, *, size: int, etag: str) -> str:
        """Copy an object inside the bucket, a large one in parallel parts, and return the new ETag.

        Raises ObjectGoneError if the source is missing or its ETag is not `etag`. Leaves no unfinished upload.
        """

    def read(self, key: str, start: int, end: int, *, etag: str | None = None) -> bytes:
        """Return bytes `start` to `end` (excluded) of an object, fewer if it ends before.

        Raises ObjectGoneError if the object is missing, or does not have the `etag`.
        """

    def find_object(self, key: str) -> tuple[int, str] | None:
        """Return the object's (size in bytes, ETag), or None if it does not exist."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, in batches. Missing objects are ignored."""

    def sign_read(self, key: str, *, seconds: int, file_name: str | None = None) -> str:
        """Return a presigned URL, valid for `seconds`, to GET the object or ranges of it. The object may not exist.

        Browsers save the response of a URL with a `file_name` as a file of this name, instead of showing it.
        """
