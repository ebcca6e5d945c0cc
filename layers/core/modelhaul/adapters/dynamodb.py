"""The ledger in four DynamoDB tables, whose keys and TTL `template.yaml` has."""

import base64
import json
import random
import re
import struct
import time
import types
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import batched, islice
from types import MappingProxyType
from typing import Any

from botocore.exceptions import ClientError
from botocore.session import Session
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
from pynamodb.connection import Connection
from pynamodb.exceptions import (
    DeleteError,
    DoesNotExist,
    PutError,
    PynamoDBException,
    TransactWriteError,
    UpdateError,
)
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.operand import Path
from pynamodb.expressions.update import Action
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex, KeysOnlyProjection
from pynamodb.models import Model as Item
from pynamodb.transactions import TransactWrite

from modelhaul.adapters.aws import open_session
from modelhaul.domain.archives import Archive, SkippedDirectory
from modelhaul.domain.digests import Digest
from modelhaul.domain.errors import (
    DeletionInProgressError,
    ImportInProgressError,
    InvalidReferenceError,
    LeaseLostError,
    ModelExistsError,
    StorageUnavailableError,
    TaskEndedError,
)
from modelhaul.domain.files import Checkpoint, FileKind, FileRecord, FileResult, Part, SourceFile
from modelhaul.domain.findings import FileInspection, FileVerdict, Finding, FindingKind, Severity
from modelhaul.domain.gate import GateReport, GateVerdict, SecondOpinion
from modelhaul.domain.models import Model, ModelError, ModelPage, ModelStatus, ResolvedModel, Source
from modelhaul.domain.objects import Blob
from modelhaul.domain.selection import WHOLE, Selection, Weights
from modelhaul.domain.tasks import Progress, Stage, Task, TaskError, TaskPage, TaskStatus
from modelhaul.ports.clock import Clock
from modelhaul.ports.ledger import Ledger

_TASK_TTL = 90 * 86_400  # seconds after the task's end
_FILE_TTL = 14 * 86_400  # seconds after planning
_WATCHED = "1"
_STAGED = "staged:"
_KIND = "task"  # the one partition of the index by creation
_LIST_PAGES = 10  # of the index, looked through for one page of a list
_FILTERED_PAGE = 1000  # models that are looked at by one query for those that fit
_READY, _DELETING = "ready", "deleting"  # shelves
_CURSOR = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{6}\+0000 [0-9a-f-]{36}")

# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
_TRANSACTION_LIMIT = 100
_BATCH_LIMIT = 25
_BATCH_GET_LIMIT = 100
_KEY_LIMIT = 2048  # bytes of a partition key

_FINISH_LIMIT = 90
_TRIES = 8
# Of a write that meets the limit of its partition: all files of a task are in one, which takes 1,000 units a second, 5
# groups of files. Every function that waits gets its turn.
_THROTTLED_TRIES = 60
_THROTTLES = {"ThrottlingError", "ThrottlingException", "ProvisionedThroughputExceededException"}
_PARALLEL_WRITES = 4
_CONDITION_FAILED = "ConditionalCheckFailed"  # in a transaction; a single write's code adds "Exception"
_PART = struct.Struct(">16sI")  # ETag and CRC-32: 10,000 parts take 200 KB of the 400 KB an item may have
_STAGE_ORDER = (Stage.PLANNING, Stage.TRANSFERRING, Stage.VERIFIED, Stage.PUBLISHING)


class ErrorMap(MapAttribute[str, Any]):
    """A TaskError or a ModelError."""

    type = UnicodeAttribute()
    detail = UnicodeAttribute()
    retryable = BooleanAttribute()


class TasksByCheck(GlobalSecondaryIndex["TaskItem"]):  # type: ignore[no-untyped-call]
    """Sparse: a task is in it while it has `watch`."""

    class Meta:
        index_name = "tasks-by-check"
        projection = AllProjection()

    watch = UnicodeAttribute(hash_key=True)
    check_at = NumberAttribute(range_key=True)


class TasksByCreation(GlobalSecondaryIndex["TaskItem"]):  # type: ignore[no-untyped-call]
    """All tasks, by keys that never change: nothing that a task goes through writes to it."""

    class Meta:
        index_name = "tasks-by-creation"
        projection = KeysOnlyProjection()

    kind = UnicodeAttribute(hash_key=True)
    created_at = UTCDateTimeAttribute(range_key=True)


class ArchiveMap(MapAttribute[str, Any]):
    key = UnicodeAttribute()
    file_name = UnicodeAttribute()
    model_name = UnicodeAttribute(null=True)
    size = NumberAttribute(null=True)
    etag = UnicodeAttribute(null=True)


class TaskItem(Item):
    """`skipped` is zlib's, of JSON: a list of [directory, what it lacks]; `selection` as in ModelItem. Every count of
    progress writes the whole item, and is paid for by its size.
    """

    by_check = TasksByCheck()
    by_creation = TasksByCreation()

    id = UnicodeAttribute(hash_key=True)
    source = UnicodeAttribute()
    model_tag = UnicodeAttribute()
    kind = UnicodeAttribute(default=_KIND)
    model_ids: ListAttribute[str] = ListAttribute(of=UnicodeAttribute)  # type: ignore[arg-type]
    archive = ArchiveMap(null=True)  # type: ignore[no-untyped-call]
    skipped = BinaryAttribute(null=True, legacy_encoding=False)
    failed_ids: ListAttribute[str] = ListAttribute(of=UnicodeAttribute, null=True)  # type: ignore[arg-type]
    selection = BinaryAttribute(null=True, legacy_encoding=False)
    transfer_began_at = UTCDateTimeAttribute(null=True)
    bytes_counted_at = UTCDateTimeAttribute(null=True)
    created_at = UTCDateTimeAttribute()
    updated_at = UTCDateTimeAttribute()
    status = UnicodeAttribute()
    stage = UnicodeAttribute()
    moved_by = UnicodeAttribute(null=True)  # the call that brought it to its stage: how that knows itself again
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


class ModelsByShelf(GlobalSecondaryIndex["ModelItem"]):  # type: ignore[no-untyped-call]
    """Sparse: the models that can be listed, and those that are being deleted. An import writes to it once."""

    class Meta:
        index_name = "models-by-shelf"
        projection = AllProjection()

    shelf = UnicodeAttribute(hash_key=True)
    created_at = UTCDateTimeAttribute(range_key=True)


class ModelItem(Item):
    """`gate` and `selection` are zlib's, of JSON: the fields of GateReport, and of a Selection that is not all.
    `lower_name` is what names are looked for in, `shelf` is absent unless the model is READY or DELETING, the lease's
    attributes unless it is DELETING.
    """

    by_shelf = ModelsByShelf()

    model_id = UnicodeAttribute(hash_key=True)
    source = UnicodeAttribute()
    name = UnicodeAttribute()
    revision = UnicodeAttribute()
    commit = UnicodeAttribute()
    root = UnicodeAttribute(null=True)
    selection = BinaryAttribute(null=True, legacy_encoding=False)
    status = UnicodeAttribute()
    task_id = UnicodeAttribute()
    created_at = UTCDateTimeAttribute()
    updated_at = UTCDateTimeAttribute()
    files = NumberAttribute()
    size = NumberAttribute()
    gate = BinaryAttribute(legacy_encoding=False, null=True)
    error = ErrorMap(null=True)  # type: ignore[no-untyped-call]
    shelf = UnicodeAttribute(null=True)
    lower_name = UnicodeAttribute()
    lease_owner = UnicodeAttribute(null=True)
    lease_until = NumberAttribute(null=True)


class CheckpointMap(MapAttribute[str, Any]):
    """`parts` are packed as `_PART`, in the order of their numbers."""

    upload_id = UnicodeAttribute()
    part_size = NumberAttribute()
    offset = NumberAttribute()
    parts = BinaryAttribute(legacy_encoding=False)
    hash_state = BinaryAttribute(legacy_encoding=False)
    source_etag = UnicodeAttribute(null=True)


class FileItem(Item):
    """`done` is absent until the file is done, the lease's attributes while nobody has it, `kind` of a file."""

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


class BlobItem(Item):
    """`digest` has `_STAGED` before it where the blob expires: neither takes the other's place, without a condition."""

    digest = UnicodeAttribute(hash_key=True)
    sha256 = UnicodeAttribute()
    key = UnicodeAttribute()
    size = NumberAttribute()
    etag = UnicodeAttribute()
    expires_at = TTLAttribute(null=True)


def _to_task(item: TaskItem) -> Task:
    return Task(
        id=item.id,
        source=Source(item.source),
        model_tag=item.model_tag,
        model_ids=tuple(item.model_ids),
        created_at=item.created_at,
        updated_at=item.updated_at,
        status=TaskStatus(item.status),
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
        selection=_unpack_selection(item.selection),
        transfer_began_at=item.transfer_began_at,
        bytes_counted_at=item.bytes_counted_at,
    )


def _to_archive(item: ArchiveMap | None) -> Archive | None:
    if item is None:
        return None
    size: float | None = item.size
    return Archive(item.key, item.file_name, item.model_name, None if size is None else int(size), item.etag)


def _from_archive(archive: Archive) -> ArchiveMap:
    return ArchiveMap(**asdict(archive))  # type: ignore[no-untyped-call]


def _unpack_skipped(packed: bytes | None) -> tuple[SkippedDirectory, ...]:
    if packed is None:
        return ()
    pairs = json.loads(zlib.decompress(packed).decode("utf-8", "surrogatepass"))
    return tuple(SkippedDirectory(directory, tuple(lacks)) for directory, lacks in pairs)


def _pack_skipped(skipped: Sequence[SkippedDirectory]) -> bytes:
    """100 directories of 900 bytes that lack 10 files of 80 characters each take at most 320 KB, whatever these are.

    Text out of an archive may hold half a surrogate pair, which UTF-8 has no form for.
    """
    pairs = [(one.directory, one.lacks) for one in skipped]
    return zlib.compress(json.dumps(pairs, ensure_ascii=False).encode("utf-8", "surrogatepass"), level=9)


def _to_task_error(error: ErrorMap | None) -> TaskError | None:
    return None if error is None else TaskError(error.type, error.detail, error.retryable)


def _to_model_error(error: ErrorMap | None) -> ModelError | None:
    return None if error is None else ModelError(error.type, error.detail, error.retryable)


def _from_error(error: TaskError | ModelError) -> dict[str, object]:
    return {"type": error.type, "detail": error.detail, "retryable": error.retryable}


def _to_model(item: ModelItem) -> Model:
    return Model(
        model_id=item.model_id,
        resolved=ResolvedModel(
            Source(item.source),
            item.name,
            item.revision,
            item.commit,
            item.root or "",
            _unpack_selection(item.selection),
        ),
        status=ModelStatus(item.status),
        task_id=item.task_id,
        created_at=item.created_at,
        updated_at=item.updated_at,
        files=int(item.files),
        size=int(item.size),
        gate=_unpack_gate(item.gate),
        error=_to_model_error(item.error),
    )


def _pack_selection(selection: Selection) -> bytes | None:
    return None if selection.is_whole else zlib.compress(json.dumps(asdict(selection), ensure_ascii=False).encode())


def _unpack_selection(packed: bytes | None) -> Selection:
    if packed is None:
        return WHOLE
    found = json.loads(zlib.decompress(packed))
    return Selection(tuple(found["allow_patterns"]), tuple(found["ignore_patterns"]), Weights(found["weights"]))


def _pack_gate(report: GateReport) -> bytes:
    return zlib.compress(json.dumps(asdict(report), ensure_ascii=False).encode())


def _unpack_gate(packed: bytes | None) -> GateReport | None:
    if packed is None:
        return None
    found = json.loads(zlib.decompress(packed))
    opinion = found.get("second_opinion")
    return GateReport(
        GateVerdict(found["verdict"]),
        tuple(found["reasons"]),
        tuple(found["flags"]),
        tuple((path, sha256) for path, sha256 in found["scanned"]),
        SecondOpinion(opinion) if opinion else None,
        tuple(_to_file_inspection(file) for file in found.get("files", ())),
        tuple(found.get("left_out", ())),
    )


def _to_file_inspection(found: dict[str, Any]) -> FileInspection:
    findings = tuple(Finding(FindingKind(f["kind"]), Severity(f["severity"]), f["detail"]) for f in found["findings"])
    return FileInspection(**{**found, "verdict": FileVerdict(found["verdict"]), "findings": findings})


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


class _CancelledError(Exception):
    """A write that was not done, but could be if it is tried again on what is there now."""

    def __init__(self, codes: Sequence[str | None] = ()) -> None:
        super().__init__()
        self._codes = codes

    @property
    def last_condition_failed(self) -> bool:
        """Whether the condition of the transaction's last action did not hold."""
        return list(self._codes[-1:]) == [_CONDITION_FAILED]

    @property
    def throttled(self) -> bool:
        return not _THROTTLES.isdisjoint(self._codes)


def _find_code(error: PynamoDBException) -> str | None:
    """DynamoDB's code, None if it did not answer (there pynamodb 6.1's own `cause_response_code` fails)."""
    return error.cause_response_code if isinstance(error.cause, ClientError) else None


@contextmanager
def translate_errors() -> Iterator[None]:
    try:
        yield
    except PynamoDBException as error:
        # The error's own text names tables and accounts.
        reason = _find_code(error) or type(error.cause or error).__name__
        raise StorageUnavailableError(f"The database did not do what it was asked to ({reason}).") from error


def _retry[T](write: Callable[[], T], *, to_files: bool = False) -> T:
    """Tries until `write` is not cancelled, at most eight times with less than five seconds of pauses; one that goes
    `to_files` and is throttled for about half a minute.
    """
    for attempt in range(1, _THROTTLED_TRIES + 1):
        try:
            return write()
        except _CancelledError as cancelled:
            if attempt >= _TRIES and not (to_files and cancelled.throttled):
                break
        time.sleep(random.uniform(0, min(1.0, 0.05 * 2**attempt)))  # noqa: S311 - spreads the writers
    raise StorageUnavailableError("The database is too busy with other writes to the same record.")


class _Connection(Connection):
    """Over the session that all clients share, instead of one for each thread."""

    @property
    def session(self) -> Session:
        return open_session()


def open_connection(region: str | None) -> Connection:
    """With its client, which pynamodb would build at the first call: too late for a function's init phase, and perhaps
    in two threads at once.
    """
    connection = _Connection(region=region, connect_timeout_seconds=2, read_timeout_seconds=5, max_retry_attempts=2)
    _ = connection.client
    return connection


def bind_item[I: Item](item: type[I], table_name: str, connection: Connection) -> type[I]:
    """The model for one table. All share a connection, since each client costs 120 ms of a cold start."""
    meta = type("Meta", (), {"table_name": table_name})
    bound: type[I] = types.new_class(item.__name__, (item,), exec_body=lambda body: body.update(Meta=meta))
    table = bound._get_connection()  # noqa: SLF001 - pynamodb has no public way to give a model its connection
    connection.add_meta_table(table.get_meta_table())
    table.connection = connection
    return bound


def _is_key(text: str) -> bool:
    try:
        return 0 < len(text.encode()) <= _KEY_LIMIT
    except UnicodeEncodeError:
        return False


def find_item[I: Item](item: type[I], key: str) -> I | None:
    if not _is_key(key):
        return None
    try:
        return item.get(key, consistent_read=True)
    except DoesNotExist:
        return None


def update_item(item: Item, actions: Sequence[Action], condition: Condition) -> bool:
    """False if the condition does not hold; else the item has all attributes as they are after it."""

    def update() -> bool:
        try:
            item.update(actions=list(actions), condition=condition)
        except UpdateError as error:
            code = _find_code(error)
            if code == f"{_CONDITION_FAILED}Exception":
                return False
            if code == "TransactionConflictException":
                raise _CancelledError from error
            raise
        return True

    return _retry(update)


def delete_item(item: Item, condition: Condition) -> None:
    """Without effect if the condition does not hold, as it does not once the item is gone."""
    try:
        item.delete(condition=condition)
    except DeleteError as error:
        if _find_code(error) != f"{_CONDITION_FAILED}Exception":
            raise


def _write_parallel[T](write: Callable[[tuple[T, ...]], None], items: Iterable[T], batch_size: int) -> None:
    with ThreadPoolExecutor(_PARALLEL_WRITES) as pool:
        for _ in pool.map(write, batched(items, batch_size, strict=False)):
            pass


class DynamoDBLedger(Ledger):
    """Builds its one client on first use, for the endpoint that botocore finds (AWS_ENDPOINT_URL).

    A request is tried three times, of at most 7 s each.
    """

    def __init__(
        self,
        *,
        tasks_table: str,
        models_table: str,
        files_table: str,
        blobs_table: str,
        region: str | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._connection = open_connection(region)
        self._tasks = bind_item(TaskItem, tasks_table, self._connection)
        self._models = bind_item(ModelItem, models_table, self._connection)
        self._files = bind_item(FileItem, files_table, self._connection)
        self._blobs = bind_item(BlobItem, blobs_table, self._connection)
        self._clock = clock

    # botocore's own retries of a transaction carry one token, by which DynamoDB knows a repetition. Calls
    # repeated from outside have another one: what a failed condition means is read back before it counts.
    # https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html
    @contextmanager
    def _transaction(self) -> Iterator[TransactWrite]:
        try:
            with TransactWrite(connection=self._connection) as transaction:
                yield transaction
        except TransactWriteError as error:
            code = _find_code(error)
            if code == "TransactionCanceledException":
                raise _CancelledError([r.code if r else None for r in error.cancellation_reasons]) from error
            if code in _THROTTLES:
                raise _CancelledError([code]) from error
            raise

    def _now(self, *, later: float = 0) -> datetime:
        return datetime.fromtimestamp(self._clock() + later, UTC)

    def _progress_actions(self, check_at: float) -> list[Action]:
        return [
            TaskItem.updated_at.set(self._now()),
            TaskItem.check_at.set(check_at),
            TaskItem.sweeps.set(0),
        ]

    @translate_errors()
    def claim_import(self, task: Task, models: Sequence[Model]) -> None:
        task_item = self._from_task(task)

        def claim() -> None:
            try:
                with self._transaction() as transaction:
                    transaction.save(task_item, condition=TaskItem.id.does_not_exist())
                    self._save_claims(transaction, models)
            except _CancelledError:
                # If the task is there, so are its claims: an earlier reply was lost.
                if self.find_task(task.id) is None:
                    self._refuse_held(task.id, models)
                    raise

        _retry(claim)

    @translate_errors()
    def claim_models(
        self, task_id: str, models: Sequence[Model], skipped: Sequence[SkippedDirectory], *, check_at: float
    ) -> Task | None:
        def claim() -> Task | None:
            task = self.find_task(task_id)
            if task is None or task.status is not TaskStatus.PENDING or task.stage is not Stage.INSPECTING:
                return task
            try:
                with self._transaction() as transaction:
                    transaction.update(
                        self._tasks(task_id),
                        actions=[
                            *self._progress_actions(check_at),
                            TaskItem.stage.set(Stage.PLANNING),
                            TaskItem.model_ids.set([model.model_id for model in models]),
                            *([TaskItem.skipped.set(_pack_skipped(skipped))] if skipped else []),
                        ],
                        condition=(TaskItem.status == TaskStatus.PENDING) & (TaskItem.stage == Stage.INSPECTING),
                    )
                    self._save_claims(transaction, models)
            except _CancelledError:
                # Tried again, this finds the task moved on if an earlier reply was lost.
                self._refuse_held(task_id, models)
                raise
            return self.find_task(task_id)

        return _retry(claim)

    def _save_claims(self, transaction: TransactWrite, models: Sequence[Model]) -> None:
        is_free = ModelItem.model_id.does_not_exist() | (ModelItem.status == ModelStatus.FAILED)
        for model in models:
            transaction.save(self._from_model(model), condition=is_free)

    def _refuse_held(self, task_id: str, models: Sequence[Model]) -> None:
        """Raises ModelExistsError, ImportInProgressError or DeletionInProgressError if one of them is not free."""
        found = self.find_models([model.model_id for model in models])
        held = [model for model in found if model.task_id != task_id and model.status is not ModelStatus.FAILED]
        ready = [model for model in held if model.status is ModelStatus.READY]
        if ready:
            names = ", ".join(model.resolved.describe() for model in ready)
            raise ModelExistsError(
                f"{names} {'is' if len(ready) == 1 else 'are'} here already.",
                models={model.model_id: model.resolved.name for model in ready},
            ) from None
        if held:
            first = held[0]
            if first.status is ModelStatus.DELETING:
                raise DeletionInProgressError(
                    f"{first.resolved.describe()} is being deleted. Submit again in some minutes, when it is gone.",
                    model_id=first.model_id,
                ) from None
            raise ImportInProgressError(
                _describe_import(first), model_id=first.model_id, task_id=first.task_id
            ) from None

    @translate_errors()
    def record_task(self, task: Task) -> None:
        try:
            self._from_task(task).save(condition=TaskItem.id.does_not_exist())
        except PutError as error:
            if _find_code(error) != f"{_CONDITION_FAILED}Exception":
                raise

    @translate_errors()
    def record_arrival(self, task_id: str, *, size: int, etag: str, check_at: float) -> Task | None:
        task = self.find_task(task_id)
        if task is None or task.archive is None:
            return task
        item = self._tasks(task_id)
        arrived = _from_archive(replace(task.archive, size=size, etag=etag))
        actions = [
            *self._progress_actions(check_at),
            TaskItem.stage.set(Stage.INSPECTING),
            TaskItem.archive.set(arrived),
        ]
        is_awaited = (TaskItem.status == TaskStatus.PENDING) & (TaskItem.stage == Stage.UPLOADING)
        return _to_task(item) if update_item(item, actions, is_awaited) else self.find_task(task_id)

    def _from_task(self, task: Task) -> TaskItem:
        return self._tasks(
            id=task.id,
            source=task.source,
            model_tag=task.model_tag,
            model_ids=list(task.model_ids),
            archive=_from_archive(task.archive) if task.archive else None,
            skipped=_pack_skipped(task.skipped) if task.skipped else None,
            failed_ids=list(task.failed_ids) or None,
            selection=_pack_selection(task.selection),
            transfer_began_at=task.transfer_began_at,
            bytes_counted_at=task.bytes_counted_at,
            created_at=task.created_at,
            updated_at=task.updated_at,
            status=task.status,
            stage=task.stage,
            files_done=task.progress.files_done,
            files_total=task.progress.files_total,
            bytes_done=task.progress.bytes_done,
            bytes_total=task.progress.bytes_total,
            bytes_reused=task.progress.bytes_reused,
            error=_from_error(task.error) if task.error else None,
            watch=_WATCHED,
            check_at=task.check_at,
            sweeps=task.sweeps,
        )

    def _from_model(self, model: Model) -> ModelItem:
        return self._models(
            model_id=model.model_id,
            source=model.resolved.source,
            name=model.resolved.name,
            lower_name=model.resolved.name.lower(),
            revision=model.resolved.revision,
            commit=model.resolved.commit,
            root=model.resolved.root or None,
            selection=_pack_selection(model.resolved.selection),
            status=model.status,
            task_id=model.task_id,
            created_at=model.created_at,
            updated_at=model.updated_at,
            files=model.files,
            size=model.size,
            error=_from_error(model.error) if model.error else None,
        )

    @translate_errors()
    def find_task(self, task_id: str) -> Task | None:
        item = find_item(self._tasks, task_id)
        return None if item is None else _to_task(item)

    @translate_errors()
    def find_model(self, model_id: str) -> Model | None:
        item = find_item(self._models, model_id)
        return None if item is None else _to_model(item)

    @translate_errors()
    def find_models(self, model_ids: Sequence[str]) -> list[Model]:
        found = {item.model_id: _to_model(item) for item in self._models.batch_get(model_ids, consistent_read=True)}
        return [found[model_id] for model_id in model_ids if model_id in found]

    @translate_errors()
    def list_models(
        self, *, source: Source | None = None, name: str | None = None, limit: int, cursor: str | None = None
    ) -> ModelPage:
        start = None if cursor is None else {"shelf": {"S": _READY}, **_read_cursor(cursor, "model_id")}
        fits: Condition | None = None if source is None else ModelItem.source == source
        if name is not None:
            has_name = ModelItem.lower_name.contains(name.lower())
            fits = has_name if fits is None else fits & has_name
        pages = self._models.by_shelf.query(
            _READY,
            filter_condition=fits,
            scan_index_forward=False,
            page_size=limit if fits is None else _FILTERED_PAGE,
            last_evaluated_key=start,
        ).page_iter
        found: list[dict[str, Any]] = []
        for page in islice(pages, _LIST_PAGES):
            found += page["Items"]
            start = page.get("LastEvaluatedKey")
            if start is None or len(found) >= limit:
                break
        if len(found) > limit:
            start = found[limit - 1]
        models = [_to_model(self._models.from_raw_data(item)) for item in found[:limit]]
        return ModelPage(tuple(models), None if start is None else _write_cursor(start, "model_id"))

    @translate_errors()
    def lease_deletion(self, model_id: str, *, owner: str, now: float, until: float) -> Model | None:
        if not _is_key(model_id):
            return None
        item = self._models(model_id)
        is_free = ModelItem.status.is_in(ModelStatus.READY, ModelStatus.FAILED) | (
            (ModelItem.status == ModelStatus.DELETING)
            & ((ModelItem.lease_owner == owner) | (ModelItem.lease_until <= now))
        )
        actions = [
            ModelItem.status.set(ModelStatus.DELETING),
            ModelItem.shelf.set(_DELETING),
            ModelItem.lease_owner.set(owner),
            ModelItem.lease_until.set(until),
            ModelItem.updated_at.set(self._now()),
        ]
        return _to_model(item) if update_item(item, actions, is_free) else None

    @translate_errors()
    def remove_model(self, model_id: str, *, owner: str) -> None:
        is_ours = (ModelItem.status == ModelStatus.DELETING) & (ModelItem.lease_owner == owner)
        delete_item(self._models(model_id), is_ours)

    @translate_errors()
    def list_deleting(self, now: float, limit: int) -> list[Model]:
        free = ModelItem.lease_until <= now
        return [_to_model(item) for item in self._models.by_shelf.query(_DELETING, filter_condition=free, limit=limit)]

    @translate_errors()
    def list_tasks(
        self, *, source: Source | None = None, status: TaskStatus | None = None, limit: int, cursor: str | None = None
    ) -> TaskPage:
        start = None if cursor is None else {"kind": {"S": _KIND}, **_read_cursor(cursor, "id")}
        tasks: list[Task] = []
        for _ in range(_LIST_PAGES):
            keys = self._tasks.by_creation.query(
                _KIND, scan_index_forward=False, limit=limit - len(tasks), last_evaluated_key=start
            )
            ids = [item.id for item in keys]
            found = {item.id: _to_task(item) for item in self._tasks.batch_get(ids, consistent_read=True)}
            tasks += [
                found[i]
                for i in ids
                if i in found and source in (None, found[i].source) and status in (None, found[i].status)
            ]
            start = keys.last_evaluated_key
            if start is None or len(tasks) == limit:
                break
        return TaskPage(tuple(tasks), None if start is None else _write_cursor(start, "id"))

    @translate_errors()
    def put_files(self, task_id: str, files: Iterable[SourceFile]) -> None:
        expires_at = self._now(later=_FILE_TTL)

        # if_not_exists in a transaction, because a batch write would reset a file that a worker of an earlier
        # delivery of the same plan finishes meanwhile.
        def write(batch: tuple[SourceFile, ...]) -> None:
            def put() -> None:
                with self._transaction() as transaction:
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

            _retry(put, to_files=True)

        _write_parallel(write, {file.path: file for file in files}.values(), _TRANSACTION_LIMIT)

    def list_files(self, task_id: str) -> Iterator[FileRecord]:
        with translate_errors():
            yield from map(_to_file, self._files.query(task_id, consistent_read=True))

    @translate_errors()
    def find_files(self, task_id: str, paths: Sequence[str]) -> list[FileRecord]:
        keys = [(task_id, path) for path in paths]
        return [_to_file(item) for item in self._files.batch_get(keys, consistent_read=True)]

    @translate_errors()
    def start_stage(self, task_id: str, stage: Stage, *, check_at: float, totals: Progress | None = None) -> bool:
        item = self._tasks(task_id)
        token = str(uuid.uuid4())
        actions = [*self._progress_actions(check_at), TaskItem.stage.set(stage), TaskItem.moved_by.set(token)]
        if totals is not None:
            actions.append(TaskItem.files_total.set(totals.files_total))
            actions.append(TaskItem.bytes_total.set(totals.bytes_total))
        if stage is Stage.TRANSFERRING:
            actions.append(TaskItem.transfer_began_at.set(self._now()))
        earlier = _STAGE_ORDER[: _STAGE_ORDER.index(stage)]
        is_before = (TaskItem.status == TaskStatus.PENDING) & TaskItem.stage.is_in(*earlier)
        if update_item(item, actions, is_before):
            return True
        # It was this call if only its reply was lost.
        moved = find_item(self._tasks, task_id)
        return moved is not None and moved.moved_by == token

    @translate_errors()
    def postpone_check(self, task_id: str, *, check_at: float, sweeps: int | None = None) -> None:
        actions = [TaskItem.updated_at.set(self._now()), TaskItem.check_at.set(check_at)]
        if sweeps is not None:
            actions.append(TaskItem.sweeps.set(sweeps))
        update_item(self._tasks(task_id), actions, TaskItem.watch.exists() & (TaskItem.check_at < check_at))

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
                with self._transaction() as transaction:
                    transaction.update(
                        self._files(task_id, path),
                        actions=[change, FileItem.lease_until.set(until)],
                        condition=(FileItem.lease_owner == owner) & _match_offset(offset),
                    )
                    self._count(transaction, task_id, check_at, [TaskItem.bytes_done.add(moved)])
            except _CancelledError as cancelled:
                if cancelled.last_condition_failed:
                    raise _ended_task(task_id) from None
                raise

        _retry(save, to_files=True)

    def _count(self, transaction: TransactWrite, task_id: str, check_at: float, counts: Sequence[Action]) -> None:
        transaction.update(
            self._tasks(task_id),
            actions=[*self._progress_actions(check_at), TaskItem.bytes_counted_at.set(self._now()), *counts],
            condition=TaskItem.status == TaskStatus.PENDING,
        )

    @translate_errors()
    def finish_files(self, task_id: str, results: Sequence[FileResult], *, check_at: float) -> Progress:
        if len(results) > _FINISH_LIMIT:
            raise ValueError(f"{len(results)} files at once; the limit is {_FINISH_LIMIT}")

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
                with self._transaction() as transaction:
                    for path, result in fresh.items():
                        self._finish_file(transaction, task_id, result, offsets[path])
                    self._count(transaction, task_id, check_at, counts)
            except _CancelledError as cancelled:
                if cancelled.last_condition_failed:
                    raise _ended_task(task_id) from None
                raise

        _retry(finish, to_files=True)
        task = self.find_task(task_id)
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

    @translate_errors()
    def finish_import(
        self,
        task_id: str,
        *,
        totals: Mapping[str, tuple[int, int]],
        check_at: float,
        gates: Mapping[str, GateReport] = MappingProxyType({}),
        failed: Mapping[str, ModelError] = MappingProxyType({}),
    ) -> bool:
        def finish() -> bool:
            task = self.find_task(task_id)
            if task is None or task.status is not TaskStatus.PENDING:
                return task is not None and task.status is TaskStatus.DONE
            self._end(
                task,
                [
                    TaskItem.status.set(TaskStatus.DONE),
                    TaskItem.stage.set(Stage.DONE),
                    *([TaskItem.failed_ids.set(list(failed))] if failed else []),
                ],
                {
                    model_id: [
                        ModelItem.status.set(ModelStatus.READY),
                        ModelItem.shelf.set(_READY),
                        ModelItem.files.set(files),
                        ModelItem.size.set(size),
                        *([ModelItem.gate.set(_pack_gate(gates[model_id]))] if model_id in gates else []),
                    ]
                    for model_id, (files, size) in totals.items()
                }
                | {model_id: _fail_model(ModelStatus.FAILED, error.shorten()) for model_id, error in failed.items()},
                check_at,
            )
            return True

        return _retry(finish)

    @translate_errors()
    def fail_import(
        self,
        task_id: str,
        error: TaskError,
        *,
        stage: Stage = Stage.FAILED,
        check_at: float,
        failed: Mapping[str, ModelError] = MappingProxyType({}),
    ) -> bool:
        shared = ModelError(error.type, error.detail, error.retryable)

        def fail() -> bool:
            task = self.find_task(task_id)
            if task is None or task.status is not TaskStatus.PENDING:
                return False
            status = _find_failed_status(task)
            self._end(
                task,
                [
                    TaskItem.status.set(TaskStatus.FAILED),
                    TaskItem.stage.set(stage),
                    TaskItem.error.set(_from_error(error)),
                ],
                {model_id: _fail_model(status, failed.get(model_id, shared).shorten()) for model_id in task.model_ids},
                check_at,
            )
            return True

        return _retry(fail)

    def _end(
        self, task: Task, task_actions: Sequence[Action], model_actions: Mapping[str, Sequence[Action]], check_at: float
    ) -> None:
        now = self._now()
        with self._transaction() as transaction:
            transaction.update(
                self._tasks(task.id),
                actions=[
                    *task_actions,
                    TaskItem.updated_at.set(now),
                    TaskItem.check_at.set(check_at),
                    TaskItem.expires_at.set(self._now(later=_TASK_TTL)),
                ],
                condition=(TaskItem.status == TaskStatus.PENDING) & (TaskItem.stage == task.stage),
            )
            for model_id, actions in model_actions.items():
                transaction.update(
                    self._models(model_id),
                    actions=[*actions, ModelItem.updated_at.set(now)],
                    condition=ModelItem.task_id == task.id,
                )

    @translate_errors()
    def release_models(self, task_id: str) -> None:
        task = self.find_task(task_id)
        is_ours = (ModelItem.task_id == task_id) & (ModelItem.status == ModelStatus.WITHDRAWING)
        actions = [ModelItem.status.set(ModelStatus.FAILED), ModelItem.updated_at.set(self._now())]
        for model_id in task.model_ids if task is not None else ():
            update_item(self._models(model_id), actions, is_ours)

    @translate_errors()
    def unwatch_task(self, task_id: str) -> None:
        has_ended = TaskItem.status.is_in(TaskStatus.DONE, TaskStatus.FAILED)
        update_item(self._tasks(task_id), [TaskItem.watch.remove()], has_ended)

    @translate_errors()
    def list_due(self, now: float, limit: int) -> list[Task]:
        due = self._tasks.by_check.query(_WATCHED, TasksByCheck.check_at <= now, limit=limit)
        return [_to_task(item) for item in due]

    @translate_errors()
    def find_blobs(self, digests: Iterable[str]) -> dict[str, Blob]:
        wanted = dict.fromkeys(digests)
        keys = [prefix + digest for digest in wanted for prefix in ("", _STAGED)]
        now = self._clock()
        found = {
            item.digest: Blob(item.sha256, item.key, int(item.size), item.etag)
            for item in self._blobs.batch_get(keys, consistent_read=True)
            if not _has_expired(item.expires_at, now)
        }
        blobs = {digest: found.get(digest) or found.get(_STAGED + digest) for digest in wanted}
        return {digest: blob for digest, blob in blobs.items() if blob is not None}

    @translate_errors()
    def put_blobs(self, blobs: Iterable[tuple[str, Blob]], *, expires_at: float | None) -> None:
        prefix = "" if expires_at is None else _STAGED
        expiry = None if expires_at is None else datetime.fromtimestamp(expires_at, UTC)

        def write(batch: tuple[tuple[str, Blob], ...]) -> None:
            def put() -> None:
                try:
                    with self._blobs.batch_write() as batch_write:
                        for digest, blob in batch:
                            batch_write.save(self._from_blob(prefix + digest, blob, expiry))
                except PutError as error:
                    # Without a cause: DynamoDB kept back some of the items.
                    if error.cause is None:
                        raise _CancelledError from error
                    raise

            _retry(put)

        _write_parallel(write, dict(blobs).items(), _BATCH_LIMIT)

    def _from_blob(self, digest: str, blob: Blob, expires_at: datetime | None) -> BlobItem:
        return self._blobs(
            digest=digest,
            sha256=blob.sha256,
            key=blob.key,
            size=blob.size,
            etag=blob.etag,
            expires_at=expires_at,
        )

    @translate_errors()
    def forget_blob(self, digest: str, key: str) -> None:
        for prefix in ("", _STAGED):
            delete_item(self._blobs(prefix + digest), BlobItem.key == key)

    @translate_errors()
    def forget_blobs(self, references: Iterable[tuple[str, str]]) -> None:
        keys: dict[str, set[str]] = {}
        for digest, key in references:
            keys.setdefault(digest, set()).add(key)

        def forget(digests: tuple[str, ...]) -> None:
            found = self._blobs.batch_get(digests, consistent_read=True, attributes_to_get=["digest", "key"])
            for item in found:
                if item.key in keys[item.digest]:
                    delete_item(self._blobs(item.digest), BlobItem.key == item.key)

        _write_parallel(forget, keys, _BATCH_GET_LIMIT)


def _fail_model(status: ModelStatus, error: ModelError) -> list[Action]:
    return [ModelItem.status.set(status), ModelItem.error.set(_from_error(error))]


def _find_failed_status(task: Task) -> ModelStatus:
    return ModelStatus.WITHDRAWING if task.stage is Stage.PUBLISHING else ModelStatus.FAILED


def _has_expired(expires_at: datetime | None, now: float) -> bool:
    """DynamoDB itself deletes within days: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html."""
    return expires_at is not None and expires_at.timestamp() <= now


def _describe_import(model: Model) -> str:
    if model.status is ModelStatus.WITHDRAWING:
        return (
            f"An import of {model.resolved.describe()} failed while it was being published, and is being withdrawn. "
            "Submit again in half an hour."
        )
    return f"{model.resolved.describe()} is being imported by task {model.task_id}: follow that one."


def _write_cursor(key: Mapping[str, Any], id_name: str) -> str:
    text = f"{key['created_at']['S']} {key[id_name]['S']}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(cursor: str, id_name: str) -> dict[str, dict[str, str]]:
    """The key after which a page begins, without the index's own. Raises InvalidReferenceError."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        text = ""
    if not _CURSOR.fullmatch(text):
        raise InvalidReferenceError("The cursor is none that a list was answered with.", part="cursor")
    created_at, item_id = text.split(" ")
    return {"created_at": {"S": created_at}, id_name: {"S": item_id}}


def _lost_lease(path: str) -> LeaseLostError:
    return LeaseLostError(f"Another worker has {path} now.")


def _ended_task(task_id: str) -> TaskEndedError:
    return TaskEndedError(f"Task {task_id} has ended already.")
