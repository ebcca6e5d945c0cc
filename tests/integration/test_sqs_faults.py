"""SQS takes a batch in part, or not at all."""

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from botocore.stub import Stubber

from modelhaul.adapters.sqs import SQSMessageQueue, create_sqs_client
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.messages import AcceptArchive, JoinTransfer, Message, PlanImport, PublishModels, TransferFiles
from tests.contract.backends import REGION, open_aws

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

URL = "https://sqs.us-east-1.amazonaws.com/1/plan"
MESSAGES = [PlanImport(task_id=f"t{number}") for number in range(3)]


@pytest.fixture(scope="module")
def client() -> "Iterator[SQSClient]":
    with open_aws("moto"), closing(create_sqs_client(REGION)) as client:
        yield client


@pytest.fixture
def stubber(client: "SQSClient") -> Iterator[Stubber]:
    with Stubber(client) as stubber:
        yield stubber


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def queue(client: "SQSClient", waits: list[float]) -> SQSMessageQueue:
    return SQSMessageQueue(client, {PlanImport: URL}, sleep=waits.append)


class _LoseOnce:
    """A botocore retry decision: what was answered the first time counts as never received."""

    lost = False

    def __call__(self, **_: Any) -> float | None:
        if self.lost:
            return None
        self.lost = True
        return 0.0


def test_a_reply_lost_after_the_send_is_sent_again(client: "SQSClient", monkeypatch: pytest.MonkeyPatch) -> None:
    """It may arrive twice then, which the steps bear; it does not fail, and nothing is missing."""
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    url = client.create_queue(QueueName="lost-replies")["QueueUrl"]
    lose_once: Any = _LoseOnce()
    client.meta.events.register_last("needs-retry.sqs.SendMessageBatch", lose_once)
    try:
        SQSMessageQueue(client, {PlanImport: url}).send(MESSAGES)
    finally:
        client.meta.events.unregister("needs-retry.sqs.SendMessageBatch", lose_once)
    assert lose_once.lost
    received: list[str] = []
    while found := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        received += [message["Body"] for message in found]
    assert set(received) == {message.model_dump_json() for message in MESSAGES}
    assert len(received) == 2 * len(MESSAGES), "the first call was done, only its reply was lost"


def expect(stubber: Stubber, sent: list[int], failed: dict[int, bool]) -> None:
    """A call with these messages, some of which fail: number -> whether it is the sender's fault."""
    entries: list[dict[str, Any]] = [
        {"Id": str(n), "MessageBody": MESSAGES[n].model_dump_json(), "DelaySeconds": 2} for n in sent
    ]
    answer = {
        "Successful": [{"Id": str(n), "MessageId": "m", "MD5OfMessageBody": "0"} for n in sent if n not in failed],
        "Failed": [
            {"Id": str(n), "SenderFault": fault, "Code": "Refused" if fault else "InternalError"}
            for n, fault in failed.items()
        ],
    }
    stubber.add_response("send_message_batch", answer, {"QueueUrl": URL, "Entries": entries})


def test_only_what_failed_is_sent_again(queue: SQSMessageQueue, stubber: Stubber, waits: list[float]) -> None:
    expect(stubber, [0, 1, 2], {0: False, 2: False})
    expect(stubber, [0, 2], {2: False})
    expect(stubber, [2], {})
    queue.send(MESSAGES, delay=1.2)
    stubber.assert_no_pending_responses()
    assert len(waits) == 2
    assert 0 < waits[0] < waits[1] < 1


def test_sending_again_has_an_end(queue: SQSMessageQueue, stubber: Stubber, waits: list[float]) -> None:
    expect(stubber, [0, 1, 2], {1: False})
    for _ in range(3):
        expect(stubber, [1], {1: False})
    with pytest.raises(
        StorageUnavailableError, match=r"^SQS SendMessageBatch failed for 1 of 3 messages \(InternalError\)\.$"
    ) as caught:
        queue.send(MESSAGES, delay=2)
    stubber.assert_no_pending_responses()
    assert len(waits) == 3
    assert caught.value.is_outage


def test_what_sqs_never_takes_is_not_sent_again(queue: SQSMessageQueue, stubber: Stubber, waits: list[float]) -> None:
    expect(stubber, [0, 1, 2], {0: True, 1: False})
    with pytest.raises(StorageUnavailableError, match=r"2 of 3 messages \(InternalError, Refused\)") as caught:
        queue.send(MESSAGES, delay=2)
    assert waits == []
    assert not caught.value.is_outage


@pytest.mark.parametrize(
    ("code", "status", "is_outage"), [("AccessDenied", 403, False), ("RequestThrottled", 403, True), ("x", 503, True)]
)
def test_a_refused_call_is_unavailable_storage(
    queue: SQSMessageQueue, stubber: Stubber, code: str, status: int, is_outage: bool
) -> None:
    stubber.add_client_error("send_message_batch", code, "arn:aws:sqs:us-east-1:1:plan", http_status_code=status)
    with pytest.raises(StorageUnavailableError, match=rf"^SQS SendMessageBatch failed \({code}\)\.$") as caught:
        queue.send(MESSAGES)
    assert caught.value.is_outage is is_outage


@pytest.mark.parametrize(
    ("message", "setting"),
    [
        (AcceptArchive(task_id="t"), "ARCHIVE_QUEUE_URL"),
        (PlanImport(task_id="t"), "PLAN_QUEUE_URL"),
        (TransferFiles(task_id="t", group=0), "TRANSFER_QUEUE_URL"),
        (JoinTransfer(task_id="t", group=0), "TRANSFER_QUEUE_URL"),
        (PublishModels(task_id="t"), "PUBLISH_QUEUE_URL"),
    ],
)
def test_a_queue_that_is_not_configured_is_named_before_anything_is_sent(
    client: "SQSClient", stubber: Stubber, message: Message, setting: str
) -> None:
    queue = SQSMessageQueue(client, {AcceptArchive: URL, PlanImport: URL} if setting == "PUBLISH_QUEUE_URL" else {})
    with pytest.raises(ValueError, match=rf"^No queue for {type(message).__name__}: {setting} is not set\.$"):
        queue.send([*(MESSAGES if setting == "PUBLISH_QUEUE_URL" else []), message])
