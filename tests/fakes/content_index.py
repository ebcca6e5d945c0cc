import itertools
import math
from collections.abc import Iterable
from dataclasses import replace

from modelhaul.domain.objects import Blob
from modelhaul.domain.segments import KeptUpload
from modelhaul.ports.content import ContentIndex
from tests.fakes.tables import InMemoryTables


class InMemoryContentIndex(ContentIndex):
    def __init__(self, tables: InMemoryTables) -> None:
        self._tables = tables
        self._versions = map(str, itertools.count(1))

    def find_blobs(self, digests: Iterable[str]) -> dict[str, Blob]:
        with self._tables.lock:
            found = {digest: self._find_blob(digest) for digest in digests}
            return {digest: blob for digest, blob in found.items() if blob is not None}

    def put_blobs(self, blobs: Iterable[tuple[str, Blob]], *, expires_at: float | None) -> None:
        with self._tables.lock:
            version = next(self._versions)
            for digest, blob in blobs:
                held = self._tables.blobs.setdefault(digest, {})
                held[blob.key] = (replace(blob, version=version), math.inf if expires_at is None else expires_at)

    def find_group(self, fingerprint: str) -> dict[str, Blob]:
        with self._tables.lock:
            blobs, expires_at = self._tables.blob_groups.get(fingerprint, ({}, 0.0))
            return dict(blobs) if expires_at > self._tables.clock() else {}

    def put_group(self, fingerprint: str, blobs: Iterable[tuple[str, Blob]], *, expires_at: float) -> None:
        with self._tables.lock:
            self._tables.blob_groups[fingerprint] = (dict(blobs), expires_at)

    def find_kept_upload(self, digest: str) -> KeptUpload | None:
        with self._tables.lock:
            found = self._tables.kept_uploads.get(digest)
            return found if found is not None and found.expires_at > self._tables.clock() else None

    def put_kept_upload(self, digest: str, upload: KeptUpload) -> None:
        with self._tables.lock:
            self._tables.kept_uploads[digest] = upload

    def forget_blob(self, digest: str, blob: Blob) -> None:
        with self._tables.lock:
            held = self._tables.blobs.get(digest, {})
            if blob.key in held and held[blob.key][0].version == blob.version:
                del held[blob.key]

    def forget_blobs(self, references: Iterable[tuple[str, str]]) -> None:
        with self._tables.lock:
            for digest, key in references:
                self._tables.blobs.get(digest, {}).pop(key, None)

    def _find_blob(self, digest: str) -> Blob | None:
        held = self._tables.blobs.get(digest, {}).values()
        blob, expires_at = max(held, key=lambda entry: entry[1], default=(None, 0.0))
        return blob if expires_at > self._tables.clock() else None
