import uuid
from dataclasses import replace

from modelhaul.domain.quotas import QuotaState
from modelhaul.ports.quotas import QuotaRepository
from tests.fakes.tables import InMemoryTables


class InMemoryQuotaRepository(QuotaRepository):
    def __init__(self, tables: InMemoryTables) -> None:
        self._tables = tables

    def read_state(self) -> QuotaState:
        with self._tables.lock:
            return self._tables.quota

    def save_state(self, state: QuotaState) -> bool:
        with self._tables.lock:
            if self._tables.quota.version != state.version:
                return False
            self._tables.quota = replace(state, version=str(uuid.uuid4()))
            return True
