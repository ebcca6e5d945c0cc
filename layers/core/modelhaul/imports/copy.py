"""The part of the third step that several functions share: copy verified files to their published keys inside S3.

Functions copy different groups of files at the same time. A copy can be repeated: it has the same content.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from modelhaul.domain.errors import ObjectGoneError
from modelhaul.domain.files import FileGroup, FileRecord
from modelhaul.domain.messages import CopyFiles, PublishModels
from modelhaul.domain.models import Model, ModelRoots, ModelStatus
from modelhaul.domain.objects import Blob
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from modelhaul.imports.dispatch import CHECK_AFTER
from modelhaul.imports.finish import TaskFinisher
from modelhaul.ports.clock import Clock
from modelhaul.ports.content import ContentIndex
from modelhaul.ports.files import FileRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.object_store import ObjectStore
from modelhaul.ports.tasks import TaskRepository
from modelhaul.transfer.policy import TransferPolicy, estimate_copy_time, list_digests
from modelhaul.transfer.staged import describe_lost_file

logger = logging.getLogger(__name__)

_CONCURRENCY = 32
_LARGE_CONCURRENCY = 8  # the store copies each large file in many parallel requests
_LARGE_FILE = 1024 * 1024 * 1024  # bytes; the store copies larger files in parts


@dataclass(frozen=True, slots=True)
class FileCopier:
    """Copies the files of groups, and indexes the copies as content that later imports can reuse."""

    store: ObjectStore
    content: ContentIndex
    policy: TransferPolicy = field(default_factory=TransferPolicy)

    def copy_files(
        self, models: Sequence[Model], groups: Iterable[FileGroup], left_out: Collection[str]
    ) -> list[tuple[str, Blob]]:
        """Copy the files of groups, except the paths `left_out`. Return the (digest, blob) pairs to index.

        Raises RetriesExhaustedError if a staged file was removed or replaced after its verification.
        """
        roots = ModelRoots(models)
        records = [r for group in groups for r in group.records if r.sha256 is not None and r.file.path not in left_out]
        keys = {r.file.path: roots.find_owner(r.file.path).resolved.build_key(r.file.path) for r in records}
        etags: dict[str, str] = {}
        for wave, threads in (
            ([r for r in records if r.file.size <= _LARGE_FILE], _CONCURRENCY),
            ([r for r in records if r.file.size > _LARGE_FILE], _LARGE_CONCURRENCY),
        ):
            with ThreadPoolExecutor(threads, thread_name_prefix="copy") as pool:
                copied = pool.map(lambda record: self._copy_file(record, keys[record.file.path]), wave)
                etags.update(zip((r.file.path for r in wave), copied, strict=True))
        return list(self._list_blobs(records, keys, etags))

    def index(self, blobs: Iterable[tuple[str, Blob]]) -> None:
        """Index copies as content that later imports can reuse. The task must still be PENDING after the copies."""
        self.content.put_blobs(blobs, expires_at=None)

    def delete_copies(self, models: Sequence[Model], groups: Iterable[FileGroup]) -> None:
        """Delete the published files of models."""
        paths = [record.file.path for group in groups for record in group.records]
        keys = (model.resolved.locate(path) for model in models for path in paths)
        self.store.delete(key for key in keys if key is not None)

    def _copy_file(self, record: FileRecord, key: str) -> str:
        try:
            return self.store.copy(record.staging_key, key, size=record.file.size, etag=record.etag or "")
        except ObjectGoneError:
            raise describe_lost_file(record) from None

    def _list_blobs(
        self, records: Iterable[FileRecord], keys: dict[str, str], etags: dict[str, str]
    ) -> Iterator[tuple[str, Blob]]:
        for record in records:
            path, sha256 = record.file.path, record.sha256 or ""
            blob = Blob(sha256, keys[path], record.file.size, etags[path])
            yield from ((digest, blob) for digest in list_digests(record.file, sha256, self.policy))


@dataclass(frozen=True, slots=True)
class CopyStep:
    """The step `copy_files`."""

    tasks: TaskRepository
    models: ModelRepository
    files: FileRepository
    queue: MessageQueue
    copier: FileCopier
    finisher: TaskFinisher
    clock: Clock

    def copy_files(self, message: CopyFiles, _remaining: Callable[[], float]) -> None:
        """Copy the files of the message's groups. The function that copies the last group lets the task finish.

        Groups that are copied already are skipped. A message is small enough for one function.
        """
        task = self.tasks.find_task(message.task_id)
        if task is None or task.stage is not Stage.PUBLISHING or task.plan_id is None:
            logger.info("copy skipped: task is not publishing", extra={"task_id": message.task_id})
            return
        copied = self.files.list_copied(task.plan_id)
        pending = [number for number in message.groups if number not in copied]
        total = len(copied)
        if pending:
            models = self.models.find_models(task.model_ids)
            if len(models) < len(task.model_ids):
                logger.info("copy skipped: task has ended, and a model was deleted", extra={"task_id": task.id})
                return
            groups = self.files.find_groups(task.plan_id, pending)
            needed = estimate_copy_time(sum(group.size for group in groups))
            self.tasks.postpone_check(task.id, check_at=self.clock() + CHECK_AFTER + needed, sweeps=0)
            blobs = self.copier.copy_files(models, groups, frozenset(message.left_out))
            current = self.tasks.find_task(task.id)
            if current is None or current.status is not TaskStatus.PENDING:
                self._delete_copies(current, models, groups)
                return
            self.copier.index(blobs)
            total = self.files.record_copied(task.plan_id, pending).groups_copied
            logger.info(
                "files copied",
                extra={
                    "task_id": task.id,
                    "groups": len(pending),
                    "groups_copied": total,
                    "groups_total": message.total,
                },
            )
        if total >= message.total:
            self.queue.send([PublishModels(task_id=task.id, copied=True)])

    def _delete_copies(self, task: Task | None, models: Sequence[Model], groups: Iterable[FileGroup]) -> None:
        """Delete the copies of a task that has ended while this function copied, unless their model is READY."""
        if task is None:
            return
        logger.info("copies discarded: task has ended", extra={"task_id": task.id})
        if task.status is TaskStatus.FAILED:
            self.finisher.clean_up(task)
            return
        gone = list_gone(task, models, self.models.find_models(task.model_ids))
        self.copier.delete_copies(gone, groups)


def list_gone(task: Task, models: Iterable[Model], found: Iterable[Model]) -> list[Model]:
    """Return those of the task's `models` that were deleted, are being deleted, or were rejected in this task.

    `found` are the current models.
    """
    current = {model.model_id: model for model in found}
    return [model for model in models if _is_gone(current.get(model.model_id), task)]


def _is_gone(model: Model | None, task: Task) -> bool:
    if model is None or model.status is ModelStatus.DELETING:
        return True
    return model.status is ModelStatus.FAILED and model.task_id == task.id


def split_copies(
    task_id: str, groups: Iterable[FileGroup], left_out: Collection[str], policy: TransferPolicy
) -> list[CopyFiles]:
    """Return the messages that copy the groups, except the paths `left_out`."""
    batches = [_Batch(policy)]
    for group in groups:
        skipped = tuple(record.file.path for record in group.records if record.file.path in left_out)
        if not batches[-1].accepts(group, skipped):
            batches.append(_Batch(policy))
        batches[-1].add(group, skipped)
    total = sum(len(batch.numbers) for batch in batches)
    return [
        CopyFiles(task_id=task_id, groups=tuple(batch.numbers), total=total, left_out=tuple(batch.left_out))
        for batch in batches
        if batch.numbers
    ]


@dataclass(slots=True)
class _Batch:
    policy: TransferPolicy
    numbers: list[int] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    _files: int = 0
    _bytes: int = 0

    def accepts(self, group: FileGroup, left_out: Sequence[str]) -> bool:
        policy = self.policy
        return not self.numbers or (
            len(self.numbers) < policy.copy_groups
            and self._files + len(group.records) <= policy.copy_files
            and self._bytes + group.size <= policy.copy_bytes
            and sum(len(path.encode()) for path in (*self.left_out, *left_out)) <= policy.group_listing
        )

    def add(self, group: FileGroup, left_out: Sequence[str]) -> None:
        self.numbers.append(group.number)
        self.left_out += left_out
        self._files += len(group.records)
        self._bytes += group.size
