"""The third step of an import: publish the models whose files are all verified and checked.

The conclusion of the inspection decides which models are published. Their files are copied from `staging/` to `models/`
inside S3, many files by several functions (see `imports.copy`). The manifests are written next, and then the records
become READY. If the task ends otherwise, its files and manifests under `models/` are deleted.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from modelhaul.domain.archives import is_task_upload
from modelhaul.domain.errors import (
    InternalError,
    InvalidModelError,
    PermanentError,
    PolicyDeniedError,
    UnsafeModelError,
)
from modelhaul.domain.files import FileGroup, FileKind, FileRecord, SourceFile
from modelhaul.domain.gate import GateReport
from modelhaul.domain.keys import inspection_key, manifest_key, signature_key, staging_prefix
from modelhaul.domain.messages import PublishModels
from modelhaul.domain.models import Model, ModelError, ModelRoots, ModelStatus, Publication
from modelhaul.domain.policy_results import PolicyDecision, PolicyResult
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from modelhaul.imports.copy import FileCopier, list_gone, split_copies
from modelhaul.imports.dispatch import CHECK_AFTER
from modelhaul.imports.finish import TaskFinisher, abort_uploads, describe_unplanned
from modelhaul.imports.import_policy import ImportPolicy, describe_denial, join_denials
from modelhaul.imports.manifest import write_manifest
from modelhaul.imports.outcomes import OutcomeWriter
from modelhaul.imports.policy_facts import know_content, read_licenses
from modelhaul.inspection.gate import Gate, GateSession, OutOfTimeError
from modelhaul.ports.archive_store import ArchiveStore
from modelhaul.ports.clock import Clock
from modelhaul.ports.files import FileRepository
from modelhaul.ports.imports import ImportRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.multipart_uploads import MultipartUploads
from modelhaul.ports.object_store import ObjectStore
from modelhaul.ports.tasks import TaskRepository
from modelhaul.signing.signer import ModelSigner
from modelhaul.transfer.policy import TransferPolicy, estimate_copy_time
from modelhaul.transfer.staged import read_staged

logger = logging.getLogger(__name__)

_MAX_LISTED_ERRORS = 10  # models in the error message of a task
_STOP_BEFORE = 60.0  # seconds reserved at the end, in addition to the expected time of copies


@dataclass(frozen=True, slots=True)
class Publisher:
    """The step `publish_models`."""

    tasks: TaskRepository
    models: ModelRepository
    imports: ImportRepository
    files: FileRepository
    store: ObjectStore
    uploads: MultipartUploads
    archives: ArchiveStore
    queue: MessageQueue
    metrics: Metrics
    clock: Clock
    finisher: TaskFinisher
    outcomes: OutcomeWriter
    gate: Gate
    copier: FileCopier
    signer: ModelSigner | None = None
    policy: TransferPolicy = field(default_factory=TransferPolicy)
    import_policy: ImportPolicy | None = None

    def publish_models(self, message: PublishModels, remaining: Callable[[], float]) -> None:
        """Publish the task's models, or continue in a new message when the `remaining()` seconds run out.

        If the inspection or the import policy rejects some of an archive's models, the other models are still
        published. A task that is DONE
        is only cleaned up, because the message is then a duplicate, or comes from the sweep.
        """
        task = self.tasks.find_task(message.task_id)
        models = self.models.find_models(task.model_ids) if task is not None else []
        if task is None or task.stage not in (Stage.VERIFIED, Stage.PUBLISHING, Stage.DONE):
            logger.info("publish skipped: task is not ready to publish", extra={"task_id": message.task_id})
            return
        # The first message, and the sweep has not resent it. If publishing has started, the message is a duplicate.
        is_first = message.is_first_attempt and not (message.copied or message.resumed or task.sweeps)
        if is_first and task.stage is Stage.PUBLISHING:
            logger.info("publish skipped: publishing has started", extra={"task_id": task.id})
            return
        if task.is_unplanned:
            self.finisher.fail(task.id, describe_unplanned(task))
            return
        groups = list(self.files.list_groups(task.plan_id)) if task.plan_id is not None else []
        files = _ModelFiles(models, groups)
        if task.status is TaskStatus.PENDING and len(models) < len(task.model_ids):
            logger.info("publish skipped: task has ended, and a model was deleted", extra={"task_id": task.id})
            return
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
        """Publish the models that the inspection and the import policy accept.

        Return False if another function publishes them, or if the task has failed.
        """
        session = self.gate.open_session(
            task.id, remaining, on_save=lambda: self._postpone_check(task), resume=not is_first
        )
        try:
            gates, errors = _inspect_models(session, files)
        except OutOfTimeError:
            self.queue.send([message.reset_counts().model_copy(update={"resumed": True})])
            logger.info("inspection paused: out of time", extra={"task_id": task.id})
            return False
        if gates and session.has_inspected:
            # The function that finishes the import needs the reports for the manifests.
            session.save()
        decided = self._decide(task, files, gates)
        if decided is None:
            logger.info("publish skipped: task has ended", extra={"task_id": task.id})
            return False
        for model in files.models:
            result = decided.get(model.model_id)
            if result is None and decided and model.model_id in gates:
                raise InternalError(f"{model.resolved.describe()} has no decision of the import policy.")
            if result is not None and result.decision is not PolicyDecision.ALLOW:
                gates.pop(model.model_id, None)
                errors[model.model_id] = describe_denial(model.resolved.describe(), result)
        failed = {model_id: ModelError(e.type, e.detail, e.retryable, e.remedy) for model_id, e in errors.items()}
        if not gates:
            self.finisher.fail(task.id, _join_errors(files.models, errors), failed)
            return False
        # A task that fails after this point must delete the files that it published.
        started = self.tasks.start_stage(task.id, Stage.PUBLISHING, check_at=self.clock() + CHECK_AFTER)
        if not started and (is_first or not self._is_publishing(task.id)):
            logger.info("publish skipped: publishing has started, or task has ended", extra={"task_id": task.id})
            return False
        accepted = files.select_accepted(gates)
        if self._copy_files(task, accepted, remaining):
            self._finish_import(task, accepted, gates, failed, decided)
        return True

    def _decide(
        self, task: Task, files: "_ModelFiles", gates: Mapping[str, GateReport]
    ) -> Mapping[str, PolicyResult] | None:
        """Return the policy's decisions on the models in `gates`, which are made once for each task.

        Empty if the stack has no policy, None if the task has ended. Raises PolicyUnavailableError.
        """
        results: Mapping[str, PolicyResult] | None = task.policy_results
        if self.import_policy is None:
            return results
        if not results and gates:
            facts = {
                model.model_id: know_content(
                    model.resolved, records, gates[model.model_id], self._read_licenses(model, records), task.created_at
                )
                for model, records in files.group_by_model()
                if model.model_id in gates
            }
            results = self.tasks.record_policy(task.id, self.import_policy.decide(facts))
        if results:
            self.import_policy.record_decisions(task, files.models, results)
        return results

    def _read_licenses(self, model: Model, records: Sequence[FileRecord]) -> frozenset[str]:
        root = model.resolved.root
        return read_licenses(
            (record.file.path.removeprefix(root), record.file.size, read_staged(self.store, record))
            for record in records
        )

    def _is_publishing(self, task_id: str) -> bool:
        """Return whether the files may be copied: if the task fails from now on, its published files are deleted."""
        current = self.tasks.find_task(task_id)
        return current is not None and current.stage is Stage.PUBLISHING

    def _postpone_check(self, task: Task) -> None:
        self.tasks.postpone_check(task.id, check_at=self.clock() + CHECK_AFTER, sweeps=0)

    def _copy_files(self, task: Task, files: "_ModelFiles", remaining: Callable[[], float]) -> bool:
        """Copy the files that are not copied yet. Return False if other functions copy them, or the task has ended.

        What fits into one message is copied here, because a message to another function would take longer.
        """
        copied = self.files.list_copied(task.plan_id or "")
        groups = [group for group in files.groups if group.records[0].file.kind is FileKind.FILE]
        messages = split_copies(task.id, groups, files.left_out, self.policy)
        waiting = [message for message in messages if not copied.issuperset(message.groups)]
        if not waiting:
            return True
        needed = estimate_copy_time(sum(group.size for group in groups))
        if len(messages) > 1 or remaining() < needed + _STOP_BEFORE:
            self.queue.send(waiting)
            logger.info("copy messages sent", extra={"task_id": task.id, "messages": len(waiting)})
            return False
        self.tasks.postpone_check(task.id, check_at=self.clock() + CHECK_AFTER + needed, sweeps=0)
        blobs = self.copier.copy_files(files.models, groups, files.left_out)
        current = self.tasks.find_task(task.id)
        if current is None or current.status is not TaskStatus.PENDING:
            if current is not None and current.status is TaskStatus.FAILED:
                self.finisher.clean_up(current)
            return False
        self.copier.index(blobs)
        return True

    def _finish_import(
        self,
        task: Task,
        files: "_ModelFiles",
        gates: Mapping[str, GateReport],
        failed: Mapping[str, ModelError],
        decided: Mapping[str, PolicyResult],
    ) -> None:
        """Write the manifests and set the models READY. If the task has failed, clean it up instead.

        With a signer, a model is signed before its manifest exists, so that no reader finds it unsigned.
        """
        published: dict[str, Publication] = {}
        reused = files.count_reused()
        for model, records in files.group_by_model():
            model_id, gate = model.model_id, gates[model.model_id]
            signature = None if self.signer is None else self.signer.sign(model, _list_digests(model, records))
            manifest = write_manifest(task, model, records, files.list_not_followed(model), gate)
            self.store.put(manifest_key(model_id), manifest, sha256=hashlib.sha256(manifest).hexdigest())
            published[model_id] = Publication(
                files=len(records),
                size=sum(record.file.size for record in records),
                gate=gate.shorten(len(gates)),
                signature=signature,
                policy=decided.get(model_id),
                bytes_reused=reused.get(model_id, 0),
            )
        check_at = self.clock() + CHECK_AFTER
        if not self.imports.finish_import(task.id, published=published, check_at=check_at, failed=failed):
            ended = self.tasks.find_task(task.id)
            if ended is not None and ended.status is TaskStatus.FAILED:
                self.finisher.clean_up(ended)
            return
        seconds = self.clock() - task.created_at.timestamp()
        self.metrics.count("ImportSeconds", seconds)
        logger.info(
            "import succeeded",
            extra={
                "task_id": task.id,
                "source": task.source,
                "model_ids": list(published),
                "models_failed": list(failed),
                "selection": task.selection.describe(),
                "prefixes": [model.resolved.prefix for model in files.models],
                "files": sum(publication.files for publication in published.values()),
                "bytes": sum(publication.size for publication in published.values()),
                "bytes_reused": task.progress.bytes_reused,
                "seconds": round(seconds, 1),
            },
        )

    def _clean_up(self, task: Task, files: "_ModelFiles") -> None:
        """Delete the staged files and the archive. No-op if the task is not DONE."""
        current = self.tasks.find_task(task.id)
        if current is None or current.status is not TaskStatus.DONE:
            return
        found = self.models.find_models(task.model_ids)
        # This function may have published files of models that were deleted in the meantime.
        gone = list_gone(task, files.models, found)
        self.copier.delete_copies(gone, files.groups)
        self.store.delete(key for model in gone for key in (manifest_key(model.model_id), signature_key(model)))
        # The manifests hold the results of an inspection that was saved in parts.
        self.store.delete([*(record.staging_key for record in files.records), inspection_key(task.id)])
        # A function that died while copying left these uploads. A READY model has no upload in progress.
        ready = [m for m in found if m.status is ModelStatus.READY and m.task_id == task.id]
        for prefix in (staging_prefix(task.id), *(model.resolved.prefix for model in ready)):
            abort_uploads(self.uploads, prefix)
        if task.archive is not None and is_task_upload(task.archive):
            self.archives.delete_archive(task.archive.key)
        self.outcomes.write_outcome(current)
        self.tasks.unwatch_task(task.id)


@dataclass(frozen=True, slots=True)
class _ModelFiles:
    """The groups of files of a task, and some of its models. `left_out`: paths that are not published."""

    models: Sequence[Model]
    groups: Sequence[FileGroup]
    left_out: frozenset[str] = frozenset()

    @property
    def records(self) -> list[FileRecord]:
        """Return the files to publish, in path order."""
        records = [r for group in self.groups for r in group.records if r.file.kind is FileKind.FILE]
        return sorted((r for r in records if r.file.path not in self.left_out), key=lambda record: record.file.path)

    def group_by_model(self) -> Iterator[tuple[Model, list[FileRecord]]]:
        """Yield each model with its files."""
        roots = ModelRoots(self.models)
        records: dict[str, list[FileRecord]] = {model.model_id: [] for model in self.models}
        for record in self.records:
            records[roots.find_owner(record.file.path).model_id].append(record)
        return ((model, records[model.model_id]) for model in self.models)

    def count_reused(self) -> dict[str, int]:
        """Return the bytes of each model that were already stored, as the progress of the task counts them."""
        roots = ModelRoots(self.models)
        reused = dict.fromkeys((model.model_id for model in self.models), 0)
        for group in self.groups:
            for number, record in enumerate(group.records):
                if record.file.kind is FileKind.FILE and record.file.path not in self.left_out:
                    size = record.file.size if record.reused else 0
                    size += group.continued if number == 0 else 0
                    reused[roots.find_owner(record.file.path).model_id] += size
        return reused

    def list_not_followed(self, model: Model) -> list[SourceFile]:
        """Return the model's symlinks and submodules, in path order."""
        roots = ModelRoots(self.models)
        files = [r.file for group in self.groups for r in group.records if r.file.kind is not FileKind.FILE]
        return sorted((f for f in files if roots.find_owner(f.path) is model), key=lambda file: file.path)

    def select_accepted(self, gates: Mapping[str, GateReport]) -> "_ModelFiles":
        """Return the files of the models that have a report, without the files that the report leaves out."""
        roots = ModelRoots(self.models)
        models = [model for model in self.models if model.model_id in gates]
        left_out = {model.resolved.root + path for model in models for path in gates[model.model_id].left_out}
        paths = (record.file.path for group in self.groups for record in group.records)
        left_out.update(path for path in paths if roots.find_owner(path).model_id not in gates)
        groups = [g for g in self.groups if any(r.file.path not in left_out for r in g.records)]
        return _ModelFiles(models, groups, frozenset(left_out))


def _list_digests(model: Model, records: Sequence[FileRecord]) -> Iterator[tuple[str, str]]:
    for record in records:
        if record.sha256 is None:
            raise InternalError(f"{record.file.path} was not verified.")
        yield record.file.path.removeprefix(model.resolved.root), record.sha256


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
    denials = [errors[model.model_id] for model in models]
    if all(isinstance(error, PolicyDeniedError) for error in denials):
        return join_denials([error for error in denials if isinstance(error, PolicyDeniedError)])
    lines = [f"{model.resolved.name}: {errors[model.model_id].detail}" for model in models[:_MAX_LISTED_ERRORS]]
    hidden = len(models) - _MAX_LISTED_ERRORS
    more = f" {hidden} more {'model' if hidden == 1 else 'models'} failed." if hidden > 0 else ""
    unsafe = any(isinstance(error, UnsafeModelError) for error in errors.values())
    kind = UnsafeModelError if unsafe else InvalidModelError
    return kind(" ".join(lines) + more)
