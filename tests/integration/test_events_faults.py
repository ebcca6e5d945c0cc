"""EventBridge does not take an event: in the call, or in an answer that says 200."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from botocore.stub import Stubber

from modelhaul.adapters.eventbridge import EventBridgeEventBus, create_events_client
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.tasks import Event
from tests.contract.backends import REGION, open_aws

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

EVENT = Event("ImportSucceeded", datetime(2026, 11, 24, tzinfo=UTC), '{"task_id": "t"}')
ENTRY = {
    "EventBusName": "default",
    "Source": "Modelhaul",
    "DetailType": EVENT.type,
    "Time": EVENT.time,
    "Detail": EVENT.detail,
}
TAKEN: dict[str, Any] = {"FailedEntryCount": 0, "Entries": [{"EventId": "e"}]}
REFUSED: dict[str, Any] = {
    "FailedEntryCount": 1,
    "Entries": [{"ErrorCode": "ThrottlingException", "ErrorMessage": "arn:aws:events:secret"}],
}


@pytest.fixture
def client() -> "Iterator[EventBridgeClient]":
    with open_aws("moto"), closing(create_events_client(REGION)) as client:
        yield client


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def bus(client: "EventBridgeClient", waits: list[float]) -> EventBridgeEventBus:
    return EventBridgeEventBus(client, sleep=waits.append)


def test_an_entry_that_is_refused_is_sent_again(
    client: "EventBridgeClient", bus: EventBridgeEventBus, waits: list[float]
) -> None:
    with Stubber(client) as stubber:
        for answer in (REFUSED, REFUSED, TAKEN):
            stubber.add_response("put_events", answer, {"Entries": [ENTRY]})
        bus.publish(EVENT)
        stubber.assert_no_pending_responses()
    assert len(waits) == 2
    assert waits[0] <= waits[1]


def test_an_entry_that_stays_refused_is_an_error(client: "EventBridgeClient", bus: EventBridgeEventBus) -> None:
    with Stubber(client) as stubber:
        for _ in range(4):
            stubber.add_response("put_events", REFUSED, {"Entries": [ENTRY]})
        with pytest.raises(StorageUnavailableError) as caught:
            bus.publish(EVENT)
        stubber.assert_no_pending_responses()
    assert caught.value.detail.endswith("(ThrottlingException).")
    assert "arn" not in caught.value.detail


def test_a_call_that_fails_is_an_error(client: "EventBridgeClient", bus: EventBridgeEventBus) -> None:
    with Stubber(client) as stubber:
        stubber.add_client_error("put_events", "AccessDeniedException", "arn:aws:events:secret", 400)
        with pytest.raises(StorageUnavailableError) as caught:
            bus.publish(EVENT)
    assert "AccessDeniedException" in caught.value.detail
    assert "arn" not in caught.value.detail
