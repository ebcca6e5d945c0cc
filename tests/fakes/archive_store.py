import hashlib
import itertools
import json
import math
import threading
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from modelhaul.domain.archives import MAX_PUT_SIZE, Archive, UploadPart, UploadTicket
from modelhaul.domain.errors import ArchiveReplacedError, SourceUnavailableError, UnexpectedResponseError
from modelhaul.domain.objects import ObjectRange
from modelhaul.ports.byte_streams import ByteStream
from modelhaul.ports.clock import Clock
from tests.fakes.clock import ManualClock

_MIB = 1024 * 1024


class InMemoryArchiveStore:
    """Behaves as S3 does, with its ETags. `outcomes` has them by their key; its tickets lead to `memory://`, where
    nothing listens: what somebody uploads is put by `put_archive`, and so is what overwrites.
    """

    def __init__(self, bucket: str = "incoming-bucket", *, clock: Clock | None = None) -> None:
        self.bucket = bucket
        self.outcomes: dict[str, dict[str, Any]] = {}
        self._ranks: dict[str, tuple[datetime, bool]] = {}
        self._clock = clock or ManualClock()
        self._lock = threading.RLock()
        self._archives: dict[str, bytes] = {}
        self._uploads: dict[str, str] = {}
        self._upload_ids = (f"archive-upload-{number}" for number in itertools.count(1))

    @property
    def keys(self) -> list[str]:
        """Of the archives; outcomes are not among them."""
        with self._lock:
            return sorted(self._archives)

    @property
    def uploads(self) -> list[tuple[str, str]]:
        """(key, upload id) of the unfinished multipart uploads."""
        with self._lock:
            return sorted((key, upload_id) for upload_id, key in self._uploads.items())

    def find_archive(self, key: str) -> tuple[int, str] | None:
        with self._lock:
            body = self._archives.get(key)
        return None if body is None else (len(body), _make_etag(body))

    def open_range(self, key: str, start: int, end: int, *, etag: str) -> "InMemoryRange":
        body = self.read_range(ObjectRange(self.bucket, key, etag, start, end))
        return InMemoryRange(body, start, etag)

    def read_range(self, source: ObjectRange) -> bytes:
        """What S3 copies from. Raises ArchiveReplacedError."""
        with self._lock:
            body = self._archives.get(source.key)
        if source.bucket != self.bucket or body is None or _make_etag(body) != source.etag:
            raise ArchiveReplacedError("the archive is gone, or another")
        if not 0 <= source.start < source.end <= len(body):
            raise UnexpectedResponseError(f"{source} is not within {len(body):,} bytes")
        return body[source.start : source.end]

    def put_archive(self, key: str, body: bytes) -> str:
        with self._lock:
            self._archives[key] = bytes(body)
        return _make_etag(body)

    def delete_archive(self, key: str) -> None:
        with self._lock:
            self._archives.pop(key, None)

    def open_upload(self, key: str, size: int, *, seconds: float, single_put: bool = False) -> UploadTicket:
        if single_put and size > MAX_PUT_SIZE:
            raise ValueError(f"{size:,} bytes exceed one PUT.")
        archive = Archive(key, "", None, size)
        if not single_put and size > 64_000_000:
            part_size = max(16 * _MIB, math.ceil(size / 1000 / _MIB) * _MIB)
            if part_size > 5 * 1024 * _MIB:
                raise ValueError(f"{size:,} bytes exceed 1,000 parts.")
            with self._lock:
                upload_id = next(self._upload_ids)
                self._uploads[upload_id] = key
            archive = replace(archive, upload_id=upload_id, part_size=part_size)
        return self.renew_upload(archive, seconds=seconds)

    def renew_upload(self, archive: Archive, *, seconds: float, parts: Collection[int] | None = None) -> UploadTicket:
        expires_at = datetime.fromtimestamp(self._clock() + seconds, UTC)
        url = f"memory://{self.bucket}/{quote(archive.key)}?expires={expires_at.timestamp():.0f}"
        size, part_size, upload_id = archive.size or 0, archive.part_size, archive.upload_id
        count = 1 if part_size is None else math.ceil(size / part_size)
        if not set(parts or ()) <= set(range(1, count + 1)):
            raise ValueError("there is no such part")
        if part_size is None:
            return UploadTicket(expires_at, put_url=url)
        numbers = range(1, count + 1) if parts is None else sorted(set(parts))
        url = f"{url}&uploadId={upload_id}"
        return UploadTicket(
            expires_at,
            parts=tuple(
                UploadPart(n, f"{url}&partNumber={n}", (n - 1) * part_size, min(n * part_size, size)) for n in numbers
            ),
            complete_url=url,
            abort_url=url,
            upload_id=upload_id,
            part_size=part_size,
        )

    def abort_uploads(self, key: str) -> None:
        with self._lock:
            self._uploads = {upload_id: k for upload_id, k in self._uploads.items() if k != key}

    def write_outcome(self, key: str, outcome: Mapping[str, Any], *, created_at: datetime) -> None:
        if len(key.encode()) > 1010:
            return
        place = f"outcomes/{key}.json"
        rank = (created_at, outcome.get("task_status") != "PENDING")
        with self._lock:
            if place not in self.outcomes or self._ranks[place] <= rank:
                self.outcomes[place] = json.loads(json.dumps(outcome))
                self._ranks[place] = rank


class InMemoryRange(ByteStream):
    ranged = True

    def __init__(self, body: bytes, offset: int, etag: str) -> None:
        self.offset = offset
        self.etag = etag
        self._rest = memoryview(body)
        self._closed = False

    def readinto(self, buffer: memoryview) -> int:
        if self._closed:
            raise SourceUnavailableError("The stream was closed during the read.")
        piece = self._rest[: len(buffer)]
        buffer[: len(piece)] = piece
        self._rest = self._rest[len(piece) :]
        return len(piece)

    def close(self) -> None:
        self._closed = True


def _make_etag(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()
