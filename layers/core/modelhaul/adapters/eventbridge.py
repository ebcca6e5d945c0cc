"""EventBus on Amazon EventBridge, the default event bus of the account."""

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from botocore.config import Config

from modelhaul.adapters.aws import CALL_ERRORS, create_client, read_error_code
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.tasks import Event

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

SOURCE = "Modelhaul"
_BUS = "default"
_MAX_ATTEMPTS = 4
_FIRST_DELAY = 0.1  # seconds; doubled for each retry


def create_events_client(region: str) -> "EventBridgeClient":
    config = Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=3, read_timeout=10)
    client: EventBridgeClient = create_client("events", region, config)
    return client


class EventBridgeEventBus:
    """Publishes events with PutEvents, up to four times."""

    def __init__(self, client: "EventBridgeClient", *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self._sleep = sleep

    def publish(self, event: Event) -> None:
        code = self._put(event)
        for attempt in range(1, _MAX_ATTEMPTS):
            if code is None:
                return
            self._sleep(_FIRST_DELAY * 2**attempt * random.uniform(0.5, 1))  # noqa: S311 - jitter
            code = self._put(event)
        if code is not None:
            raise StorageUnavailableError(f"EventBridge PutEvents failed ({code}).")

    def _put(self, event: Event) -> str | None:
        """Send the event. Return its error code, which a response with status 200 may contain, or None on success."""
        try:
            response = self._client.put_events(
                Entries=[
                    {
                        "EventBusName": _BUS,
                        "Source": SOURCE,
                        "DetailType": event.type,
                        "Time": event.time,
                        "Detail": event.detail,
                    }
                ]
            )
        except CALL_ERRORS as error:
            raise StorageUnavailableError(f"EventBridge PutEvents failed ({read_error_code(error)}).") from error
        return response["Entries"][0].get("ErrorCode") if response["FailedEntryCount"] else None
