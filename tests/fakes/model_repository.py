import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC

from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.errors import (
    InvalidReferenceError,
)
from modelhaul.domain.models import (
    DeletionCondition,
    Model,
    ModelPage,
    ModelPin,
    ModelStatus,
    Source,
)
from modelhaul.domain.name_patterns import matches_any
from modelhaul.domain.signatures import ModelSignature
from modelhaul.ports.models import ModelRepository
from tests.fakes.tables import InMemoryTables

_CURSOR = re.compile(r"[0-9-]{10}T[0-9:]{8}\.[0-9]{6} [0-9a-f-]{36}")


def _rank(model: Model) -> str:
    """Of equal length for all, so that texts compare as times do."""
    return f"{model.created_at.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%S.%f')} {model.model_id}"


class InMemoryModelRepository(ModelRepository):
    def __init__(self, tables: InMemoryTables) -> None:
        self._tables = tables

    def find_model(self, model_id: str) -> Model | None:
        with self._tables.lock:
            return self._tables.models.get(model_id)

    def find_models(self, model_ids: Sequence[str]) -> list[Model]:
        return self._tables.find_models(model_ids)

    def list_models(
        self,
        *,
        source: Source | None = None,
        name: str | None = None,
        hub_ids: Sequence[str] | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> ModelPage:
        """The cursor is the last listed model's time and id."""
        with self._tables.lock:
            ready = {_rank(m): m for m in self._tables.models.values() if m.status is ModelStatus.READY}
            if cursor is not None:
                if not _CURSOR.fullmatch(cursor):
                    raise InvalidReferenceError("Invalid pagination cursor.", part="cursor")
                ready = {rank: model for rank, model in ready.items() if rank < cursor}
            fitting = [
                model
                for _, model in sorted(ready.items(), reverse=True)
                if source in (None, model.resolved.source)
                and (name is None or name.lower() in model.resolved.name.lower())
                and (hub_ids is None or matches_any(hub_ids, model.resolved.hub_id))
            ]
            page = fitting[:limit]
            return ModelPage(tuple(page), _rank(page[-1]) if len(fitting) > limit else None)

    def record_signature(
        self, model_id: str, signature: ModelSignature, *, task_id: str, entry: AuditEntry | None = None
    ) -> bool:
        with self._tables.lock:
            model = self._tables.models.get(model_id)
            if model is None or model.status is not ModelStatus.READY or model.task_id != task_id:
                return False
            self._tables.models[model_id] = replace(model, signature=signature)
            self._tables.record_entry(entry)
            return True

    def lease_deletion(
        self,
        model_id: str,
        *,
        owner: str,
        now: float,
        until: float,
        deleted_by: str | None = None,
        entry: AuditEntry | None = None,
        condition: DeletionCondition | None = None,
    ) -> Model | None:
        with self._tables.lock:
            model = self._tables.models.get(model_id)
            if model is None or model.status not in (ModelStatus.READY, ModelStatus.FAILED, ModelStatus.DELETING):
                return None
            if model.status is not ModelStatus.DELETING and not _can_start(model, condition):
                return None
            holder, leased_until = self._tables.deletions.get(model_id, (owner, 0.0))
            if holder != owner and leased_until > now:
                return None
            self._tables.deletions[model_id] = (owner, until)
            first = model.deleted_by or deleted_by
            self._tables.write_model(model_id, status=ModelStatus.DELETING, deleted_by=first)
            self._tables.record_entry(entry)
            return self._tables.models[model_id]

    def pin_model(self, model_id: str, pin: ModelPin | None, *, entry: AuditEntry | None = None) -> Model | None:
        with self._tables.lock:
            model = self._tables.models.get(model_id)
            if model is None or model.status is not ModelStatus.READY:
                return None
            self._tables.models[model_id] = replace(model, pin=pin)
            self._tables.record_entry(entry)
            return self._tables.models[model_id]

    def list_ready(self) -> Iterator[Model]:
        with self._tables.lock:
            ready = [model for model in self._tables.models.values() if model.status is ModelStatus.READY]
        for model in sorted(ready, key=_rank, reverse=True):
            yield replace(model, resolved=replace(model.resolved, card=None), gate=None, error=None, signature=None)

    def remove_model(self, model_id: str, *, owner: str) -> None:
        with self._tables.lock:
            holder, _ = self._tables.deletions.get(model_id, (None, 0.0))
            if holder == owner:
                del self._tables.deletions[model_id], self._tables.models[model_id]

    def list_deleting(self, now: float, limit: int) -> list[Model]:
        with self._tables.lock:
            free = [model_id for model_id, (_, until) in self._tables.deletions.items() if until <= now]
            return [self._tables.models[model_id] for model_id in free[:limit]]


def _can_start(model: Model, condition: DeletionCondition | None) -> bool:
    if model.pin is not None:
        return False
    if condition is None:
        return True
    is_same = model.status is ModelStatus.READY and model.task_id == condition.task_id
    return is_same and (model.last_read_on is None or model.last_read_on < condition.unread_since)
