"""FileRepository on Amazon DynamoDB."""

import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pynamodb.attributes import (
    BinaryAttribute,
    BooleanAttribute,
    MapAttribute,
    NumberAttribute,
    TTLAttribute,
    UnicodeAttribute,
)
from pynamodb.connection import Connection
from pynamodb.exceptions import DoesNotExist
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.operand import Path
from pynamodb.expressions.update import Action
from pynamodb.models import Model as Item
from pynamodb.transactions import TransactWrite

from modelhaul.adapters.dynamodb.connection import (
    TRANSACTION_LIMIT,
    CancelledError,
    bind_item,
    open_transaction,
    retry_write,
    to_moment,
    translate_errors,
    update_item,
    write_parallel,
)
from modelhaul.adapters.dynamodb.task_items import TaskItem, progress_actions, read_task
from modelhaul.domain.digests import Digest
from modelhaul.domain.errors import LeaseLostError, TaskEndedError
from modelhaul.domain.files import Checkpoint, FileKind, FileRecord, FileResult, Part, SourceFile
from modelhaul.domain.tasks import Progress, TaskStatus
from modelhaul.ports.clock import Clock
from modelhaul.ports.files import FileRepository

_FILE_TTL = 14 * 86_400  # seconds after planning
_MAX_FINISHED = 90  # files of one transaction
_PART = struct.Struct(">16sI")  # ETag and CRC-32; 10,000 parts take 200 KB of an item's limit of 400 KB


class CheckpointMap(MapAttribute[str, Any]):
    """Attributes of a checkpoint. `parts` are packed as `_PART`, in the order of their numbers."""

    upload_id = UnicodeAttribute()
    part_size = NumberAttribute()
    offset = NumberAttribute()
    parts = BinaryAttribute(legacy_encoding=False)
    hash_state = BinaryAttribute(legacy_encoding=False)
    source_etag = UnicodeAttribute(null=True)


class FileItem(Item):
    """Item of a file. `done` is absent until the file is done, `kind` is absent for FileKind.FILE, and the lease
    attributes are absent unless the file is leased.
    """

    task_id = UnicodeAttribute(hash_key=True)
    path = UnicodeAttribute(range_key=True)
    size = NumberAttribute()
    digest = UnicodeAttribute()
    locator = UnicodeAttribute(null=True)
    kind = UnicodeAttribute(null=True)
    done = BooleanAttribute(null=True)
    sha256 = UnicodeAttribute(null=True)
    etag = UnicodeAttribute(null=True)
    reused = BooleanAttribute(null=True)
    checkpoint = CheckpointMap(null=True)  # type: ignore[no-untyped-call]
    lease_owner = UnicodeAttribute(null=True)
    lease_until = NumberAttribute(null=True)
    expires_at = TTLAttribute()


def _to_file(item: FileItem) -> FileRecord:
    return FileRecord(
        task_id=item.task_id,
        file=SourceFile(
            item.path,
            int(item.size),
            Digest.parse(item.digest),
            item.locator or "",
            FileKind(item.kind or FileKind.FILE),
        ),
        done=bool(item.done),
        sha256=item.sha256,
        etag=item.etag,
        reused=bool(item.reused),
        checkpoint=_to_checkpoint(item.checkpoint),
        lease_until=float(item.lease_until or 0),
    )


def _to_checkpoint(item: CheckpointMap | None) -> Checkpoint | None:
    if item is None:
        return None
    return Checkpoint(
        upload_id=item.upload_id,
        part_size=int(item.part_size),
        offset=int(item.offset),
        parts=_unpack_parts(item.parts),
        hash_state=item.hash_state,
        source_etag=item.source_etag,
    )


def _from_checkpoint(checkpoint: Checkpoint) -> dict[str, object]:
    return {
        "upload_id": checkpoint.upload_id,
        "part_size": checkpoint.part_size,
        "offset": checkpoint.offset,
        "parts": b"".join(_PART.pack(bytes.fromhex(part.etag), part.crc32) for part in checkpoint.parts),
        "hash_state": checkpoint.hash_state,
        "source_etag": checkpoint.source_etag,
    }


def _unpack_parts(packed: bytes) -> tuple[Part, ...]:
    return tuple(
        Part(number, etag.hex(), crc32) for number, (etag, crc32) in enumerate(_PART.iter_unpack(packed), start=1)
    )


def _find_offset(item: FileItem) -> int | None:
    checkpoint: CheckpointMap | None = item.checkpoint
    return None if checkpoint is None else int(checkpoint.offset)


def _match_offset(offset: int | None) -> Condition:
    if offset is None:
        return FileItem.checkpoint.does_not_exist()
    return Path("checkpoint.offset") == offset


class DynamoDBFileRepository(FileRepository):
    """Files in the table of files. The progress counts are in the table of tasks."""

    def __init__(
        self,
        connection: Connection,
        *,
        tasks_table: str,
        files_table: str,
        clock: Clock = time.time,
    ) -> None:
        self._connection = connection
        self._tasks = bind_item(TaskItem, tasks_table, connection)
        self._files = bind_item(FileItem, files_table, connection)
        self._clock = clock

    @translate_errors()
    def put_files(self, task_id: str, files: Iterable[SourceFile]) -> None:
        expires_at = to_moment(self._clock() + _FILE_TTL)

        # A transaction with if_not_exists, because a batch write would reset a file that a worker finishes at the same
        # time, after an earlier delivery of the same plan.
        def write(batch: tuple[SourceFile, ...]) -> None:
            def put() -> None:
                with open_transaction(self._connection) as transaction:
                    for file in batch:
                        transaction.update(
                            self._files(task_id, file.path),
                            actions=[
                                FileItem.size.set(FileItem.size | file.size),
                                FileItem.digest.set(FileItem.digest | str(file.digest)),
                                FileItem.expires_at.set(FileItem.expires_at | expires_at),
                                *([FileItem.locator.set(FileItem.locator | file.locator)] if file.locator else []),
                                *(
                                    [FileItem.kind.set(file.kind), FileItem.done.set(value=True)]
                                    if file.kind is not FileKind.FILE
                                    else []
                                ),
                            ],
                        )

            retry_write(put, to_files=True)

        write_parallel(write, {file.path: file for file in files}.values(), TRANSACTION_LIMIT)

    def list_files(self, task_id: str) -> Iterator[FileRecord]:
        with translate_errors():
            yield from map(_to_file, self._files.query(task_id, consistent_read=True))

    @translate_errors()
    def find_files(self, task_id: str, paths: Sequence[str]) -> list[FileRecord]:
        keys = [(task_id, path) for path in paths]
        return [_to_file(item) for item in self._files.batch_get(keys, consistent_read=True)]

    @translate_errors()
    def lease_file(self, task_id: str, path: str, *, owner: str, now: float, until: float) -> FileRecord | None:
        item = self._files(task_id, path)
        is_free = (
            FileItem.lease_owner.does_not_exist() | (FileItem.lease_owner == owner) | (FileItem.lease_until <= now)
        )
        leased = update_item(
            item,
            [FileItem.lease_owner.set(owner), FileItem.lease_until.set(until)],
            FileItem.size.exists() & FileItem.done.does_not_exist() & is_free,
        )
        return _to_file(item) if leased else None

    @translate_errors()
    def renew_lease(self, task_id: str, path: str, *, owner: str, until: float) -> None:
        item = self._files(task_id, path)
        if not update_item(item, [FileItem.lease_until.set(until)], FileItem.lease_owner == owner):
            raise _lost_lease(path)

    @translate_errors()
    def release_lease(self, task_id: str, path: str, *, owner: str) -> None:
        actions = [FileItem.lease_owner.remove(), FileItem.lease_until.remove()]
        update_item(self._files(task_id, path), actions, FileItem.lease_owner == owner)

    @translate_errors()
    def save_checkpoint(
        self,
        task_id: str,
        path: str,
        checkpoint: Checkpoint | None,
        *,
        owner: str,
        until: float,
        check_at: float,
    ) -> None:
        stored_form = _from_checkpoint(checkpoint) if checkpoint else None
        change = FileItem.checkpoint.set(stored_form) if stored_form else FileItem.checkpoint.remove()

        def save() -> None:
            try:
                attributes = ["lease_owner", "checkpoint.offset"]
                stored = self._files.get(task_id, path, consistent_read=True, attributes_to_get=attributes)
            except DoesNotExist:
                raise _lost_lease(path) from None
            if stored.lease_owner != owner:
                raise _lost_lease(path)
            offset = _find_offset(stored)
            moved = (checkpoint.offset if checkpoint else 0) - (offset or 0)
            try:
                with open_transaction(self._connection) as transaction:
                    transaction.update(
                        self._files(task_id, path),
                        actions=[change, FileItem.lease_until.set(until)],
                        condition=(FileItem.lease_owner == owner) & _match_offset(offset),
                    )
                    self._count(transaction, task_id, check_at, [TaskItem.bytes_done.add(moved)])
            except CancelledError as cancelled:
                if cancelled.last_condition_failed:
                    raise _ended_task(task_id) from None
                raise

        retry_write(save, to_files=True)

    def _count(self, transaction: TransactWrite, task_id: str, check_at: float, counts: Sequence[Action]) -> None:
        transaction.update(
            self._tasks(task_id),
            actions=[
                *progress_actions(self._clock(), check_at),
                TaskItem.bytes_counted_at.set(to_moment(self._clock())),
                *counts,
            ],
            condition=TaskItem.status == TaskStatus.PENDING,
        )

    @translate_errors()
    def finish_files(self, task_id: str, results: Sequence[FileResult], *, check_at: float) -> Progress:
        if len(results) > _MAX_FINISHED:
            raise ValueError(f"Cannot finish {len(results)} files at once. The limit is {_MAX_FINISHED}.")

        def finish() -> None:
            stored = self._files.batch_get(
                [(task_id, result.file.path) for result in results],
                consistent_read=True,
                attributes_to_get=["path", "done", "checkpoint.offset"],
            )
            offsets = {item.path: _find_offset(item) for item in stored if not item.done}
            fresh = {r.file.path: r for r in results if r.file.path in offsets}
            if not fresh:
                return
            counts = [
                TaskItem.files_done.add(len(fresh)),
                TaskItem.bytes_done.add(sum(r.file.size - (offsets[path] or 0) for path, r in fresh.items())),
                TaskItem.bytes_reused.add(sum(r.file.size for r in fresh.values() if r.reused)),
            ]
            try:
                with open_transaction(self._connection) as transaction:
                    for path, result in fresh.items():
                        self._finish_file(transaction, task_id, result, offsets[path])
                    self._count(transaction, task_id, check_at, counts)
            except CancelledError as cancelled:
                if cancelled.last_condition_failed:
                    raise _ended_task(task_id) from None
                raise

        retry_write(finish, to_files=True)
        task = read_task(self._tasks, task_id)
        if task is None or task.status is not TaskStatus.PENDING:
            raise _ended_task(task_id)
        return task.progress

    def _finish_file(self, transaction: TransactWrite, task_id: str, result: FileResult, offset: int | None) -> None:
        transaction.update(
            self._files(task_id, result.file.path),
            actions=[
                FileItem.done.set(True),
                FileItem.sha256.set(result.sha256),
                FileItem.etag.set(result.etag),
                FileItem.reused.set(result.reused),
                FileItem.checkpoint.remove(),
                FileItem.lease_owner.remove(),
                FileItem.lease_until.remove(),
            ],
            condition=FileItem.done.does_not_exist() & _match_offset(offset),
        )


def _lost_lease(path: str) -> LeaseLostError:
    return LeaseLostError(f"Another function has leased {path}.")


def _ended_task(task_id: str) -> TaskEndedError:
    return TaskEndedError(f"Task {task_id} has already ended.")
