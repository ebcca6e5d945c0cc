from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.tasks import Event


class InMemoryEventBus:
    """Keeps what was published. With `is_down` it takes nothing."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.is_down = False

    def publish(self, event: Event) -> None:
        if self.is_down:
            raise StorageUnavailableError("EventBridge PutEvents failed (InternalException).")
        self.events.append(event)
