"""An import through the real adapters on moto, with every call of AWS counted."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import boto3
import moto.dynamodb.models
import pytest
from botocore.client import BaseClient

from modelhaul.adapters.archives import S3ArchiveStore
from modelhaul.adapters.s3 import S3ObjectStore, create_s3_client
from modelhaul.adapters.sqs import SQSMessageQueue, create_sqs_client
from modelhaul.domain.messages import AcceptArchive, Message, PlanImport, PublishModels, TransferFiles
from modelhaul.domain.models import Source
from modelhaul.domain.tasks import Task
from modelhaul.transfer.engine import StreamSettings
from modelhaul.transfer.policy import TransferPolicy
from tests.benchmarks.request_units import charge_call
from tests.contract.backends import REGION, open_aws
from tests.contract.dynamodb import open_database
from tests.fakes.archive_store import InMemoryArchiveStore
from tests.fakes.clock import ManualClock
from tests.fakes.deployment import Deployment
from tests.fakes.message_queue import InMemoryMessageQueue
from tests.fakes.model_source import HubSource

# Nothing that depends on how fast this machine is: no heartbeat, no second connection.
_POLICY = TransferPolicy()
_TIMELESS = {"heartbeat": 1e9, "rate_window": 1e9}


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


@dataclass(slots=True)
class Usage:
    """Of all clients of this process, pynamodb's included: calls by `service Operation`, DynamoDB's request units."""

    calls: Counter[str] = field(default_factory=Counter)
    read_units: float = 0
    write_units: float = 0


@contextmanager
def count_calls() -> Iterator[Usage]:
    usage = Usage()
    counting = threading.Lock()
    original = BaseClient._make_api_call  # type: ignore[attr-defined]

    def make_api_call(client: BaseClient, operation: str, arguments: dict[str, Any]) -> Any:
        service = client.meta.service_model.service_name
        with counting:
            usage.calls[f"{service} {operation}"] += 1
            if service == "dynamodb":
                # moto's transactions are not safe among threads.
                answer, units = charge_call(operation, arguments, lambda: original(client, operation, arguments))
                usage.read_units += units.read
                usage.write_units += units.write
                return answer
        return original(client, operation, arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", make_api_call)
        # For each transaction moto copies the whole table, to go back to; none fails here.
        patch.setattr(moto.dynamodb.models, "copy", SimpleNamespace(deepcopy=lambda table: table))
        yield usage


@dataclass(slots=True)
class CountedImport:
    """`messages` by kind."""

    task: Task
    usage: Usage
    messages: Counter[str]


def count_import(
    source: HubSource,
    start: Callable[[Deployment], str],
    *,
    stream_settings: Callable[..., StreamSettings] = StreamSettings,
    policy: TransferPolicy = _POLICY,
    **store_options: int,
) -> CountedImport:
    """One import by the whole pipeline, which `start` begins and of which it returns the task's id. `store_options` are
    S3ObjectStore's.
    """
    # A time whose number has no zeros at its end, which DynamoDB does not store: sizes are the same in every run.
    clock = ManualClock(1_764_028_799.123)
    with open_aws("moto"), open_database(clock) as database:
        for bucket in ("models", "incoming"):
            boto3.client("s3", region_name=REGION).create_bucket(Bucket=bucket)
        sqs = create_sqs_client(REGION)
        url = sqs.create_queue(QueueName="work")["QueueUrl"]
        kinds = (AcceptArchive, PlanImport, TransferFiles, PublishModels)
        deployment = Deployment(source, clock=clock, policy=policy)
        queue = CountedQueue(SQSMessageQueue(sqs, dict.fromkeys(kinds, url)), deployment.queue)
        client = create_s3_client(REGION)
        deployment.archives = cast("InMemoryArchiveStore", S3ArchiveStore(client, "incoming"))
        store = S3ObjectStore(client, "models", **store_options)
        deployment.connect(database, store, queue, stream_settings(**_TIMELESS))
        with count_calls() as usage:
            task_id = start(deployment)
            deployment.run()
        ended = database.tasks.find_task(task_id)
        assert ended is not None
        return CountedImport(ended, usage, queue.sent)


def submit(kind: Source, name: str) -> Callable[[Deployment], str]:
    return lambda deployment: deployment.submit(name, source=kind).id
