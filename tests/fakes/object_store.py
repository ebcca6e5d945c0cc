import hashlib
import itertools
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

from modelhaul.domain.errors import ObjectGoneError, StorageUnavailableError, UploadGoneError
from modelhaul.domain.files import Part
from modelhaul.domain.objects import ObjectRange
from modelhaul.ports.multipart_uploads import MultipartUploads
from modelhaul.ports.object_store import ObjectStore
from tests.fakes.archive_store import InMemoryArchiveStore

_MAX_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class _StoredObject:
    body: bytes
    etag: str


@dataclass(slots=True)
class _Upload:
    key: str
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


class Bucket(ObjectStore, MultipartUploads, Protocol):
    """Objects and uploads of one bucket."""


class InMemoryObjectStore:
    """Behaves as S3 does, with its ETags and part rules; `min_part_size` (bytes) may be lowered.

    `copy_part` copies from `archives`.
    """

    def __init__(self, *, min_part_size: int = 5 * 1024 * 1024, archives: InMemoryArchiveStore | None = None) -> None:
        self._min_part_size = min_part_size
        self._archives = archives or InMemoryArchiveStore()
        self._lock = threading.RLock()
        self._objects: dict[str, _StoredObject] = {}
        self._uploads: dict[str, _Upload] = {}
        self._upload_ids = (f"upload-{number}" for number in itertools.count(1))

    @property
    def keys(self) -> list[str]:
        with self._lock:
            return sorted(self._objects)

    def put(self, key: str, body: bytes | memoryview, *, sha256: str) -> str:
        content = bytes(body)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise StorageUnavailableError("S3 PutObject failed (BadDigest).")
        return self._store(key, content, hashlib.md5(content).hexdigest())

    def create_upload(self, key: str) -> str:
        with self._lock:
            upload_id = next(self._upload_ids)
            self._uploads[upload_id] = _Upload(key)
            return upload_id

    def upload_part(self, key: str, upload_id: str, number: int, body: memoryview, *, crc32: int) -> Part:
        if not 1 <= number <= _MAX_PARTS:
            raise ValueError(f"part number {number} is not between 1 and {_MAX_PARTS:,}")
        if not body:
            raise ValueError("a part has 1 byte or more")
        content = bytes(body)
        if zlib.crc32(content) != crc32:
            raise StorageUnavailableError("S3 UploadPart failed (BadDigest).")
        part = Part(number, hashlib.md5(content).hexdigest(), crc32)
        with self._lock:
            self._find_upload(key, upload_id).parts[number] = (part, content)
        return part

    def copy_part(self, key: str, upload_id: str, number: int, source: ObjectRange, *, crc32: int) -> Part:
        if source.start >= source.end:
            raise ValueError("a part has 1 byte or more")
        with self._lock:
            self._find_upload(key, upload_id)
        body = self._archives.read_range(source)
        return self.upload_part(key, upload_id, number, memoryview(body), crc32=crc32)

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], *, size: int) -> str:
        if [part.number for part in parts] != list(range(1, len(parts) + 1)):
            raise ValueError("parts are numbered 1, 2, 3, …, in order")
        if not 1 <= len(parts) <= _MAX_PARTS:
            raise ValueError(f"an upload has between 1 and {_MAX_PARTS:,} parts, not {len(parts):,}")
        if size <= (len(parts) - 1) * self._min_part_size:
            raise ValueError(f"{len(parts)} parts of {size:,} bytes: a part other than the last is too small")
        with self._lock:
            existing = self.find_object(key)
            if upload_id not in self._uploads and existing is not None and existing[0] == size:
                return existing[1]
            uploaded = self._find_upload(key, upload_id).parts
            contents = []
            for part in parts:
                found, content = uploaded.get(part.number, (None, b""))
                if found != part:
                    raise UploadGoneError("S3 CompleteMultipartUpload failed (InvalidPart).")
                contents.append(content)
            if any(len(content) < self._min_part_size for content in contents[:-1]):
                raise ValueError("a part other than the last is too small")
            del self._uploads[upload_id]
            digests = b"".join(bytes.fromhex(part.etag) for part in parts)
            return self._store(key, b"".join(contents), f"{hashlib.md5(digests).hexdigest()}-{len(parts)}")

    def abort_upload(self, key: str, upload_id: str) -> None:
        with self._lock:
            self._uploads.pop(upload_id, None)

    def list_uploads(self, prefix: str) -> Iterator[tuple[str, str]]:
        with self._lock:
            found = sorted((upload.key, upload_id) for upload_id, upload in self._uploads.items())
        return (entry for entry in found if entry[0].startswith(prefix))

    def copy(self, source_key: str, key: str, *, size: int, etag: str) -> str:
        with self._lock:
            source = self._find_object(source_key)
            if source.etag != etag:
                raise ObjectGoneError("S3 CopyObject failed (PreconditionFailed).")
            return self._store(key, source.body, hashlib.md5(source.body).hexdigest())

    def read(self, key: str, start: int, end: int, *, etag: str | None = None) -> bytes:
        with self._lock:
            found = self._find_object(key)
            if etag not in (None, found.etag):
                raise ObjectGoneError("S3 GetObject failed (PreconditionFailed).")
            return found.body[start:end]

    def find_object(self, key: str) -> tuple[int, str] | None:
        with self._lock:
            found = self._objects.get(key)
            return None if found is None else (len(found.body), found.etag)

    def delete(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._objects.pop(key, None)

    def sign_read(self, key: str, *, seconds: int, file_name: str | None = None) -> str:
        name = "" if file_name is None else f"&file_name={quote(file_name)}"
        return f"memory://{quote(key)}?seconds={seconds}{name}"

    def _store(self, key: str, content: bytes, etag: str) -> str:
        with self._lock:
            self._objects[key] = _StoredObject(content, etag)
            return etag

    def _find_object(self, key: str) -> _StoredObject:
        try:
            return self._objects[key]
        except KeyError:
            raise ObjectGoneError("S3 GetObject failed (NoSuchKey).") from None

    def _find_upload(self, key: str, upload_id: str) -> _Upload:
        upload = self._uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise UploadGoneError("S3 UploadPart failed (NoSuchUpload).")
        return upload
