"""Metrics for operators."""

from dataclasses import dataclass
from typing import Protocol


class Metrics(Protocol):
    """Metrics for operators."""

    def count(self, name: str, value: float = 1, **dimensions: str) -> None:
        """Add `value` to the metric `name`. `CATALOG` has its unit."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Unit and dimensions of a metric.

    The dimension `source` is a task's source (HUGGINGFACE, …), `reason` an error's type, `step` a message's kind,
    `outcome` the result of a request to the Hub read API.
    """

    unit: str
    dimensions: tuple[str, ...]


CATALOG = {
    "ImportsAccepted": Metric("Count", ("source",)),
    "ImportsSucceeded": Metric("Count", ("source",)),
    "ImportsFailed": Metric("Count", ("source", "reason")),
    "ImportsCancelled": Metric("Count", ("source",)),
    "ImportSeconds": Metric("Seconds", ("source",)),
    "BytesTransferred": Metric("Bytes", ("source",)),
    "BytesReused": Metric("Bytes", ("source",)),
    "ModelsDeleted": Metric("Count", ("source",)),
    "Retries": Metric("Count", ("step",)),
    "RateLimitWaits": Metric("Count", ("step",)),
    "OutageWaits": Metric("Count", ("step",)),
    "SweepRecoveries": Metric("Count", ("source",)),
    "UnreadableMessages": Metric("Count", ()),
    "HubReads": Metric("Count", ("outcome",)),
    "HubAccessDenied": Metric("Count", ()),
}
