"""What Hub clients find under a name."""

from datetime import date, datetime
from typing import Protocol

from modelhaul.domain.hub_models import HubEntry
from modelhaul.domain.models import ResolvedModel


class HubModelRepository(Protocol):
    """Models by their `hub_id`, and the other names and revisions that stand for them.

    Names and revisions remain when the last model of their name is deleted. They do no harm: a name or a revision is
    found only if it leads to a READY model. Every method raises StorageUnavailableError.
    """

    def find_entry(self, name: str) -> HubEntry:
        """Return what is recorded under the name, in any case. The entry is empty if nothing is. Eventually consistent.

        The entry is empty for a name that Hub clients would not accept (see `is_hub_id`).
        """

    def save_name(self, name: str, canonical_id: str) -> None:
        """Record that the name, in any case, stands for the `hub_id` `canonical_id`. The last call for a name counts.

        No-op for a name that Hub clients would not accept.
        """

    def save_revision(self, resolved: ResolvedModel, moment: datetime) -> None:
        """Record the commit of the model's revision at `moment`. The last call for a revision counts.

        No-op for a revision of more than 250 characters, and for one that is the commit itself.
        """

    def index_model(self, model_id: str, hub_id: str) -> None:
        """Let `find_entry` find a model that was recorded before models had a `hub_id`. No-op for other models."""

    def record_read(self, model_id: str, day: date) -> None:
        """Record that the model was read on this day (UTC). No-op if the model is missing, or was read later."""
