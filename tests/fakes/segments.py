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
                runs = self._tables.parts.setdefault((known.parts_key or key, known.upload_id), {})
                runs[parts[0].number] = tuple(parts)
            return True

    def take_over_upload(self, source: UploadKey, known: FileUpload, key: UploadKey) -> bool:
        with self._tables.lock:
            stored = self._tables.uploads.get(source)
            if stored is None or (stored.upload_id, stored.version) != (known.upload_id, known.version):
                return False
            if key in self._tables.uploads:
                return False
            self._tables.uploads[source], self._tables.uploads[key] = known.hand_over(source)
            return True

    def delete_upload(self, key: UploadKey, upload_id: str) -> bool:
        with self._tables.lock:
            stored = self._tables.uploads.get(key)
            if stored is None or stored.upload_id != upload_id or stored.is_taken_over:
                return False
            del self._tables.uploads[key]
            return True

    def list_uploads(self, plan_id: str) -> dict[UploadKey, FileUpload]:
        assert plan_id, "a key of DynamoDB is not empty"
        with self._tables.lock:
            return {key: upload for key, upload in self._tables.uploads.items() if key.plan_id == plan_id}

    def list_parts(self, key: UploadKey, upload_id: str) -> list[Part]:
        with self._tables.lock:
            runs = self._tables.parts.get((key, upload_id), {})
            return [part for first in sorted(runs) for part in runs[first]]
