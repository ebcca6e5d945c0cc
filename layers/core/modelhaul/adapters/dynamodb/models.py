"""ModelRepository on Amazon DynamoDB."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from pynamodb.connection import Connection
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.transactions import TransactWrite

from modelhaul.adapters.dynamodb.audit_items import AuditWriter, Recording, find_recording, write_recorded
from modelhaul.adapters.dynamodb.connection import (
    bind_item,
    delete_item,
    find_item,
    to_moment,
    translate_errors,
    update_item,
)
from modelhaul.adapters.dynamodb.model_items import (
    DELETING,
    READY,
    ModelItem,
    from_pin,
    from_signature,
    is_model_id,
    read_models,
    to_model,
)
from modelhaul.adapters.dynamodb.pages import MAX_INDEX_PAGES, read_cursor, write_cursor
from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.models import (
    DeletionCondition,
    Model,
    ModelPage,
    ModelPin,
    ModelStatus,
    Source,
    SourceTotals,
    StorageTotals,
)
from modelhaul.domain.signatures import ModelSignature
from modelhaul.ports.clock import Clock
from modelhaul.ports.models import ModelRepository

_FILTERED_PAGE_SIZE = 1000  # models that one query with a filter reads
_LISTED = [
    "model_id",
    "source",
    "name",
    "revision",
    "commit",
    "root",
    "selection",
    "status",
    "task_id",
    "created_at",
    "updated_at",
    "files",
    "size",
    "last_read_on",
    "pin",
]


class DynamoDBModelRepository(ModelRepository):
    """Models in the table of models."""

    def __init__(
        self,
        connection: Connection,
        *,
        models_table: str,
        clock: Clock = time.time,
        audit: AuditWriter | None = None,
    ) -> None:
        self._connection = connection
        self._audit = audit
        self._models = bind_item(ModelItem, models_table, connection)
        self._clock = clock

    @translate_errors()
    def find_model(self, model_id: str) -> Model | None:
        item = find_item(self._models, model_id) if is_model_id(model_id) else None
        return None if item is None else to_model(item)

    @translate_errors()
    def find_models(self, model_ids: Sequence[str]) -> list[Model]:
        return read_models(self._models, model_ids)

    @translate_errors()
    def measure_storage(self) -> StorageTotals:
        pages = self._models.by_shelf.query(
            READY,
            attributes_to_get=["source", "size"],
            scan_index_forward=False,
            page_size=_FILTERED_PAGE_SIZE,
        ).page_iter
        models: Counter[Source] = Counter()
        sizes: Counter[Source] = Counter()
        is_complete = True
        for page in islice(pages, MAX_INDEX_PAGES):
            for item in page["Items"]:
                source = Source(item["source"]["S"])
                models[source] += 1
                sizes[source] += int(item["size"]["N"])
            is_complete = "LastEvaluatedKey" not in page
        return StorageTotals({source: SourceTotals(models[source], sizes[source]) for source in models}, is_complete)

    @translate_errors()
    def list_models(
        self, *, source: Source | None = None, name: str | None = None, limit: int, cursor: str | None = None
    ) -> ModelPage:
        start = None if cursor is None else {"shelf": {"S": READY}, **read_cursor(cursor, "model_id")}
        condition: Condition | None = None if source is None else ModelItem.source == source
        if name is not None:
            has_name = ModelItem.lower_name.contains(name.lower())
            condition = has_name if condition is None else condition & has_name
        pages = self._models.by_shelf.query(
            READY,
            filter_condition=condition,
            scan_index_forward=False,
            page_size=limit if condition is None else _FILTERED_PAGE_SIZE,
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
        models = [to_model(self._models.from_raw_data(item)) for item in found[:limit]]
        return ModelPage(tuple(models), None if start is None else write_cursor(start, "model_id"))

    @translate_errors()
    def record_signature(
        self, model_id: str, signature: ModelSignature, *, task_id: str, entry: AuditEntry | None = None
    ) -> bool:
        if not is_model_id(model_id):
            return False
        is_published = (ModelItem.status == ModelStatus.READY) & (ModelItem.task_id == task_id)
        actions = [ModelItem.signature.set(from_signature(signature))]
        item, recording = self._models(model_id), find_recording(self._audit, entry)
        if recording is None:
            return update_item(item, actions, is_published)
        return self._update_recorded(item, actions, is_published, recording)

    @translate_errors()
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
        if not is_model_id(model_id):
            return None
        item = self._models(model_id)
        is_free = _can_start(condition) | (
            (ModelItem.status == ModelStatus.DELETING)
            & ((ModelItem.lease_owner == owner) | (ModelItem.lease_until <= now))
        )
        actions = [
            ModelItem.status.set(ModelStatus.DELETING),
            ModelItem.shelf.set(DELETING),
            ModelItem.lease_owner.set(owner),
            ModelItem.lease_until.set(until),
            ModelItem.updated_at.set(to_moment(self._clock())),
            *([ModelItem.deleted_by.set(ModelItem.deleted_by | deleted_by)] if deleted_by else []),
        ]
        recording = find_recording(self._audit, entry)
        if recording is None:
            return to_model(item) if update_item(item, actions, is_free) else None
        # Unlike an update, a transaction does not return the item.
        return self.find_model(model_id) if self._update_recorded(item, actions, is_free, recording) else None

    @translate_errors()
    def pin_model(self, model_id: str, pin: ModelPin | None, *, entry: AuditEntry | None = None) -> Model | None:
        if not is_model_id(model_id):
            return None
        # `updated_at` stays: it is when the model became READY.
        actions = [ModelItem.pin.remove() if pin is None else ModelItem.pin.set(from_pin(pin))]
        item, is_ready = self._models(model_id), ModelItem.status == ModelStatus.READY
        recording = find_recording(self._audit, entry)
        if recording is None:
            return to_model(item) if update_item(item, actions, is_ready) else None
        return self.find_model(model_id) if self._update_recorded(item, actions, is_ready, recording) else None

    def list_ready(self) -> Iterator[Model]:
        with translate_errors():
            for item in self._models.by_shelf.query(
                READY, attributes_to_get=_LISTED, scan_index_forward=False, page_size=_FILTERED_PAGE_SIZE
            ):
                yield to_model(item)

    def _update_recorded(
        self, item: ModelItem, actions: Sequence[Action], condition: Condition, recording: Recording
    ) -> bool:
        def update(write: TransactWrite) -> None:
            write.update(item, actions=list(actions), condition=condition)

        return write_recorded(self._connection, update, recording)

    @translate_errors()
    def remove_model(self, model_id: str, *, owner: str) -> None:
        is_leased = (ModelItem.status == ModelStatus.DELETING) & (ModelItem.lease_owner == owner)
        delete_item(self._models(model_id), is_leased)

    @translate_errors()
    def list_deleting(self, now: float, limit: int) -> list[Model]:
        is_free = ModelItem.lease_until <= now
        return [to_model(item) for item in self._models.by_shelf.query(DELETING, filter_condition=is_free, limit=limit)]


def _can_start(condition: DeletionCondition | None) -> Condition:
    """Return the condition on a model whose deletion has not started."""
    is_startable: Condition
    if condition is None:
        is_startable = ModelItem.status.is_in(ModelStatus.READY, ModelStatus.FAILED)
    else:
        day = condition.unread_since.isoformat()
        is_startable = (
            (ModelItem.status == ModelStatus.READY)
            & (ModelItem.task_id == condition.task_id)
            & (ModelItem.last_read_on.does_not_exist() | (ModelItem.last_read_on < day))
        )
    is_startable &= ModelItem.pin.does_not_exist()
    return is_startable
