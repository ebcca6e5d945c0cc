import threading
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.read_keys import ReadKey
from modelhaul.ports.clock import Clock
from modelhaul.ports.read_keys import ReadKeyRepository
from tests.fakes.tables import InMemoryTables


class InMemoryReadKeyRepository(ReadKeyRepository):
    def __init__(self, clock: Clock = time.time, tables: InMemoryTables | None = None) -> None:
        self._tables = tables or InMemoryTables()
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, ReadKey] = {}

    def add_key(self, key: ReadKey, *, entry: AuditEntry | None = None) -> None:
        with self._lock:
            self._tables.record_entry(entry)
            self._keys[key.key_id] = key

    def find_key(self, key_id: str) -> ReadKey | None:
        with self._lock:
            return self._keys.get(key_id)

    def list_keys(self) -> list[ReadKey]:
        kept_from = datetime.fromtimestamp(self._clock(), UTC) - timedelta(days=30)
        with self._lock:
            listed = [key for key in self._keys.values() if key.expires_at is None or key.expires_at > kept_from]
        return sorted(listed, key=lambda key: (key.created_at, key.key_id), reverse=True)

    def remove_key(self, key_id: str, *, entry: AuditEntry | None = None) -> bool:
        with self._lock:
            if self._keys.pop(key_id, None) is None:
                return False
            self._tables.record_entry(entry)
            return True

    def record_use(self, key_id: str, day: date) -> None:
        with self._lock:
            key = self._keys.get(key_id)
            if key is not None and (key.last_used_on is None or key.last_used_on < day):
                self._keys[key_id] = replace(key, last_used_on=day)
