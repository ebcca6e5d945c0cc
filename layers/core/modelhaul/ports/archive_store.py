"""The incoming bucket."""

from collections.abc import Mapping
from typing import Any, Protocol

from modelhaul.domain.archives import UploadTicket
from modelhaul.ports.byte_streams import ByteStream


class ArchiveStore(Protocol):
    """The incoming bucket. Every method raises StorageUnavailableError."""

    bucket: str

    def find_archive(self, key: str) -> tuple[int, str] | None:
        """The archive's (size in bytes, ETag), None if there is none."""

    def open_range(self, key: str, start: int, end: int, *, etag: str) -> ByteStream:
        """Opens bytes `start` to `end` (excluded, > start). A connection that breaks is mended by asking for the rest,
        at most three times in a row.

        Raises ArchiveReplacedError if the object is gone or its ETag is not `etag`; so do the stream's reads.
        """

    def put_archive(self, key: str, body: bytes) -> str:
        """Stores an archive that fits in memory and returns its ETag."""

    def delete_archive(self, key: str) -> None:
        """One that is not there is deleted already."""

    def open_upload(self, key: str, size: int, *, seconds: float) -> UploadTicket:
        """Leave for somebody else to store exactly `size` bytes at `key` within `seconds`: one PUT up to 5 GB, at
        most 1,000 parts above.
        """

    def abort_uploads(self, key: str) -> None:
        """Ends unfinished multipart uploads of exactly this key."""

    def write_outcome(self, key: str, outcome: Mapping[str, Any]) -> None:
        """Stores `outcome` as JSON at `outcomes/{key}.json`, unless one is there whose `created_at` (ISO 8601 text,
        UTC) is later, or one of the same time that has ended (`task_status`) while this one is PENDING. A key too long
        for that (over 1,010 bytes) gets none.
        """
