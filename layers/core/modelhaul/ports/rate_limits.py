"""Rate limits of the sources."""

from typing import Protocol


class RateLimitStore(Protocol):
    """Rate limits of the sources, shared by all functions. Every method raises StorageUnavailableError."""

    def find_pause(self, limit: str) -> float:
        """Return the epoch seconds until which no request may be sent under this limit, 0 if there is no pause.

        Strongly consistent.
        """

    def record_pause(self, limit: str, until: float) -> None:
        """Record a pause until `until` (epoch seconds). No-op if a longer pause is recorded."""
