from collections.abc import Iterable

from modelhaul.domain.objects import Blob
from modelhaul.ports.content import ContentIndex
from tests.fakes.tables import InMemoryTables


class InMemoryContentIndex(ContentIndex):
    def __init__(self, tables: InMemoryTables) -> None:
        self._tables = tables

    def find_blobs(self, digests: Iterable[str]) -> dict[str, Blob]:
        with self._tables.lock:
            found = {digest: self._find_blob(digest) for digest in digests}
            return {digest: blob for digest, blob in found.items() if blob is not None}

    def put_blobs(self, blobs: Iterable[tuple[str, Blob]], *, expires_at: float | None) -> None:
        with self._tables.lock:
            for digest, blob in blobs:
                if expires_at is None:
                    self._tables.blobs[digest] = blob
                else:
                    self._tables.expiring_blobs[digest] = (blob, expires_at)

    def find_group(self, fingerprint: str) -> dict[str, Blob]:
        with self._tables.lock:
            blobs, expires_at = self._tables.blob_groups.get(fingerprint, ({}, 0.0))
            return dict(blobs) if expires_at > self._tables.clock() else {}

    def put_group(self, fingerprint: str, blobs: Iterable[tuple[str, Blob]], *, expires_at: float) -> None:
        with self._tables.lock:
            self._tables.blob_groups[fingerprint] = (dict(blobs), expires_at)

    def forget_blob(self, digest: str, key: str) -> None:
        with self._tables.lock:
            stays, expiring = self._tables.blobs.get(digest), self._tables.expiring_blobs.get(digest)
            if stays is not None and stays.key == key:
                del self._tables.blobs[digest]
            if expiring is not None and expiring[0].key == key:
                del self._tables.expiring_blobs[digest]

    def forget_blobs(self, references: Iterable[tuple[str, str]]) -> None:
        for digest, key in references:
            self.forget_blob(digest, key)

    def _find_blob(self, digest: str) -> Blob | None:
        blob, expires_at = self._tables.expiring_blobs.get(digest, (None, 0.0))
        return self._tables.blobs.get(digest) or (blob if expires_at > self._tables.clock() else None)
