"""How much storage the models use."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from modelhaul.catalog.presentation import format_time
from modelhaul.catalog.quota import StorageQuota
from modelhaul.domain.models import Model
from modelhaul.domain.quotas import QuotaUse
from modelhaul.domain.usage import Total, Usage, UsageCounter
from modelhaul.ports.clock import Clock
from modelhaul.ports.models import ModelRepository

UNREAD_DAYS = 30
MAX_UNREAD_DAYS = 3650


@dataclass(frozen=True, slots=True)
class UsageReader:
    """Sums up all READY models. `quota` is None if the stack has none."""

    models: ModelRepository
    clock: Clock
    quota: StorageQuota | None = None

    def read_usage(self, unread_days: int, has_time: Callable[[], bool]) -> Usage:
        """Count models, newest first, while `has_time()`. Raises StorageUnavailableError."""
        counter = UsageCounter(datetime.fromtimestamp(self.clock(), UTC), unread_days)
        is_complete = True

        def count() -> Iterator[Model]:
            nonlocal is_complete
            for model in self.models.list_ready():
                if not has_time():
                    is_complete = False
                    return
                counter.add(model)
                yield model

        quota = None
        if self.quota is not None:
            quota = self.quota.measure(count())
        else:
            deque(count(), maxlen=0)
        return counter.summarize(is_complete=is_complete, quota=quota)


def present_usage(usage: Usage) -> dict[str, Any]:
    """Return the use of storage for the API."""
    return {
        "measured_at": format_time(usage.measured_at),
        "is_complete": usage.is_complete,
        **_present_total(usage.total),
        "by_source": [{"source": source.value, **_present_total(total)} for source, total in usage.by_source.items()],
        "names": usage.names,
        "by_name": [
            {"source": source.value, "name": name, **_present_total(total)} for source, name, total in usage.by_name
        ],
        "largest": [_present_model(model) for model in usage.largest],
        "unread": {
            "days": usage.unread_days,
            **_present_total(usage.unread),
            "largest": [_present_model(model) for model in usage.largest_unread],
        },
        "quota": _present_quota(usage.quota) if usage.quota is not None else None,
    }


def _present_total(total: Total) -> dict[str, int]:
    return {"models": total.models, "size": total.size, "bytes_reused": total.bytes_reused}


def _present_model(model: Model) -> dict[str, Any]:
    return {
        "model_id": model.model_id,
        "name": model.resolved.name,
        "source": model.resolved.source.value,
        "revision": model.resolved.revision,
        "commit": model.resolved.commit,
        "files": model.files,
        "size": model.size,
        "created_at": format_time(model.created_at),
        **({"last_read_on": model.last_read_on.isoformat()} if model.last_read_on is not None else {}),
        "pinned": model.pin is not None,
    }


def _present_quota(quota: QuotaUse) -> dict[str, int]:
    return {"size": quota.limit, "stored": quota.stored, "reserved": quota.reserved, "left": quota.left}
