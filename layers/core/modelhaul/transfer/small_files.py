"""Parallel transfer of the small files of a group. Each file is entirely in memory."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from threading import Lock

from modelhaul.domain.digests import FileHasher
from modelhaul.domain.errors import (
    ContentMismatchError,
    LeaseLostError,
    ModelhaulError,
    PermanentError,
    RateLimitedError,
    TaskEndedError,
)
from modelhaul.domain.files import FileRecord
from modelhaul.domain.objects import Blob
from modelhaul.ports.object_store import ObjectStore
from modelhaul.transfer.policy import TransferPolicy
from modelhaul.transfer.reuse import ContentReuse, to_blob
from modelhaul.transfer.session import TransferPausedError, TransferSession
from modelhaul.transfer.source import FileSource
from modelhaul.transfer.staged import StagedFileChecks

logger = logging.getLogger(__name__)

CONCURRENCY = 16
_OF_ONE_FILE = 2  # rank of an error of a single file that a retry may resolve


@dataclass(slots=True, kw_only=True)
class SmallFileBatch:
    """Transfers and checks the small files of a group."""

    session: TransferSession
    reuse: ContentReuse
    checks: StagedFileChecks
    store: ObjectStore
    source: FileSource
    policy: TransferPolicy
    _errors: list[ModelhaulError] = field(default_factory=list)
    _unrecorded: list[FileRecord] = field(default_factory=list)
    _stored: list[FileRecord] = field(default_factory=list)
    _checking: Lock = field(default_factory=Lock)

    def transfer(self, records: Sequence[FileRecord]) -> None:
        """Transfer, check and record the files.

        Of several files with equal content, the first is transferred, and the others are copied within S3. Sets
        `session.paused` if time ran out. An error of one file does not stop the transfer of the others. The most
        important error is raised at the end. Raises LeaseLostError and TaskEndedError immediately.
        """
        firsts: dict[str, FileRecord] = {}
        for record in records:
            firsts.setdefault(str(record.file.digest), record)
        equals = [r for r in records if firsts[str(r.file.digest)] is not r]
        waves = [wave for wave in (list(firsts.values()), equals) if wave]
        known = self.reuse.find_group(record.file for record in self.session.group.records)
        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="small") as pool:
            try:
                for wave in waves:
                    blobs = self._find_blobs(wave)
                    self._collect({pool.submit(self._try_file, record, blobs, known) for record in wave})
                    self._record()  # so that the next wave finds the content
            except Exception as error:
                pool.shutdown(wait=False, cancel_futures=True)
                # Without the lease, another function may be storing these files again.
                if not isinstance(error, LeaseLostError | TaskEndedError):
                    self._record_after_error()
                raise
        if self._errors:
            raise min(self._errors, key=_rank_error)

    def _find_blobs(self, records: Iterable[FileRecord]) -> dict[str, Blob]:
        """Return the stored content of files, by published digest.

        A CRC-32 does not identify content. Such a file is looked up by its SHA-256 after it is read.
        """
        digests = [record.file.digest for record in records if record.file.digest.algorithm.identifies]
        stored = {str(record.file.digest): to_blob(record) for record in (*self._stored, *self._unrecorded)}
        wanted = [digest for digest in digests if str(digest) not in stored]
        return {**self.reuse.find_blobs(wanted), **{str(d): stored[str(d)] for d in digests if str(d) in stored}}

    def _collect(self, attempts: set[Future[FileRecord | None]]) -> None:
        """Wait for the attempts. Record completed files meanwhile, so that a slow file does not delay them.

        Also renew the lease and postpone the sweep at each heartbeat.
        """
        settings = self.session.settings
        renewed = recorded = time.monotonic()
        while attempts:
            due = min(renewed + settings.heartbeat, recorded + settings.batch) - time.monotonic()
            done, attempts = wait(attempts, max(0.0, due), FIRST_COMPLETED)
            for attempt in done:
                self._unrecorded += filter(None, [attempt.result()])
            now = time.monotonic()
            if now - renewed >= settings.heartbeat:
                self.session.renew()
                renewed = now
            if now - recorded >= settings.batch:
                self._record()
                recorded = now

    def _record(self) -> None:
        """Index and record the transferred files."""
        fresh = sorted(self._unrecorded, key=lambda record: record.file.path)
        if not fresh:
            return
        self.reuse.index(fresh)
        self.reuse.index_group(self.session.group, [*self._stored, *fresh])
        self.session.record_files(self.checks.add_opinions(fresh, seconds=self.session.find_scan_time()))
        self._stored += fresh
        self._unrecorded = []

    def _record_after_error(self) -> None:
        """Record the files that were finished before an error. The caller raises that error even if this fails."""
        try:
            self._record()
        except ModelhaulError as error:
            logger.warning(
                "completed files not recorded",  # the next attempt finds their content in the index
                extra={
                    "task_id": self.session.task.id,
                    "files": len(self._unrecorded),
                    "detail": error.detail,
                },
            )

    def _try_file(self, record: FileRecord, blobs: Mapping[str, Blob], known: dict[str, Blob]) -> FileRecord | None:
        if self.session.paused or self._must_stop():
            return None
        try:
            self.session.check_time()
            if record.sha256 is not None:
                return self._check(record)
            copied = self.reuse.reuse(record, blobs) or self.reuse.reuse_from_group(record, known)
            return self._check(copied) if copied is not None else self._store_file(record)
        except TransferPausedError:
            self.session.paused = True
            return None
        except ModelhaulError as error:
            self._errors.append(error)
            return None

    def _must_stop(self) -> bool:
        """Return whether an error concerns the whole task or source, or too many files failed."""
        return len(self._errors) >= CONCURRENCY or any(_rank_error(error) < _OF_ONE_FILE for error in self._errors)

    def _store_file(self, record: FileRecord) -> FileRecord:
        file = record.file
        try:
            content = self.source.read(file, before_read=self.session.check_time)
        except ContentMismatchError:  # a single response can be wrong
            content = self.source.read(file, before_read=self.session.check_time)
        hasher = FileHasher(file.digest, file.size)
        hasher.update(content)
        sha256 = hasher.verify(file.path)
        copied = self.reuse.reuse_sha256(record, sha256)
        if copied is None:
            etag = self.store.put(record.staging_key, content, sha256=sha256)
            copied = replace(record, sha256=sha256, etag=etag)
        return self._check(copied, content)

    def _check(self, record: FileRecord, content: memoryview | None = None) -> FileRecord:
        """Check the stored file, unless the time may be too short. Another function then checks it."""
        with self._checking:  # a checker checks one file at a time, and the wait would take time
            if self.session.has_time_to_check():
                return self.checks.check(record, content)
        self.session.paused = True
        return record


def _rank_error(error: ModelhaulError) -> int:
    """Rank an error by importance: errors that end the task first, then errors for which all files must wait."""
    if isinstance(error, PermanentError):
        return 0
    return 1 if isinstance(error, RateLimitedError) else _OF_ONE_FILE
