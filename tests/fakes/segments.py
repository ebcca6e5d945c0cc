"""Uploads of large files in memory."""

from collections.abc import Sequence

from modelhaul.domain.files import Part
from modelhaul.domain.segments import FileUpload, UploadKey
from modelhaul.ports.segments import SegmentRepository
from tests.fakes.tables import InMemoryTables


class InMemorySegmentRepository(SegmentRepository):
    def __init__(self, tables: InMemoryTables) -> None:
        self._tables = tables

    def find_upload(self, key: UploadKey) -> FileUpload | None:
        with self._tables.lock:
            return self._tables.uploads.get(key)

    def create_upload(self, key: UploadKey, upload: FileUpload) -> bool:
        with self._tables.lock:
            return self._tables.uploads.setdefault(key, upload) is upload

    def replace_upload(
        self, key: UploadKey, known: FileUpload, changed: FileUpload, parts: Sequence[Part] = ()
    ) -> bool:
        with self._tables.lock:
            stored = self._tables.uploads.get(key)
            if stored is None or (stored.upload_id, stored.version) != (known.upload_id, known.version):
                return False
            self._tables.uploads[key] = changed
            if parts:
                self._tables.parts.setdefault((key, known.upload_id), {})[parts[0].number] = tuple(parts)
            return True

    def delete_upload(self, key: UploadKey, upload_id: str) -> None:
        with self._tables.lock:
            stored = self._tables.uploads.get(key)
            if stored is not None and stored.upload_id == upload_id:
                del self._tables.uploads[key]

    def list_parts(self, key: UploadKey, upload_id: str) -> list[Part]:
        with self._tables.lock:
            runs = self._tables.parts.get((key, upload_id), {})
            return [part for first in sorted(runs) for part in runs[first]]
