"""Events for subscribers."""

from typing import Protocol

from modelhaul.domain.tasks import Event


class EventBus(Protocol):
    """Events for subscribers."""

    def publish(self, event: Event) -> None:
        """Publish the event to all subscribers, at least once.

        Raises StorageUnavailableError, after which the event may nevertheless have been published.
        """
