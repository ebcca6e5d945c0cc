"""The metrics that Modelhaul emits, namespace `Modelhaul`: name to CloudWatch unit and dimensions.

Every one also has the dimension `service` (the stack's name), and is emitted a second time with that alone, for the
total: CloudWatch adds nothing up over dimensions.
"""

from dataclasses import dataclass


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
