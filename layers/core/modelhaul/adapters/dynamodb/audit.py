"""AuditLog and AuditReader on Amazon DynamoDB. `template.yaml` defines key, indexes and TTL attribute of the table."""

import time
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import islice
from operator import and_
from typing import Any

from pynamodb.attributes import UnicodeAttribute
from pynamodb.connection import Connection
from pynamodb.exceptions import PutError
from pynamodb.expressions.condition import Condition
from pynamodb.indexes import GlobalSecondaryIndex

from modelhaul.adapters.dynamodb.audit_items import KIND, AuditItem, AuditWriter, to_entry
from modelhaul.adapters.dynamodb.connection import (
    CONDITION_FAILED,
    bind_item,
    find_code,
    find_item,
    is_key,
    to_moment,
    translate_errors,
)
from modelhaul.adapters.dynamodb.pages import MAX_INDEX_PAGES, read_cursor, write_cursor
from modelhaul.domain.audit import EVERYTHING, AuditEntry, AuditFilter, AuditPage
from modelhaul.domain.callers import remove_session
from modelhaul.domain.errors import InvalidReferenceError
from modelhaul.ports.audit_log import AuditLog, AuditReader
from modelhaul.ports.clock import Clock

_FILTERED_PAGE_SIZE = 1000  # entries that one query with a filter reads
_LAST = datetime.max.replace(tzinfo=UTC)
_RESOLUTION = timedelta(microseconds=1)


class DynamoDBAuditLog(AuditLog):
    """Appends entries to a table of their own."""

    def __init__(self, writer: AuditWriter) -> None:
        self._writer = writer

    @translate_errors()
    def record(self, entry: AuditEntry) -> None:
        item = self._writer.create_item(entry)
        if item is None:
            return
        try:
            item.save(condition=AuditItem.id.does_not_exist())
        except PutError as error:
            # It exists: it was recorded earlier, or by this request, whose response was lost.
            if find_code(error) != f"{CONDITION_FAILED}Exception":
                raise


class DynamoDBAuditReader(AuditReader):
    """Reads the entries that have not expired."""

    def __init__(self, connection: Connection, *, audit_table: str, clock: Clock = time.time) -> None:
        self._entries = bind_item(AuditItem, audit_table, connection)
        self._clock = clock

    @translate_errors()
    def read_entry(self, entry_id: str) -> AuditEntry | None:
        item = find_item(self._entries, entry_id)
        return None if item is None or item.expires_at <= to_moment(self._clock()) else to_entry(item)

    @translate_errors()
    def list_entries(self, wanted: AuditFilter = EVERYTHING, *, limit: int, cursor: str | None = None) -> AuditPage:
        index, attribute, key, condition = self._choose_index(wanted)
        start = None if cursor is None else {attribute: {"S": key}, **_read_start(cursor, wanted)}
        # DynamoDB rejects a range whose end is before its start.
        if not is_key(key) or wanted.is_empty:
            return AuditPage((), None)
        pages = index.query(
            key,
            _range(wanted),
            filter_condition=_is_kept(self._clock()) if condition is None else _is_kept(self._clock()) & condition,
            scan_index_forward=False,
            page_size=limit + 1 if condition is None else _FILTERED_PAGE_SIZE,
            last_evaluated_key=start,
        ).page_iter
        found: list[dict[str, Any]] = []
        for page in islice(pages, MAX_INDEX_PAGES):
            found += page["Items"]
            start = page.get("LastEvaluatedKey")
            if start is None or len(found) >= limit:
                break
        if len(found) > limit:
            start = found[limit - 1]
        entries = [to_entry(self._entries.from_raw_data(item)) for item in found[:limit]]
        return AuditPage(tuple(entries), None if start is None else write_cursor(start, "id"))

    def _choose_index(self, wanted: AuditFilter) -> tuple[GlobalSecondaryIndex[AuditItem], str, str, Condition | None]:
        """Return the index with the fewest entries for the filter, the name and the value of its key, and the condition
        for the other values.
        """
        entries = self._entries
        principal = None if wanted.actor is None else remove_session(wanted.actor)
        candidates: list[tuple[GlobalSecondaryIndex[AuditItem], UnicodeAttribute, str | None]] = [
            (entries.by_task, AuditItem.task_id, wanted.task_id),
            (entries.by_model, AuditItem.model_id, wanted.model_id),
            (entries.by_principal, AuditItem.principal, principal),
            (entries.by_action, AuditItem.action, wanted.action),
            (entries.by_time, AuditItem.kind, KIND),
        ]
        (index, attribute, key), *others = [(i, a, str(value)) for i, a, value in candidates if value is not None]
        conditions = [other == value for _, other, value in others[:-1]]
        if wanted.actor != principal:
            conditions.append(AuditItem.actor == wanted.actor)
        return index, attribute.attr_name, key, reduce(and_, conditions) if conditions else None


def _read_start(cursor: str, wanted: AuditFilter) -> dict[str, dict[str, str]]:
    """Return the key after which the page starts, without the partition key of the index.

    Raises InvalidReferenceError for an invalid cursor, and for one outside of the period, which DynamoDB rejects.
    """
    start = read_cursor(cursor, "id")
    moment = start["created_at"]["S"]
    if (wanted.since is not None and moment < _format_key(wanted.since)) or (
        wanted.until is not None and moment >= _format_key(wanted.until)
    ):
        raise InvalidReferenceError(
            "The pagination cursor is of a list with another period. Send it with the same `since` and `until`.",
            part="cursor",
        )
    return start


def _format_key(moment: datetime) -> str:
    """Return the time as in the indexes, where all have the same length."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f%z")


def _range(wanted: AuditFilter) -> Condition | None:
    # A key has one condition on its range. BETWEEN includes both ends.
    until = None if wanted.until is None else wanted.until - _RESOLUTION
    if wanted.since is None:
        return None if until is None else AuditItem.created_at <= until
    return AuditItem.created_at.between(wanted.since, until or _LAST)


def _is_kept(now: float) -> Condition:
    # DynamoDB removes items up to days after their TTL.
    return AuditItem.expires_at > to_moment(now)
