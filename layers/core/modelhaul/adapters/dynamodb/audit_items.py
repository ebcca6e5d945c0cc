"""DynamoDB items of the audit, and their part in the transactions of other tables."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pynamodb.attributes import TTLAttribute, UnicodeAttribute, UTCDateTimeAttribute
from pynamodb.connection import Connection
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex
from pynamodb.models import Model as Item
from pynamodb.transactions import TransactWrite

from modelhaul.adapters.dynamodb.connection import CancelledError, bind_item, open_transaction, retry_write, to_moment
from modelhaul.domain.audit import AuditAction, AuditEntry
from modelhaul.domain.callers import remove_session
from modelhaul.domain.models import Source
from modelhaul.ports.clock import Clock

KIND = "entry"  # the only partition of the index by time


class AuditByTime(GlobalSecondaryIndex["AuditItem"]):  # type: ignore[no-untyped-call]
    """Index of all entries."""

    class Meta:
        index_name = "audit-by-time"
        projection = AllProjection()

    kind = UnicodeAttribute(hash_key=True)
    created_at = UTCDateTimeAttribute(range_key=True)


class AuditByAction(GlobalSecondaryIndex["AuditItem"]):  # type: ignore[no-untyped-call]
    class Meta:
        index_name = "audit-by-action"
        projection = AllProjection()

    action = UnicodeAttribute(hash_key=True)
    created_at = UTCDateTimeAttribute(range_key=True)


class AuditByPrincipal(GlobalSecondaryIndex["AuditItem"]):  # type: ignore[no-untyped-call]
    """Sparse index of the entries with an actor."""

    class Meta:
        index_name = "audit-by-principal"
        projection = AllProjection()

    principal = UnicodeAttribute(hash_key=True)
    created_at = UTCDateTimeAttribute(range_key=True)


class AuditByModel(GlobalSecondaryIndex["AuditItem"]):  # type: ignore[no-untyped-call]
    """Sparse index of the entries of a model."""

    class Meta:
        index_name = "audit-by-model"
        projection = AllProjection()

    model_id = UnicodeAttribute(hash_key=True)
    created_at = UTCDateTimeAttribute(range_key=True)


class AuditByTask(GlobalSecondaryIndex["AuditItem"]):  # type: ignore[no-untyped-call]
    """Sparse index of the entries of a task."""

    class Meta:
        index_name = "audit-by-task"
        projection = AllProjection()

    task_id = UnicodeAttribute(hash_key=True)
    created_at = UTCDateTimeAttribute(range_key=True)


class AuditItem(Item):
    """Item of an entry. `principal` is the actor without the name of its session. `detail` is JSON."""

    by_time = AuditByTime()
    by_action = AuditByAction()
    by_principal = AuditByPrincipal()
    by_model = AuditByModel()
    by_task = AuditByTask()

    id = UnicodeAttribute(hash_key=True)
    kind = UnicodeAttribute(default=KIND)
    created_at = UTCDateTimeAttribute()
    action = UnicodeAttribute()
    actor = UnicodeAttribute(null=True)
    principal = UnicodeAttribute(null=True)
    model_id = UnicodeAttribute(null=True)
    task_id = UnicodeAttribute(null=True)
    key_id = UnicodeAttribute(null=True)
    follow_id = UnicodeAttribute(null=True)
    name = UnicodeAttribute(null=True)
    source = UnicodeAttribute(null=True)
    commit = UnicodeAttribute(null=True)
    reason = UnicodeAttribute(null=True)
    detail = UnicodeAttribute(null=True)
    expires_at = TTLAttribute()


class AuditWriter:
    """Writes entries. With `retention_days` 0, it writes none."""

    def __init__(
        self, connection: Connection, *, audit_table: str, retention_days: int, clock: Clock = time.time
    ) -> None:
        self._connection = connection
        self._entries = bind_item(AuditItem, audit_table, connection)
        self._retention = timedelta(days=retention_days)
        self._clock = clock

    @property
    def is_on(self) -> bool:
        return bool(self._retention)

    def create_item(self, entry: AuditEntry) -> AuditItem | None:
        """Return the item of the entry. None if it has expired, or is not recorded."""
        expires_at = entry.time + self._retention
        if expires_at <= to_moment(self._clock()):
            return None
        return self._entries(
            entry.id,
            created_at=entry.time,
            action=entry.action.value,
            actor=entry.actor,
            principal=remove_session(entry.actor) if entry.actor else None,
            model_id=entry.model_id,
            task_id=entry.task_id,
            key_id=entry.key_id,
            follow_id=entry.follow_id,
            name=entry.name,
            source=entry.source.value if entry.source else None,
            commit=entry.commit,
            reason=entry.reason,
            detail=json.dumps(dict(entry.detail), ensure_ascii=False) if entry.detail else None,
            expires_at=expires_at,
        )

    def save(self, transaction: TransactWrite, entry: AuditEntry) -> None:
        """Add the entry to the transaction."""
        item = self.create_item(entry)
        if item is not None:
            transaction.save(item, condition=AuditItem.id.does_not_exist())


@dataclass(frozen=True, slots=True)
class Recording:
    """The entry of a write, and what records it."""

    writer: AuditWriter
    entry: AuditEntry

    def save(self, transaction: TransactWrite) -> None:
        self.writer.save(transaction, self.entry)


def find_recording(writer: AuditWriter | None, entry: AuditEntry | None) -> Recording | None:
    """Return what is to be recorded, None if nothing is. `writer` is None in a function that may not record entries.

    Raises ValueError if such a function has an entry.
    """
    if entry is None:
        return None
    if writer is None:
        raise ValueError(f"{entry.action} cannot be recorded: the function has no AUDIT_TABLE.")
    return Recording(writer, entry) if writer.is_on else None


def write_recorded(connection: Connection, write: Callable[[TransactWrite], None], recording: Recording) -> bool:
    """Commit the write and its entry in one transaction. Return False if a condition of the write does not hold."""

    def commit() -> bool:
        try:
            with open_transaction(connection) as transaction:
                write(transaction)
                recording.save(transaction)
        except CancelledError as cancelled:
            if cancelled.is_refused and not cancelled.is_permanent:
                return False
            raise
        return True

    return retry_write(commit)


def to_entry(item: Any) -> AuditEntry:
    return AuditEntry(
        id=item.id,
        time=item.created_at,
        action=AuditAction(item.action),
        actor=item.actor,
        model_id=item.model_id,
        task_id=item.task_id,
        key_id=item.key_id,
        follow_id=item.follow_id,
        name=item.name,
        source=Source(item.source) if item.source else None,
        commit=item.commit,
        reason=item.reason,
        detail=json.loads(item.detail) if item.detail else {},
    )
