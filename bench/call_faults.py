"""One import for each fault at each call of AWS, through the real adapters on moto.

`make bench PARTS=faults` writes `docs/faults.md`; `bench/tests/test_call_faults.py` holds the code to it.
The faults are answered or raised where botocore sends its request, so that its own retries are part of what is tried.
"""

import copy
import itertools
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from threading import Event
from typing import Any, cast

import boto3
import moto.s3.models
import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from moto.s3.models import s3_backends

from bench.servers import ROOT
from modelhaul import wiring
from modelhaul.adapters import s3
from modelhaul.adapters.archives import S3ArchiveStore
from modelhaul.adapters.dynamodb.connection import open_connection
from modelhaul.adapters.dynamodb.rate_limits import DynamoDBRateLimitStore
from modelhaul.adapters.idempotency import DynamoDBResponseStore
from modelhaul.adapters.s3 import S3ObjectStore, create_s3_client
from modelhaul.adapters.sqs import SQSMessageQueue, create_sqs_client
from modelhaul.domain.errors import ImportInProgressError, StorageUnavailableError
from modelhaul.domain.files import Part, SourceFile
from modelhaul.domain.messages import AcceptArchive, Message, PlanImport, PublishModels, TransferFiles
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.objects import ObjectRange
from modelhaul.domain.tasks import Task, TaskStatus
from modelhaul.transfer.engine import StreamSettings
from modelhaul.transfer.policy import TransferPolicy
from modelhaul_sources.rate_budget import RateBudget
from tests.contract.backends import REGION, open_aws
from tests.contract.counted_aws import CountedQueue
from tests.contract.dynamodb import open_database
from tests.contract.faulty_aws import OUTAGE, CallFault, FaultyAws, stand_before_moto
from tests.fakes.clock import ManualClock
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource, InMemoryStream
from tests.lambda_functions import call_api, read_event
from tests.pickles import zip_files
from tests.template.transformed import read_template
from tests.weights import wrap_weights

PAGE = ROOT / "docs" / "faults.md"
_NAME = "org/model"
_MODELS, _INCOMING = "models", "incoming"
# All sizes 320 times smaller than S3's smallest part.
_PART = 16 * 1024
_DELIVERIES = 4  # of a message, before it is a dead letter
_START = 1_764_028_799.123
_STEPS = (AcceptArchive, PlanImport, TransferFiles, PublishModels)
# Nothing that depends on how fast this machine is: no heartbeat, no second connection.
_STREAM = StreamSettings(
    part_size=lambda _: _PART, reconnect_delay=0, checkpoint_bytes=_PART, heartbeat=1e9, rate_window=1e9
)


class ImportKind(StrEnum):
    HUB = "A model of the Hub, by a POST with an Idempotency-Key"
    GITHUB = "A repository on GitHub, which says once that it was asked too often"
    DROPPED = "An archive that is dropped into the bucket"
    POSTED = "An archive in the body of a POST"


def list_faults(operation: str) -> list[CallFault]:
    """Of DynamoDB's and SQS's requests, which are a packet, and of requests without a body there is no half."""
    is_upload = operation.startswith(("s3 PutObject", "s3 UploadPart ("))
    return [fault for fault in CallFault if is_upload or fault is not CallFault.CUT]


class LimitedSource(InMemoryModelSource):
    """As GitHub's source does, asks what other functions know of the limit before each request, and is refused once.

    Each request is a cold function's: it knows nothing by itself.
    """

    def __init__(self, files: dict[str, bytes], store: DynamoDBRateLimitStore, clock: ManualClock) -> None:
        super().__init__({_NAME: {"main": files}}, kind=Source.GITHUB)
        self._store = store
        self._clock = clock
        self._is_refused = False

    def _open_budget(self) -> RateBudget:
        return RateBudget(self._store, "GitHub's API", clock=self._clock)

    def resolve(self, name: str, revision: str) -> ResolvedModel:
        self._open_budget().check()
        return super().resolve(name, revision)

    def list_files(self, model: ResolvedModel) -> Iterator[SourceFile]:
        budget = self._open_budget()
        budget.check()
        if not self._is_refused:
            self._is_refused = True
            raise budget.refuse({"retry-after": "60"})
        return super().list_files(model)

    def open_range(self, model: ResolvedModel, file: SourceFile, start: int, end: int) -> InMemoryStream:
        self._open_budget().check()
        return super().open_range(model, file, start, end)


def build_files(number: int) -> dict[str, bytes]:
    """One file of two parts and a small one, that only this number has; and twice what every other number has too."""
    own = f"{number:08}".encode()
    return {
        "config.json": b"{}",
        "copy.json": b"{}",
        "model.safetensors": wrap_weights(own * (_PART // 5)),
        "tokenizer.json": b'{"number": "%s"}' % own,
    }


class PacedStore(S3ObjectStore):
    """Has the second part of a file wait until the first is written down, so that each import has as many calls."""

    def __init__(self, client: Any, bucket: str) -> None:
        super().__init__(client, bucket)
        self.written = Event()

    def upload_part(self, key: str, upload_id: str, number: int, body: memoryview, *, crc32: int) -> Part:
        upload = super().upload_part
        return self._pace(number, lambda: upload(key, upload_id, number, body, crc32=crc32))

    def copy_part(self, key: str, upload_id: str, number: int, source: ObjectRange, *, crc32: int) -> Part:
        copy = super().copy_part
        return self._pace(number, lambda: copy(key, upload_id, number, source, crc32=crc32))

    def _pace(self, number: int, move: Callable[[], Part]) -> Part:
        if number > 1:
            self.written.wait(30)
        try:
            return move()
        except BaseException:
            self.written.set()
            raise


class _RefusedError(Exception):
    """What was sent was not accepted; it may be sent again."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


@dataclass
class Bench:
    """A deployment over moto, to which each import comes as the second: another model was imported before it."""

    aws: FaultyAws
    deployment: Deployment
    archives: S3ArchiveStore
    store: PacedStore
    limits: DynamoDBRateLimitStore
    _tables: dict[str, Any] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def prepare(self) -> None:
        """Imports the other model, and keeps the tables as they are then."""
        self.deployment.source = InMemoryModelSource({"org/other": {"main": build_files(next(self._numbers))}})
        self.deployment.submit("org/other")
        self.deployment.run()
        self._tables = copy.deepcopy(dynamodb_backends[DEFAULT_ACCOUNT_ID][REGION].tables)

    def count_calls(self, kind: ImportKind) -> dict[str, int]:
        """Requests of an import without faults, by operation."""
        self.aws.fault = None
        assert self.run(kind) == "DONE"
        return dict(sorted(self.aws.calls.items()))

    def harm(self, kind: ImportKind, operation: str, at: int, fault: CallFault) -> str:
        """How an import went whose `at`-th request of this kind was harmed; AssertionError if it went wrong."""
        self.aws.aim(operation, at, fault)
        outcome = self.run(kind)
        assert self.aws.struck, f"{kind}: no {operation} number {at}"
        return outcome

    def run(self, kind: ImportKind) -> str:
        """Imports what nobody had before, and returns how it went; AssertionError if it went wrong."""
        dynamodb_backends[DEFAULT_ACCOUNT_ID][REGION].tables = copy.deepcopy(self._tables)
        self.deployment.clock.now = _START
        self.aws.calls.clear()
        self.store.written.clear()
        before = self._list_published()
        files = build_files(next(self._numbers))
        self.deployment.source = (
            LimitedSource(files, self.limits, self.deployment.clock)
            if kind is ImportKind.GITHUB
            else InMemoryModelSource({_NAME: {"main": files}})
        )
        refusals = self._start(kind, files)
        task = self._finish()
        ends = [f"refused with {' and '.join(map(str, sorted(set(refusals))))}"] if refusals else []
        if task.status is TaskStatus.FAILED:
            assert task.error is not None
            assert task.error.retryable, task.error
            assert self._list_published() == before
            ends.append("FAILED with nothing left")
            self.aws.fault = None
            assert self._start(kind, files) == []
            task = self._finish()
        assert task.status is TaskStatus.DONE, task.error
        (model,) = self.deployment.database_in_use.models.find_models(task.model_ids)
        prefix = model.resolved.prefix
        assert self._list_published() - before == {prefix + path for path in files}
        for path, content in files.items():
            assert self.store.read(prefix + path, 0, len(content) + 1) == content, path
        return ", ".join([*ends, "DONE when submitted again"]) if ends else "DONE"

    def _list_published(self) -> set[str]:
        keys: list[str] = list(s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[_MODELS].keys)
        return {key for key in keys if key.startswith("models/")}

    def _start(self, kind: ImportKind, files: dict[str, bytes]) -> list[int]:
        """Sends the import until it is accepted. The statuses that it was refused with."""
        archive = zip_files({f"model/{path}": content for path, content in files.items()})
        key = f"import-{next(self._numbers)}"
        refusals = []
        self.aws.is_watched = True
        for _ in range(OUTAGE + 1):
            try:
                self.deployment.submitted.append(self._send(kind, archive, key))
            except _RefusedError as refused:
                refusals.append(refused.status)
            else:
                return refusals
        raise AssertionError("never accepted")

    def _send(self, kind: ImportKind, archive: bytes, key: str) -> str:
        """The task's id."""
        try:
            match kind:
                case ImportKind.HUB:
                    return self._post_with_key(key)
                case ImportKind.GITHUB:
                    return self.deployment.submit(_NAME, source=Source.GITHUB).id
                case ImportKind.DROPPED:
                    return self._drop(archive, f"incoming/{key}.zip")
                case ImportKind.POSTED:
                    return self.deployment.post(archive).id
        except StorageUnavailableError:
            raise _RefusedError(HTTPStatus.SERVICE_UNAVAILABLE) from None
        except ImportInProgressError as held:
            # The first try was accepted, and its reply lost.
            return held.task_id

    def _post_with_key(self, key: str) -> str:
        event = read_event("submit_huggingface")
        for headers, value in ((event["headers"], key), (event["multiValueHeaders"], [key])):
            headers["Idempotency-Key"] = value
        answer = call_api("submit_huggingface", event, body={"model_tag": _NAME})
        if answer.status == HTTPStatus.CREATED:
            return answer.headers["location"].rpartition("/")[2]
        held: str | None = answer.body.get("task_id")
        if held is None:
            self._end_first_request()
            raise _RefusedError(answer.status)
        return held

    def _end_first_request(self) -> None:
        """Lets the time pass that the function had which was asked first with this key."""
        answers: Any = dynamodb_backends[DEFAULT_ACCOUNT_ID][REGION].tables["answers"]
        for item in answers.items.values():
            item.attrs["in_progress_expiration"].value = "0"

    def _drop(self, archive: bytes, key: str) -> str:
        """As S3's event comes by its queue: four times, and then as a dead letter."""
        self.aws.is_watched = False
        etag = self.archives.put_archive(key, archive)
        self.aws.is_watched = True

        def record() -> AcceptArchive:
            task_id = self.deployment.arrivals.record_arrival(key, size=len(archive), etag=etag, event_id=key)
            assert task_id is not None
            return AcceptArchive(task_id=task_id)

        for _ in range(_DELIVERIES):
            with suppress(StorageUnavailableError):
                message = record()
                self.deployment.queue.send([message])
                return message.task_id
        return self._insist(lambda: self._crash(record()))

    def _crash(self, message: Message) -> str:
        self.deployment.runner.record_crash(message)
        return message.task_id

    def _insist[T](self, do: Callable[[], T]) -> T:
        """As the dead letters' queue, which has no other behind it."""
        for _ in range(OUTAGE):
            with suppress(StorageUnavailableError):
                return do()
        raise AssertionError("the outage has no end")

    def _finish(self) -> Task:
        """Delivers and sweeps until nothing is watched any more."""
        deployment = self.deployment
        self._deliver()
        for _ in range(200):
            with suppress(StorageUnavailableError):
                if not deployment.database_in_use.tasks.list_due(float("inf"), 1):
                    break
                deployment.clock.now += 1500
                deployment.sweeper.sweep_stale(lambda: 300.0)
            self._deliver()
        self.aws.is_watched = False
        assert list(self.store.list_uploads("")) == []
        task = deployment.database_in_use.tasks.find_task(deployment.submitted[-1])
        assert task is not None
        if task.archive is not None and task.archive.key.startswith("incoming/"):
            found = self.store._client.get_object(Bucket=_INCOMING, Key=f"outcomes/{task.archive.key}.json")
            assert json.load(found["Body"])["task_status"] == task.status
        return task

    def _deliver(self) -> None:
        """As SQS: a message whose outcome could not be recorded comes again, and is a dead letter in the end."""
        deployment = self.deployment
        while (due := deployment.queue.next_due) is not None:
            deployment.clock.now = max(deployment.clock.now, due)
            for message in deployment.receive():
                self._deliver_message(message)

    def _deliver_message(self, message: Message) -> None:
        for deliveries in range(1, _DELIVERIES + 1):
            with suppress(StorageUnavailableError):
                self.deployment.deliver(message, deliveries=deliveries)
                return
        self._insist(lambda: self._crash(message))


@contextmanager
def open_bench() -> Iterator[Bench]:
    aws = FaultyAws(is_watched=False)
    clock = ManualClock(_START)
    with (
        open_aws("moto"),
        stand_before_moto(aws),
        pytest.MonkeyPatch.context() as patch,
        open_database(clock) as database,
    ):
        # botocore's and our own pauses between tries.
        patch.setattr(time, "sleep", lambda _: None)
        patch.setattr(moto.s3.models, "S3_UPLOAD_PART_MIN_SIZE", 1)
        patch.setattr(s3, "_MIN_PART_SIZE", 1)
        patch.setattr(s3, "_MIB", 1)
        client = create_s3_client(REGION)
        for bucket in (_MODELS, _INCOMING):
            client.create_bucket(Bucket=bucket)
        sqs = create_sqs_client(REGION)
        url = sqs.create_queue(QueueName="work")["QueueUrl"]
        deployment = Deployment(clock=clock, policy=TransferPolicy(small_file=_PART))
        queue = CountedQueue(SQSMessageQueue(sqs, dict.fromkeys(_STEPS, url)), deployment.queue)
        store, archives = PacedStore(client, _MODELS), S3ArchiveStore(client, _INCOMING, clock=clock)
        deployment.archives = cast("Any", archives)
        deployment.connect(database, store, queue, _STREAM)
        save = database.files.save_checkpoint

        def save_checkpoint(*args: Any, **options: Any) -> None:
            store.written.set()
            save(*args, **options)

        patch.setattr(database.files, "save_checkpoint", save_checkpoint)
        limits = DynamoDBRateLimitStore(open_connection(REGION), rate_limits_table="limits")
        limits._limits.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
        create_answers_table()
        answers = DynamoDBResponseStore("answers", region=REGION)
        patch.setattr(wiring, "create_submitter", lambda: deployment.submitter)
        patch.setattr(wiring, "create_response_store", lambda: answers)
        bench = Bench(aws, deployment, archives, store, limits)
        bench.prepare()
        yield bench
        aws.fault = None


def create_answers_table() -> None:
    """As the template has it."""
    table = read_template()["Resources"]["IdempotencyTable"]["Properties"]
    names = ("AttributeDefinitions", "KeySchema", "BillingMode")
    boto3.client("dynamodb", region_name=REGION).create_table(
        TableName="answers", **{name: table[name] for name in names}
    )


def describe_import(bench: Bench, kind: ImportKind) -> str:
    """In Markdown: each request of an import by each fault."""
    rows = []
    for operation, count in bench.count_calls(kind).items():
        cells = []
        for fault in CallFault:
            outcomes = Counter[str]()
            if fault in list_faults(operation):
                outcomes.update(bench.harm(kind, operation, at, fault) for at in range(count))
            cells.append("; ".join(f"{outcome} ({times})" for outcome, times in sorted(outcomes.items())))
        rows.append(f"| {operation} | {count} | {' | '.join(cells)} |")
    faults = list(CallFault)
    return f"""\
## {kind}

| Request | per import | {" | ".join(faults)} |
|:---|---:|{":---|" * len(faults)}
{"\n".join(rows)}
"""


def read_table(kind: ImportKind) -> dict[str, tuple[int, dict[CallFault, Counter[str]]]]:
    """What the page says of each operation: requests per import, and how many ended in which way by fault."""
    section = PAGE.read_text().partition(f"## {kind}\n")[2].partition("\n## ")[0]
    _, _, *rows = (line.strip("|").split("|") for line in section.splitlines() if line.startswith("|"))
    return {
        operation.strip(): (int(count), {f: _read_cell(cell) for f, cell in zip(CallFault, cells, strict=True)})
        for operation, count, *cells in rows
    }


def _read_cell(cell: str) -> Counter[str]:
    return Counter({outcome: int(times) for outcome, times in re.findall(r"([^; ][^;]*) \((\d+)\)", cell)})


def describe_faults() -> str:
    """In Markdown: each import."""
    with open_bench() as bench:
        sections = "\n".join(describe_import(bench, kind) for kind in ImportKind)
    return f"""\
# Faults between Modelhaul and AWS

Generated by `make bench PARTS=faults`; `bench/tests/test_call_faults.py` tries a part of it again
and holds the page to what it sees.

Four ways of importing a model of {len(build_files(0))} files (one of two parts; two with content that another model
brought before) through the real adapters over moto. Each request of each import is harmed once in each way, one
import a request. A number in brackets is that of imports which ended so: whole, byte for byte, once, with no multipart
upload left.

- *upload cut*: the connection breaks when half of a body that is sent from a buffer has been read from it.
- *done, reply lost*: AWS did what it was asked to, and nothing came back until the read timeout.
- *down for {OUTAGE} requests*: this request and the {OUTAGE - 1} after it with this name are answered with 500, which
  can outlast the tries of the client, of a step and of a message's deliveries. Where it does by little, runs differ.
- *FAILED with nothing left*: the task says why and that it can be submitted again; nothing is visible under `models/`.
- *refused with 503*: the caller was told to come again. 409 is for an Idempotency-Key whose first request is being
  answered or died over it: it is free again when that request's time is over.
- Behind a request is its table or bucket: `limits` is RateLimitsTable, `answers` is IdempotencyTable.
- Files are scaled down, and parts and limits with them. moto does not say the checksum of a part that it copied, so
  that a stored entry of an archive is also read and sent, as on any store that does not.

{sections}"""


def write() -> None:
    # Some 1,600 imports, most with something to complain of.
    logging.disable()
    try:
        PAGE.write_text(describe_faults())
    finally:
        logging.disable(logging.NOTSET)
