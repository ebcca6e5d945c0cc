"""FollowRepository on Amazon DynamoDB. `template.yaml` defines the key and the index of the table."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pynamodb.attributes import (
    BinaryAttribute,
    BooleanAttribute,
    ListAttribute,
    MapAttribute,
    NumberAttribute,
    UnicodeAttribute,
    UTCDateTimeAttribute,
)
from pynamodb.connection import Connection
from pynamodb.exceptions import PutError
from pynamodb.expressions.condition import Condition
from pynamodb.indexes import GlobalSecondaryIndex, IncludeProjection
from pynamodb.models import Model as Item

from modelhaul.adapters.dynamodb.audit_items import AuditWriter, find_recording, write_recorded
from modelhaul.adapters.dynamodb.connection import (
    CONDITION_FAILED,
    CancelledError,
    bind_item,
    delete_item,
    find_code,
    find_item,
    is_key,
    retry_write,
    translate_errors,
)
from modelhaul.adapters.dynamodb.task_items import pack_selection, unpack_selection
from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.follows import DueFollow, Follow, FollowedImport, FollowError, FollowStatus
from modelhaul.domain.models import Source
from modelhaul.ports.follows import FollowRepository

_WATCHED = "1"


class FollowsByDue(GlobalSecondaryIndex["FollowItem"]):  # type: ignore[no-untyped-call]
    """Sparse index of active follows, which have the attributes `watch` and `next_check`."""

    class Meta:
        index_name = "follows-by-due"
        projection = IncludeProjection(["source"])

    watch = UnicodeAttribute(hash_key=True)
    next_check = UTCDateTimeAttribute(range_key=True)


class ImportMap(MapAttribute[str, Any]):
    """Attributes of a FollowedImport."""

    commit = UnicodeAttribute()
    model_id = UnicodeAttribute()
    found_at = UTCDateTimeAttribute()
    task_id = UnicodeAttribute(null=True)
    previous_commit = UnicodeAttribute(null=True)
    is_rewritten = BooleanAttribute(null=True)
    retries = NumberAttribute()


class FollowErrorMap(MapAttribute[str, Any]):
    """Attributes of a FollowError."""

    type = UnicodeAttribute()
    detail = UnicodeAttribute()
    retryable = BooleanAttribute()
    at = UTCDateTimeAttribute()
    remedy = UnicodeAttribute(null=True)


class FollowItem(Item):
    """Item of a follow. `selection` is as in ModelItem, `every` is in seconds.

    `watch` and `next_check` are absent while the follow is PAUSED.
    """

    by_due = FollowsByDue()

    id = UnicodeAttribute(hash_key=True)
    version = NumberAttribute()
    source = UnicodeAttribute()
    name = UnicodeAttribute()
    revision = UnicodeAttribute()
    selection = BinaryAttribute(null=True, legacy_encoding=False)
    every = NumberAttribute()
    keep_newest = NumberAttribute(null=True)
    created_at = UTCDateTimeAttribute()
    created_by = UnicodeAttribute(null=True)
    former_names: ListAttribute[str] = ListAttribute(of=UnicodeAttribute, null=True)  # type: ignore[arg-type]
    requested_name = UnicodeAttribute(null=True)
    status = UnicodeAttribute()
    watch = UnicodeAttribute(null=True)
    next_check = UTCDateTimeAttribute(null=True)
    checked_at = UTCDateTimeAttribute(null=True)
    last_import = ImportMap(null=True)  # type: ignore[no-untyped-call]
    last_error = FollowErrorMap(null=True)  # type: ignore[no-untyped-call]
    failures = NumberAttribute()
    waits_for_limit = BooleanAttribute(null=True)
    retries_import = BooleanAttribute(null=True)
    lease_id = UnicodeAttribute(null=True)


class DynamoDBFollowRepository(FollowRepository):
    """Follows in a table of their own."""

    def __init__(self, connection: Connection, *, follows_table: str, audit: AuditWriter | None = None) -> None:
        self._connection = connection
        self._audit = audit
        self._follows = bind_item(FollowItem, follows_table, connection)

    @translate_errors()
    def add_follow(self, follow: Follow, *, entry: AuditEntry | None = None) -> bool:
        # After a lost response, the item is already there.
        return self._save(follow, FollowItem.id.does_not_exist(), entry) or self.find_follow(follow.id) == follow

    @translate_errors()
    def find_follow(self, follow_id: str) -> Follow | None:
        item = find_item(self._follows, follow_id)
        return None if item is None else _to_follow(item)

    @translate_errors()
    def list_follows(self) -> list[Follow]:
        follows = [_to_follow(item) for item in self._follows.scan(consistent_read=True)]
        return sorted(follows, key=lambda follow: (follow.created_at, follow.id), reverse=True)

    @translate_errors()
    def list_due(self, now: datetime, limit: int) -> list[DueFollow]:
        items = self._follows.by_due.query(_WATCHED, FollowsByDue.next_check <= now, limit=limit)
        return [DueFollow(item.id, Source(item.source)) for item in items]

    @translate_errors()
    def change_follow(
        self, follow_id: str, change: Callable[[Follow], Follow | None], *, entry: AuditEntry | None = None
    ) -> Follow | None:
        def write() -> Follow | None:
            follow = self.find_follow(follow_id)
            changed = change(follow) if follow is not None else None
            if follow is None or changed is None:
                return None
            changed = replace(changed, version=follow.version + 1)
            if not self._save(changed, FollowItem.version == follow.version, entry):
                raise CancelledError([CONDITION_FAILED])
            return changed

        return retry_write(write)

    @translate_errors()
    def remove_follow(self, follow_id: str, *, entry: AuditEntry | None = None) -> bool:
        if not is_key(follow_id):
            return False
        item, exists = self._follows(follow_id), FollowItem.id.exists()
        recording = find_recording(self._audit, entry)
        if recording is not None:
            return write_recorded(self._connection, lambda write: write.delete(item, condition=exists), recording)
        return delete_item(item, exists)

    def _save(self, follow: Follow, condition: Condition, entry: AuditEntry | None) -> bool:
        """Return False if the condition does not hold."""
        item = _from_follow(self._follows, follow)
        recording = find_recording(self._audit, entry)
        if recording is not None:
            return write_recorded(self._connection, lambda write: write.save(item, condition=condition), recording)
        try:
            item.save(condition=condition)
        except PutError as error:
            if find_code(error) != f"{CONDITION_FAILED}Exception":
                raise
            return False
        return True


def _from_follow(item: type[FollowItem], follow: Follow) -> FollowItem:
    found, error = follow.last_import, follow.last_error
    return item(
        follow.id,
        version=follow.version,
        source=follow.source,
        name=follow.name,
        revision=follow.revision,
        selection=pack_selection(follow.selection),
        every=int(follow.every.total_seconds()),
        keep_newest=follow.keep_newest,
        created_at=follow.created_at,
        created_by=follow.created_by,
        former_names=list(follow.former_names) or None,
        requested_name=follow.requested_name,
        status=follow.status,
        watch=None if follow.next_check is None else _WATCHED,
        next_check=follow.next_check,
        checked_at=follow.checked_at,
        last_import=None
        if found is None
        else ImportMap(  # type: ignore[no-untyped-call]
            commit=found.commit,
            model_id=found.model_id,
            found_at=found.found_at,
            task_id=found.task_id,
            previous_commit=found.previous_commit,
            is_rewritten=found.is_rewritten,
            retries=found.retries,
        ),
        last_error=None
        if error is None
        else FollowErrorMap(  # type: ignore[no-untyped-call]
            type=error.type, detail=error.detail, retryable=error.retryable, at=error.at, remedy=error.remedy
        ),
        failures=follow.failures,
        waits_for_limit=follow.waits_for_limit or None,
        retries_import=follow.retries_import or None,
        lease_id=follow.lease_id,
    )


def _to_follow(item: FollowItem) -> Follow:
    return Follow(
        id=item.id,
        source=Source(item.source),
        name=item.name,
        revision=item.revision,
        every=timedelta(seconds=int(item.every)),
        created_at=item.created_at,
        next_check=item.next_check,
        selection=unpack_selection(item.selection),
        keep_newest=int(item.keep_newest) if item.keep_newest else None,
        created_by=item.created_by,
        former_names=tuple(item.former_names or ()),
        requested_name=item.requested_name,
        status=FollowStatus(item.status),
        checked_at=item.checked_at,
        last_import=_to_import(item.last_import),
        last_error=_to_error(item.last_error),
        failures=int(item.failures),
        waits_for_limit=bool(item.waits_for_limit),
        retries_import=bool(item.retries_import),
        lease_id=item.lease_id,
        version=int(item.version),
    )


def _to_import(found: ImportMap | None) -> FollowedImport | None:
    if found is None:
        return None
    return FollowedImport(
        found.commit,
        found.model_id,
        found.found_at,
        found.task_id,
        found.previous_commit,
        found.is_rewritten,
        int(found.retries),
    )


def _to_error(error: FollowErrorMap | None) -> FollowError | None:
    return None if error is None else FollowError(error.type, error.detail, error.retryable, error.at, error.remedy)
