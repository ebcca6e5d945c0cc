"""Events for the world outside."""

from typing import Protocol

from modelhaul.domain.tasks import Event


class EventBus(Protocol):
    def publish(self, event: Event) -> None:
        """Hands the event to all who listen, at least once. Raises StorageUnavailableError; it may then have come
        through.
        """
