"""Requests to moto's AWS, counted with the units that DynamoDB charges."""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import moto.dynamodb.models
import pytest
from botocore.client import BaseClient

from modelhaul.adapters.sqs import SQSMessageQueue
from modelhaul.domain.messages import Message
from tests.contract.request_units import charge_call
from tests.fakes.message_queue import InMemoryMessageQueue


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
