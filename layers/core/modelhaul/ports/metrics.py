"""Metrics for operators."""

from typing import Protocol


class Metrics(Protocol):
    """Metrics for operators."""

    def count(self, name: str, value: float = 1) -> None:
        """Add `value` to the metric `name`. `CATALOG` has its unit."""


CATALOG = {
    "ImportsAccepted": "Count",
    "ImportSeconds": "Seconds",  # of each import that succeeds, so its sample count is the number of these imports
    "ImportsFailed": "Count",
    "ImportsCancelled": "Count",
    "BytesTransferred": "Bytes",
    "BytesReused": "Bytes",
    "Retries": "Count",
    "RateLimitWaits": "Count",
    "OutageWaits": "Count",
    "SweepRecoveries": "Count",
    "HubErrors": "Count",
    "HubAccessDenied": "Count",
}
"""The unit of each metric.

The only dimension is `service`, the stack's name, because CloudWatch charges for each combination of dimensions that is
sent in an hour. Log lines have the source, the step and the reason.
"""
