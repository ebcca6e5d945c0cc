"""An import in virtual time: the real planner, queue messages, transfer step, checkpoints, sweep and publisher, with
adapters that transfer no bytes and take the expected time of AWS.

The transfer of a large file is replaced by a loop that makes the same checkpoints, and the thread pools by lanes of
virtual time. The database enforces the limit of DynamoDB for a partition key.
"""

import hashlib
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pytest

from bench.virtual_time import VirtualPool, VirtualTime
from modelhaul.adapters.s3 import COPY_PART_SIZE, PARALLEL_COPIES, SINGLE_COPY_LIMIT
from modelhaul.archives.reader import MemoryStream
from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.files import Checkpoint, Part, SourceFile
from modelhaul.domain.messages import Message, TransferFiles
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.tasks import TaskStatus
from modelhaul.imports import publish
from modelhaul.ports.byte_streams import ByteStream
from modelhaul.transfer import small_files
from modelhaul.transfer.engine import Moved, Paused
from modelhaul.transfer.lease import Lease
from modelhaul.transfer.settings import StreamSettings
from tests.fakes.clock import ManualClock
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import HubSource
from tests.fakes.object_store import InMemoryObjectStore
from tests.weights import build_header

_START = 1_800_000_000.0
_NAME = "org/model"


@dataclass(frozen=True, slots=True)
class Pace:
    """Assumed durations, in seconds. CPU times are from `docs/benchmarks.md`, for the 0.29 vCPU of 512 MB of memory.
    Response times of AWS and the source are conservative estimates.
    """

    rate: float = 75e6  # bytes per second of one function's network
    limit: float = 900.0  # timeout of a function
    cold_start: float = 2.0
    delivery: float = 0.1  # of a message from a queue to a function
    first_functions: int = 5  # that Lambda starts for a queue at once
    more_functions: float = 5.0  # that Lambda adds per second
    source_response: float = 0.2  # a file's redirect and its first byte
    put: float = 0.05
    copy: float = 0.06
    copy_rate: float = 75e6  # bytes per second of one copy request inside S3
    fetch_cpu: float = 0.007
    put_cpu: float = 0.007
    copy_cpu: float = 0.004
    record_cpu: float = 0.0003  # to read the record of a file
    other_s3: float = 0.03
    database: float = 0.01
    partition_rate: float = 1000.0  # write units per second of a partition key


@dataclass(slots=True)
class SimulatedImport:
    """`planned`, `verified` and `done` are seconds after the submit, `functions` are invocations, `function_seconds` is
    their total time.
    """

    planned: float = 0
    verified: float = 0
    done: float = 0
    messages: Counter[str] = field(default_factory=Counter)
    functions: int = 0
    function_seconds: float = 0
    swept: int = 0  # tasks that the sweep restarted


def _write_body(number: int, size: int) -> bytes:
    return (b'{"number": %d}' % number).ljust(size)[:size]


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

    def put(self, key: str, body: bytes | memoryview, *, sha256: str) -> str:
        self._time.pass_time(self._pace.put, cpu=self._pace.put_cpu)
        return super().put(key, body, sha256=sha256)

    def put_large(self, key: str, size: int) -> str:
        self._time.pass_time(self._pace.other_s3)
        self._sizes[key] = size
        return hashlib.md5(b"%d" % size).hexdigest()

    def copy(self, source_key: str, key: str, *, size: int, etag: str) -> str:
        self._time.pass_time(self._pace.copy, cpu=self._pace.copy_cpu)
        if source_key not in self._sizes:
            return super().copy(source_key, key, size=size, etag=etag)
        rounds = math.ceil(size / COPY_PART_SIZE / PARALLEL_COPIES) if size > SINGLE_COPY_LIMIT else 1
        self._time.pass_time(rounds * min(size, COPY_PART_SIZE) / self._pace.copy_rate)
        return self.put_large(key, size)

    def read(self, key: str, start: int, end: int) -> bytes:
        self._time.pass_time(self._pace.other_s3)
        size = self._sizes.get(key)
        if size is None:
            return super().read(key, start, end)
        header = build_header(size - len(build_header(size)))
        # A file is read from its start in one request, independent of the size of its header.
        return header[start:end] + bytes(max(0, end - max(start, len(header))))

    def delete(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        self._time.pass_time(math.ceil(len(wanted) / 1000) * 0.5)
        for key in wanted:
            self._sizes.pop(key, None)
        super().delete(wanted)


class _VirtualTransfer:
    """Replaces FileTransfer: takes the time of each part at the rate of the function, saves checkpoints, and pauses
    before the timeout.
    """

    def __init__(
        self,
        *,
        time: VirtualTime,
        pace: Pace,
        file: SourceFile,
        key: str,
        uploads: _VirtualStore,
        lease: Lease,
        remaining: Callable[[], float],
        checkpoint: Checkpoint | None,
        settings: StreamSettings,
        **_: object,
    ) -> None:
        self.advanced = False
        self._time, self._pace, self._file, self._key, self._store = time, pace, file, key, uploads
        self._lease, self._remaining, self._settings = lease, remaining, settings
        self._part_size = settings.part_size(file.size)
        self._offset = checkpoint.offset if checkpoint else 0
        self._saved = self._offset

    def run(self) -> Moved | Paused:
        settings, size = self._settings, self._file.size
        spacing = max(settings.checkpoint_bytes, size // settings.checkpoints)
        self._time.pass_time(self._pace.source_response + self._pace.other_s3)
        saved_at = self._time()
        while self._offset < size:
            if self._remaining() < settings.stop_before:
                self._save_checkpoint()
                return Paused()
            part = min(self._part_size, size - self._offset)
            self._time.pass_time(part / self._pace.rate)
            self._offset += part
            self.advanced = True
            new = self._offset - self._saved
            if self._offset < size and (new >= spacing or self._time() - saved_at >= settings.heartbeat):
                self._save_checkpoint()
                saved_at = self._time()
        self._save_checkpoint()
        self._lease.confirm()
        return Moved(self._file.digest.value, self._store.put_large(self._key, size))

    def _save_checkpoint(self) -> None:
        count = math.ceil(self._offset / self._part_size)
        parts = tuple(Part(number, "0" * 32, 0) for number in range(1, count + 1))
        self._lease.save_checkpoint(Checkpoint("upload", self._part_size, self._offset, parts, bytes(208)))
        self._saved = self._offset


class _VirtualRepository:
    """Adds the time of requests to an in-memory repository, and the delay of writes at the limit of a partition: all
    files of a task share one partition key.
    """

    def __init__(self, repository: object, time: VirtualTime, pace: Pace) -> None:
        self._repository, self._time, self._pace = repository, time, pace
        self._free_at: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._repository, name)

        def call(*arguments: Any, **options: Any) -> Any:
            arguments = tuple(list(a) if isinstance(a, Iterator) else a for a in arguments)
            self._time.synchronize()
            self._time.pass_time(self._count_calls(name, arguments) * self._pace.database)
            self._take_units(name, arguments)
            result = method(*arguments, **options)
            if name == "list_files":
                result = list(result)
                self._time.pass_time(len(result) * self._pace.record_cpu)
            return result

        return call

    @staticmethod
    def _count_calls(name: str, arguments: tuple[Any, ...]) -> float:
        """Return the number of sequential requests. Requests of four parallel threads count as a quarter each."""
        match name:
            case "put_files":
                return math.ceil(len(arguments[1]) / 100) / 4
            case "put_blobs":
                return math.ceil(len(arguments[0]) / 25) / 4
            case "finish_files":
                return 3
            case "save_checkpoint" | "find_blobs":
                return 2
        return 1

    def _take_units(self, name: str, arguments: tuple[Any, ...]) -> None:
        match name:
            case "put_files" | "finish_files":
                units = 2 * len(arguments[1])
            case "save_checkpoint":
                units = 2 * math.ceil((500 + 20 * len(arguments[2].parts)) / 1024)
            case "lease_file" | "renew_lease" | "release_lease":
                units = 1
            case _:
                return
        task_id = arguments[0]
        free_at = max(self._free_at.get(task_id, 0), self._time()) + units / self._pace.partition_rate
        self._free_at[task_id] = free_at
        self._time.set_time(free_at)


class _VirtualQueues:
    """Queues that start up to `concurrency` functions of each kind. The first invocation of each function is cold."""

    def __init__(self, time: VirtualTime, pace: Pace, concurrency: Callable[[Message], int]) -> None:
        self._time, self._pace, self._concurrency = time, pace, concurrency
        self._waiting: dict[type[Message], deque[Message]] = {}
        self._running: Counter[type[Message]] = Counter()
        self._warm: Counter[type[Message]] = Counter()
        self._started_at: dict[type[Message], float] = {}
        self.sent: Counter[str] = Counter()
        self.invoke: Callable[[Message], None]

    def send(self, messages: Iterable[Message], *, delay: float = 0) -> None:
        self._time.pass_time(self._pace.database)
        for message in messages:
            self.sent[message.kind] += 1
            due = self._time() + self._pace.delivery + delay
            self._time.call_at(due, partial(self._arrive, message))

    def _arrive(self, message: Message) -> None:
        kind = type(message)
        self._started_at.setdefault(kind, self._time())
        self._waiting.setdefault(kind, deque()).append(message)
        self._start_more(kind)

    def _start_more(self, kind: type[Message]) -> None:
        waiting = self._waiting[kind]
        while waiting and self._running[kind] < self._concurrency(waiting[0]):
            allowed = self._pace.first_functions + self._pace.more_functions * (self._time() - self._started_at[kind])
            if self._running[kind] >= allowed:
                self._time.call_at(self._time() + 1, partial(self._start_more, kind))
                return
            self._running[kind] += 1
            is_cold = self._running[kind] > self._warm[kind]
            self._warm[kind] += is_cold
            self._time.start(partial(self._work, waiting.popleft(), is_cold=is_cold))

    def _work(self, message: Message, *, is_cold: bool) -> None:
        if is_cold:
            self._time.pass_time(self._pace.cold_start)
        self.invoke(message)
        self._time.synchronize()
        kind = type(message)
        self._running[kind] -= 1
        self._time.call_at(self._time(), partial(self._start_more, kind))


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
    queues = _VirtualQueues(time, pace, lambda m: concurrency if isinstance(m, TransferFiles) else 5)
    source = VirtualSource(time, pace, large, large_size, small, small_size)
    ends: dict[str, float] = {}
    deployment = Deployment(cast("HubSource", source), clock=cast("ManualClock", time))
    store = _VirtualStore(time, pace)
    database = deployment.database.map(lambda repository: _VirtualRepository(repository, time, pace))
    deployment.create_transfer = partial(_VirtualTransfer, time=time, pace=pace)
    deployment.connect(database, store, queues, StreamSettings())

    def invoke(message: Message) -> None:
        started_at = time()
        deadline = started_at + pace.limit
        deployment.remaining = lambda: deadline - time()
        deployment.deliver(message)
        result.functions += 1
        result.function_seconds += time() - started_at
        ends[message.kind] = max(ends.get(message.kind, 0), time() - _START)

    def sweep() -> None:
        if deployment.find_task(task.id).status is TaskStatus.PENDING:
            result.swept += deployment.sweeper.sweep_stale(lambda: 300.0)
            time.call_at(time() + 300, lambda: time.start(sweep))

    queues.invoke = invoke
    with pytest.MonkeyPatch.context() as patch:
        pool = type("Pool", (VirtualPool,), {"time": time})
        for module in (small_files, publish):
            patch.setattr(module, "ThreadPoolExecutor", pool)
        task = deployment.submit(_NAME)
        time.call_at(_START + 300, lambda: time.start(sweep))
        time.run()
    ended = deployment.find_task(task.id)
    if ended.status is not TaskStatus.DONE:
        raise RuntimeError(f"the import ended {ended.status}: {ended.error}")
    result.planned, result.verified, result.done = (
        ends[kind] for kind in ("plan_import", "transfer_files", "publish_models")
    )
    result.messages = queues.sent
    return result
