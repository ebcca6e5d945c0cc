"""Archives in the incoming bucket."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Protocol

from modelhaul.domain.archives import Archive, UploadTicket
from modelhaul.ports.byte_streams import ByteStream


class ArchiveStore(Protocol):
    """Archives in the incoming bucket. Every method raises StorageUnavailableError."""

    bucket: str

    def find_archive(self, key: str) -> tuple[int, str] | None:
        """Return the archive's (size in bytes, ETag), None if the object does not exist."""

    def open_range(self, key: str, start: int, end: int, *, etag: str) -> ByteStream:
        """Open bytes `start` to `end` (excluded, > start). If the connection breaks, the stream requests the remaining
        bytes again, at most three times in a row.

        Raises ArchiveReplacedError if the object does not exist or its ETag is not `etag`. The stream's reads raise it
        too.
        """

    def put_archive(self, key: str, body: bytes) -> str:
        """Store an archive that fits in memory, and return its ETag."""

    def delete_archive(self, key: str) -> None:
        """Delete the archive. No-op if it does not exist."""

    def open_upload(self, key: str, size: int, *, seconds: float, single_put: bool = False) -> UploadTicket:
        """Return presigned permission to upload exactly `size` bytes to `key` within `seconds`, or less: see
        UploadTicket.

        Up to 64 MB, and with `single_put` up to MAX_PUT_SIZE, the upload is a single PUT. A larger upload has at most
        1,000 parts, which can be sent concurrently and again.
        """

    def renew_upload(self, archive: Archive, *, seconds: float, parts: Collection[int] | None = None) -> UploadTicket:
        """Return the presigned permission of an upload from `open_upload` again, for the parts with these numbers
        (None: all). `archive` is the archive of its task. No request is sent.

        Raises ValueError for a number that is not one of a part.
        """

    def abort_uploads(self, key: str) -> None:
        """Abort unfinished multipart uploads of exactly this key."""

    def write_outcome(self, key: str, outcome: Mapping[str, Any], *, created_at: datetime) -> None:
        """Store `outcome` as JSON at `outcomes/{key}.json`, unless a newer outcome exists. No-op if `key` has more than
        1,010 bytes.

        An outcome is newer if its task was created later, or if its task was created at the same time and has a final
        `task_status` while that of `outcome` is PENDING. `created_at` is compared with all its digits, because two
        archives may be dropped at one key within a second.
        """
