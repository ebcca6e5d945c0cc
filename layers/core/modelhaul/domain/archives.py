"""Archives of the incoming bucket."""

from dataclasses import dataclass
from datetime import datetime

from modelhaul.domain.keys import POSTED, UPLOADED


@dataclass(frozen=True, slots=True)
class Archive:
    """A ZIP in the incoming bucket. `size` (bytes) and `etag` are None until it has arrived.

    `file_name` is what its owner calls it, `model_name` the name asked for the model or models in it.
    """

    key: str
    file_name: str
    model_name: str | None = None
    size: int | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class SkippedDirectory:
    """A directory of an archive that is no valid model, and what it lacks."""

    directory: str
    lacks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UploadPart:
    """`method` PUT on `url` with bytes `start` to `end` (excluded) of the file."""

    number: int
    url: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class UploadTicket:
    """Presigned leave to store one object: `put_url` for all of it, or `parts` and then `complete_url`.

    `complete_url` takes S3's CompleteMultipartUpload by POST, `abort_url` a DELETE. `upload_id` is S3's, of a
    multipart upload.
    """

    expires_at: datetime
    put_url: str | None = None
    parts: tuple[UploadPart, ...] = ()
    complete_url: str | None = None
    abort_url: str | None = None
    upload_id: str | None = None


def is_ours(archive: Archive) -> bool:
    """Whether the object was stored for its task alone, and is of no use to anybody after it."""
    return archive.key.startswith((UPLOADED, POSTED))
