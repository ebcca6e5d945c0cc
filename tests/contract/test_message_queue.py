import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from modelhaul.adapters.sqs import SQSMessageQueue, create_sqs_client
from modelhaul.domain.messages import (
    CopyFiles,
    JoinTransfer,
    Message,
    PlanImport,
    PublishModels,
    TransferFiles,
    parse_message,
)
from modelhaul.ports.message_queue import MessageQueue
from tests.contract.backends import BACKENDS, open_client
from tests.fakes.message_queue import InMemoryMessageQueue

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

MESSAGE_TYPES: tuple[type[Message], ...] = (PlanImport, TransferFiles, JoinTransfer, CopyFiles, PublishModels)


class Setup:
    """A queue and what a consumer of it sees. `receive` waits until `count` messages came or none can."""

    def __init__(
        self, queue: MessageQueue, receive: Callable[[int], list[Message]], clock: Callable[[], float]
    ) -> None:
        self.queue = queue
        self.receive = receive
        self.clock = clock


@pytest.fixture(scope="module", params=BACKENDS)
def client(request: pytest.FixtureRequest) -> "Iterator[SQSClient | None]":
    with open_client(request.param, create_sqs_client) as client:
        yield client


@pytest.fixture
def setup(client: "SQSClient | None") -> Setup:
    return set_up_fake() if client is None else set_up_sqs(client)


def set_up_fake() -> Setup:
    now = 1_700_000_000.0
    queue = InMemoryMessageQueue(lambda: now)

    def receive(count: int) -> list[Message]:
        nonlocal now
        messages = queue.receive(now)
        while len(messages) < count and queue.next_due is not None:
            now = queue.next_due
            messages += queue.receive(now)
        return messages

    return Setup(queue, receive, lambda: now)


def set_up_sqs(client: "SQSClient") -> Setup:
    urls: dict[type[Message], str] = {
        message_type: client.create_queue(QueueName=f"contract-{uuid.uuid4().hex}")["QueueUrl"]
        for message_type in MESSAGE_TYPES
    }

    def receive(count: int) -> list[Message]:
        messages: list[Message] = []
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            received = 0
            for message_type, url in urls.items():
                answer = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
                for received_message in answer.get("Messages", []):
                    message = parse_message(received_message["Body"])
                    assert type(message) is message_type
                    messages.append(message)
                    received += 1
            # One look more than needed, so that a message too many is seen.
            if len(messages) >= count and not received:
                break
            if not received:
                time.sleep(0.05)
        return messages

    return Setup(SQSMessageQueue(client, urls), receive, time.monotonic)


def test_each_message_arrives_in_the_queue_of_its_type(setup: Setup) -> None:
    sent: list[Message] = [
        PlanImport(task_id="t1"),
        TransferFiles(task_id="t1", group=7, attempt=3),
        JoinTransfer(task_id="t1", group=7, returns=2),
        CopyFiles(task_id="t1", groups=(1, 2), total=3, left_out=("weights/ä ✓.bin",)),
        PublishModels(task_id="t1"),
    ]
    setup.queue.send(sent)
    assert Counter(setup.receive(3)) == Counter(sent)


@pytest.mark.parametrize("count", [0, 1, 10, 11, 35])
def test_any_number_of_messages_is_sent(setup: Setup, count: int) -> None:
    sent: list[Message] = [TransferFiles(task_id="t", group=n) for n in range(count)]
    setup.queue.send(iter(sent))
    assert Counter(setup.receive(count)) == Counter(sent)


def test_large_messages_are_sent_apart(setup: Setup) -> None:
    paths = tuple(f"{n:04}-" + "é" * 400 for n in range(300))
    sent: list[Message] = [CopyFiles(task_id=f"t{n}", groups=(0,), total=1, left_out=paths) for n in range(7)]
    assert sum(len(message.model_dump_json().encode()) for message in sent) > 1024 * 1024
    setup.queue.send(sent)
    assert Counter(setup.receive(7)) == Counter(sent)


@pytest.mark.slow
def test_a_delayed_message_comes_later(setup: Setup) -> None:
    started = setup.clock()
    setup.queue.send([PlanImport(task_id="t")], delay=0.4)
    assert setup.receive(1) == [PlanImport(task_id="t")]
    assert setup.clock() - started >= 0.4


@pytest.mark.parametrize("delay", [900, 899.5, 5000])
def test_a_long_delay_is_accepted(setup: Setup, delay: float) -> None:
    setup.queue.send([PlanImport(task_id="t")], delay=delay)
    assert setup.receive(0) == []


def test_a_negative_delay_is_none(setup: Setup) -> None:
    setup.queue.send([PlanImport(task_id="t")], delay=-3)
    assert setup.receive(1) == [PlanImport(task_id="t")]
