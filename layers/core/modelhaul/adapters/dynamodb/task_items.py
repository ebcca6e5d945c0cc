"""DynamoDB items of tasks, and the errors and selections that tasks and models have in common."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pynamodb.attributes import (
    BinaryAttribute,
    BooleanAttribute,
    ListAttribute,
    MapAttribute,
    NumberAttribute,
    TTLAttribute,
    UnicodeAttribute,
    UTCDateTimeAttribute,
)
from pynamodb.expressions.update import Action
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex, KeysOnlyProjection
from pynamodb.models import Model as Item

from modelhaul.adapters.dynamodb.connection import find_item, to_moment
from modelhaul.adapters.dynamodb.policy_items import pack_results, unpack_results
from modelhaul.domain.archives import Archive, SkippedDirectory
from modelhaul.domain.models import ModelError, Source
from modelhaul.domain.selection import WHOLE, Selection, Weights
from modelhaul.domain.tasks import Progress, Stage, Task, TaskError, Waiting

WATCHED = "1"
KIND = "task"  # the only partition of the index by creation
TASK_TTL = 90 * 86_400  # seconds after the task's end


class ErrorMap(MapAttribute[str, Any]):
    """Attributes of a TaskError or a ModelError."""

    type = UnicodeAttribute()
    detail = UnicodeAttribute()
    retryable = BooleanAttribute()
    remedy = UnicodeAttribute(null=True)


class TasksByCheck(GlobalSecondaryIndex["TaskItem"]):  # type: ignore[no-untyped-call]
    """Sparse index of watched tasks, which have the attribute `watch`."""

    class Meta:
        index_name = "tasks-by-check"
        projection = AllProjection()

    watch = UnicodeAttribute(hash_key=True)
    check_at = NumberAttribute(range_key=True)


class TasksByCreation(GlobalSecondaryIndex["TaskItem"]):  # type: ignore[no-untyped-call]
    """Index of all tasks. Its keys never change, so updates of a task do not write to it."""

    class Meta:
        index_name = "tasks-by-creation"
        projection = KeysOnlyProjection()

    kind = UnicodeAttribute(hash_key=True)
    created_at = UTCDateTimeAttribute(range_key=True)


class ArchiveMap(MapAttribute[str, Any]):
    """Attributes of an Archive."""

    key = UnicodeAttribute()
    file_name = UnicodeAttribute()
    model_name = UnicodeAttribute(null=True)
    size = NumberAttribute(null=True)
    etag = UnicodeAttribute(null=True)
    upload_id = UnicodeAttribute(null=True)
    part_size = NumberAttribute(null=True)


class WaitingMap(MapAttribute[str, Any]):
    """Attributes of a Waiting."""

    reason = UnicodeAttribute()
    detail = UnicodeAttribute()
    since = UTCDateTimeAttribute()
    attempt = NumberAttribute()
    next_attempt = UTCDateTimeAttribute()
    recorded_at = UTCDateTimeAttribute()


class TaskItem(Item):
    """Item of a task.

    `skipped` is zlib-compressed JSON: a list of [directory, missing files]. `policy` is zlib-compressed JSON: the
    fields of a PolicyResult by model ID. `selection` is as in ModelItem. DynamoDB
    bills each progress update by the size of the whole item.
    """

    by_check = TasksByCheck()
    by_creation = TasksByCreation()

    id = UnicodeAttribute(hash_key=True)
    source = UnicodeAttribute()
    model_tag = UnicodeAttribute()
    commit = UnicodeAttribute(null=True)
    kind = UnicodeAttribute(default=KIND)
    model_ids: ListAttribute[str] = ListAttribute(of=UnicodeAttribute)  # type: ignore[arg-type]
    archive = ArchiveMap(null=True)  # type: ignore[no-untyped-call]
    skipped = BinaryAttribute(null=True, legacy_encoding=False)
    failed_ids: ListAttribute[str] = ListAttribute(of=UnicodeAttribute, null=True)  # type: ignore[arg-type]
    selection = BinaryAttribute(null=True, legacy_encoding=False)
    plan_id = UnicodeAttribute(null=True)
    transfer_began_at = UTCDateTimeAttribute(null=True)
    bytes_counted_at = UTCDateTimeAttribute(null=True)
    waiting = WaitingMap(null=True)  # type: ignore[no-untyped-call]
    waiting_stage = UnicodeAttribute(null=True)
    submitted_by = UnicodeAttribute(null=True)
    cancelled_by = UnicodeAttribute(null=True)
    policy = BinaryAttribute(null=True, legacy_encoding=False)
    created_at = UTCDateTimeAttribute()
    updated_at = UTCDateTimeAttribute()
    status = UnicodeAttribute()
    stage = UnicodeAttribute()
    moved_by = UnicodeAttribute(null=True)  # token of the call that set the stage, to recognize its own write
    files_done = NumberAttribute()
    files_total = NumberAttribute()
    bytes_done = NumberAttribute()
    bytes_total = NumberAttribute()
    bytes_reused = NumberAttribute()
    error = ErrorMap(null=True)  # type: ignore[no-untyped-call]
    watch = UnicodeAttribute(null=True)
    check_at = NumberAttribute()
    sweeps = NumberAttribute()
    expires_at = TTLAttribute(null=True)


def to_task(item: TaskItem) -> Task:
    return Task(
        id=item.id,
        source=Source(item.source),
        model_tag=item.model_tag,
        model_ids=tuple(item.model_ids),
        created_at=item.created_at,
        updated_at=item.updated_at,
        stage=Stage(item.stage),
        progress=Progress(
            files_done=int(item.files_done),
            files_total=int(item.files_total),
            bytes_done=int(item.bytes_done),
            bytes_total=int(item.bytes_total),
            bytes_reused=int(item.bytes_reused),
        ),
        error=_to_task_error(item.error),
        check_at=float(item.check_at),
        sweeps=int(item.sweeps),
        archive=_to_archive(item.archive),
        skipped=_unpack_skipped(item.skipped),
        failed_ids=tuple(item.failed_ids or ()),
        selection=unpack_selection(item.selection),
        plan_id=item.plan_id,
        transfer_began_at=item.transfer_began_at,
        bytes_counted_at=item.bytes_counted_at,
        commit=item.commit,
        waiting=_to_waiting(item.waiting),
        waiting_stage=Stage(item.waiting_stage) if item.waiting_stage else None,
        submitted_by=item.submitted_by,
        cancelled_by=item.cancelled_by,
        policy_results=unpack_results(item.policy),
    )


def _to_waiting(item: WaitingMap | None) -> Waiting | None:
    if item is None:
        return None
    return Waiting(item.reason, item.detail, item.since, int(item.attempt), item.next_attempt, item.recorded_at)


def from_waiting(waiting: Waiting) -> WaitingMap:
    return WaitingMap(**asdict(waiting))  # type: ignore[no-untyped-call]


def _to_archive(item: ArchiveMap | None) -> Archive | None:
    if item is None:
        return None
    return Archive(
        item.key,
        item.file_name,
        item.model_name,
        _to_bytes(item.size),
        item.etag,
        item.upload_id,
        _to_bytes(item.part_size),
    )


def _to_bytes(number: float | None) -> int | None:
    return None if number is None else int(number)


def from_archive(archive: Archive) -> ArchiveMap:
    return ArchiveMap(**asdict(archive))  # type: ignore[no-untyped-call]


def _unpack_skipped(packed: bytes | None) -> tuple[SkippedDirectory, ...]:
    if packed is None:
        return ()
    pairs = json.loads(zlib.decompress(packed).decode("utf-8", "surrogatepass"))
    return tuple(SkippedDirectory(directory, tuple(lacks)) for directory, lacks in pairs)


def pack_skipped(skipped: Sequence[SkippedDirectory]) -> bytes:
    """Compress the skipped directories. 100 directories of 900 bytes with 10 missing files of 80 characters take at
    most 320 KB.

    Text from an archive may contain an unpaired surrogate, which UTF-8 cannot encode without `surrogatepass`.
    """
    pairs = [(entry.directory, entry.lacks) for entry in skipped]
    return zlib.compress(json.dumps(pairs, ensure_ascii=False).encode("utf-8", "surrogatepass"), level=9)


def _to_task_error(error: ErrorMap | None) -> TaskError | None:
    return None if error is None else TaskError(error.type, error.detail, error.retryable, error.remedy)


def to_model_error(error: ErrorMap | None) -> ModelError | None:
    return None if error is None else ModelError(error.type, error.detail, error.retryable, error.remedy)


def from_error(error: TaskError | ModelError) -> dict[str, object]:
    remedy = {"remedy": error.remedy} if error.remedy else {}
    return {"type": error.type, "detail": error.detail, "retryable": error.retryable, **remedy}


def pack_selection(selection: Selection) -> bytes | None:
    return None if selection.is_whole else zlib.compress(json.dumps(asdict(selection), ensure_ascii=False).encode())


def unpack_selection(packed: bytes | None) -> Selection:
    if packed is None:
        return WHOLE
    found = json.loads(zlib.decompress(packed))
    return Selection(tuple(found["allow_patterns"]), tuple(found["ignore_patterns"]), Weights(found["weights"]))


def from_task(items: type[TaskItem], task: Task) -> TaskItem:
    return items(
        id=task.id,
        source=task.source,
        model_tag=task.model_tag,
        commit=task.commit,
        model_ids=list(task.model_ids),
        archive=from_archive(task.archive) if task.archive else None,
        skipped=pack_skipped(task.skipped) if task.skipped else None,
        failed_ids=list(task.failed_ids) or None,
        selection=pack_selection(task.selection),
        plan_id=task.plan_id,
        transfer_began_at=task.transfer_began_at,
        bytes_counted_at=task.bytes_counted_at,
        waiting=from_waiting(task.waiting) if task.waiting else None,
        waiting_stage=task.waiting_stage,
        submitted_by=task.submitted_by,
        cancelled_by=task.cancelled_by,
        policy=pack_results(task.policy_results) if task.policy_results else None,
        created_at=task.created_at,
        updated_at=task.updated_at,
        status=task.status,
        stage=task.stage,
        files_done=task.progress.files_done,
        files_total=task.progress.files_total,
        bytes_done=task.progress.bytes_done,
        bytes_total=task.progress.bytes_total,
        bytes_reused=task.progress.bytes_reused,
        error=from_error(task.error) if task.error else None,
        watch=WATCHED,
        check_at=task.check_at,
        sweeps=task.sweeps,
    )


def progress_actions(now: float, check_at: float) -> list[Action]:
    """Return the actions of every write that records progress of the task."""
    return [TaskItem.updated_at.set(to_moment(now)), TaskItem.check_at.set(check_at), TaskItem.sweeps.set(0)]


def read_task(items: type[TaskItem], task_id: str) -> Task | None:
    """Return the task, None if it does not exist. Strongly consistent."""
    item = find_item(items, task_id)
    return None if item is None else to_task(item)
