"""Objects in S3."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ObjectRange:
    """Bytes `start` to `end` (excluded) of an S3 object. Valid while the object's ETag is `etag`."""

    bucket: str
    key: str
    etag: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Blob:
    """Verified content, stored in the models bucket at `key`. Unchanged while the object's ETag is `etag`.

    `version` identifies the index entry that the blob was found with.
    """

    sha256: str
    key: str
    size: int
    etag: str
    version: str = field(default="", compare=False)
