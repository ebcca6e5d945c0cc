"""The third step of an import: publish the models whose files are all verified.

Files are copied from `staging/` to `models/` inside S3. The manifests are written next, and then the records become
READY. If the task ends otherwise, its files and manifests under `models/` are deleted.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from modelhaul.domain.archives import is_task_upload
from modelhaul.domain.errors import InvalidModelError, ObjectGoneError, PermanentError, UnsafeModelError
from modelhaul.domain.files import FileKind, FileRecord, SourceFile
from modelhaul.domain.gate import GateReport
from modelhaul.domain.keys import inspection_key, manifest_key, staging_prefix
from modelhaul.domain.messages import PublishModels
from modelhaul.domain.models import Model, ModelError, ModelRoots, ModelStatus
from modelhaul.domain.objects import Blob
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from modelhaul.imports.dispatch import CHECK_AFTER
from modelhaul.imports.finish import TaskFinisher, abort_uploads
from modelhaul.imports.manifest import write_manifest
from modelhaul.imports.outcomes import OutcomeWriter
from modelhaul.inspection.gate import Gate, GateSession, OutOfTimeError, describe_lost_file
from modelhaul.ports.archive_store import ArchiveStore
from modelhaul.ports.clock import Clock
from modelhaul.ports.content import ContentIndex
from modelhaul.ports.files import FileRepository
from modelhaul.ports.imports import ImportRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.multipart_uploads import MultipartUploads
from modelhaul.ports.object_store import ObjectStore
from modelhaul.ports.tasks import TaskRepository
from modelhaul.transfer.policy import TransferPolicy, estimate_copy_time, list_digests

logger = logging.getLogger(__name__)

_CONCURRENCY = 16
_MAX_LISTED_ERRORS = 10  # models in the error message of a task
_LARGE_CONCURRENCY = 4  # the store copies each large file in one request per half gigabyte
_MAX_BATCH_BYTES = 64_000_000_000
_LARGE_FILE = 1024 * 1024 * 1024  # bytes; the store copies larger files in many parallel parts
_MIN_COPY_SECONDS = 240.0  # if the inspection leaves less time than this, another function copies the files
_STOP_BEFORE = 60.0  # seconds reserved at the end, in addition to the expected copy time of the next batch


@dataclass(frozen=True, slots=True)
class Publisher:
    """The step `publish_models`. It checks the time and the task's status before each batch of `batch_files` files."""

    tasks: TaskRepository
    models: ModelRepository
    imports: ImportRepository
    files: FileRepository
    content: ContentIndex
    store: ObjectStore
    uploads: MultipartUploads
    archives: ArchiveStore
    queue: MessageQueue
    metrics: Metrics
    clock: Clock
    finisher: TaskFinisher
    outcomes: OutcomeWriter
    gate: Gate
    policy: TransferPolicy = field(default_factory=TransferPolicy)
    batch_files: int = 256

    def publish_models(self, message: PublishModels, remaining: Callable[[], float]) -> None:
        """Publish the task's models, or continue in a new message when the `remaining()` seconds run out.

        If the inspection rejects some of an archive's models, the other models are still published. A task that is DONE
        is only cleaned up, because the message is then a duplicate, or comes from the sweep.
        """
        task = self.tasks.find_task(message.task_id)
        models = self.models.find_models(task.model_ids) if task is not None else []
        if task is None or task.stage not in (Stage.VERIFIED, Stage.PUBLISHING, Stage.DONE):
            logger.info("publish skipped: task is not ready to publish", extra={"task_id": message.task_id})
            return
        listed = list(self.files.list_files(task.id))
        # The first message, and the sweep has not resent it. If publishing has started, the message is a duplicate.
        is_first = message.attempt == 1 and not (message.after or message.resumed or task.sweeps)
        if is_first and task.stage is Stage.PUBLISHING:
            logger.info("publish skipped: another function is publishing", extra={"task_id": task.id})
            return
        files = _ModelFiles(
            self.store,
            models,
            [r for r in listed if r.file.kind is FileKind.FILE],
            [r.file for r in listed if r.file.kind is not FileKind.FILE],
        )
        if task.status is TaskStatus.PENDING and not self._publish(task, files, message, remaining, is_first=is_first):
            return
        self._clean_up(task, files)

    def _publish(
        self,
        task: Task,
        files: "_ModelFiles",
        message: PublishModels,
        remaining: Callable[[], float],
        *,
        is_first: bool,
    ) -> bool:
        """Inspect and publish the models.

        Return False if the task must not be cleaned up yet: another function publishes it, or it has failed.
        """
        session = self.gate.open_session(
            task.id, remaining, on_save=lambda: self._postpone_check(task), resume=not is_first
        )
        try:
            gates, errors = _inspect_models(session, files)
        except OutOfTimeError:
            self._continue_later(message, resumed=True)
            logger.info("inspection paused: out of time", extra={"task_id": task.id})
            return False
        if session.has_inspected and remaining() < _MIN_COPY_SECONDS:
            session.save()
            self._continue_later(message, resumed=True)
            logger.info("publish paused: inspection finished, too little time to copy", extra={"task_id": task.id})
            return False
        if session.is_long:
            session.save()
        failed = {model_id: ModelError(e.type, e.detail, e.retryable) for model_id, e in errors.items()}
        if not gates:
            self.finisher.fail(task.id, _join_errors(files.models, errors), failed)
            return False
        # A task that fails after this point must delete the files that it published.
        started = self.tasks.start_stage(task.id, Stage.PUBLISHING, check_at=self.clock() + CHECK_AFTER)
        if is_first and not started:
            logger.info("publish skipped: another function is publishing", extra={"task_id": task.id})
            return False
        accepted = files.select_accepted(gates)
        if self._copy_files(task, accepted, message, remaining, session):
            self._finish_import(task, accepted, gates, failed)
        return True

    def _postpone_check(self, task: Task) -> None:
        self.tasks.postpone_check(task.id, check_at=self.clock() + CHECK_AFTER, sweeps=0)

    def _continue_later(self, message: PublishModels, **update: object) -> None:
        self.queue.send([message.model_copy(update={"attempt": 1, **update})])

    def _copy_files(
        self,
        task: Task,
        files: "_ModelFiles",
        message: PublishModels,
        remaining: Callable[[], float],
        session: GateSession,
    ) -> bool:
        """Copy the files after `message.after` to their published keys.

        Return False if the task has ended, or if another function continues.
        """
        after = message.after
        for batch in _batch_records((r for r in files.records if r.file.path > message.after), self.batch_files):
            current = self.tasks.find_task(task.id)
            if current is None or current.status is not TaskStatus.PENDING:
                if current is not None and current.status is TaskStatus.FAILED:
                    self.finisher.clean_up(current)
                return False
            needed = estimate_copy_time(sum(r.file.size for r in batch))
            if remaining() < _STOP_BEFORE + needed and after > message.after:
                # The function that finishes the import needs the reports for the manifests.
                session.save()
                self._continue_later(message, after=after)
                logger.info("publish paused: out of time", extra={"task_id": task.id})
                return False
            self.tasks.postpone_check(task.id, check_at=self.clock() + CHECK_AFTER + needed, sweeps=0)
            files.copy(batch)
            after = batch[-1].file.path
        return True

    def _finish_import(
        self,
        task: Task,
        files: "_ModelFiles",
        gates: Mapping[str, GateReport],
        failed: Mapping[str, ModelError],
    ) -> None:
        """Write the manifests and set the models READY. If the task has failed, clean it up instead."""
        totals: dict[str, tuple[int, int]] = {}
        for model, records in files.group_by_model():
            manifest = write_manifest(task, model, records, files.list_not_followed(model), gates[model.model_id])
            sha256 = hashlib.sha256(manifest).hexdigest()
            self.store.put(manifest_key(model.model_id), manifest, sha256=sha256)
            totals[model.model_id] = (len(records), sum(r.file.size for r in records))
        check_at = self.clock() + CHECK_AFTER
        reports = {model_id: report.shorten(len(gates)) for model_id, report in gates.items()}
        if not self.imports.finish_import(task.id, totals=totals, check_at=check_at, gates=reports, failed=failed):
            ended = self.tasks.find_task(task.id)
            if ended is not None and ended.status is TaskStatus.FAILED:
                self.finisher.clean_up(ended)
            return
        seconds = self.clock() - task.created_at.timestamp()
        self.metrics.count("ImportsSucceeded", source=task.source)
        self.metrics.count("ImportSeconds", seconds, source=task.source)
        logger.info(
            "import succeeded",
            extra={
                "task_id": task.id,
                "model_ids": list(totals),
                "models_failed": list(failed),
                "selection": task.selection.describe(),
                "prefixes": [model.resolved.prefix for model in files.models],
                "files": len(files.records),
                "bytes": sum(size for _, size in totals.values()),
                "bytes_reused": task.progress.bytes_reused,
                "seconds": round(seconds, 1),
            },
        )

    def _clean_up(self, task: Task, files: "_ModelFiles") -> None:
        """Register the published objects for reuse, and delete the staged files and the archive.

        No-op if the task is not DONE.
        """
        current = self.tasks.find_task(task.id)
        if current is None or current.status is not TaskStatus.DONE:
            return
        found = {model.model_id: model for model in self.models.find_models(task.model_ids)}
        # A duplicate message may have copied files of models that were deleted since, or copied files before their
        # model was rejected.
        deleted = files.select_models([m for m in files.models if _is_gone(found.get(m.model_id), task)])
        self.store.delete([*deleted.list_keys(), *(manifest_key(model.model_id) for model in deleted.models)])
        ready = files.select_models(
            [m for m in found.values() if m.status is ModelStatus.READY and m.task_id == task.id]
        )
        self.content.put_blobs(ready.list_blobs(self.policy), expires_at=None)
        # The manifests hold the results of an inspection that was saved in parts.
        self.store.delete([*(r.staging_key for r in files.records), inspection_key(task.id)])
        # A function that died while copying left these uploads. A READY model has no upload in progress.
        for prefix in (staging_prefix(task.id), *(model.resolved.prefix for model in ready.models)):
            abort_uploads(self.uploads, prefix)
        if task.archive is not None and is_task_upload(task.archive):
            self.archives.delete_archive(task.archive.key)
        self.outcomes.write_outcome(current)
        self.tasks.unwatch_task(task.id)


@dataclass(slots=True)
class _ModelFiles:
    """The files of some models of a task, with their staging keys and their published keys.

    `not_followed`: the models' symlinks and submodules.
    """

    store: ObjectStore
    models: Sequence[Model]
    records: Sequence[FileRecord]
    not_followed: Sequence[SourceFile]
    _etags: dict[str, str] = field(default_factory=dict)
    _roots: ModelRoots = field(init=False)

    def __post_init__(self) -> None:
        self._roots = ModelRoots(self.models)

    def group_by_model(self) -> Iterator[tuple[Model, list[FileRecord]]]:
        """Yield each model with its files."""
        records: dict[str, list[FileRecord]] = {model.model_id: [] for model in self.models}
        for record in self.records:
            records[self._roots.find_owner(record.file.path).model_id].append(record)
        return ((model, records[model.model_id]) for model in self.models)

    def list_not_followed(self, model: Model) -> list[SourceFile]:
        return [file for file in self.not_followed if self._roots.find_owner(file.path) is model]

    def select_models(self, models: Sequence[Model]) -> "_ModelFiles":
        """Return the files of these models."""
        records = [r for r in self.records if any(model.resolved.locate(r.file.path) for model in models)]
        return _ModelFiles(self.store, models, records, (), self._etags)

    def select_accepted(self, gates: Mapping[str, GateReport]) -> "_ModelFiles":
        """Return the files to publish: those of the models that have a report, without excluded files."""
        models = [model for model in self.models if model.model_id in gates]
        left_out = {model.resolved.root + path for model in models for path in gates[model.model_id].left_out}
        records = [record for record in self.select_models(models).records if record.file.path not in left_out]
        not_followed = [f for f in self.not_followed if self._roots.find_owner(f.path).model_id in gates]
        return _ModelFiles(self.store, models, records, not_followed, self._etags)

    def list_keys(self) -> list[str]:
        return [self._build_key(record) for record in self.records]

    def copy(self, batch: Iterable[FileRecord]) -> None:
        """Copy staged files to their published keys.

        Raises RetriesExhaustedError if a staged file was removed or replaced after its verification.
        """
        records = list(batch)
        with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="publish") as pool:
            self._etags.update(pool.map(self._copy_file, (r for r in records if r.file.size <= _LARGE_FILE)))
        with ThreadPoolExecutor(_LARGE_CONCURRENCY, thread_name_prefix="publish") as pool:
            self._etags.update(pool.map(self._copy_file, (r for r in records if r.file.size > _LARGE_FILE)))

    def _copy_file(self, record: FileRecord) -> tuple[str, str]:
        key, size = self._build_key(record), record.file.size
        try:
            return record.file.path, self.store.copy(record.staging_key, key, size=size, etag=record.etag or "")
        except ObjectGoneError:
            raise describe_lost_file(record) from None

    def list_blobs(self, policy: TransferPolicy) -> Iterable[tuple[str, Blob]]:
        """Yield each published object under each digest by which later imports can find it."""
        with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="publish") as pool:
            for record, etag in zip(self.records, pool.map(self._find_etag, self.records), strict=True):
                if etag is not None and record.sha256 is not None:
                    blob = Blob(record.sha256, self._build_key(record), record.file.size, etag)
                    for digest in list_digests(record.file, record.sha256, policy):
                        yield digest, blob

    def _find_etag(self, record: FileRecord) -> str | None:
        known = self._etags.get(record.file.path)
        if known is not None:
            return known
        # Another function copied this file.
        found = self.store.find_object(self._build_key(record))
        return found[1] if found is not None and found[0] == record.file.size else None

    def _build_key(self, record: FileRecord) -> str:
        return self._roots.find_owner(record.file.path).resolved.build_key(record.file.path)


def _inspect_models(
    session: GateSession, files: _ModelFiles
) -> tuple[dict[str, GateReport], dict[str, PermanentError]]:
    """Return the reports of the models that may be published, and the errors of the others, by model id.

    Raises OutOfTimeError.
    """
    gates: dict[str, GateReport] = {}
    errors: dict[str, PermanentError] = {}
    for model, records in files.group_by_model():
        try:
            gates[model.model_id] = session.inspect(model.resolved, records)
        except (InvalidModelError, UnsafeModelError) as error:
            errors[model.model_id] = error
    return gates, errors


def _join_errors(models: Sequence[Model], errors: Mapping[str, PermanentError]) -> PermanentError:
    """Return the only error, or one error that names each model with its own."""
    if len(errors) == 1:
        return next(iter(errors.values()))
    unsafe = any(isinstance(error, UnsafeModelError) for error in errors.values())
    kind = UnsafeModelError if unsafe else InvalidModelError
    lines = [f"{model.resolved.name}: {errors[model.model_id].detail}" for model in models[:_MAX_LISTED_ERRORS]]
    hidden = len(models) - _MAX_LISTED_ERRORS
    more = f" {hidden} more {'model' if hidden == 1 else 'models'} failed." if hidden > 0 else ""
    return kind(" ".join(lines) + more)


def _is_gone(model: Model | None, task: Task) -> bool:
    """Return whether the model was deleted, is being deleted, or was rejected in this task."""
    if model is None or model.status is ModelStatus.DELETING:
        return True
    return model.status is ModelStatus.FAILED and model.task_id == task.id


def _batch_records(records: Iterable[FileRecord], max_files: int) -> Iterator[list[FileRecord]]:
    batch: list[FileRecord] = []
    size = 0
    for record in records:
        if batch and (len(batch) == max_files or size + record.file.size > _MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += record.file.size
    if batch:
        yield batch
