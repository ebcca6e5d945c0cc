"""The third step: models whose files are all verified become visible, whole.

Files are laid out under `models/` by copies inside S3, then the manifests are written, then the records say READY.
What lies under `models/` without being READY is removed if the task ends otherwise.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from modelhaul.catalog.presentation import present_inspection, summarize_gate
from modelhaul.domain.archives import is_ours
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
from modelhaul.ports.object_store import ObjectStore
from modelhaul.ports.tasks import TaskRepository
from modelhaul.transfer.policy import TransferPolicy
from modelhaul.transfer.reuse import digests_of, estimate_copy_time

logger = logging.getLogger(__name__)

_CONCURRENCY = 16
_MAX_NAMED = 10  # models in a message
_LARGE_CONCURRENCY = 4  # each in as many requests as it has half gigabytes
_BATCH_BYTES = 64_000_000_000
_LARGE = 1024 * 1024 * 1024  # bytes; above, the store copies one file in many parallel parts
_COPYING_SECONDS = 240.0  # with fewer left after the inspection, the next function copies
_STOP_BEFORE = 60.0  # seconds kept at the end, besides what the batch's copies are expected to take


@dataclass(frozen=True, slots=True)
class Publisher:
    """The step `publish_models`. At most `batch_files` files are copied between two looks at the clock and the task."""

    tasks: TaskRepository
    models: ModelRepository
    imports: ImportRepository
    files: FileRepository
    content: ContentIndex
    store: ObjectStore
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
        """Publishes the task's models, or goes on with it in a new message when `remaining()` seconds run out.

        Models of an archive that are refused do not keep the others from being published. A task that is DONE is only
        tidied up, which is what a duplicate or the sweep's message comes to.
        """
        task = self.tasks.find_task(message.task_id)
        models = self.models.find_models(task.model_ids) if task is not None else []
        if task is None or task.stage not in (Stage.VERIFIED, Stage.PUBLISHING, Stage.DONE):
            logger.info(
                "nothing to publish: the task is not verified or has ended",
                extra={"task_id": message.task_id},
            )
            return
        listed = list(self.files.list_files(task.id))
        # The first message of its kind, and no sweep was needed since: it can only be a duplicate if publishing began.
        is_first = message.attempt == 1 and not (message.after or message.resumed or task.sweeps)
        if is_first and task.stage is Stage.PUBLISHING:
            logger.info("another function is publishing this", extra={"task_id": task.id})
            return
        layout = _Layout(
            self.store,
            models,
            [r for r in listed if r.file.kind is FileKind.FILE],
            [r.file for r in listed if r.file.kind is not FileKind.FILE],
        )
        if task.status is TaskStatus.PENDING and not self._publish(task, layout, message, remaining, is_first=is_first):
            return
        self._tidy(task, layout)

    def _publish(
        self,
        task: Task,
        layout: "_Layout",
        message: PublishModels,
        remaining: Callable[[], float],
        *,
        is_first: bool,
    ) -> bool:
        """False if there is nothing to tidy up yet: another function publishes the task, or the task has failed."""
        session = self.gate.open_session(
            task.id, remaining, on_save=lambda: self._postpone_check(task), resume=not is_first
        )
        try:
            gates, errors = _inspect_models(session, layout)
        except OutOfTimeError:
            self.queue.send([message.model_copy(update={"attempt": 1, "resumed": True})])
            logger.info("out of time; another function continues the inspection", extra={"task_id": task.id})
            return False
        if session.has_inspected and remaining() < _COPYING_SECONDS:
            session.save()
            self.queue.send([message.model_copy(update={"attempt": 1, "resumed": True})])
            logger.info("inspected; another function publishes", extra={"task_id": task.id})
            return False
        if session.is_long:
            session.save()
        failed = {model_id: ModelError(e.type, e.detail, e.retryable) for model_id, e in errors.items()}
        if not gates:
            self.finisher.fail(task.id, _join_errors(layout.models, errors), failed)
            return False
        # From here on, a task that fails must remove what became visible.
        began = self.tasks.start_stage(task.id, Stage.PUBLISHING, check_at=self.clock() + CHECK_AFTER)
        if is_first and not began:
            logger.info("another function has begun to publish this", extra={"task_id": task.id})
            return False
        passed = layout.select(gates)
        if self._lay_out(task, passed, message, remaining, session):
            self._finish(task, passed, gates, failed)
        return True

    def _postpone_check(self, task: Task) -> None:
        self.tasks.postpone_check(task.id, check_at=self.clock() + CHECK_AFTER, sweeps=0)

    def _lay_out(
        self,
        task: Task,
        layout: "_Layout",
        message: PublishModels,
        remaining: Callable[[], float],
        session: GateSession,
    ) -> bool:
        """False if another function continues, or has done it, or the task has failed meanwhile."""
        after = message.after
        for batch in _batch_records((r for r in layout.records if r.file.path > message.after), self.batch_files):
            now = self.tasks.find_task(task.id)
            if now is None or now.status is not TaskStatus.PENDING:
                if now is not None and now.status is TaskStatus.FAILED:
                    self.finisher.tidy(now)
                return False
            needed = estimate_copy_time(sum(r.file.size for r in batch))
            if remaining() < _STOP_BEFORE + needed and after > message.after:
                # The function that ends the import needs the reports for the manifests.
                session.save()
                self.queue.send([message.model_copy(update={"after": after, "attempt": 1})])
                logger.info("out of time; another function continues publishing", extra={"task_id": task.id})
                return False
            self.tasks.postpone_check(task.id, check_at=self.clock() + CHECK_AFTER + needed, sweeps=0)
            layout.copy(batch)
            after = batch[-1].file.path
        return True

    def _finish(
        self,
        task: Task,
        layout: "_Layout",
        gates: Mapping[str, GateReport],
        failed: Mapping[str, ModelError],
    ) -> None:
        totals: dict[str, tuple[int, int]] = {}
        for model, records in layout.list_models():
            manifest = _write_manifest(task, model, records, layout.list_not_followed(model), gates[model.model_id])
            sha256 = hashlib.sha256(manifest).hexdigest()
            self.store.put(manifest_key(model.model_id), manifest, sha256=sha256)
            totals[model.model_id] = (len(records), sum(r.file.size for r in records))
        check_at = self.clock() + CHECK_AFTER
        kept = {model_id: report.shorten(len(gates)) for model_id, report in gates.items()}
        if not self.imports.finish_import(task.id, totals=totals, check_at=check_at, gates=kept, failed=failed):
            ended = self.tasks.find_task(task.id)
            if ended is not None and ended.status is TaskStatus.FAILED:
                self.finisher.tidy(ended)
            return
        seconds = self.clock() - task.created_at.timestamp()
        self.metrics.count("ImportsSucceeded", source=task.source)
        self.metrics.count("ImportSeconds", seconds, source=task.source)
        logger.info(
            "import done; ready to be read",
            extra={
                "task_id": task.id,
                "model_ids": list(totals),
                "models_failed": list(failed),
                "selection": task.selection.describe(),
                "prefixes": [model.resolved.prefix for model in layout.models],
                "files": len(layout.records),
                "bytes": sum(size for _, size in totals.values()),
                "bytes_reused": task.progress.bytes_reused,
                "seconds": round(seconds, 1),
            },
        )

    def _tidy(self, task: Task, layout: "_Layout") -> None:
        """Registers the published objects for reuse, and deletes the staged files and the archive.

        A task that is not DONE is left alone.
        """
        task_now = self.tasks.find_task(task.id)
        if task_now is None or task_now.status is not TaskStatus.DONE:
            return
        found = {model.model_id: model for model in self.models.find_models(task.model_ids)}
        # What a duplicate of the message has laid out once more after it was deleted, or before it was refused.
        deleted = layout.keep([m for m in layout.models if _is_gone(found.get(m.model_id), task)])
        self.store.delete([*deleted.list_keys(), *(manifest_key(model.model_id) for model in deleted.models)])
        kept = layout.keep([m for m in found.values() if m.status is ModelStatus.READY and m.task_id == task.id])
        self.content.put_blobs(kept.list_blobs(self.policy), expires_at=None)
        # The manifests have what an inspection in parts has noted.
        self.store.delete([*(r.staging_key for r in layout.records), inspection_key(task.id)])
        # What a function that died while it copied has left; a READY model has no uploads of anybody's under way.
        for prefix in (staging_prefix(task.id), *(model.resolved.prefix for model in kept.models)):
            abort_uploads(self.store, prefix)
        if task.archive is not None and is_ours(task.archive):
            self.archives.delete_archive(task.archive.key)
        self.outcomes.write_outcome(task_now)
        self.tasks.unwatch_task(task.id)


@dataclass(slots=True)
class _Layout:
    """The models' files on their way from staging to where they stay."""

    store: ObjectStore
    models: Sequence[Model]
    records: Sequence[FileRecord]
    not_followed: Sequence[SourceFile]
    _roots: ModelRoots = field(init=False)
    _etags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._roots = ModelRoots(self.models)

    def list_models(self) -> Iterator[tuple[Model, list[FileRecord]]]:
        """Each model with its files."""
        records: dict[str, list[FileRecord]] = {model.model_id: [] for model in self.models}
        for record in self.records:
            records[self._roots.find_owner(record.file.path).model_id].append(record)
        return ((model, records[model.model_id]) for model in self.models)

    def list_not_followed(self, model: Model) -> list[SourceFile]:
        return [file for file in self.not_followed if self._roots.find_owner(file.path) is model]

    def keep(self, models: Sequence[Model]) -> "_Layout":
        """That of some of its models."""
        records = [r for r in self.records if any(model.resolved.locate(r.file.path) for model in models)]
        return _Layout(self.store, models, records, (), self._etags)

    def select(self, gates: Mapping[str, GateReport]) -> "_Layout":
        """What is published: the models that have a report, without the files that their reports leave out."""
        models = [model for model in self.models if model.model_id in gates]
        left_out = {model.resolved.root + path for model in models for path in gates[model.model_id].left_out}
        kept = self.keep(models)
        records = [record for record in kept.records if record.file.path not in left_out]
        not_followed = [f for f in self.not_followed if self._roots.find_owner(f.path).model_id in gates]
        return _Layout(self.store, models, records, not_followed, self._etags)

    def list_keys(self) -> list[str]:
        return [self._key(record) for record in self.records]

    def copy(self, batch: Iterable[FileRecord]) -> None:
        """Raises RetriesExhaustedError if a verified file is no longer what it was when it was verified."""
        records = list(batch)
        with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="publish") as pool:
            self._etags.update(pool.map(self._copy_one, (r for r in records if r.file.size <= _LARGE)))
        with ThreadPoolExecutor(_LARGE_CONCURRENCY, thread_name_prefix="publish") as pool:
            self._etags.update(pool.map(self._copy_one, (r for r in records if r.file.size > _LARGE)))

    def _copy_one(self, record: FileRecord) -> tuple[str, str]:
        path = record.file.path
        try:
            etag = self.store.copy(record.staging_key, self._key(record), size=record.file.size, etag=record.etag or "")
        except ObjectGoneError:
            raise describe_lost_file(record) from None
        return path, etag

    def list_blobs(self, policy: TransferPolicy) -> Iterable[tuple[str, Blob]]:
        with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="publish") as pool:
            for record, etag in zip(self.records, pool.map(self._find_etag, self.records), strict=True):
                if etag is not None and record.sha256 is not None:
                    blob = Blob(record.sha256, self._key(record), record.file.size, etag)
                    for digest in digests_of(record.file, record.sha256, policy):
                        yield digest, blob

    def _find_etag(self, record: FileRecord) -> str | None:
        known = self._etags.get(record.file.path)
        if known is not None:
            return known
        # Another function copied it.
        found = self.store.find_object(self._key(record))
        return found[1] if found is not None and found[0] == record.file.size else None

    def _key(self, record: FileRecord) -> str:
        return self._roots.find_owner(record.file.path).resolved.build_key(record.file.path)


def _inspect_models(session: GateSession, layout: _Layout) -> tuple[dict[str, GateReport], dict[str, PermanentError]]:
    """The report of each model that may be published, the error of each other, by their ids. Raises OutOfTimeError."""
    gates: dict[str, GateReport] = {}
    errors: dict[str, PermanentError] = {}
    for model, records in layout.list_models():
        try:
            gates[model.model_id] = session.inspect(model.resolved, records)
        except (InvalidModelError, UnsafeModelError) as error:
            errors[model.model_id] = error
    return gates, errors


def _join_errors(models: Sequence[Model], errors: Mapping[str, PermanentError]) -> PermanentError:
    """The one error, or one that names each model before its error."""
    if len(errors) == 1:
        return next(iter(errors.values()))
    unsafe = any(isinstance(error, UnsafeModelError) for error in errors.values())
    kind = UnsafeModelError if unsafe else InvalidModelError
    lines = [f"{model.resolved.name}: {errors[model.model_id].detail}" for model in models[:_MAX_NAMED]]
    more = f" And {len(models) - _MAX_NAMED} more models." if len(models) > _MAX_NAMED else ""
    return kind(" ".join(lines) + more)


def _is_gone(model: Model | None, task: Task) -> bool:
    if model is None or model.status is ModelStatus.DELETING:
        return True
    return model.status is ModelStatus.FAILED and model.task_id == task.id


def _batch_records(records: Iterable[FileRecord], most: int) -> Iterator[list[FileRecord]]:
    batch: list[FileRecord] = []
    size = 0
    for record in records:
        if batch and (len(batch) == most or size + record.file.size > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += record.file.size
    if batch:
        yield batch


def _write_manifest(
    task: Task, model: Model, records: Sequence[FileRecord], not_followed: Sequence[SourceFile], gate: GateReport
) -> bytes:
    """The manifest's JSON: the model, of each file path, size, sha256 and the digest its source published, what
    the inspection found, and what was not followed: symlinks with their blob, submodules with their commit.
    `selection` is there if these are not all of the model's files.
    """
    resolved = model.resolved
    inspections = {file.path: present_inspection(file) for file in gate.files}
    paths = [record.file.path.removeprefix(resolved.root) for record in records]
    return json.dumps(
        {
            "version": 1,
            "model_id": model.model_id,
            "source": resolved.source,
            "name": resolved.name,
            "revision": resolved.revision,
            "commit": resolved.commit,
            **({} if resolved.selection.is_whole else {"selection": asdict(resolved.selection)}),
            "prefix": resolved.prefix,
            "task_id": task.id,
            "gate": summarize_gate(gate),
            "files": [
                {
                    "path": path,
                    "size": r.file.size,
                    "sha256": r.sha256,
                    "source_digest": str(r.file.digest),
                    **({"inspection": inspections[path]} if path in inspections else {}),
                }
                for path, r in zip(paths, records, strict=True)
            ],
            "not_followed": [
                {"path": f.path.removeprefix(resolved.root), "kind": f.kind, "object": f.digest.value}
                for f in not_followed
            ],
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()
