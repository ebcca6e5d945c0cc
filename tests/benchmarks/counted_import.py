"""An import through the real adapters on moto, with every call of AWS counted."""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import boto3
import moto.dynamodb.models
import pytest
from botocore.client import BaseClient

from modelhaul.adapters.s3 import S3ObjectStore, create_s3_client
from modelhaul.adapters.sqs import SQSMessageQueue, create_sqs_client
from modelhaul.messages import AcceptArchive, Message, PlanImport, PublishModels, TransferFiles
from modelhaul.model import Source
from modelhaul.streaming import StreamSettings
from modelhaul.task import Task
from tests.contract.backends import REGION, open_aws
from tests.contract.dynamodb import open_ledger
from tests.fakes.deployment import Deployment
from tests.fakes.message_queue import InMemoryMessageQueue
from tests.fakes.model_source import HubSource


class CountedQueue:
    """Sends to SQS and keeps the messages, to be delivered here."""

    def __init__(self, queue: SQSMessageQueue, kept: InMemoryMessageQueue) -> None:
        self._queue = queue
        self._kept = kept
        self.sent: Counter[str] = Counter()

    def send(self, messages: Iterable[Message], *, delay: float = 0) -> None:
        messages = list(messages)
        self.sent.update(message.kind for message in messages)
        self._queue.send(messages, delay=delay)
        self._kept.send(messages, delay=delay)


@contextmanager
def count_calls() -> Iterator[Counter[str]]:
    """Calls by `service Operation`, of all clients of this process, pynamodb's included."""
    calls: Counter[str] = Counter()
    counting = threading.Lock()
    original = BaseClient._make_api_call  # type: ignore[attr-defined]

    def make_api_call(client: BaseClient, operation: str, arguments: dict[str, Any]) -> Any:
        service = client.meta.service_model.service_name
        with counting:
            calls[f"{service} {operation}"] += 1
            if service == "dynamodb":
                # moto's transactions are not safe among threads.
                return original(client, operation, arguments)
        return original(client, operation, arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", make_api_call)
        # For each transaction moto copies the whole table, to go back to; none fails here.
        patch.setattr(moto.dynamodb.models, "copy", SimpleNamespace(deepcopy=lambda table: table))
        yield calls


def count_import(source: HubSource, kind: Source, name: str) -> tuple[Task, Counter[str], Counter[str]]:
    """(the ended task, calls of AWS by `service Operation`, messages by kind) of one import by the whole pipeline."""
    with open_aws("moto"), open_ledger() as ledger:
        boto3.client("s3", region_name=REGION).create_bucket(Bucket="models")
        sqs = create_sqs_client(REGION)
        url = sqs.create_queue(QueueName="work")["QueueUrl"]
        kinds = (AcceptArchive, PlanImport, TransferFiles, PublishModels)
        deployment = Deployment(source)
        queue = CountedQueue(SQSMessageQueue(sqs, dict.fromkeys(kinds, url)), deployment.queue)
        store = S3ObjectStore(create_s3_client(REGION), "models")
        deployment.connect(ledger, store, queue, StreamSettings())
        with count_calls() as calls:
            task = deployment.submit(name, source=kind)
            deployment.run()
        ended = ledger.find_task(task.id)
        assert ended is not None
        return ended, calls, queue.sent
