"""The use of storage: sums over READY models."""

import heapq
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from modelhaul.domain.models import Model, Source
from modelhaul.domain.quotas import QuotaUse

MAX_SHOWN = 20  # names and models in each list


@dataclass(slots=True)
class Total:
    """Number of models, the bytes of their files, and how many of these were already stored at the import."""

    models: int = 0
    size: int = 0
    bytes_reused: int = 0

    def add(self, model: Model) -> None:
        self.models += 1
        self.size += model.size
        self.bytes_reused += model.bytes_reused


@dataclass(frozen=True, slots=True)
class Usage:
    """The use of storage by the READY models at `measured_at`.

    `by_source` has every source. `by_name` has the names with most bytes, largest first, and `names` is the number of
    all names. `largest` are the largest models. `unread` is the total of the models that were not read for
    `unread_days` days, and `largest_unread` are the largest of these. `is_complete` is False if there are older models
    that were not counted. `quota` is None if the stack has none.
    """

    measured_at: datetime
    total: Total
    by_source: dict[Source, Total]
    by_name: list[tuple[Source, str, Total]]
    names: int
    largest: list[Model]
    unread_days: int
    unread: Total
    largest_unread: list[Model]
    is_complete: bool
    quota: QuotaUse | None = None


@dataclass(slots=True)
class _Largest:
    """Keeps the largest of the models, and of equal ones those with the first IDs."""

    _models: list[Model] = field(default_factory=list)

    def add(self, model: Model) -> None:
        self._models.append(model)
        if len(self._models) >= 2 * MAX_SHOWN:
            self._models = self.sort()

    def sort(self) -> list[Model]:
        return sorted(self._models, key=lambda model: (-model.size, model.model_id))[:MAX_SHOWN]


@dataclass(slots=True)
class UsageCounter:
    """Sums up models, of which each is given once. Memory grows with the number of names only."""

    measured_at: datetime
    unread_days: int
    _total: Total = field(default_factory=Total, init=False)
    _unread: Total = field(default_factory=Total, init=False)
    _by_source: dict[Source, Total] = field(default_factory=lambda: {s: Total() for s in Source}, init=False)
    _by_name: dict[tuple[Source, str], Total] = field(default_factory=dict, init=False)
    _largest: _Largest = field(default_factory=_Largest, init=False)
    _largest_unread: _Largest = field(default_factory=_Largest, init=False)

    def add(self, model: Model) -> None:
        source, name = model.resolved.source, model.resolved.name
        for total in (self._total, self._by_source[source], self._by_name.setdefault((source, name), Total())):
            total.add(model)
        self._largest.add(model)
        if find_last_use(model) <= self.measured_at.date() - timedelta(days=self.unread_days):
            self._unread.add(model)
            self._largest_unread.add(model)

    def summarize(self, *, is_complete: bool, quota: QuotaUse | None = None) -> Usage:
        by_name = heapq.nsmallest(MAX_SHOWN, self._by_name.items(), key=lambda item: (-item[1].size, item[0]))
        return Usage(
            measured_at=self.measured_at,
            total=self._total,
            by_source=self._by_source,
            by_name=[(source, name, total) for (source, name), total in by_name],
            names=len(self._by_name),
            largest=self._largest.sort(),
            unread_days=self.unread_days,
            unread=self._unread,
            largest_unread=self._largest_unread.sort(),
            is_complete=is_complete,
            quota=quota,
        )


def find_last_use(model: Model) -> date:
    """Return the last day (UTC) on which the model was read, or else the day of its import."""
    return model.last_read_on or model.created_at.astimezone(UTC).date()
