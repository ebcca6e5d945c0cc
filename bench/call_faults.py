"""One import for each fault of each AWS request, through the real adapters on moto.

`make pages PAGES=faults` writes `docs/faults.md`. `bench/tests` compares it with the code.
Faults are injected where botocore sends a request, so that its retries are included.
"""

import copy
import itertools
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from http import HTTPStatus
from threading import Event
from typing import Any, cast

import boto3
import moto.s3.models
import pytest
from botocore.retries.quota import RetryQuota
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from moto.s3.models import s3_backends

from bench.servers import ROOT
from modelhaul import wiring
from modelhaul.adapters import s3_client, s3_uploads
from modelhaul.adapters.archives import S3ArchiveStore
from modelhaul.adapters.dynamodb.connection import open_connection
from modelhaul.adapters.dynamodb.rate_limits import DynamoDBRateLimitStore
from modelhaul.adapters.idempotency import DynamoDBResponseStore
from modelhaul.adapters.s3 import S3ObjectStore
from modelhaul.adapters.s3_client import create_s3_client
from modelhaul.adapters.sqs import SQSMessageQueue, create_sqs_client
from modelhaul.domain.errors import ImportInProgressError, SourceUnavailableError, StorageUnavailableError
from modelhaul.domain.files import Part, SourceFile
from modelhaul.domain.messages import AcceptArchive, CopyFiles, Message, PlanImport, PublishModels, TransferFiles
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.objects import ObjectRange
from modelhaul.domain.tasks import Task, TaskStatus
from modelhaul.ports.segments import SegmentRepository
from modelhaul.transfer.mover import SegmentMover
from modelhaul.transfer.policy import TransferPolicy
from modelhaul.transfer.settings import StreamSettings
from modelhaul_sources.rate_budget import RateBudget
from tests.archives.zipping import zip_files
from tests.contract.backends import REGION, open_aws
from tests.contract.counted_aws import CountedQueue
from tests.contract.dynamodb import open_database
from tests.contract.faulty_aws import OUTAGE, CallFault, FaultyAws, stand_before_moto
from tests.fakes.clock import ManualClock
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource, InMemoryStream
from tests.lambda_functions import call_api, read_event
from tests.template.transformed import read_template
from tests.weights import wrap_weights

PAGE = ROOT / "docs" / "faults.md"
_NAME = "org/model"
_MODELS, _INCOMING = "models", "incoming"
# All sizes are 320 times smaller than the minimum part size of S3.
_PART = 16 * 1024
_START = 1_764_028_799.123
_STEPS = (AcceptArchive, PlanImport, TransferFiles, CopyFiles, PublishModels)
# No heartbeats and no additional connections, which depend on the speed of the machine.
_STREAM = StreamSettings(
    part_size=lambda _: _PART, buffers=3, reconnect_delay=0, heartbeat=1e9, progress=1e9, batch=1e9, rate_window=1e9
)
_SEGMENT = 3  # parts
_READ_SECONDS = 2.0
_LARGE_FILE = "model.safetensors"


# Without its response, the POST is rejected with 409. The next POST sends it again, so its first try would always fail.
# moto does not recognize a repeated transaction by its token. A repository then sends a new one, which would fail, too.
_SEPARATE = {"dynamodb PutItem (idempotency)", "dynamodb TransactWriteItems (files)"}


@cache
def _count_deliveries() -> int:
    """Return the deliveries of a message before it becomes a dead letter."""
    count: int = read_template()["Resources"]["PlanQueue"]["Properties"]["RedrivePolicy"]["maxReceiveCount"]
    return count


class ImportKind(StrEnum):
    HUB = "Hub import by a POST with an Idempotency-Key, and with one interrupted transfer"
    GITHUB = "GitHub import with one rate-limited response and one digest mismatch"
    DROPPED = "Archive copied into the incoming bucket"
    POSTED = "Archive in the body of a POST"


def list_faults(operation: str) -> list[CallFault]:
    """Return the faults of an operation. Only uploads can be cut: other requests have no body, or fit into a packet."""
    is_upload = operation.startswith(("s3 PutObject", "s3 UploadPart ("))
    return [fault for fault in CallFault if is_upload or fault is not CallFault.CUT]


class InterruptedSource(InMemoryModelSource):
    """Interrupts the first transfer of the large file in its second segment, when the first one is recorded."""

    def __init__(self, files: dict[str, bytes], recorded: Event) -> None:
        super().__init__({_NAME: {"main": files}}, on_read=self._interrupt)
        self._recorded = recorded
        self._interruptions = _STREAM.reconnects + 1

    def _interrupt(self, path: str, offset: int) -> None:
        if path == _LARGE_FILE and offset >= _SEGMENT * _PART and self._interruptions:
            self._recorded.wait(30)
            self._interruptions -= 1
            raise SourceUnavailableError("The connection was interrupted.")


class LimitedSource(InMemoryModelSource):
    """Checks the shared rate limit before each request, like the GitHub source, and is rate-limited once.

    Each request behaves like a cold function, which has no state of its own. The first response with the large file
    has a wrong byte.
    """

    def __init__(self, files: dict[str, bytes], store: DynamoDBRateLimitStore, clock: ManualClock) -> None:
        super().__init__({_NAME: {"main": files}}, kind=Source.GITHUB, served=self._serve)
        self._store = store
        self._clock = clock
        self._was_rate_limited = False
        self._was_wrong = False

    def _open_budget(self) -> RateBudget:
        return RateBudget(self._store, "GitHub's API", clock=self._clock)

    def resolve(self, name: str, revision: str) -> ResolvedModel:
        self._open_budget().check()
        return super().resolve(name, revision)

    def list_files(self, model: ResolvedModel) -> Iterator[SourceFile]:
        budget = self._open_budget()
        budget.check()
        if not self._was_rate_limited:
            self._was_rate_limited = True
            raise budget.record_refusal({"retry-after": "60"})
        return super().list_files(model)

    def open_range(self, model: ResolvedModel, file: SourceFile, start: int, end: int) -> InMemoryStream:
        self._open_budget().check()
        return super().open_range(model, file, start, end)

    def _serve(self, path: str, content: bytes) -> bytes:
        if path != _LARGE_FILE or self._was_wrong:
            return content
        self._was_wrong = True
        return content[:-1] + bytes([content[-1] ^ 1])


def build_files(number: int) -> dict[str, bytes]:
    """Return a file of four parts and a small file, unique to this number, and two files with shared content."""
    unique = f"{number:08}".encode()
    return {
        "config.json": b"{}",
        "copy.json": b"{}",
        _LARGE_FILE: wrap_weights(unique * (_PART * 7 // 16)),
        "tokenizer.json": b'{"number": "%s"}' % unique,
    }


class PacedStore(S3ObjectStore):
    """Delays the second segment of a file until the first is recorded, so that each import has the same requests."""

    def __init__(self, client: Any, bucket: str) -> None:
        super().__init__(client, bucket)
        self.recorded = Event()

    def upload_part(self, key: str, upload_id: str, number: int, body: memoryview, *, crc32: int) -> Part:
        upload = super().upload_part
        return self._pace(number, lambda: upload(key, upload_id, number, body, crc32=crc32))

    def copy_part(self, key: str, upload_id: str, number: int, source: ObjectRange, *, crc32: int) -> Part:
        copy = super().copy_part
        return self._pace(number, lambda: copy(key, upload_id, number, source, crc32=crc32))

    def _pace(self, number: int, move: Callable[[], Part]) -> Part:
        if number > _SEGMENT:
            self.recorded.wait(30)
        try:
            return move()
        except BaseException:
            self.recorded.set()
            raise


@dataclass(frozen=True)
class PacedSegments:
    """Reports that the first segment is recorded, or that a request failed.

    Each reading takes time, so that the claims of a function expire whose release failed.
    """

    segments: SegmentRepository
    recorded: Event
    clock: ManualClock

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.segments, name)

        def call(*args: Any) -> Any:
            if name == "find_upload":
                self.clock.now += _READ_SECONDS
            if name == "create_upload":
                self.recorded.clear()
            if name == "replace_upload" and args[2].hashed:
                self.recorded.set()
            try:
                return method(*args)
            except BaseException:
                self.recorded.set()
                raise

        return call


class _RejectedError(Exception):
    """The import was not accepted and can be submitted again."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


@dataclass
class Bench:
    """A deployment on moto. Another model is imported before each import."""

    aws: FaultyAws
    deployment: Deployment
    archives: S3ArchiveStore
    store: PacedStore
    limits: DynamoDBRateLimitStore
    _tables: dict[str, Any] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def prepare(self) -> None:
        """Import the other model, and save the tables."""
        self.deployment.source = InMemoryModelSource({"org/other": {"main": build_files(next(self._numbers))}})
        self.deployment.submit("org/other")
        self.deployment.run()
        self._tables = copy.deepcopy(dynamodb_backends[DEFAULT_ACCOUNT_ID][REGION].tables)

    def count_calls(self, kind: ImportKind) -> dict[str, int]:
        """Return the requests of an import without faults, by operation."""
        self.aws.fault = None
        assert self.run(kind) == "DONE"
        return dict(sorted(self.aws.calls.items()))

    def run_with_fault(self, kind: ImportKind, operation: str, at: int, fault: CallFault) -> str:
        """Return the outcome of an import in which request number `at` of this operation has the fault.

        Raises AssertionError for an invalid outcome.
        """
        self.aws.aim([operation], fault, at=at)
        outcome = self.run(kind)
        assert self.aws.struck, f"{kind}: no {operation} number {at}"
        return outcome

    def check_all_requests(self, kind: ImportKind, counts: Mapping[str, int], fault: CallFault) -> None:
        """Run an import in which the first try of each request of these operations has the fault.

        Raises AssertionError unless the import ends DONE.
        """
        self.aws.aim(counts, fault)
        assert self.run(kind) == "DONE", f"{kind}: {fault}"
        assert all(self.aws.struck[operation] >= count for operation, count in counts.items()), self.aws.struck

    def run(self, kind: ImportKind) -> str:
        """Import new files and return the outcome. Raises AssertionError for an invalid outcome."""
        dynamodb_backends[DEFAULT_ACCOUNT_ID][REGION].tables = copy.deepcopy(self._tables)
        self.deployment.clock.now = _START
        self.aws.calls.clear()
        self.store.recorded.clear()
        before = self._list_published()
        files = build_files(next(self._numbers))
        self.deployment.source = (
            LimitedSource(files, self.limits, self.deployment.clock)
            if kind is ImportKind.GITHUB
            else InterruptedSource(files, self.store.recorded)
        )
        rejections = self._start(kind, files)
        task = self._finish()
        ends = [f"rejected with {' and '.join(map(str, sorted(set(rejections))))}"] if rejections else []
        if task.status is TaskStatus.FAILED:
            assert task.error is not None
            assert task.error.retryable, task.error
            assert self._list_published() == before
            ends.append("FAILED and cleaned up")
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
        """Submit the import until it is accepted. Returns the statuses of rejected attempts."""
        archive = zip_files({f"model/{path}": content for path, content in files.items()})
        key = f"import-{next(self._numbers)}"
        rejections = []
        self.aws.is_watched = True
        for _ in range(OUTAGE + 1):
            try:
                self.deployment.submitted.append(self._send(kind, archive, key))
            except _RejectedError as error:
                rejections.append(error.status)
            else:
                return rejections
        raise AssertionError("never accepted")

    def _send(self, kind: ImportKind, archive: bytes, key: str) -> str:
        """Submit the import and return the task ID."""
        try:
            match kind:
                case ImportKind.HUB:
                    return self._post_with_idempotency_key(key)
                case ImportKind.GITHUB:
                    return self.deployment.submit(_NAME, source=Source.GITHUB).id
                case ImportKind.DROPPED:
                    return self._drop(archive, f"incoming/{key}.zip")
                case ImportKind.POSTED:
                    return self.deployment.post(archive).id
        except StorageUnavailableError:
            raise _RejectedError(HTTPStatus.SERVICE_UNAVAILABLE) from None
        except ImportInProgressError as running:
            # The first attempt was accepted, and its response lost.
            return running.task_id

    def _post_with_idempotency_key(self, key: str) -> str:
        event = read_event("submit_huggingface")
        for headers, value in ((event["headers"], key), (event["multiValueHeaders"], [key])):
            headers["Idempotency-Key"] = value
        response = call_api("submit_huggingface", event, body={"model_tag": _NAME})
        if response.status == HTTPStatus.CREATED:
            return response.headers["location"].rpartition("/")[2]
        running_task_id: str | None = response.body.get("task_id")
        if running_task_id is None:
            self._expire_first_request()
            raise _RejectedError(response.status)
        return running_task_id

    def _expire_first_request(self) -> None:
        """Let the first request with this key time out."""
        table: Any = dynamodb_backends[DEFAULT_ACCOUNT_ID][REGION].tables["idempotency"]
        for item in table.items.values():
            item.attrs["in_progress_expiration"].value = "0"

    def _drop(self, archive: bytes, key: str) -> str:
        """Deliver the event of S3 by its queue: up to `_count_deliveries` times, and then as a dead letter."""
        self.aws.is_watched = False
        etag = self.archives.put_archive(key, archive)
        self.aws.is_watched = True

        def record() -> AcceptArchive:
            task_id = self.deployment.arrivals.record_arrival(key, size=len(archive), etag=etag, event_id=key)
            assert task_id is not None
            return AcceptArchive(task_id=task_id)

        for _ in range(_count_deliveries()):
            with suppress(StorageUnavailableError):
                message = record()
                self.deployment.queue.send([message])
                return message.task_id
        return self._retry_during_outage(lambda: self._record_crash(record()))

    def _record_crash(self, message: Message) -> str:
        self.deployment.runner.record_crash(message)
        return message.task_id

    def _retry_during_outage[T](self, do: Callable[[], T]) -> T:
        """Retry like the dead-letter queue, which has no further dead-letter queue."""
        for _ in range(OUTAGE):
            with suppress(StorageUnavailableError):
                return do()
        raise AssertionError("the outage does not end")

    def _expire_uploads(self, task: Task) -> None:
        """Abort the uploads of a failed import that another import can continue.

        Raises AssertionError if there are other uploads.
        """
        found = list(self.store.list_uploads(""))
        if not found:
            return
        assert task.status is TaskStatus.FAILED
        assert task.plan_id is not None
        recorded = self.deployment.database_in_use.segments.list_uploads(task.plan_id)
        kept = {upload.upload_id for upload in recorded.values() if upload.is_kept}
        for key, upload_id in found:
            assert upload_id in kept
            self.store.abort_upload(key, upload_id)

    def _finish(self) -> Task:
        """Deliver messages and run the sweep until no task is pending."""
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
        task = deployment.database_in_use.tasks.find_task(deployment.submitted[-1])
        assert task is not None
        self._expire_uploads(task)
        if task.archive is not None and task.archive.key.startswith("incoming/"):
            found = self.store._client.get_object(Bucket=_INCOMING, Key=f"outcomes/{task.archive.key}.json")
            assert json.load(found["Body"])["task_status"] == task.status
        return task

    def _deliver(self) -> None:
        """Deliver messages like SQS: a failed message is delivered again, and finally becomes a dead letter."""
        deployment = self.deployment
        while (due := deployment.queue.next_due) is not None:
            deployment.clock.now = max(deployment.clock.now, due)
            for message in deployment.receive():
                self._deliver_message(message)

    def _deliver_message(self, message: Message) -> None:
        for deliveries in range(1, _count_deliveries() + 1):
            with suppress(StorageUnavailableError):
                self.deployment.deliver(message, deliveries=deliveries)
                return
        self._retry_during_outage(lambda: self._record_crash(message))


@contextmanager
def silence_logs() -> Iterator[None]:
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def open_bench() -> Iterator[Bench]:
    aws = FaultyAws(is_watched=False)
    clock = ManualClock(_START)
    with (
        open_aws("moto"),
        stand_before_moto(aws),
        pytest.MonkeyPatch.context() as patch,
        open_database(clock, audit_days=0) as database,
    ):
        # Retry delays of botocore and of the application.
        patch.setattr(time, "sleep", lambda _: None)
        # botocore limits the retries of a client by a quota. Here, all imports share the clients.
        patch.setattr(RetryQuota, "acquire", lambda *_: True)
        patch.setattr(moto.s3.models, "S3_UPLOAD_PART_MIN_SIZE", 1)
        patch.setattr(s3_uploads, "_MIN_PART_SIZE", 1)
        patch.setattr(s3_client, "MIB", 1)
        client = create_s3_client(REGION)
        for bucket in (_MODELS, _INCOMING):
            client.create_bucket(Bucket=bucket)
        sqs = create_sqs_client(REGION)
        url = sqs.create_queue(QueueName="work")["QueueUrl"]
        # Two messages copy the two groups of files.
        deployment = Deployment(clock=clock, policy=TransferPolicy(small_file=_PART, copy_groups=1))
        queue = CountedQueue(SQSMessageQueue(sqs, dict.fromkeys(_STEPS, url)), deployment.queue)
        store, archives = PacedStore(client, _MODELS), S3ArchiveStore(client, _INCOMING, clock=clock)
        deployment.archives = cast("Any", archives)
        segments = cast("Any", PacedSegments(database.segments, store.recorded, clock))
        deployment.connect(replace(database, segments=segments), store, queue, _STREAM)
        record = SegmentMover._record_upload
        # The order of the record and the first claim depends on the speed of the machine.
        patch.setattr(SegmentMover, "_record_upload", lambda mover: record(mover) if mover._segments else None)
        limits = DynamoDBRateLimitStore(open_connection(REGION), rate_limits_table="limits")
        limits._limits.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
        create_idempotency_table()
        responses = DynamoDBResponseStore("idempotency", region=REGION)
        patch.setattr(wiring, "create_submitter", lambda: deployment.submitter)
        patch.setattr(wiring, "create_response_store", lambda: responses)
        bench = Bench(aws, deployment, archives, store, limits)
        bench.prepare()
        yield bench
        aws.fault = None


def create_idempotency_table() -> None:
    """Create the table as defined in the template."""
    table = read_template()["Resources"]["IdempotencyTable"]["Properties"]
    names = ("AttributeDefinitions", "KeySchema", "BillingMode")
    boto3.client("dynamodb", region_name=REGION).create_table(
        TableName="idempotency", **{name: table[name] for name in names}
    )


def find_outcomes(
    bench: Bench, kind: ImportKind, counts: Mapping[str, int], fault: CallFault
) -> dict[str, Counter[str]]:
    """Return the outcomes by operation, with the number of requests that led to each. One import has this fault in all
    its requests, except for outages and the operations in `_SEPARATE`: there, each request has its own import.
    """
    possible = {operation: count for operation, count in counts.items() if fault in list_faults(operation)}
    separate = {o: count for o, count in possible.items() if fault is CallFault.OUTAGE or o in _SEPARATE}
    together = {o: count for o, count in possible.items() if o not in separate}
    if together:
        bench.check_all_requests(kind, together, fault)
    return {operation: Counter(DONE=count) for operation, count in together.items()} | {
        operation: Counter(bench.run_with_fault(kind, operation, at, fault) for at in range(count))
        for operation, count in separate.items()
    }


def describe_import(bench: Bench, kind: ImportKind, *, keep_outages: bool) -> str:
    """Return the section of an import: the outcomes for each request and fault. `keep_outages` reads those of outages
    from the page.
    """
    counts = bench.count_calls(kind)
    outcomes: dict[CallFault, Mapping[str, Counter[str]]] = {}
    for fault in CallFault:
        if fault is CallFault.OUTAGE and keep_outages:
            outcomes[fault] = {operation: found[fault] for operation, (_, found) in read_table(kind).items()}
        else:
            outcomes[fault] = find_outcomes(bench, kind, counts, fault)
    rows = []
    for operation, count in counts.items():
        cells = [
            "; ".join(f"{outcome} ({times})" for outcome, times in sorted(found.get(operation, {}).items()))
            for found in outcomes.values()
        ]
        rows.append(f"| {operation} | {count} | {' | '.join(cells)} |")
    return f"""\
## {kind}

| Request | per import | {" | ".join(CallFault)} |
|:---|---:|{":---|" * len(CallFault)}
{"\n".join(rows)}
"""


def read_table(kind: ImportKind) -> dict[str, tuple[int, dict[CallFault, Counter[str]]]]:
    """Read the page: for each operation, the requests per import, and the number of outcomes by fault."""
    section = PAGE.read_text().partition(f"## {kind}\n")[2].partition("\n## ")[0]
    _, _, *rows = (line.strip("|").split("|") for line in section.splitlines() if line.startswith("|"))
    return {
        operation.strip(): (int(count), {f: _read_cell(cell) for f, cell in zip(CallFault, cells, strict=True)})
        for operation, count, *cells in rows
    }


def _read_cell(cell: str) -> Counter[str]:
    return Counter({outcome: int(times) for outcome, times in re.findall(r"([^; ][^;]*) \((\d+)\)", cell)})


def describe_faults(*, keep_outages: bool = False) -> str:
    """Return the page in Markdown. `keep_outages` reads the outcomes of outages (500 imports) from the page."""
    with silence_logs(), open_bench() as bench:
        sections = "\n".join(describe_import(bench, kind, keep_outages=keep_outages) for kind in ImportKind)
    return f"""\
# Faults of AWS requests

`make pages PAGES=faults` generates this page. `bench/tests` repeats the imports and compares their results with this
page. It repeats only some of the imports with an outage.

A model of {len(build_files(0))} files is imported in four ways, with the real adapters and moto. One file has two
segments, and two files have content that is already stored for another model. In the Hub import, the source interrupts
the transfer of the second segment, and another function continues. In the GitHub import, the first digest does not
match, and the transfer starts again. Two messages copy the files to their published keys. For each fault, one import
runs in which the first try of each request fails with this fault. For outages, `PutItem (idempotency)` and
`TransactWriteItems (files)`, each request has a separate import. The numbers in parentheses count the requests with
this result. `DONE` means that every file was published exactly once and byte for byte, and that no multipart upload
remains.

- *upload interrupted*: the connection breaks after half of the request body was read from its buffer.
- *succeeded, response lost*: AWS executed the request, but the response did not arrive before the read timeout.
- *unavailable for {OUTAGE} requests*: this request and the next {OUTAGE - 1} requests with this name return 500. A step
  waits for the end of the outage. If a function cannot record that it waits or fails, the retries of its message can be
  exceeded. Results near this limit vary between runs.
- *FAILED and cleaned up*: the task has an error that says that it can be submitted again, and no file is visible under
  `models/`.
- *rejected with 503*: the response asks the caller to retry. 409 means that the first request with this Idempotency-Key
  is still running or crashed; the key can be used again after the timeout of that request.
- The table or bucket of a request is in parentheses: `limits` is RateLimitsTable, `idempotency` is IdempotencyTable.
- Files, parts and limits are scaled down. moto returns no checksum for a copied part, so a stored entry of an archive
  is also read and uploaded, as with any store that returns no checksum.

{sections}"""
