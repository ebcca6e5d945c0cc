"""Records the last day on which a model was read, by which retention rules find unread models."""

import logging
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.ports.clock import Clock
from modelhaul.ports.hub_models import HubModelRepository

logger = logging.getLogger(__name__)

_READ_RETRY = 10  # seconds until the next attempt to record a read, after a failed one


@dataclass(slots=True)
class ReadRecorder:
    """Writes once a day for each model and function instance."""

    hub_models: HubModelRepository
    clock: Clock
    _reads: dict[str, date] = field(init=False, default_factory=dict)
    _record_from: float = field(init=False, default=0.0)

    def record_read(self, model_id: str) -> None:
        """Record the day of the read. A failure is only logged, and the day is recorded with a later read."""
        now = self.clock()
        day = datetime.fromtimestamp(now, UTC).date()
        if self._reads.get(model_id) == day or now < self._record_from:
            return
        try:
            self.hub_models.record_read(model_id, day)
            self._reads[model_id] = day
        except StorageUnavailableError as error:
            self._record_from = now + _READ_RETRY
            logger.warning("read of model not recorded", extra={"model_id": model_id, "detail": error.detail})
