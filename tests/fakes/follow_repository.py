import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.follows import DueFollow, Follow
from modelhaul.ports.follows import FollowRepository
from tests.fakes.tables import InMemoryTables


class InMemoryFollowRepository(FollowRepository):
    def __init__(self, tables: InMemoryTables | None = None) -> None:
        self._tables = tables or InMemoryTables()
        self._lock = threading.Lock()
        self._follows: dict[str, Follow] = {}

    def add_follow(self, follow: Follow, *, entry: AuditEntry | None = None) -> bool:
        with self._lock:
            if follow.id not in self._follows:
                self._tables.record_entry(entry)
            return self._follows.setdefault(follow.id, follow) == follow

    def find_follow(self, follow_id: str) -> Follow | None:
        with self._lock:
            return self._follows.get(follow_id)

    def list_follows(self) -> list[Follow]:
        with self._lock:
            return sorted(self._follows.values(), key=lambda follow: (follow.created_at, follow.id), reverse=True)

    def list_due(self, now: datetime, limit: int) -> list[DueFollow]:
        with self._lock:
            due = [(f.next_check, DueFollow(f.id, f.source)) for f in self._follows.values() if f.is_due(now)]
        return [follow for _, follow in sorted(due, key=lambda entry: (entry[0], entry[1].id))][:limit]

    def change_follow(
        self, follow_id: str, change: Callable[[Follow], Follow | None], *, entry: AuditEntry | None = None
    ) -> Follow | None:
        with self._lock:
            follow = self._follows.get(follow_id)
            changed = change(follow) if follow is not None else None
            if follow is None or changed is None:
                return None
            self._tables.record_entry(entry)
            self._follows[follow_id] = replace(changed, version=follow.version + 1)
            return self._follows[follow_id]

    def remove_follow(self, follow_id: str, *, entry: AuditEntry | None = None) -> bool:
        with self._lock:
            if self._follows.pop(follow_id, None) is None:
                return False
            self._tables.record_entry(entry)
            return True
