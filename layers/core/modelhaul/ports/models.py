"""Models: claimed by a task, listed when they are READY."""

from collections.abc import Sequence
from typing import Protocol

from modelhaul.domain.models import Model, ModelPage, Source


class ModelRepository(Protocol):
    """Every write is atomic and safe to repeat after a lost reply. Every method raises StorageUnavailableError."""

    def find_model(self, model_id: str) -> Model | None: ...

    def find_models(self, model_ids: Sequence[str]) -> list[Model]:
        """Those that are there, in the order asked for, strongly consistent. At most 90."""

    def list_models(
        self, *, source: Source | None = None, name: str | None = None, limit: int, cursor: str | None = None
    ) -> ModelPage:
        """A page of at most `limit` READY models, newest first, eventually consistent; `name`: those in whose name it
        is, in any case of letters. A page may be short, or empty, and still have a cursor. Raises
        InvalidReferenceError for a cursor that it did not give.
        """

    def lease_deletion(self, model_id: str, *, owner: str, now: float, until: float) -> Model | None:
        """Moves a READY or FAILED model to DELETING and leases it to `owner`, or leases one that is DELETING already.

        None if it is unknown, IMPORTING or WITHDRAWING, or another owner's lease runs at `now`.
        """

    def remove_model(self, model_id: str, *, owner: str) -> None:
        """Removes the record of a DELETING model, so that the model can be claimed again; without effect if the lease
        is another's.
        """

    def list_deleting(self, now: float, limit: int) -> list[Model]:
        """DELETING models whose lease does not run at `now`. Eventually consistent."""
