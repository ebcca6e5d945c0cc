"""The models that exist for a read key."""

from dataclasses import dataclass, replace

from modelhaul.domain.hub_models import HubEntry
from modelhaul.domain.models import ModelPage, Source
from modelhaul.domain.read_keys import ALL_NAMES
from modelhaul.hub.requests import KeyContext
from modelhaul.ports.hub_models import HubModelRepository
from modelhaul.ports.models import ModelRepository


@dataclass(frozen=True, slots=True)
class PermittedModels:
    """Reads the repositories for requests with a key, as if they contained only the models that the key permits."""

    key: KeyContext
    hub_models: HubModelRepository
    models: ModelRepository

    def find_entry(self, name: str) -> HubEntry:
        """Return what is recorded under the name, as `HubModelRepository.find_entry` does.

        The entry is empty if the key does not permit the name, also if it is an old name of a model that the key
        permits. An old name does not lead to a model that the key does not permit.
        """
        if not self.key.permits(name):
            return HubEntry()
        entry = self.hub_models.find_entry(name)
        canonical_id = entry.canonical_id
        return replace(
            entry,
            canonical_id=canonical_id if canonical_id is not None and self.key.permits(canonical_id) else None,
            models=tuple(model for model in entry.models if self.key.permits(model.resolved.hub_id)),
        )

    def list_models(self, *, source: Source | None, name: str | None, limit: int, cursor: str | None) -> ModelPage:
        """Return a page of models, as `ModelRepository.list_models` does."""
        hub_ids = None if self.key.names == ALL_NAMES else self.key.names
        return self.models.list_models(source=source, name=name, hub_ids=hub_ids, limit=limit, cursor=cursor)
