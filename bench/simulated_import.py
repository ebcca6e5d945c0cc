"""An import in virtual time: the real planner, queue messages, transfer step, claims of segments, sweep and publisher,
with adapters that transfer no bytes and take the expected time of AWS.

The transfer of a large file is replaced by a loop that claims and records the same segments, and the thread pools by
lanes of virtual time. The database enforces the limits of a partition key and of a new table, and the store the request
rate of S3.
"""

import hashlib
import heapq
import math
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.pace import Pace
from bench.prices import MEMORY, PUBLISHER_MEMORY
from bench.virtual_time import VirtualPool, VirtualTime
from bench.virtual_transfer import VirtualTransfer
from modelhaul.adapters.dynamodb.connection import BATCH_GET_LIMIT, BATCH_LIMIT
from modelhaul.adapters.dynamodb.file_items import COPIED_BLOCK, pack_files
from modelhaul.adapters.dynamodb.file_results import pack_results
from modelhaul.adapters.s3 import COPY_PART_SIZE, SINGLE_COPY_LIMIT
from modelhaul.adapters.s3_client import PARALLEL_COPIES
from modelhaul.archives.reader import MemoryStream
from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.files import FileGroup, FileRecord, Part, SourceFile
from modelhaul.domain.gate import FileCheck, GateReport
from modelhaul.domain.json_streams import ReadRange
from modelhaul.domain.messages import CopyFiles, JoinTransfer, Message, PublishModels, TransferFiles
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.segments import FileUpload, UploadKey
from modelhaul.domain.tasks import Stage, TaskStatus
from modelhaul.imports import copy
from modelhaul.inspection.file_checks import FileChecker
from modelhaul.inspection.gate import GateSession
from modelhaul.ports.byte_streams import ByteStream
from modelhaul.ports.files import FileRepository
from modelhaul.transfer import segments, small_files
from modelhaul.transfer.settings import StreamSettings
from tests.fakes.clock import ManualClock
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import HubSource
from tests.fakes.object_store import InMemoryObjectStore
from tests.weights import build_header

_START = 1_800_000_000.0
_NAME = "org/model"
_PAGE_SIZE = 1_000_000  # bytes of a page of a query
_QUEUES: dict[str, str] = {
    JoinTransfer.model_fields["kind"].default: TransferFiles.model_fields["kind"].default,
    CopyFiles.model_fields["kind"].default: PublishModels.model_fields["kind"].default,
}
"""The queue of a kind of message, if it does not have its own."""


@dataclass(slots=True)
class SimulatedImport:
    """`planned`, `verified`, `done` and `cleaned` are seconds after the submit, `functions` are invocations,
    `function_seconds` is their total time. `megabyte_seconds` is their billed time, which includes cold starts,
    multiplied by their memory. `cleaned`: the staged files are deleted. The request units are those of the uploads of
    large files.
    """

    planned: float = 0
    verified: float = 0
    done: float = 0
    cleaned: float = 0
    messages: Counter[str] = field(default_factory=Counter)
    functions: int = 0
    function_seconds: float = 0
    megabyte_seconds: float = 0
    swept: int = 0  # tasks that the sweep restarted
    read_units: float = 0
    write_units: float = 0


def _write_body(number: int, size: int) -> bytes:
    """Return a JSON document of `size` bytes."""
    values = b'{"number": %d, "values": [%s' % (number, b"1234, " * (size // 6))
    return values[: size - 3].rstrip(b", ").ljust(size - 2) + b"]}"


@dataclass(slots=True)
class VirtualSource:
    """`large` files of `large_size` bytes without content, and `small` files of `small_size` bytes with content."""

    time: VirtualTime
    pace: Pace
    large: int
    large_size: int
    small: int
    small_size: int

    def resolve(self, name: str, revision: str) -> ResolvedModel:
        return ResolvedModel(Source.HUGGINGFACE, name, revision, "0" * 40)

    def find_missing_remedy(self, name: str) -> None:
        return

    def list_files(self, _: ResolvedModel) -> Iterator[SourceFile]:
        for number in range(self.small):
            body = _write_body(number, self.small_size)
            digest = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
            yield SourceFile(f"{number % 100:02}/{number:06}.json", len(body), Digest(Algorithm.GIT_SHA1, digest))
            if number % 1000 == 0:
                self.time.pass_time(1.0)  # a page of the listing
        for number in range(self.large):
            digest = hashlib.sha256(b"%d" % number).hexdigest()
            path = f"model-{number + 1:05}-of-{self.large:05}.safetensors"
            yield SourceFile(path, self.large_size, Digest(Algorithm.SHA256, digest))

    def prepare_files(self, files: Sequence[SourceFile]) -> None:
        return

    def locate(self, _: ResolvedModel, file: SourceFile) -> None:
        return

    def open_range(self, _: ResolvedModel, file: SourceFile, start: int, end: int) -> ByteStream:
        self.time.pass_time(self.pace.source_response + (end - start) / self.pace.rate, cpu=self.pace.fetch_cpu)
        number = int(file.path.rpartition("/")[2].removesuffix(".json"))
        return MemoryStream(_write_body(number, file.size), start, end)


class _VirtualStore(InMemoryObjectStore):
    """Stores only the sizes of large objects. Reads of them return a safetensors header and zeros."""

    def __init__(self, time: VirtualTime, pace: Pace) -> None:
        super().__init__()
        self._time = time
        self._pace = pace
        self._sizes: dict[str, int] = {}
        self._copiers = threading.local()  # of each function
        self._writes: Counter[int] = Counter()  # by tenths of a second

    def put(self, key: str, body: bytes | memoryview, *, sha256: str) -> str:
        self._wait_for_turn()
        self._time.pass_time(self._pace.put, cpu=self._pace.put_cpu)
        return super().put(key, body, sha256=sha256)

    def put_large(self, key: str, size: int) -> str:
        self._time.pass_time(self._pace.other_s3)
        self._sizes[key] = size
        return hashlib.md5(b"%d" % size).hexdigest()

    def copy(self, source_key: str, key: str, *, size: int, etag: str) -> str:
        self._wait_for_turn()
        self._time.pass_time(self._pace.copy, cpu=self._pace.copy_cpu)
        if source_key not in self._sizes:
            return super().copy(source_key, key, size=size, etag=etag)
        if size <= SINGLE_COPY_LIMIT:
            self._time.pass_time(size / self._pace.copy_rate)
        else:
            self._time.pass_time(2 * self._pace.other_s3)
            self._copy_parts(size)
        return self.put_large(key, size)

    def _wait_for_turn(self) -> None:
        """Wait until the bucket accepts another write. The threads of a function do not come in the order of time."""
        tenth = int(self._time() * 10)
        while self._writes[tenth] >= self._pace.write_rate / 10:
            tenth += 1
        self._writes[tenth] += 1
        self._time.set_time(max(self._time(), tenth / 10))

    def _copy_parts(self, size: int) -> None:
        """Pass the time of the parts, which share the function's parallel requests with those of other files."""
        if not hasattr(self._copiers, "free_at"):
            self._copiers.free_at = [0.0] * PARALLEL_COPIES
        started, ended = self._time(), self._time()
        for start in range(0, size, COPY_PART_SIZE):
            seconds = self._pace.copy + min(COPY_PART_SIZE, size - start) / self._pace.copy_rate
            free_at = max(started, self._copiers.free_at[0]) + seconds
            heapq.heapreplace(self._copiers.free_at, free_at)
            ended = max(ended, free_at)
        self._time.pass_time(ended - started, cpu=math.ceil(size / COPY_PART_SIZE) * self._pace.copy_cpu)

    def read(self, key: str, start: int, end: int, *, etag: str | None = None) -> bytes:
        self._time.pass_time(self._pace.other_s3)
        size = self._sizes.get(key)
        if size is None:
            return super().read(key, start, end, etag=etag)
        header = build_header(size - len(build_header(size)))
        # A file is read from its start in one request, independent of the size of its header.
        return header[start:end] + bytes(max(0, end - max(start, len(header))))

    def delete(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        self._time.pass_time(math.ceil(len(wanted) / 1000) * 0.5)
        for key in wanted:
            self._sizes.pop(key, None)
        super().delete(wanted)


class _VirtualChecker(FileChecker):
    """Adds the CPU time of checks."""

    def __init__(self, time: VirtualTime, pace: Pace, deployment: Deployment) -> None:
        super().__init__(deployment.pickle_policy, deployment.pickle_scanner)
        self._time, self._pace = time, pace

    def check(self, path: str, size: int, read: ReadRange) -> FileCheck:
        self._time.compute(self._pace.check_cpu)
        return super().check(path, size, read)


class _VirtualRepository:
    """Adds the time of requests to an in-memory repository, and the delay of writes at the limits of DynamoDB: the
    groups and uploads of a plan share one partition key.

    `free_at`: when each partition accepts the next write, of all repositories.
    """

    def __init__(
        self, repository: object, time: VirtualTime, pace: Pace, free_at: dict[str, float], result: SimulatedImport
    ) -> None:
        self._repository, self._time, self._pace = repository, time, pace
        self._free_at, self._result = free_at, result

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._repository, name)

        def call(*arguments: Any, **options: Any) -> Any:
            arguments = tuple(list(a) if isinstance(a, Iterator) else a for a in arguments)
            self._time.synchronize()
            self._time.pass_time(self._count_calls(name, arguments) * self._pace.database)
            result = method(*arguments, **options)
            self._wait_for_units(name, arguments)
            if name in ("list_groups", "find_groups", "lease_group"):
                result = list(result) if name == "list_groups" else result
                self._read_groups(result if isinstance(result, list) else [result] if result else [])
            if name == "list_parts":
                self._result.read_units += _count_units(_measure_parts(len(result)) / 4)
            return result

        return call

    @staticmethod
    def _count_calls(name: str, arguments: tuple[Any, ...]) -> float:
        """Return the number of sequential requests. Requests of four parallel threads count as a quarter each."""
        match name:
            case "put_groups" | "put_blobs":
                return math.ceil(len(arguments[-1]) / BATCH_LIMIT) / 4
            case "find_groups" | "find_blobs":  # two keys each; blobs also a query each
                queries = math.ceil(len(arguments[-1]) / 4) if name == "find_blobs" else 0
                return queries + math.ceil(2 * len(arguments[-1]) / BATCH_GET_LIMIT)
            case "record_files" | "record_offset":
                return 3
            case "lease_group":
                return 2
            case "record_copied":
                return 1 + len({number // COPIED_BLOCK for number in arguments[1]})
        return 1

    def _read_groups(self, groups: Sequence[FileGroup]) -> None:
        """Pass the time of the pages and the CPU time of groups that were read."""
        files = sum(len(group.records) for group in groups)
        size = sum(_measure_files([r.file for r in group.records]) + _measure_state(group) for group in groups)
        pages = size // _PAGE_SIZE  # after the first
        self._time.pass_time(pages * self._pace.database + size / self._pace.rate)
        self._time.compute(files * self._pace.record_cpu)

    def _wait_for_units(self, name: str, arguments: tuple[Any, ...]) -> None:
        match name:
            case "put_groups":
                units = sum(_count_units(_measure_files(files)) for files in arguments[1])
                self._take_units(arguments[0], units)
            case "record_files" | "record_offset":  # a transaction with the state and a counter
                (group,) = cast("FileRepository", self._repository).find_groups(arguments[0], [arguments[1]])
                self._take_units(arguments[0], 2 * (_count_units(_measure_state(group)) + 1))
            case "lease_group" | "renew_lease" | "release_lease":
                (group,) = cast("FileRepository", self._repository).find_groups(arguments[0], [arguments[1]])
                self._take_units(arguments[0], _count_units(_measure_state(group)))
            case "record_copied":
                self._take_units(arguments[0], self._count_calls(name, arguments) - 1)
            case "put_blobs":
                self._take_units("content", len(arguments[0]), rate=self._pace.table_rate)
            case "find_upload" | "find_kept_upload":
                self._result.read_units += 1
            case "put_kept_upload":
                self._result.write_units += 1
                self._take_units("blobs", 1, rate=self._pace.table_rate)
            case "create_upload":
                self._write_upload(*arguments)
            case "replace_upload":
                key, _, changed, parts = arguments
                self._write_upload(key, changed, parts)

    def _write_upload(self, key: UploadKey, upload: FileUpload, parts: Sequence[Part] = ()) -> None:
        units = _count_units(_measure_upload(upload))
        if parts:  # a transaction
            units = 2 * (units + _count_units(_measure_parts(len(parts))))
        self._result.write_units += units
        self._take_units(key.plan_id, units)

    def _take_units(self, key: str, units: float, *, rate: float | None = None) -> None:
        free_at = max(self._free_at.get(key, 0), self._time()) + units / (rate or self._pace.partition_rate)
        self._free_at[key] = free_at
        self._time.set_time(free_at)


def _measure_files(files: Sequence[SourceFile]) -> int:
    """Return the bytes of the item of a group, with a high estimate of its other attributes."""
    return 200 + len(pack_files(files))


def _measure_state(group: FileGroup) -> int:
    """Return the bytes of the item of a group's state, with a high estimate of its other attributes."""
    return 300 + len(pack_results(group.records))


def _measure_upload(upload: FileUpload) -> int:
    """Return the bytes of the item of an upload, with a high estimate of its attributes."""
    return 500 + len(upload.hash_state or b"") + 40 * len(upload.claims)


def _measure_parts(count: int) -> int:
    """Return the bytes of an item of parts, with a high estimate of its other attributes."""
    return 200 + 20 * count


def _count_units(size: float) -> int:
    return math.ceil(size / 1024)


class _VirtualQueues:
    """Queues that start up to `concurrency` functions each. The first invocation of each function is cold."""

    def __init__(self, time: VirtualTime, pace: Pace, concurrency: int) -> None:
        self._time, self._pace, self._concurrency = time, pace, concurrency
        self._waiting: dict[str, deque[Message]] = {}
        self._running: Counter[str] = Counter()
        self._warm: Counter[str] = Counter()
        self._ramps: dict[str, tuple[float, int]] = {}
        self.sent: Counter[str] = Counter()
        self.invoke: Callable[..., None]

    def send(self, messages: Iterable[Message], *, delay: float = 0) -> None:
        sent = list(messages)
        self._time.pass_time(math.ceil(len(sent) / 10) * self._pace.database)
        for message in sent:
            self.sent[message.kind] += 1
            due = self._time() + self._pace.delivery + delay
            self._time.call_at(due, partial(self._arrive, message))

    def _arrive(self, message: Message) -> None:
        queue = _QUEUES.get(message.kind, message.kind)
        waiting = self._waiting.setdefault(queue, deque())
        if not waiting:  # Lambda starts more functions only while messages are waiting
            self._ramps[queue] = self._time(), max(self._pace.first_functions, self._running[queue])
        waiting.append(message)
        self._start_more(queue)

    def _start_more(self, queue: str) -> None:
        waiting = self._waiting[queue]
        while waiting and self._running[queue] < self._concurrency:
            started_at, running = self._ramps[queue]
            if self._running[queue] >= running + self._pace.more_functions * (self._time() - started_at):
                self._time.call_at(self._time() + 1, partial(self._start_more, queue))
                return
            self._running[queue] += 1
            is_cold = self._running[queue] > self._warm[queue]
            self._warm[queue] += is_cold
            self._time.start(partial(self._work, queue, waiting.popleft(), is_cold=is_cold))

    def _work(self, queue: str, message: Message, *, is_cold: bool) -> None:
        if is_cold:
            self._time.pass_time(self._pace.cold_start)
        self.invoke(message, is_cold=is_cold)
        self._time.synchronize()
        self._running[queue] -= 1
        self._time.call_at(self._time(), partial(self._start_more, queue))


def simulate_import(
    concurrency: int,
    *,
    large: int = 0,
    large_size: int = 0,
    small: int = 0,
    small_size: int = 2_000,
    pace: Pace | None = None,
) -> SimulatedImport:
    """Simulate an import. Raises RuntimeError unless it ends DONE."""
    pace = pace or Pace()
    time = VirtualTime(_START)
    result = SimulatedImport()
    queues = _VirtualQueues(time, pace, concurrency)
    source = VirtualSource(time, pace, large, large_size, small, small_size)
    ends: dict[str, float] = {}
    deployment = Deployment(cast("HubSource", source), clock=cast("ManualClock", time))
    store = _VirtualStore(time, pace)
    free_at: dict[str, float] = {}
    database = deployment.database.map(lambda repository: _VirtualRepository(repository, time, pace, free_at, result))
    deployment.create_transfer = partial(VirtualTransfer, time=time, pace=pace)
    deployment.connect(database, store, queues, StreamSettings())
    deployment.transferrer = replace(
        deployment.transferrer, create_checker=lambda: _VirtualChecker(time, pace, deployment)
    )

    def invoke(message: Message, *, is_cold: bool) -> None:
        started_at = time()
        deadline = started_at + pace.limit
        deployment.remaining = lambda: deadline - time()
        memory = PUBLISHER_MEMORY if isinstance(message, CopyFiles | PublishModels) else MEMORY
        time.set_speed(memory / MEMORY)
        has_work = not isinstance(message, TransferFiles) or deployment.find_task(task.id).stage is Stage.TRANSFERRING
        deployment.deliver(message)
        result.functions += 1
        result.function_seconds += time() - started_at
        result.megabyte_seconds += (time() - started_at + is_cold * pace.cold_start) * memory
        if has_work:
            ends[message.kind] = max(ends.get(message.kind, 0), time() - _START)

    def inspect(session: GateSession, model: ResolvedModel, records: Sequence[FileRecord]) -> GateReport:
        time.compute(len(records) * pace.publish_cpu)
        return inspect_model(session, model, records)

    def sweep() -> None:
        if deployment.find_task(task.id).status is TaskStatus.PENDING:
            result.swept += deployment.sweeper.sweep_stale(lambda: 300.0)
            time.call_at(time() + 300, lambda: time.start(sweep))

    queues.invoke, inspect_model = invoke, GateSession.inspect
    with pytest.MonkeyPatch.context() as patch:
        pool = type("Pool", (VirtualPool,), {"time": time})
        for module in (small_files, copy):
            patch.setattr(module, "ThreadPoolExecutor", pool)
        patch.setattr(GateSession, "inspect", inspect)
        patch.setattr(segments, "time", SimpleNamespace(monotonic=time, sleep=time.pass_time))
        patch.setattr(segments, "random", random.Random(0))
        task = deployment.submit(_NAME)
        time.call_at(_START + 300, lambda: time.start(sweep))
        time.run()
    ended = deployment.find_task(task.id)
    if ended.status is not TaskStatus.DONE:
        raise RuntimeError(f"the import ended {ended.status}: {ended.error}")
    result.planned, result.verified, result.cleaned = (
        ends[kind] for kind in ("plan_import", "transfer_files", "publish_models")
    )
    result.done = ended.updated_at.timestamp() - _START
    result.messages = queues.sent
    return result
