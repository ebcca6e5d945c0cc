"""Reuse of content that is already stored, regardless of its model and source."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelhaul.domain.digests import Algorithm, Digest, FileHasher
from modelhaul.domain.errors import ObjectGoneError, SourceUnavailableError
from modelhaul.domain.files import FileRecord, FileResult, SourceFile
from modelhaul.domain.objects import Blob
from modelhaul.ports.content import ContentIndex
from modelhaul.ports.object_store import ObjectStore
from modelhaul.transfer.lease import Lease
from modelhaul.transfer.policy import TransferPolicy, estimate_copy_time, list_digests
from modelhaul.transfer.session import TransferSession
from modelhaul.transfer.source import FileSource

STAGED_BLOB_SECONDS = 6 * 86_400.0  # a day less than the bucket keeps the objects under staging/
_READ_RATE = 30e6  # bytes per second of a file that is read and decompressed, but not stored; a low estimate


@dataclass(frozen=True, slots=True)
class ContentReuse:
    """Finds the content of files in the models bucket, and copies it to the staging keys of the files.

    `first_attempt`: no earlier attempt at these files has failed.
    """

    session: TransferSession
    content: ContentIndex
    store: ObjectStore
    source: FileSource
    policy: TransferPolicy
    first_attempt: bool

    def find_blobs(self, digests: Iterable[Digest]) -> dict[str, Blob]:
        wanted = [str(digest) for digest in digests]
        return self.content.find_blobs(wanted) if wanted else {}

    def reuse(self, record: FileRecord, blobs: dict[str, Blob], lease: Lease) -> FileResult | None:
        """Copy the file's content from one of the `blobs`. Return None if no blob has it, or its object is gone."""
        file = record.file
        blob = blobs.get(str(file.digest))
        if blob is None or blob.size != file.size:
            return None
        is_certain = blob.key == record.staging_key or file.digest.algorithm.identifies
        return self._copy_blob(record, blob, lease) if is_certain or self._is_equal(file, blob, lease) else None

    def reuse_sha256(self, record: FileRecord, sha256: str, lease: Lease) -> FileResult | None:
        """Copy the file's content if content with this SHA-256 is already stored.

        For files whose published digest (CRC-32) does not identify content. Their SHA-256 is known only after they are
        read. Return None for other files, and for content that is not stored or too small to be indexed.
        """
        if record.file.digest.algorithm.identifies or record.file.size < self.policy.min_indexed:
            return None
        for blob in self.find_blobs([Digest(Algorithm.SHA256, sha256)]).values():
            if (copied := self._copy_blob(record, blob, lease)) is not None:
                return copied
        return None

    def index(self, results: Sequence[FileResult]) -> None:
        """Index the files as content that other imports can reuse.

        Files are indexed before they are recorded as done. If the import fails between the two writes, the next import
        can still reuse the verified files.
        """
        blobs = [
            (digest, Blob(r.sha256, FileRecord(self.session.task.id, r.file).staging_key, r.file.size, r.etag))
            for r in results
            if not r.reused
            for digest in list_digests(r.file, r.sha256, self.policy)
        ]
        if blobs:
            self.content.put_blobs(blobs, expires_at=self.session.clock() + STAGED_BLOB_SECONDS)

    def _copy_blob(self, record: FileRecord, blob: Blob, lease: Lease) -> FileResult | None:
        file = record.file
        if blob.key == record.staging_key:
            # The function of an earlier attempt stored the content here, and died before it recorded the file as done.
            is_there = self.store.find_object(blob.key) == (blob.size, blob.etag)
            return FileResult(file, blob.sha256, blob.etag, reused=False) if is_there else None
        if blob.size > self.policy.small_file:
            lease.renew(busy=estimate_copy_time(file.size))  # no heartbeat can be sent during a copy
        try:
            etag = self.store.copy(blob.key, record.staging_key, size=blob.size, etag=blob.etag)
        except ObjectGoneError:
            for digest in list_digests(file, blob.sha256, self.policy):
                self.content.forget_blob(digest, blob.key)
            return None
        return FileResult(file, blob.sha256, etag, reused=True)

    def _is_equal(self, file: SourceFile, blob: Blob, lease: Lease) -> bool:
        """Read the whole file, without storing it, and return whether its SHA-256 equals the blob's.

        Return False without reading if the remaining time may be too short, or if an earlier attempt failed. The file
        is then transferred as usual.
        """
        settings = self.session.settings
        if not self.first_attempt or self.session.is_out_of_time(needed=file.size / _READ_RATE):
            return False
        hasher = FileHasher(file.digest, file.size)
        buffer = memoryview(bytearray(settings.chunk))
        position, renewed = 0, time.monotonic()
        with self.source.open_range(file, 0, file.size) as stream:
            while position < file.size:
                received = stream.readinto(buffer)
                if received == 0:
                    left = file.size - position
                    raise SourceUnavailableError(f"{file.path}: the source's response ended {left:,} bytes early.")
                hasher.update(buffer[:received])
                position += received
                if time.monotonic() - renewed >= settings.heartbeat:
                    if self.session.is_out_of_time():
                        return False
                    renewed = time.monotonic()
                    lease.renew()
        return hasher.verify(file.path) == blob.sha256
