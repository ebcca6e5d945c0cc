"""Objects in S3."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ObjectRange:
    """Bytes `start` to `end` (excluded) of an S3 object, as long as its ETag is `etag`."""

    bucket: str
    key: str
    etag: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Blob:
    """Verified content that lies in the models bucket under `key`, unchanged as long as its ETag is `etag`."""

    sha256: str
    key: str
    size: int
    etag: str
