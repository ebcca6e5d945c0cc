"""Pins, which protect models from deletion."""

from dataclasses import dataclass
from datetime import UTC, datetime

from modelhaul.domain.audit import describe_pin, describe_unpinning
from modelhaul.domain.errors import ModelNotFoundError
from modelhaul.domain.models import Model, ModelPin, describe_missing_model
from modelhaul.ports.clock import Clock
from modelhaul.ports.models import ModelRepository

MAX_REASON = 500  # characters


@dataclass(frozen=True, slots=True)
class ModelPinner:
    """Pins and unpins READY models."""

    models: ModelRepository
    clock: Clock

    def pin_model(self, model_id: str, *, pinned_by: str | None, reason: str | None) -> Model:
        """Pin the model, and return it. A pin that it has is replaced.

        Raises ModelNotFoundError, also for a model that is not READY, and StorageUnavailableError.
        """
        model = self._find_model(model_id)
        pin = ModelPin(self._now(), pinned_by, reason)
        pinned = self.models.pin_model(model_id, pin, entry=describe_pin(model, pin))
        if pinned is None:
            raise ModelNotFoundError(describe_missing_model(model_id))
        return pinned

    def unpin_model(self, model_id: str, *, unpinned_by: str | None) -> None:
        """Remove the model's pin. No-op if it is not pinned. Raises the errors of `pin_model`."""
        model = self._find_model(model_id)
        entry = describe_unpinning(model, unpinned_by, self._now()) if model.pin is not None else None
        if self.models.pin_model(model_id, None, entry=entry) is None:
            raise ModelNotFoundError(describe_missing_model(model_id))

    def _find_model(self, model_id: str) -> Model:
        model = self.models.find_model(model_id)
        if model is None:
            raise ModelNotFoundError(describe_missing_model(model_id))
        return model

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)
