"""One import for each fault at each call of AWS, through the real adapters on moto.

`python -m tests.benchmarks.call_faults` writes `docs/faults.md`.
The faults are answered or raised where botocore sends its request, so that its own retries are
part of what is tried.
"""

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from threading import RLock
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from moto.core.botocore_stubber import BotocoreStubber

from modelhaul.adapters.s3 import S3ObjectStore, create_s3_client
from modelhaul.adapters.sqs import SQSMessageQueue, create_sqs_client
from modelhaul.errors import ImportInProgressError, StorageUnavailableError
from modelhaul.messages import AcceptArchive, PlanImport, PublishModels, TransferFiles
from modelhaul.streaming import StreamSettings
from modelhaul.task import Task, TaskStatus
from tests.benchmarks.counted_import import CountedQueue
from tests.benchmarks.servers import ROOT
from tests.contract.backends import REGION, open_aws
from tests.contract.dynamodb import clear_tables, open_ledger
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.weights import wrap_weights

_NAME = "org/model"
_PART = 5 * 1024 * 1024


def build_files(number: int) -> dict[str, bytes]:
    """One file of two parts and a small one, that only this number has; and the same content twice."""
    own = f"{number:08}".encode()
    return {
        "config.json": b"{}",
        "copy/config.json": b"{}",
        "model.safetensors": wrap_weights(own + bytes(range(256)) * (9 * 4096)),
        "vocab.txt": own * 100,
    }


class CallFault(StrEnum):
    THROTTLE = "throttled once"
    SERVER_ERROR = "500 once"
    RESET = "connection reset"
    LOST_REPLY = "done, reply lost"
    OUTAGE = "down for 30 requests"


@dataclass
class FaultyAws:
    """Counts requests to moto by operation, and harms the `at`-th of `operation` as `fault` says."""

    calls: Counter[str] = field(default_factory=Counter)
    operation: str = ""
    at: int = 0
    fault: CallFault | None = None
    struck: int = 0
    is_watched: bool = True
    """False while what the import has come to is looked at."""
    _lock: RLock = field(default_factory=RLock)

    def aim(self, operation: str, at: int, fault: CallFault) -> None:
        self.calls.clear()
        self.operation, self.at, self.fault, self.struck = operation, at, fault, 0

    def process(self, request: AWSPreparedRequest, do: Callable[[], Any]) -> Any:
        operation = name_operation(request)
        # moto's transactions are not safe among threads.
        with self._lock:
            if not self.is_watched:
                return do()
            number = self.calls[operation]
            self.calls[operation] += 1
            most = 30 if self.fault is CallFault.OUTAGE else 1
            if self.fault is None or operation != self.operation or number < self.at or self.struck >= most:
                return do()
            self.struck += 1
            return self._harm(operation, do)

    def _harm(self, operation: str, do: Callable[[], Any]) -> Any:
        match self.fault:
            case CallFault.THROTTLE:
                return _refuse(operation, 400 if operation.startswith("dynamodb") else 503, "Throttling")
            case CallFault.SERVER_ERROR | CallFault.OUTAGE:
                return _refuse(operation, 500, "InternalError")
            case CallFault.RESET:
                raise ConnectionClosedError(endpoint_url="https://aws")
        do()
        raise ReadTimeoutError(endpoint_url="https://aws")


def name_operation(request: AWSPreparedRequest) -> str:
    """`dynamodb PutItem`; S3's by method and query: `s3 PUT ?partNumber&uploadId`."""
    target = request.headers.get("X-Amz-Target")
    if target is not None:
        name = _decode(target)
        service = "sqs" if "SQS" in name else "dynamodb"
        return f"{service} {name.rpartition('.')[2]}"
    query = "&".join(sorted(parse_qs(urlsplit(str(request.url)).query, keep_blank_values=True)))
    copied = " (copy)" if "x-amz-copy-source" in request.headers else ""
    return re.sub(r"\?$", "", f"s3 {request.method}{copied} ?{query}").rstrip()


def _decode(header: object) -> str:
    return header.decode() if isinstance(header, bytes) else str(header)


def _refuse(operation: str, status: int, code: str) -> Any:
    if operation.startswith("s3"):
        code = "SlowDown" if code == "Throttling" else code
        return status, {}, f"<Error><Code>{code}</Code><Message>harmed</Message></Error>"
    kind = {"Throttling": "ThrottlingException", "InternalError": "InternalServerError"}[code]
    return status, {"Content-Type": "application/x-amz-json-1.0"}, f'{{"__type": "aws#{kind}", "message": "harmed"}}'


@dataclass
class Bench:
    """A deployment over moto that can be used again and again."""

    aws: FaultyAws
    deployment: Deployment
    store: S3ObjectStore
    source: InMemoryModelSource
    _runs: int = 0

    def run(self) -> str:
        """Imports a model that nobody had before, and returns how it went; AssertionError if it went wrong."""
        self._runs += 1
        self.aws.is_watched = True
        files = build_files(self._runs)
        self.source.models = {_NAME: {"main": files}}
        refused = self._submit()
        task = self._finish()
        failed = task.status is TaskStatus.FAILED
        if failed:
            assert task.error is not None
            assert task.error.retryable, task.error
            prefix = self.source.prefix(_NAME)
            assert all(self.store.find_object(prefix + path) is None for path in files)
            self.aws.fault, self.aws.is_watched = None, True
            self._submit()
            task = self._finish()
        assert task.status is TaskStatus.DONE, task.error
        prefix = self.source.prefix(_NAME)
        for path, content in files.items():
            found = self.store.read(prefix + path, 0, len(content) + 1)
            assert hashlib.sha256(found).digest() == hashlib.sha256(content).digest(), path
        assert list(self.store.list_uploads("")) == []
        if failed:
            return "FAILED with nothing left, DONE when submitted again"
        return "refused with 503, DONE when submitted again" if refused else "DONE"

    def _finish(self) -> Task:
        """Delivers and sweeps until nothing is watched any more."""
        deployment = self.deployment
        self._deliver()
        for _ in range(200):
            with suppress(StorageUnavailableError):
                if not deployment.ledger_in_use.list_due(float("inf"), 1):
                    break
                deployment.clock.now += 1500
                deployment.sweeper.sweep_stale(lambda: 300.0)
            self._deliver()
        self.aws.is_watched = False
        task = deployment.ledger_in_use.find_task(deployment.submitted[-1])
        assert task is not None
        return task

    def _deliver(self) -> None:
        """As SQS: a message whose outcome could not be recorded comes again, four times at most."""
        deployment = self.deployment
        while (due := deployment.queue.next_due) is not None:
            deployment.clock.now = max(deployment.clock.now, due)
            for message in deployment.receive():
                for deliveries in range(1, 5):
                    with suppress(StorageUnavailableError):
                        deployment.deliver(message, deliveries=deliveries)
                        break

    def _submit(self) -> int:
        """How often the submit was refused before it was accepted."""
        for refused in range(40):
            try:
                self.deployment.submit(_NAME)
            except StorageUnavailableError:
                continue
            except ImportInProgressError as held:
                # The first try was accepted, and its reply lost.
                self.deployment.submitted.append(held.task_id)
            return refused
        raise AssertionError("never accepted")


@contextmanager
def stand_before_moto(aws: FaultyAws) -> Iterator[None]:
    """All requests to moto go by `aws`, one at a time."""
    original = BotocoreStubber.process_request

    def process_request(stubber: BotocoreStubber, request: AWSPreparedRequest) -> Any:
        return aws.process(request, lambda: original(stubber, request))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BotocoreStubber, "process_request", process_request)
        yield


@contextmanager
def open_bench() -> Iterator[Bench]:
    aws = FaultyAws()
    with open_aws("moto"), stand_before_moto(aws), pytest.MonkeyPatch.context() as patch:
        # botocore's and our own pauses between tries.
        patch.setattr(time, "sleep", lambda _: None)
        with open_ledger() as ledger:
            boto3.client("s3", region_name=REGION).create_bucket(Bucket="models")
            sqs = create_sqs_client(REGION)
            url = sqs.create_queue(QueueName="work")["QueueUrl"]
            kinds = (AcceptArchive, PlanImport, TransferFiles, PublishModels)
            source = InMemoryModelSource()
            deployment = Deployment(source)
            deployment.clock.now = time.time()
            queue = CountedQueue(SQSMessageQueue(sqs, dict.fromkeys(kinds, url)), deployment.queue)
            store = S3ObjectStore(create_s3_client(REGION), "models")
            settings = StreamSettings(part_size=lambda _: _PART, reconnect_delay=0, checkpoint_bytes=_PART)
            deployment.connect(ledger, store, queue, settings)
            yield Bench(aws, deployment, store, source)
            aws.fault = None
            clear_tables(ledger)


def list_calls(bench: Bench) -> dict[str, int]:
    """Requests of an import without faults, by operation."""
    bench.run()
    bench.aws.calls.clear()
    bench.run()
    return dict(sorted(bench.aws.calls.items()))


def describe_faults() -> str:
    """In Markdown: each operation by each fault."""
    with open_bench() as bench:
        calls = list_calls(bench)
        rows = []
        for operation, count in calls.items():
            cells = []
            for fault in CallFault:
                outcomes = Counter[str]()
                for at in range(count):
                    bench.aws.aim(operation, at, fault)
                    outcomes[bench.run()] += bool(bench.aws.struck)
                cells.append("; ".join(f"{outcome} ({times})" for outcome, times in outcomes.items() if times))
            rows.append(f"| {operation} | {count} | {' | '.join(cells)} |")
    faults, files = list(CallFault), len(build_files(0))
    return f"""\
# Faults between Modelhaul and AWS

Generated by `python -m tests.benchmarks.call_faults`; `tests/integration/test_call_faults.py` tries the same. An import
of {files} files (one of two parts, one of equal content) through the real adapters over moto; each request of it
is harmed once in each way, one import a request. A number in brackets is that of imports which ended so: whole, byte
for byte, once, with no multipart upload left.

| Request | per import | {" | ".join(faults)} |
|:---|---:|{":---|" * len(faults)}
{"\n".join(rows)}
"""


if __name__ == "__main__":
    (ROOT / "docs" / "faults.md").write_text(describe_faults())
