"""A database on fresh tables, and moto's DynamoDB with the isolation and the faults that moto lacks."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ConnectionClosedError
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from pynamodb.connection import Connection
from pynamodb.models import Model as Table

from modelhaul.adapters.dynamodb.audit import DynamoDBAuditLog, DynamoDBAuditReader
from modelhaul.adapters.dynamodb.audit_items import AuditWriter
from modelhaul.adapters.dynamodb.connection import open_connection
from modelhaul.adapters.dynamodb.content import DynamoDBContentIndex
from modelhaul.adapters.dynamodb.files import DynamoDBFileRepository
from modelhaul.adapters.dynamodb.hub_models import DynamoDBHubModelRepository
from modelhaul.adapters.dynamodb.imports import DynamoDBImportRepository
from modelhaul.adapters.dynamodb.models import DynamoDBModelRepository
from modelhaul.adapters.dynamodb.quotas import DynamoDBQuotaRepository
from modelhaul.adapters.dynamodb.segments import DynamoDBSegmentRepository
from modelhaul.adapters.dynamodb.tasks import DynamoDBTaskRepository
from modelhaul.ports.clock import Clock
from tests.contract.backends import REGION
from tests.fakes.database import Database

AUDIT_DAYS = 30  # for which the entries of the audit are kept

type Response = tuple[int, dict[str, str], Any]
type Item = tuple[str, ...]
"""A table's name and the values of a key."""


@dataclass(frozen=True, slots=True)
class Call:
    operation: str
    body: dict[str, Any]


type Fault = Callable[[Call, Callable[[], Response]], Response]
"""Gets the call and what does it."""


@dataclass(slots=True)
class MotoDynamoDB:
    """Calls run one at a time, since moto's transactions are not atomic among threads.

    With `conflicts`, a transaction is refused at once, as by DynamoDB, while another transaction writes one of its
    items. So at least one of any number of transactions succeeds.
    """

    conflicts: bool = False
    calls: list[Call] = field(default_factory=list)
    _faults: list[tuple[str, Fault]] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _items: set[Item] = field(default_factory=set)
    _items_lock: threading.Lock = field(default_factory=threading.Lock)

    def inject(self, operation: str, fault: Fault, *, times: int = 1) -> None:
        """`fault` answers the next `times` calls of `operation` ("" for any)."""
        self._faults += [(operation, fault)] * times

    def count(self, operation: str) -> int:
        return sum(call.operation == operation for call in self.calls)

    def reset(self) -> None:
        self.conflicts = False
        self.calls.clear()
        self._faults.clear()

    def process(self, request: AWSPreparedRequest, do: Callable[[], Response]) -> Response:
        call = Call(_read_target(request), json.loads(request.body or b""))  # type: ignore[arg-type]
        self.calls.append(call)
        items = _list_items(call) if self.conflicts and call.operation == "TransactWriteItems" else set()
        with self._items_lock:
            if items & self._items:
                return conflict(call, do)
            self._items |= items
        try:
            with self._lock:
                for planned in self._faults:
                    if planned[0] in ("", call.operation):
                        self._faults.remove(planned)
                        return planned[1](call, do)
                return do()
        finally:
            with self._items_lock:
                self._items -= items


def _list_items(call: Call) -> set[Item]:
    return {_find_item(action) for actions in call.body["TransactItems"] for action in actions.values()}


def _find_item(action: dict[str, Any]) -> Item:
    """A put has the key among the item's attributes, every other action has it alone."""
    table = dynamodb_backends[DEFAULT_ACCOUNT_ID][REGION].get_table(action["TableName"])
    key = action.get("Key") or action["Item"]
    return action["TableName"], *(json.dumps(key[name]) for name in table.table_key_attrs)


def lose_reply(_: Call, do: Callable[[], Response]) -> Response:
    do()
    raise ConnectionClosedError(endpoint_url="https://dynamodb")


def garble_reply(_: Call, do: Callable[[], Response]) -> Response:
    do()
    return refuse(500, "InternalServerError")


def conflict(call: Call, _: Callable[[], Response]) -> Response:
    reasons = [{"Code": "TransactionConflict"}] * len(call.body["TransactItems"])
    return refuse(400, "TransactionCanceledException", CancellationReasons=reasons)


def refuse(status: int, code: str, message: str = "", **details: Any) -> Response:
    body = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message, **details}
    return status, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(body)


def _read_target(request: AWSPreparedRequest) -> str:
    target = request.headers["X-Amz-Target"]
    return (target.decode() if isinstance(target, bytes) else str(target)).rpartition(".")[2]


@contextmanager
def control_moto() -> Iterator[MotoDynamoDB]:
    dynamodb = MotoDynamoDB()
    original = BotocoreStubber.process_request

    def process_request(stubber: BotocoreStubber, request: AWSPreparedRequest) -> Any:
        return dynamodb.process(request, lambda: original(stubber, request))  # type: ignore[return-value,arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BotocoreStubber, "process_request", process_request)
        yield dynamodb


def build_dynamodb_database(
    connection: Connection, clock: Clock = time.time, *, suffix: str = "", audit_days: int = AUDIT_DAYS
) -> Database:
    names = ("tasks", "models", "files", "content", "blobs")
    tasks, models, files, content, blobs = (f"{name}{suffix}" for name in names)
    audit = AuditWriter(connection, audit_table=f"audit{suffix}", retention_days=audit_days, clock=clock)
    repository = DynamoDBFileRepository(connection, files_table=files, clock=clock)
    return Database(
        tasks=DynamoDBTaskRepository(connection, tasks_table=tasks, clock=clock, audit=audit),
        models=DynamoDBModelRepository(connection, models_table=models, clock=clock, audit=audit),
        imports=DynamoDBImportRepository(connection, tasks_table=tasks, models_table=models, clock=clock, audit=audit),
        files=repository,
        leases=repository,
        segments=DynamoDBSegmentRepository(connection, files_table=files, clock=clock),
        content=DynamoDBContentIndex(connection, content_table=content, blobs_table=blobs, clock=clock),
        hub_models=DynamoDBHubModelRepository(connection, models_table=models, clock=clock),
        quotas=DynamoDBQuotaRepository(connection, models_table=models, clock=clock),
        audit=DynamoDBAuditLog(audit),
        audit_reader=DynamoDBAuditReader(connection, audit_table=f"audit{suffix}", clock=clock),
    )


@contextmanager
def open_database(clock: Clock = time.time, *, audit_days: int = AUDIT_DAYS) -> Iterator[Database]:
    """`audit_days` 0: without an audit."""
    suffix = f"-{uuid.uuid4().hex}"
    database = build_dynamodb_database(open_connection(REGION), clock, suffix=suffix, audit_days=audit_days)
    try:
        for table in _list_tables(database):
            table.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
        yield database
    finally:
        for table in _list_tables(database):
            table.delete_table()


def clear_tables(database: Database) -> None:
    for table in _list_tables(database):
        with table.batch_write() as batch:
            for item in table.scan():
                batch.delete(item)


def set_clock(database: Database, clock: Clock) -> None:
    repositories: list[Any] = [getattr(database, field.name) for field in fields(database)]
    for repository in repositories:
        repository._clock = clock
    writer: Any = database.audit
    writer._writer._clock = clock


def _list_tables(database: Database) -> list[type[Table]]:
    parts: Any = database
    content = [parts.content._content, parts.content._blobs]
    return [parts.tasks._tasks, parts.models._models, parts.files._files, *content, parts.audit_reader._entries]
