"""What is known of the sources' limits."""

from typing import Protocol


class RateLimitStore(Protocol):
    """What all functions know of the sources' limits. Every method raises StorageUnavailableError."""

    def find_pause(self, limit: str) -> float:
        """Epoch seconds until which nothing is to be asked under this limit; 0 if there is no pause. Strongly
        consistent.
        """

    def record_pause(self, limit: str, until: float) -> None:
        """Without effect if a longer pause is recorded already."""
