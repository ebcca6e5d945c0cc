"""The EventBus over the account's default event bus of Amazon EventBridge."""

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
_ATTEMPTS = 4
_FIRST_WAIT = 0.1  # seconds, doubled each time


def create_events_client(region: str) -> "EventBridgeClient":
    config = Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=3, read_timeout=10)
    client: EventBridgeClient = create_client("events", region, config)
    return client


class EventBridgeEventBus:
    def __init__(self, client: "EventBridgeClient", *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self._sleep = sleep

    def publish(self, event: Event) -> None:
        code = self._put(event)
        for attempt in range(1, _ATTEMPTS):
            if code is None:
                return
            self._sleep(_FIRST_WAIT * 2**attempt * random.uniform(0.5, 1))  # noqa: S311 - jitter
            code = self._put(event)
        if code is not None:
            raise StorageUnavailableError(f"EventBridge did not take the event: {code}")

    def _put(self, event: Event) -> str | None:
        """The code by which EventBridge refused the event, in an answer that says 200; None if it took it."""
        try:
            answer = self._client.put_events(
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
            raise StorageUnavailableError(f"EventBridge PutEvents failed: {read_error_code(error)}") from error
        return answer["Entries"][0].get("ErrorCode") if answer["FailedEntryCount"] else None
