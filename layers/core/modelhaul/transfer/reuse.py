"""Reuse of content that is already stored, regardless of its model and source."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from modelhaul.domain.digests import Algorithm, Digest, FileHasher
from modelhaul.domain.errors import ObjectGoneError, SourceUnavailableError, UploadGoneError
from modelhaul.domain.files import FileGroup, FileRecord, SourceFile
from modelhaul.domain.objects import Blob
from modelhaul.ports.content import ContentIndex
from modelhaul.ports.object_store import ObjectStore
from modelhaul.transfer.policy import TransferPolicy, estimate_copy_time, fingerprint_group, list_digests
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

    def find_group(self, files: Iterable[SourceFile]) -> dict[str, Blob]:
        """Return the small content that an earlier import has stored for an equal group of files, by digest."""
        fingerprint, digests = fingerprint_group(files, self.policy)
        return self.content.find_group(fingerprint) if digests else {}

    def reuse(self, record: FileRecord, blobs: Mapping[str, Blob]) -> FileRecord | None:
        """Copy the file's content from one of the `blobs`, or from another stored object if that of the blob is gone.

        Return None if the content is not stored.
        """
        file = record.file
        blob = blobs.get(str(file.digest))
        if blob is None or blob.size != file.size:
            return None
        if blob.key == record.staging_key or file.digest.algorithm.identifies:
            return self._copy_blob(record, blob)
        sha256 = self._compute_sha256(file)
        return self.reuse_sha256(record, sha256) if sha256 is not None else None

    def reuse_from_group(self, record: FileRecord, blobs: dict[str, Blob]) -> FileRecord | None:
        """Copy the file's content from one of the `blobs` of `find_group`.

        Return None if no blob has it. If its object is gone, the other objects are too, and `blobs` is cleared.
        """
        blob = blobs.get(str(record.file.digest))
        if blob is None or blob.size != record.file.size:
            return None
        try:
            return self._copy_object(record, blob)
        except ObjectGoneError:
            blobs.clear()
            return None

    def reuse_sha256(self, record: FileRecord, sha256: str) -> FileRecord | None:
        """Copy the file's content if content with this SHA-256 is already stored.

        For files whose published digest (CRC-32) does not identify content. Their SHA-256 is known only after they are
        read. Return None for other files, and for content that is not stored or too small to be indexed.
        """
        if record.file.digest.algorithm.identifies or record.file.size < self.policy.min_indexed:
            return None
        digest = Digest(Algorithm.SHA256, sha256)
        blob = self.find_blobs([digest]).get(str(digest))
        return self._copy_blob(record, blob) if blob is not None else None

    def adopt(self, record: FileRecord, blob: Blob) -> FileRecord:
        """Copy the file's content, which this import has completed at the staging key of another import.

        Raises UploadGoneError if the object is gone.
        """
        copied = self._copy_blob(record, blob)
        if copied is None:
            raise UploadGoneError(f"The completed upload of {record.file.path} was deleted.")
        return replace(copied, reused=False)

    def index_blob(self, file: SourceFile, blob: Blob) -> None:
        """Index the file's content, which is stored in the staging of another import."""
        digests = list_digests(file, blob.sha256, self.policy)
        self.content.put_blobs([(d, blob) for d in digests], expires_at=self.session.clock() + STAGED_BLOB_SECONDS)

    def index(self, records: Sequence[FileRecord]) -> None:
        """Index stored files as content that other imports can reuse, except small content (see `index_group`).

        Files are indexed before they are recorded. If the import fails between the two writes, the next import can
        still reuse the verified files.
        """
        blobs = [
            (digest, to_blob(record))
            for record in records
            if not record.reused and record.file.size >= self.policy.min_indexed
            for digest in list_digests(record.file, record.sha256 or "", self.policy)
        ]
        if blobs:
            self.content.put_blobs(blobs, expires_at=self.session.clock() + STAGED_BLOB_SECONDS)

    def index_group(self, group: FileGroup, records: Sequence[FileRecord]) -> None:
        """Index the small content of a group with one entry, so that the next import of an equal group can reuse it."""
        fingerprint, digests = fingerprint_group((record.file for record in group.records), self.policy)
        stored = {record.file.path: record for record in (*group.records, *records) if record.sha256 is not None}
        blobs = {str(r.file.digest): to_blob(r) for r in stored.values() if str(r.file.digest) in digests}
        if blobs:
            self.content.put_group(fingerprint, blobs.items(), expires_at=self.session.clock() + STAGED_BLOB_SECONDS)

    def _copy_blob(self, record: FileRecord, blob: Blob) -> FileRecord | None:
        """Copy the blob's object or, if it is gone, another object with the same content. Return None if all are gone.

        Entries of the index can outlive their objects: those of files in staging, of imports that failed after copying
        files, and of models that are being deleted. Such entries are removed.
        """
        digests = list(list_digests(record.file, blob.sha256, self.policy))
        found: Blob | None = blob
        while found is not None:
            try:
                return self._copy_object(record, found)
            except ObjectGoneError:
                for digest in digests:
                    self.content.forget_blob(digest, found)
            others = self.content.find_blobs(digests).values()
            found = next((other for other in others if other.sha256 == blob.sha256), None)
        return None

    def _copy_object(self, record: FileRecord, blob: Blob) -> FileRecord:
        """Copy the blob's object, unless it is at the file's own key. Raises ObjectGoneError."""
        if blob.key == record.staging_key:
            # The function of an earlier attempt stored the content here, and died before it recorded the file.
            if self.store.find_object(blob.key) != (blob.size, blob.etag):
                raise ObjectGoneError(f"{blob.key} was removed or replaced.")
            return replace(record, sha256=blob.sha256, etag=blob.etag)
        if blob.size > self.policy.small_file:
            self.session.renew(busy=estimate_copy_time(blob.size))  # no heartbeat can be sent during a copy
        etag = self.store.copy(blob.key, record.staging_key, size=blob.size, etag=blob.etag)
        return replace(record, sha256=blob.sha256, etag=etag, reused=True)

    def _compute_sha256(self, file: SourceFile) -> str | None:
        """Read the whole file, without storing it, and return its SHA-256.

        Return None without reading if the remaining time may be too short, or if an earlier attempt failed. The file
        is then transferred as usual.
        """
        settings = self.session.settings
        if not self.first_attempt or self.session.is_out_of_time(needed=file.size / _READ_RATE):
            return None
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
                        return None
                    renewed = time.monotonic()
                    self.session.renew()
        return hasher.verify(file.path)


def to_blob(record: FileRecord) -> Blob:
    """Return a stored file as content that can be copied. Raises ValueError if the file is not stored."""
    if record.sha256 is None or record.etag is None:
        raise ValueError(f"{record.file.path} is not stored")
    return Blob(record.sha256, record.staging_key, record.file.size, record.etag)
