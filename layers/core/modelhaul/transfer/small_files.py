"""Parallel transfer of the small files of a message. Each file is entirely in memory."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import batched

from modelhaul.domain.digests import FileHasher
from modelhaul.domain.errors import (
    LeaseLostError,
    ModelhaulError,
    PermanentError,
    RateLimitedError,
    TaskEndedError,
)
from modelhaul.domain.files import FileRecord, FileResult
from modelhaul.domain.objects import Blob
from modelhaul.ports.object_store import ObjectStore
from modelhaul.transfer.policy import TransferPolicy
from modelhaul.transfer.reuse import ContentReuse
from modelhaul.transfer.session import FileLease, TransferPausedError, TransferSession
from modelhaul.transfer.source import FileSource

logger = logging.getLogger(__name__)

CONCURRENCY = 8
_OF_ONE_FILE = 2  # rank of an error of a single file that a retry may resolve


@dataclass(slots=True, kw_only=True)
class SmallFileBatch:
    """Transfers the small files of a message under one lease, that of the message's first file."""

    session: TransferSession
    lease: FileLease
    reuse: ContentReuse
    store: ObjectStore
    source: FileSource
    policy: TransferPolicy
    _errors: list[ModelhaulError] = field(default_factory=list)
    _unrecorded: list[FileResult] = field(default_factory=list)
    _indexed: set[str] = field(default_factory=set)

    def transfer(self, records: Sequence[FileRecord]) -> None:
        """Transfer and record the files.

        Of several files with equal content, the first is transferred, and the others are copied within S3. Sets
        `session.paused` if time ran out. An error of one file does not stop the transfer of the others. The most
        important error is raised at the end. Raises LeaseLostError and TaskEndedError immediately.
        """
        firsts: dict[str, FileRecord] = {}
        for record in records:
            firsts.setdefault(str(record.file.digest), record)
        equals = [r for r in records if firsts[str(r.file.digest)] is not r]
        waves = [wave for wave in (list(firsts.values()), equals) if wave]
        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="small") as pool:
            try:
                for wave in waves:
                    # A CRC-32 does not identify content. Such a file is looked up by its SHA-256 after it is read.
                    blobs = self.reuse.find_blobs(r.file.digest for r in wave if r.file.digest.algorithm.identifies)
                    self._collect({pool.submit(self._try_file, record, blobs) for record in wave})
                    self._record(is_last=wave is waves[-1])
            except Exception as error:
                pool.shutdown(wait=False, cancel_futures=True)
                # Without the lease, another function may be storing these files again.
                if not isinstance(error, LeaseLostError | TaskEndedError):
                    self._record_after_error()
                raise
        if self._errors:
            raise min(self._errors, key=_rank_error)

    def _collect(self, attempts: set[Future[FileResult | None]]) -> None:
        """Wait for the attempts. Record completed files at each heartbeat, so that a slow file does not delay them.

        Also renew the lease and postpone the sweep at each heartbeat.
        """
        heartbeat = self.session.settings.heartbeat
        recorded = time.monotonic()
        while attempts:
            due = recorded + heartbeat - time.monotonic()
            done, attempts = wait(attempts, max(0.0, due), FIRST_COMPLETED)
            for attempt in done:
                self._unrecorded += filter(None, [attempt.result()])
            if time.monotonic() - recorded >= heartbeat:
                self.lease.renew()
                self._record()
                recorded = time.monotonic()

    def _record(self, *, is_last: bool = False) -> None:
        """Index and record the results.

        The result of the leased file is recorded only if `is_last`, because this ends the lease for all small files.
        """
        self._unrecorded.sort(key=lambda result: result.file.path)
        fresh = [result for result in self._unrecorded if result.file.path not in self._indexed]
        self.reuse.index(fresh)
        self._indexed.update(result.file.path for result in fresh)
        leased = self.lease.record.file.path
        held = [] if is_last else [result for result in self._unrecorded if result.file.path == leased]
        due = [result for result in self._unrecorded if result not in held]
        for batch in batched(due, self.policy.group_files, strict=False):
            self.session.record_files(batch)
        self._unrecorded = held

    def _record_after_error(self) -> None:
        """Record the files that were finished before an error. The caller raises that error even if this fails."""
        try:
            self._record(is_last=True)
        except ModelhaulError as error:
            logger.warning(
                "completed files not recorded",  # the next attempt finds their content in the index
                extra={
                    "task_id": self.session.task.id,
                    "files": len(self._unrecorded),
                    "detail": error.detail,
                },
            )

    def _try_file(self, record: FileRecord, blobs: dict[str, Blob]) -> FileResult | None:
        if self.session.paused or self._must_stop():
            return None
        try:
            self.session.check_time()
            return self.reuse.reuse(record, blobs, self.lease) or self._store_file(record)
        except TransferPausedError:
            self.session.paused = True
            return None
        except ModelhaulError as error:
            self._errors.append(error)
            return None

    def _must_stop(self) -> bool:
        """Return whether an error concerns the whole task or source, or too many files failed."""
        return len(self._errors) >= CONCURRENCY or any(_rank_error(error) < _OF_ONE_FILE for error in self._errors)

    def _store_file(self, record: FileRecord) -> FileResult:
        file = record.file
        content = self.source.read(file, before_read=self.session.check_time)
        hasher = FileHasher(file.digest, file.size)
        hasher.update(content)
        sha256 = hasher.verify(file.path)
        if (copied := self.reuse.reuse_sha256(record, sha256, self.lease)) is not None:
            return copied
        etag = self.store.put(record.staging_key, content, sha256=sha256)
        return FileResult(file, sha256, etag, reused=False)


def _rank_error(error: ModelhaulError) -> int:
    """Rank an error by importance: errors that end the task first, then errors for which all files must wait."""
    if isinstance(error, PermanentError):
        return 0
    return 1 if isinstance(error, RateLimitedError) else _OF_ONE_FILE
