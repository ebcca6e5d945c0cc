from dataclasses import replace
from datetime import date, datetime

from modelhaul.domain.hub_models import MAX_REVISION, HubEntry, HubRevision
from modelhaul.domain.hub_names import is_hub_id
from modelhaul.domain.models import ResolvedModel
from modelhaul.ports.hub_models import HubModelRepository
from tests.fakes.tables import InMemoryTables


class InMemoryHubModelRepository(HubModelRepository):
    def __init__(self, tables: InMemoryTables) -> None:
        self._tables = tables

    def find_entry(self, name: str) -> HubEntry:
        name = name.lower()
        with self._tables.lock:
            models = [
                model
                for model in self._tables.models.values()
                if model.resolved.hub_id.lower() == name and model.model_id not in self._tables.unindexed
            ]
            revisions = [revision for (of, _), revision in self._tables.hub_revisions.items() if of == name]
            return HubEntry(
                self._tables.hub_names.get(name),
                tuple(
                    replace(model, gate=None, error=None, last_read_on=None, may_redirect=False)
                    for model in sorted(models, key=lambda model: model.created_at, reverse=True)
                ),
                tuple(sorted(revisions, key=lambda revision: revision.moment, reverse=True)),
            )

    def save_name(self, name: str, canonical_id: str) -> None:
        with self._tables.lock:
            if is_hub_id(name):
                self._tables.hub_names[name.lower()] = canonical_id

    def save_revision(self, resolved: ResolvedModel, moment: datetime) -> None:
        revision = HubRevision(resolved.revision, resolved.commit, moment)
        with self._tables.lock:
            if len(resolved.revision) <= MAX_REVISION and resolved.revision != resolved.commit:
                self._tables.hub_revisions[resolved.hub_id.lower(), resolved.revision] = revision

    def index_model(self, model_id: str, hub_id: str) -> None:
        with self._tables.lock:
            self._tables.unindexed.discard(model_id)

    def record_read(self, model_id: str, day: date) -> None:
        with self._tables.lock:
            model = self._tables.models.get(model_id)
            if model is not None and (model.last_read_on is None or model.last_read_on < day):
                self._tables.models[model_id] = replace(model, last_read_on=day)
