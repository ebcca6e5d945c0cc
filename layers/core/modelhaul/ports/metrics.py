"""Metrics for the person on call."""

from dataclasses import dataclass
from typing import Protocol


class Metrics(Protocol):
    """Metrics for the person on call."""

    def count(self, name: str, value: float = 1, **dimensions: str) -> None:
        """Adds `value` to the metric `name`; its unit is part of `CATALOG`."""


@dataclass(frozen=True, slots=True)
class Metric:
    """`dimensions`: `source` is a task's (HUGGINGFACE, …), `reason` an error's type, `step` a message's kind."""

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
    "SweepRecoveries": Metric("Count", ("source",)),
    "UnreadableMessages": Metric("Count", ()),
}
