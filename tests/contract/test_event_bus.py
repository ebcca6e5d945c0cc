import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime

import boto3
import pytest

from modelhaul.adapters.eventbridge import EventBridgeEventBus, create_events_client
from modelhaul.domain.tasks import Event
from modelhaul.ports.event_bus import EventBus
from tests.contract.backends import BACKENDS, REGION, open_aws
from tests.fakes.event_bus import InMemoryEventBus

MOMENT = datetime(2026, 11, 24, 12, 0, 49, tzinfo=UTC)


class Setup:
    """A bus, and what one who listens to all of Modelhaul's events gets: `receive` waits until `count` came."""

    def __init__(self, bus: EventBus, receive: Callable[[int], list[Event]]) -> None:
        self.bus = bus
        self.receive = receive


@pytest.fixture(params=BACKENDS)
def setup(request: pytest.FixtureRequest) -> Iterator[Setup]:
    if request.param == "fake":
        bus = InMemoryEventBus()
        yield Setup(bus, lambda _: bus.events)
        return
    with open_aws(request.param):
        yield from set_up_eventbridge()


def set_up_eventbridge() -> Iterator[Setup]:
    name = f"contract-{uuid.uuid4().hex}"
    with closing(create_events_client(REGION)) as events, closing(boto3.client("sqs", region_name=REGION)) as sqs:
        url = sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events.put_rule(Name=name, EventPattern=json.dumps({"source": ["Modelhaul"]}))
        events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])

        def receive(count: int) -> list[Event]:
            received: list[Event] = []
            deadline = time.monotonic() + 20
            while len(received) < count and time.monotonic() < deadline:
                answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
                received += [read_event(json.loads(message["Body"])) for message in answer.get("Messages", [])]
            return received

        yield Setup(EventBridgeEventBus(events), receive)
        events.remove_targets(Rule=name, Ids=["queue"])
        events.delete_rule(Name=name)


def read_event(envelope: dict[str, str]) -> Event:
    moment = datetime.fromisoformat(envelope["time"]).astimezone(UTC)
    return Event(envelope["detail-type"], moment, json.dumps(envelope["detail"], ensure_ascii=False))


def test_an_event_comes_through_as_it_is(setup: Setup) -> None:
    event = Event("ImportSucceeded", MOMENT, json.dumps({"task_id": "t", "name": "模型"}, ensure_ascii=False))
    setup.bus.publish(event)
    (received,) = setup.receive(1)
    assert (received.type, received.detail) == (event.type, event.detail)


def test_an_event_has_the_time_of_what_happened(setup: Setup, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["setup"] == "endpoint":
        pytest.skip("MiniStack gives the time at which it was told")
    setup.bus.publish(Event("ImportSucceeded", MOMENT, "{}"))
    assert [event.time for event in setup.receive(1)] == [MOMENT]


def test_the_same_event_may_be_sent_again(setup: Setup) -> None:
    event = Event("ImportFailed", MOMENT, '{"task_id": "t"}')
    setup.bus.publish(event)
    setup.bus.publish(event)
    assert [received.detail for received in setup.receive(2)] == [event.detail] * 2
