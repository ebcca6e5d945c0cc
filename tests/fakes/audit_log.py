import re
from datetime import UTC, datetime, timedelta

from modelhaul.domain.audit import EVERYTHING, AuditEntry, AuditFilter, AuditPage
from modelhaul.domain.callers import remove_session
from modelhaul.domain.errors import InvalidReferenceError
from modelhaul.ports.audit_log import AuditLog, AuditReader
from tests.fakes.tables import InMemoryTables

_CURSOR = re.compile(r"[0-9-]{10}T[0-9:]{8}\.[0-9]{6} [0-9a-f-]{36}")


def _rank(entry: AuditEntry) -> str:
    """Of equal length for all, so that texts compare as times do."""
    return f"{entry.time.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%S.%f')} {entry.id}"


class InMemoryAuditLog(AuditLog, AuditReader):
    def __init__(self, tables: InMemoryTables, *, retention_days: int = 30) -> None:
        self._tables = tables
        self._retention = timedelta(days=retention_days)

    def record(self, entry: AuditEntry) -> None:
        with self._tables.lock:
            if self._is_kept(entry):
                self._tables.entries.setdefault(entry.id, entry)

    def read_entry(self, entry_id: str) -> AuditEntry | None:
        with self._tables.lock:
            entry = self._tables.entries.get(entry_id)
            return entry if entry is not None and self._is_kept(entry) else None

    def list_entries(self, wanted: AuditFilter = EVERYTHING, *, limit: int, cursor: str | None = None) -> AuditPage:
        """The cursor is the last listed entry's time and id."""
        if cursor is not None and not _CURSOR.fullmatch(cursor):
            raise InvalidReferenceError("Invalid pagination cursor.", part="cursor")
        time = None if cursor is None else datetime.fromisoformat(cursor[:26]).replace(tzinfo=UTC)
        if time is not None and not _is_in_period(time, wanted):
            raise InvalidReferenceError("The pagination cursor is of another period.", part="cursor")
        with self._tables.lock:
            kept = [entry for entry in self._tables.entries.values() if self._is_kept(entry)]
        found = sorted((entry for entry in kept if _matches(entry, wanted)), key=_rank, reverse=True)
        left = [entry for entry in found if cursor is None or _rank(entry) < cursor]
        page = left[:limit]
        return AuditPage(tuple(page), _rank(page[-1]) if len(left) > limit else None)

    def _is_kept(self, entry: AuditEntry) -> bool:
        return entry.time + self._retention > datetime.fromtimestamp(self._tables.clock(), UTC)


def _matches(entry: AuditEntry, wanted: AuditFilter) -> bool:
    actor = entry.actor or ""
    return (
        wanted.action in (None, entry.action)
        and wanted.actor in (None, actor, remove_session(actor))
        and wanted.model_id in (None, entry.model_id)
        and wanted.task_id in (None, entry.task_id)
        and _is_in_period(entry.time, wanted)
    )


def _is_in_period(time: datetime, wanted: AuditFilter) -> bool:
    return (wanted.since is None or wanted.since <= time) and (wanted.until is None or time < wanted.until)
