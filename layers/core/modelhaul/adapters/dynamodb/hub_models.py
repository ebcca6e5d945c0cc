"""HubModelRepository on Amazon DynamoDB."""

import time
from datetime import date, datetime

from pynamodb.connection import Connection

from modelhaul.adapters.dynamodb.connection import (
    bind_item,
    open_statistics_connection,
    record_statistic,
    to_moment,
    translate_errors,
    update_item,
)
from modelhaul.adapters.dynamodb.model_items import HubNameItem, ModelItem, is_model_id, to_model
from modelhaul.domain.hub_models import MAX_REVISION, HubEntry, HubRevision
from modelhaul.domain.hub_names import is_hub_id
from modelhaul.domain.models import Model, ResolvedModel
from modelhaul.ports.clock import Clock
from modelhaul.ports.hub_models import HubModelRepository


class DynamoDBHubModelRepository(HubModelRepository):
    """Models, names and revisions in the table of models."""

    def __init__(self, connection: Connection, *, models_table: str, clock: Clock = time.time) -> None:
        self._models = bind_item(ModelItem, models_table, connection)
        self._names = bind_item(HubNameItem, models_table, connection)
        self._statistics = bind_item(ModelItem, models_table, open_statistics_connection(connection))
        self._clock = clock

    @translate_errors()
    def find_entry(self, name: str) -> HubEntry:
        if not is_hub_id(name):
            return HubEntry()
        canonical_id: str | None = None
        models: list[Model] = []
        revisions: list[HubRevision] = []
        for page in self._models.by_hub_name.query(name.lower(), scan_index_forward=False).page_iter:
            for found in page["Items"]:
                if "canonical_name" in found:
                    canonical_id = self._names.from_raw_data(found).canonical_name
                elif "status" in found:
                    models.append(to_model(self._models.from_raw_data(found)))
                else:
                    item = self._names.from_raw_data(found)
                    revisions.append(HubRevision(item.revision or "", item.commit or "", item.created_at))
        return HubEntry(canonical_id, tuple(models), tuple(revisions))

    @translate_errors()
    def save_name(self, name: str, canonical_id: str) -> None:
        if not is_hub_id(name):
            return
        hub_name = name.lower()
        self._names(
            f"name#{hub_name}",
            hub_name=hub_name,
            created_at=to_moment(self._clock()),
            canonical_name=canonical_id,
        ).save()

    @translate_errors()
    def save_revision(self, resolved: ResolvedModel, moment: datetime) -> None:
        if len(resolved.revision) > MAX_REVISION or resolved.revision == resolved.commit:
            return
        hub_name = resolved.hub_id.lower()
        self._names(
            f"revision#{hub_name}#{resolved.revision}",
            hub_name=hub_name,
            created_at=moment,
            revision=resolved.revision,
            commit=resolved.commit,
        ).save()

    @translate_errors()
    def index_model(self, model_id: str, hub_id: str) -> None:
        if not is_model_id(model_id):
            return
        is_unnamed = ModelItem.hub_name.does_not_exist()
        update_item(
            self._models(model_id), [ModelItem.hub_name.set(hub_id.lower())], ModelItem.model_id.exists() & is_unnamed
        )

    @translate_errors()
    def record_read(self, model_id: str, day: date) -> None:
        if not is_model_id(model_id):
            return
        is_older = ModelItem.last_read_on.does_not_exist() | (ModelItem.last_read_on < day.isoformat())
        record_statistic(
            self._statistics,
            model_id,
            ModelItem.last_read_on.set(day.isoformat()),
            ModelItem.model_id.exists() & is_older,
        )
