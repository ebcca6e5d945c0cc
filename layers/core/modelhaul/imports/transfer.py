"""The second step: files of a task are brought into staging, each verified before it counts.

For each file, in this order: done already, skip; its content stored before by any model, a copy inside S3; else
the bytes are streamed.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import batched

from modelhaul.domain.digests import Algorithm, Digest, FileHasher
from modelhaul.domain.errors import (
    LeaseLostError,
    ModelhaulError,
    ObjectGoneError,
    PermanentError,
    RateLimitedError,
    SourceUnavailableError,
    StalledTransferError,
    TaskEndedError,
)
from modelhaul.domain.files import Checkpoint, FileRecord, FileResult, SourceFile
from modelhaul.domain.keys import staging_prefix
from modelhaul.domain.messages import TransferFiles
from modelhaul.domain.models import ModelRoots
from modelhaul.domain.objects import Blob
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from modelhaul.imports.dispatch import CHECK_AFTER, publish_if_complete
from modelhaul.imports.finish import abort_uploads
from modelhaul.imports.retry import TransferError
from modelhaul.ports.byte_streams import ByteStream, fill_buffer
from modelhaul.ports.clock import Clock
from modelhaul.ports.content import ContentIndex
from modelhaul.ports.files import FileRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.model_sources import ModelSource
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.object_store import ObjectStore
from modelhaul.ports.tasks import TaskRepository
from modelhaul.transfer.engine import FileStream, Paused, StreamSettings
from modelhaul.transfer.policy import TransferPolicy
from modelhaul.transfer.reuse import digests_of, estimate_copy_time

logger = logging.getLogger(__name__)


LEASE = 90.0  # seconds: several heartbeats
STAGED_BLOB_SECONDS = 6 * 86_400.0  # seconds: a day less than the bucket keeps what lies under staging/
_SMALL_CONCURRENCY = 8
_PASSING = 2  # the gravity of an error that concerns one file, and may be gone at the next try
_READ_RATE = 30e6  # bytes per second of a file that is read and inflated, and not stored; cautious


@dataclass(frozen=True, slots=True)
class Transferrer:
    """The step `transfer_files`."""

    tasks: TaskRepository
    models: ModelRepository
    files: FileRepository
    content: ContentIndex
    store: ObjectStore
    queue: MessageQueue
    open_source: Callable[[Task], ModelSource]
    metrics: Metrics
    clock: Clock
    settings: StreamSettings = field(default_factory=StreamSettings)
    policy: TransferPolicy = field(default_factory=TransferPolicy)

    def transfer_files(self, message: TransferFiles, remaining: Callable[[], float]) -> None:
        """Moves the message's files until they are done or `remaining()` seconds are nearly none; then the rest
        goes into a new message. Duplicates of a message find the files done, or leased, and do nothing.

        Raises TransferError.
        """
        task = self.tasks.find_task(message.task_id)
        if task is None or task.status is not TaskStatus.PENDING or task.stage is not Stage.TRANSFERRING:
            logger.info("nothing to transfer: the task has moved on", extra={"task_id": message.task_id})
            return
        models = self.models.find_models(task.model_ids)
        pending = self._find_pending(message)
        if not models or not pending:
            # The function that did the work may have died before it handed the task on.
            publish_if_complete(self.tasks, self.queue, task.id, task.progress, check_at=self._check_at())
            return
        owner = str(uuid.uuid4())
        now = self.clock()
        head = self.files.lease_file(task.id, pending[0].file.path, owner=owner, now=now, until=now + LEASE)
        if head is None:
            logger.info("another function has these files", extra={"task_id": task.id, "path": pending[0].file.path})
            return
        visit = _Visit(
            step=self,
            task=task,
            models=ModelRoots(models),
            owner=owner,
            remaining=remaining,
            source=self.open_source(task),
            leased=[head.file.path],
            first_try=message.attempt == 1,
        )
        try:
            visit.move([head, *pending[1:]])
        except (LeaseLostError, TaskEndedError):
            logger.info("gave way: the lease or the task ended", extra={"task_id": task.id})
            self._drop_uploads(task)
            return
        except Exception as error:
            visit.release_leases()
            if isinstance(error, ModelhaulError):
                raise TransferError(error, advanced=visit.advanced) from error
            raise
        if visit.paused:
            visit.release_leases()
            if not visit.advanced:
                slow = StalledTransferError(f"{head.file.path}: not one part arrived within a function's time")
                raise TransferError(slow, advanced=False)
            self.queue.send([message.model_copy(update={"attempt": 1})])
            logger.info("out of time; the rest goes on in another function", extra={"task_id": task.id})

    def _find_pending(self, message: TransferFiles) -> list[FileRecord]:
        records = {r.file.path: r for r in self.files.find_files(message.task_id, message.paths)}
        return [records[p] for p in message.paths if p in records and not records[p].done]

    def _drop_uploads(self, task: Task) -> None:
        """If the task has ended, it was tidied while we were still uploading."""
        now = self.tasks.find_task(task.id)
        if now is not None and now.status is not TaskStatus.PENDING:
            abort_uploads(self.store, staging_prefix(task.id))

    def _check_at(self) -> float:
        return self.clock() + CHECK_AFTER


class _OutOfTimeError(Exception):
    """The function's time is nearly over: what is not done goes on in another one."""


@dataclass(slots=True)
class _Visit:
    """One function's work on one message."""

    step: Transferrer
    task: Task
    models: ModelRoots
    owner: str
    remaining: Callable[[], float]
    source: ModelSource
    leased: list[str]
    first_try: bool
    advanced: bool = False
    paused: bool = False
    _errors: list[ModelhaulError] = field(default_factory=list)
    _indexed: set[str] = field(default_factory=set)

    def move(self, records: Sequence[FileRecord]) -> None:
        """The first one is leased already. Its lease stands for all small files; every large file has its own."""
        self.source.prepare_files([r.file for r in records])
        self._move_small([r for r in records if r.file.size <= self.step.policy.small_file])
        for record in records:
            if record.file.size > self.step.policy.small_file and not self.paused and not self._errors:
                # A file that is copied and not streamed cannot stop in between; alone it always has time enough.
                needed = estimate_copy_time(record.file.size) if self.advanced else 0
                if self.remaining() < self.step.settings.stop_before + needed:
                    self.paused = True
                elif (result := self._move_large(record)) is not None:
                    self._finish([result])
        if self._errors:
            raise min(self._errors, key=_gravity)

    def release_leases(self) -> None:
        for path in self.leased:
            self.step.files.release_lease(self.task.id, path, owner=self.owner)

    def _move_small(self, records: Sequence[FileRecord]) -> None:
        """All at once; files of equal content after the first of them, which they then copy."""
        firsts: dict[str, FileRecord] = {}
        for record in records:
            firsts.setdefault(str(record.file.digest), record)
        equals = [r for r in records if firsts[str(r.file.digest)] is not r]
        waves = [wave for wave in (list(firsts.values()), equals) if wave]
        results: list[FileResult] = []
        with ThreadPoolExecutor(_SMALL_CONCURRENCY, thread_name_prefix="small") as pool:
            try:
                for wave in waves:
                    # What an archive publishes does not tell contents apart: there a file is looked for once it is
                    # read.
                    blobs = self._find_blobs(r.file.digest for r in wave if r.file.digest.algorithm.identifies)
                    self._collect({pool.submit(self._try_small, record, blobs) for record in wave}, results)
                    self._finish_small(results, is_last=wave is waves[-1])
            except Exception as error:
                pool.shutdown(wait=False, cancel_futures=True)
                # Without the lease, another function may be storing these files anew.
                if not isinstance(error, LeaseLostError | TaskEndedError):
                    self._keep(results)
                raise

    def _find_blobs(self, digests: Iterable[Digest]) -> dict[str, Blob]:
        wanted = [str(digest) for digest in digests]
        return self.step.content.find_blobs(wanted) if wanted else {}

    def _collect(self, attempts: set[Future[FileResult | None]], results: list[FileResult]) -> None:
        """Adds the results in the order in which they come, and records them not much later: a slow file must not cost
        those behind it. Meanwhile the lease is renewed, and the sweep postponed.
        """
        recorded = time.monotonic()
        while attempts:
            due = recorded + self.step.settings.heartbeat - time.monotonic()
            done, attempts = wait(attempts, max(0.0, due), FIRST_COMPLETED)
            for attempt in done:
                results += filter(None, [attempt.result()])
            if time.monotonic() - recorded >= self.step.settings.heartbeat:
                self._renew_lease(self.leased[0])
                self._finish_small(results)
                recorded = time.monotonic()

    def _renew_lease(self, path: str, *, busy: float = 0.0) -> None:
        """Renews the lease of the file, and postpones the sweep. `busy`: seconds until the next sign of life."""
        until = self.step.clock() + busy
        self.step.files.renew_lease(self.task.id, path, owner=self.owner, until=until + LEASE)
        self.step.tasks.postpone_check(self.task.id, check_at=until + CHECK_AFTER)

    def _finish_small(self, results: list[FileResult], *, is_last: bool = False) -> None:
        """Indexes and records the results, and removes those from the list that are recorded: not that of the leased
        file, unless `is_last`. With its record the lease of all small files ends.
        """
        results.sort(key=lambda result: result.file.path)
        fresh = [result for result in results if result.file.path not in self._indexed]
        self._index(fresh)
        self._indexed.update(result.file.path for result in fresh)
        held = [] if is_last else [result for result in results if result.file.path == self.leased[0]]
        due = [result for result in results if result not in held]
        for batch in batched(due, self.step.policy.group_files, strict=False):
            self._record(batch)
        results[:] = held

    def _keep(self, results: list[FileResult]) -> None:
        """Records what was finished before an error, which is the one to act on."""
        try:
            self._finish_small(results, is_last=True)
        except ModelhaulError as error:
            logger.warning(
                "finished files were not recorded; the next try finds their content",
                extra={"task_id": self.task.id, "files": len(results), "detail": error.detail},
            )

    def _try_small(self, record: FileRecord, blobs: dict[str, Blob]) -> FileResult | None:
        if self.paused or self._is_hopeless():
            return None
        try:
            self._check_time()
            return self._reuse(record, blobs) or self._store_small(record)
        except _OutOfTimeError:
            self.paused = True
            return None
        except ModelhaulError as error:
            self._errors.append(error)
            return None

    def _is_hopeless(self) -> bool:
        """One file's trouble does not keep the others from being moved; the source's own does."""
        return len(self._errors) >= _SMALL_CONCURRENCY or any(_gravity(error) < _PASSING for error in self._errors)

    def _check_time(self) -> None:
        if self.remaining() < self.step.settings.stop_before:
            raise _OutOfTimeError

    def _store_small(self, record: FileRecord) -> FileResult:
        file = record.file
        view = memoryview(bytearray(file.size))
        if file.size:
            with self._open_range(file, 0, file.size) as stream:
                fill_buffer(stream, view, file.path, before_read=self._check_time)
        hasher = FileHasher(file.digest, file.size)
        hasher.update(view)
        sha256 = hasher.verify(file.path)
        if not file.digest.algorithm.identifies and file.size >= self.step.policy.min_indexed:
            for blob in self._find_blobs([Digest(Algorithm.SHA256, sha256)]).values():
                if (copied := self._copy_blob(record, blob)) is not None:
                    return copied
        etag = self.step.store.put(record.staging_key, view, sha256=sha256)
        return FileResult(file, sha256, etag, reused=False)

    def _move_large(self, record: FileRecord) -> FileResult | None:
        """None if it is paused, or if another function has it."""
        step, file = self.step, record.file
        if file.path not in self.leased:
            now = step.clock()
            leased = step.files.lease_file(self.task.id, file.path, owner=self.owner, now=now, until=now + LEASE)
            if leased is None:
                return None
            record = leased
            self.leased.append(file.path)
        if record.checkpoint is None:
            reused = self._reuse(record, self._find_blobs([file.digest]))
            if reused is not None:
                return reused
        logger.info(
            "transferring",
            extra={
                "task_id": self.task.id,
                "path": file.path,
                "bytes": file.size,
                "offset": record.checkpoint.offset if record.checkpoint else 0,
            },
        )
        stream = FileStream(
            file=file,
            key=record.staging_key,
            open_range=lambda start, end: self._open_range(file, start, end),
            store=step.store,
            save=lambda checkpoint: self._save(file.path, checkpoint),
            beat=lambda: step.files.renew_lease(self.task.id, file.path, owner=self.owner, until=step.clock() + LEASE),
            remaining=self.remaining,
            checkpoint=record.checkpoint,
            origin=self.source.locate(self.models.find_owner(file.path).resolved, file),
            settings=step.settings,
        )
        try:
            outcome = stream.run()
        finally:
            self.advanced |= stream.advanced
        if isinstance(outcome, Paused):
            self.paused = True
            return None
        return FileResult(file, outcome.sha256, outcome.etag, reused=False)

    def _reuse(self, record: FileRecord, blobs: dict[str, Blob]) -> FileResult | None:
        """A copy inside S3 if the content is among the `blobs`, under whichever model and source."""
        file = record.file
        blob = blobs.get(str(file.digest))
        if blob is None or blob.size != file.size:
            return None
        if blob.key != record.staging_key and not file.digest.algorithm.identifies and not self._is_same(file, blob):
            return None
        return self._copy_blob(record, blob)

    def _copy_blob(self, record: FileRecord, blob: Blob) -> FileResult | None:
        """None if the blob's content is no longer there."""
        step, file = self.step, record.file
        if blob.key == record.staging_key:
            # An earlier try stored it here and died before it could say so.
            is_there = step.store.find_object(blob.key) == (blob.size, blob.etag)
            return FileResult(file, blob.sha256, blob.etag, reused=False) if is_there else None
        if blob.size > step.policy.small_file:
            self._renew_lease(file.path, busy=estimate_copy_time(file.size))  # a copy gives no sign of life
        try:
            etag = step.store.copy(blob.key, record.staging_key, size=blob.size, etag=blob.etag)
        except ObjectGoneError:
            for digest in digests_of(file, blob.sha256, step.policy):
                step.content.forget_blob(digest, blob.key)
            return None
        return FileResult(file, blob.sha256, etag, reused=True)

    def _is_same(self, file: SourceFile, blob: Blob) -> bool:
        """Whether a large file's content is the blob's, told by reading it through; nothing is stored.

        False without a look where the function's time may not be enough, or a try has failed before: the file is
        then moved like any other.
        """
        step = self.step
        if not self.first_try or self.remaining() < step.settings.stop_before + file.size / _READ_RATE:
            return False
        hasher = FileHasher(file.digest, file.size)
        buffer = memoryview(bytearray(step.settings.chunk))
        position, beaten = 0, time.monotonic()
        with self._open_range(file, 0, file.size) as stream:
            while position < file.size:
                received = stream.readinto(buffer)
                if received == 0:
                    raise SourceUnavailableError(f"{file.path}: the source's answer ended early")
                hasher.update(buffer[:received])
                position += received
                if time.monotonic() - beaten >= step.settings.heartbeat:
                    if self.remaining() < step.settings.stop_before:
                        return False
                    beaten = time.monotonic()
                    self._renew_lease(file.path)
        return hasher.verify(file.path) == blob.sha256

    def _open_range(self, file: SourceFile, start: int, end: int) -> ByteStream:
        return self.source.open_range(self.models.find_owner(file.path).resolved, file, start, end)

    def _save(self, path: str, checkpoint: Checkpoint | None) -> None:
        now = self.step.clock()
        self.step.files.save_checkpoint(
            self.task.id, path, checkpoint, owner=self.owner, until=now + LEASE, check_at=now + CHECK_AFTER
        )
        if checkpoint is not None:
            logger.info(
                "checkpoint",
                extra={"task_id": self.task.id, "path": path, "offset": checkpoint.offset},
            )

    def _finish(self, results: Sequence[FileResult]) -> None:
        self._index(results)
        self._record(results)

    def _index(self, results: Sequence[FileResult]) -> None:
        """Files are recorded as content that can be found before they are done: an import that fails then has left
        all of its verified files to the next.
        """
        step = self.step
        blobs = [
            (digest, Blob(r.sha256, FileRecord(self.task.id, r.file).staging_key, r.file.size, r.etag))
            for r in results
            if not r.reused
            for digest in digests_of(r.file, r.sha256, step.policy)
        ]
        if blobs:
            step.content.put_blobs(blobs, expires_at=step.clock() + STAGED_BLOB_SECONDS)

    def _record(self, results: Sequence[FileResult]) -> None:
        step = self.step
        progress = step.files.finish_files(self.task.id, results, check_at=step.clock() + CHECK_AFTER)
        self.advanced = True
        moved = sum(r.file.size for r in results if not r.reused)
        reused = sum(r.file.size for r in results if r.reused)
        for name, size in (("BytesTransferred", moved), ("BytesReused", reused)):
            if size:
                step.metrics.count(name, size, source=self.task.source)
        complete = publish_if_complete(
            step.tasks, step.queue, self.task.id, progress, check_at=step.clock() + CHECK_AFTER
        )
        logger.info(
            "files verified; publishing comes next" if complete else "files verified",
            extra={
                "task_id": self.task.id,
                "files": len(results),
                "path": results[0].file.path,
                "bytes_moved": moved,
                "bytes_reused": reused,
                "files_done": progress.files_done,
                "files_total": progress.files_total,
            },
        )


def _gravity(error: ModelhaulError) -> int:
    """Of several files' errors the one to act on: what ends the task, then what all must wait for."""
    if isinstance(error, PermanentError):
        return 0
    return 1 if isinstance(error, RateLimitedError) else _PASSING
