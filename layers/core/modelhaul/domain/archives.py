"""Archives of the incoming bucket."""

from dataclasses import dataclass
from datetime import datetime

from modelhaul.domain.keys import POSTED, UPLOADED


@dataclass(frozen=True, slots=True)
class Archive:
    """A ZIP archive in the incoming bucket. `size` (bytes) and `etag` are None until the archive has arrived.

    `file_name` is the name of the uploaded file, `model_name` the requested name of the model or models in it.
    `upload_id` is the ID of the S3 multipart upload, None for a single PUT and for a dropped archive. `part_size` is
    the size of its parts in bytes.
    """

    key: str
    file_name: str
    model_name: str | None = None
    size: int | None = None
    etag: str | None = None
    upload_id: str | None = None
    part_size: int | None = None

    def count_parts(self) -> int:
        """Return the number of parts in which the archive is uploaded. A single PUT counts as one."""
        if self.upload_id is None or self.part_size is None or self.size is None:
            return 1
        return len(list_parts(self.size, self.part_size))


@dataclass(frozen=True, slots=True)
class SkippedDirectory:
    """A directory of an archive that is not a valid model. `lacks` describes the missing files."""

    directory: str
    lacks: tuple[str, ...]


MAX_PARTS = 1000  # of an upload
MAX_PUT_SIZE = 5 * 1024**3
"""Bytes that S3 accepts in one PUT: https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html"""


@dataclass(frozen=True, slots=True)
class UploadPart:
    """A part of a multipart upload: PUT bytes `start` to `end` (excluded) of the file to `url`."""

    number: int
    url: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class UploadTicket:
    """Presigned permission to upload one object: `put_url` for a single PUT, or `parts` and then `complete_url`.

    `complete_url` expects a POST with S3's CompleteMultipartUpload body, `abort_url` a DELETE. `upload_id` is the ID
    of the S3 multipart upload, `part_size` the size of all parts but the last one.

    S3 rejects the URLs after `expires_at`, or earlier: when the credentials that signed them expire.
    """

    expires_at: datetime
    put_url: str | None = None
    parts: tuple[UploadPart, ...] = ()
    complete_url: str | None = None
    abort_url: str | None = None
    upload_id: str | None = None
    part_size: int | None = None


def list_parts(size: int, part_size: int) -> dict[int, tuple[int, int]]:
    """Return the start and the end (excluded) of each part of an upload by its number, which starts at 1."""
    starts = range(0, size, part_size)
    return {number: (start, min(start + part_size, size)) for number, start in enumerate(starts, 1)}


def is_task_upload(archive: Archive) -> bool:
    """Return whether the archive was uploaded for one task only, so that it can be deleted when the task ends."""
    return archive.key.startswith((UPLOADED, POSTED))
