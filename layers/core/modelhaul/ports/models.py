"""Records of models."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.models import DeletionCondition, Model, ModelPage, ModelPin, Source
from modelhaul.domain.signatures import ModelSignature


class ModelRepository(Protocol):
    """Records of models. Every write is atomic, and idempotent after a lost response.

    Every method raises StorageUnavailableError.
    """

    def find_model(self, model_id: str) -> Model | None:
        """Return the model, None if it does not exist. Strongly consistent."""

    def find_models(self, model_ids: Sequence[str]) -> list[Model]:
        """Return the existing models, at most 90, in the order of `model_ids`. Strongly consistent."""

    def list_models(
        self,
        *,
        source: Source | None = None,
        name: str | None = None,
        hub_ids: Sequence[str] | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> ModelPage:
        """Return a page of at most `limit` READY models, newest first. Eventually consistent.

        `name` selects models whose name contains it, case-insensitively. A page with a cursor may have fewer than
        `limit` models, or be empty. Raises InvalidReferenceError for an invalid cursor.

        `hub_ids` are name patterns, and select models whose `hub_id` matches one of them. The cursor is then derived
        only from these models, so that it reveals nothing of others. The last page is therefore reached after about
        10,000 other models without a selected one.
        """

    def record_signature(
        self, model_id: str, signature: ModelSignature, *, task_id: str, entry: AuditEntry | None = None
    ) -> bool:
        """Record the signature of a READY model that the task imported, and the audit's `entry`, in one transaction.

        Return False if there is no such model. Then no entry is recorded.
        """

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
        """Move a READY, FAILED or DELETING model to DELETING, and lease it to `owner` until `until`.

        `deleted_by` is recorded, unless the model is DELETING and has one. The audit's `entry` is recorded in the same
        transaction.

        Return None if the model is unknown, IMPORTING, WITHDRAWING or pinned, or leased to another owner at `now`, or
        if the `condition` does not hold. Everything is checked in the same write.
        """

    def pin_model(self, model_id: str, pin: ModelPin | None, *, entry: AuditEntry | None = None) -> Model | None:
        """Replace the pin of a READY model, or remove it (None), and record the audit's `entry`, in one transaction.

        Return the model, None if there is no such READY model. Then no entry is recorded.
        """

    def list_ready(self) -> Iterator[Model]:
        """Yield all READY models, newest first, without `gate`, `error`, `signature` and the card. Eventually
        consistent.
        """

    def remove_model(self, model_id: str, *, owner: str) -> None:
        """Remove the record of a DELETING model, so that it can be claimed again. No-op if `owner` has no lease."""

    def list_deleting(self, now: float, limit: int) -> list[Model]:
        """Return at most `limit` DELETING models without a lease at `now`. Eventually consistent."""
