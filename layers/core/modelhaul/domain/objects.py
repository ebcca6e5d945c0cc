"""Objects in S3."""

from dataclasses import dataclass


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
    """Verified content, stored in the models bucket at `key`. Unchanged while the object's ETag is `etag`."""

    sha256: str
    key: str
    size: int
    etag: str
