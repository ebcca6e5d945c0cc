"""ReadKeyRepository on Amazon DynamoDB. `template.yaml` defines the key and the TTL attribute of the table."""

import time
from datetime import date, timedelta

from pynamodb.attributes import ListAttribute, TTLAttribute, UnicodeAttribute, UTCDateTimeAttribute
from pynamodb.connection import Connection
from pynamodb.models import Model as Item

from modelhaul.adapters.dynamodb.audit_items import AuditWriter, find_recording, write_recorded
from modelhaul.adapters.dynamodb.connection import (
    bind_item,
    delete_item,
    find_item,
    is_key,
    open_statistics_connection,
    record_statistic,
    to_moment,
    translate_errors,
)
from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.read_keys import ReadKey, Scope
from modelhaul.ports.clock import Clock
from modelhaul.ports.read_keys import ReadKeyRepository

_KEPT_AFTER_EXPIRY = timedelta(days=30)


class ReadKeyItem(Item):
    """Item of a read key. `last_used_on` is an ISO date. `removed_after` is absent for a key that does not expire."""

    key_id = UnicodeAttribute(hash_key=True)
    name = UnicodeAttribute()
    digest = UnicodeAttribute()
    scopes: ListAttribute[str] = ListAttribute(of=UnicodeAttribute)  # type: ignore[arg-type]
    created_at = UTCDateTimeAttribute()
    expires_at = UTCDateTimeAttribute(null=True)
    last_used_on = UnicodeAttribute(null=True)
    created_by = UnicodeAttribute(null=True)
    removed_after = TTLAttribute(null=True)


class DynamoDBReadKeyRepository(ReadKeyRepository):
    """Read keys in a table of their own."""

    def __init__(
        self,
        connection: Connection,
        *,
        keys_table: str,
        clock: Clock = time.time,
        audit: AuditWriter | None = None,
    ) -> None:
        self._connection = connection
        self._audit = audit
        self._keys = bind_item(ReadKeyItem, keys_table, connection)
        self._statistics = bind_item(ReadKeyItem, keys_table, open_statistics_connection(connection))
        self._clock = clock

    @translate_errors()
    def add_key(self, key: ReadKey, *, entry: AuditEntry | None = None) -> None:
        item = self._keys(
            key.key_id,
            name=key.name,
            digest=key.digest,
            scopes=[scope.value for scope in key.scopes],
            created_at=key.created_at,
            expires_at=key.expires_at,
            last_used_on=key.last_used_on.isoformat() if key.last_used_on else None,
            created_by=key.created_by,
            removed_after=key.expires_at + _KEPT_AFTER_EXPIRY if key.expires_at else None,
        )
        recording = find_recording(self._audit, entry)
        if recording is not None:
            write_recorded(self._connection, lambda write: write.save(item), recording)
        else:
            item.save()

    @translate_errors()
    def find_key(self, key_id: str) -> ReadKey | None:
        item = find_item(self._keys, key_id)
        return None if item is None else _to_key(item)

    @translate_errors()
    def list_keys(self) -> list[ReadKey]:
        # DynamoDB removes items up to days after their TTL.
        kept_from = to_moment(self._clock()) - _KEPT_AFTER_EXPIRY
        keys = [_to_key(item) for item in self._keys.scan()]
        listed = [key for key in keys if key.expires_at is None or key.expires_at > kept_from]
        return sorted(listed, key=lambda key: (key.created_at, key.key_id), reverse=True)

    @translate_errors()
    def remove_key(self, key_id: str, *, entry: AuditEntry | None = None) -> bool:
        if not is_key(key_id):
            return False
        item, exists = self._keys(key_id), ReadKeyItem.key_id.exists()
        recording = find_recording(self._audit, entry)
        if recording is not None:
            return write_recorded(self._connection, lambda write: write.delete(item, condition=exists), recording)
        return delete_item(item, exists)

    @translate_errors()
    def record_use(self, key_id: str, day: date) -> None:
        if not is_key(key_id):
            return
        is_older = ReadKeyItem.last_used_on.does_not_exist() | (ReadKeyItem.last_used_on < day.isoformat())
        record_statistic(
            self._statistics,
            key_id,
            ReadKeyItem.last_used_on.set(day.isoformat()),
            ReadKeyItem.key_id.exists() & is_older,
        )


def _to_key(item: ReadKeyItem) -> ReadKey:
    return ReadKey(
        key_id=item.key_id,
        name=item.name,
        digest=item.digest,
        scopes=tuple(Scope(scope) for scope in item.scopes),
        created_at=item.created_at,
        expires_at=item.expires_at,
        last_used_on=date.fromisoformat(item.last_used_on) if item.last_used_on else None,
        created_by=item.created_by,
    )
