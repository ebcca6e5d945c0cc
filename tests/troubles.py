"""Troubles of a function at one of its calls, and files that are small enough for thousands of imports."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import shake_256
from typing import Any, cast

from modelhaul.domain.errors import ModelhaulError, RateLimitedError, SourceUnavailableError, StorageUnavailableError
from modelhaul.domain.messages import Message
from modelhaul.domain.segments import FileUpload, UploadKey
from modelhaul.imports.retry import TransferError
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.segments import SegmentRepository
from modelhaul.transfer.settings import StreamSettings
from tests.fakes.clock import ManualClock
from tests.fakes.database import Database
from tests.fakes.deployment import Deployment
from tests.fakes.object_store import Bucket
from tests.weights import wrap_weights

# Everything a thousandth of its size, so that a history with many imports takes milliseconds.
PART = 4096
LARGE = 4096
STREAM = StreamSettings(
    part_size=lambda _: PART,
    chunk=PART // 2,
    buffers=3,
    uploaders=1,
    reconnect_delay=0,
    reconnects=1,
    progress=0,
    poll=0.001,
    patience=0.01,
    join=0,
    rate_window=1e9,
)


def make_bytes(name: str, size: int) -> bytes:
    return shake_256(name.encode()).digest(size)


WEIGHTS = wrap_weights(make_bytes("weights", 6 * PART + 100))


class KilledError(BaseException):
    """The function's process is gone."""


class Kind(StrEnum):
    KILL = "kill"
    STORAGE = "storage"  # one call is not answered
    OUTAGE = "outage"  # nor is any after it
    SOURCE = "source"
    LIMIT = "limit"
    WRONG = "wrong"  # bytes
    LATE = "late"  # the function's time is nearly over
    # What others do while the function is held up in a call.
    CANCEL = "cancel"
    TAKE_OVER = "take over"
    DUPLICATE = "duplicate"
    RESUBMIT = "resubmit"
    DELETE = "delete"
    RETAIN = "retain"  # the daily run of retention


class Effect(StrEnum):
    """How much of the call comes about before the trouble."""

    NONE = "none"
    HALF = "half"  # of a batch
    ALL = "all"  # only its reply is lost


FROM_SOURCE = {Kind.SOURCE, Kind.LIMIT}
FROM_STORAGE = {Kind.STORAGE, Kind.OUTAGE}
BATCHES = {"send", "delete", "put_groups", "put_blobs", "forget_blobs"}


@dataclass(frozen=True)
class Trouble:
    """At the `at`-th call of a function, or of its calls of `operation`."""

    kind: Kind
    at: int
    effect: Effect
    operation: str | None = None

    def concerns(self, port: str, operation: str) -> bool:
        if self.operation not in (None, operation):
            return False
        if self.kind in FROM_SOURCE:
            return port == "source"
        return port != "source" if self.kind in FROM_STORAGE else True


class Troublemaker:
    """Stands between the pipeline and its ports, and strikes as planned."""

    def __init__(self, meanwhile: Callable[[Kind], None]) -> None:
        self.wrong = False
        self.late = False
        self.hits: list[Kind] = []
        self._meanwhile = meanwhile
        self._lock = threading.Lock()
        self._planned: list[Trouble] = []
        self._counts: Counter[Trouble] = Counter()
        self._held_up = False
        self._dead = False
        self._down = False

    @contextmanager
    def plan(self, troubles: list[Trouble]) -> Iterator[None]:
        """One function's life; `hits` has what struck."""
        self._planned, self.hits = list(troubles), []
        self._counts.clear()
        try:
            yield
        finally:
            self._planned = []
            self._dead = self._down = self.wrong = self.late = False

    def call(self, port: str, operation: str, effect: Callable[[Effect], Any]) -> Any:
        if self._held_up:
            return effect(Effect.ALL)
        self._check_life(port)
        trouble = self._count(port, operation)
        result = None
        if trouble is None or trouble.kind not in (FROM_SOURCE | FROM_STORAGE | {Kind.KILL}):
            if trouble is not None:
                self._strike(trouble)
            result = effect(Effect.ALL)
        else:
            if trouble.effect is not Effect.NONE and trouble.kind not in FROM_SOURCE:
                effect(trouble.effect)
            self._strike(trouble)
        self._check_life(port)
        return result

    def _check_life(self, port: str) -> None:
        if self._dead:
            raise KilledError
        if self._down and port != "source":
            raise StorageUnavailableError("The storage is down.")

    def _count(self, port: str, operation: str) -> Trouble | None:
        with self._lock:
            for trouble in self._planned:
                if trouble.concerns(port, operation):
                    self._counts[trouble] += 1
                    if self._counts[trouble] == trouble.at:
                        self._planned.remove(trouble)
                        return trouble
        return None

    def _strike(self, trouble: Trouble) -> None:
        self.hits.append(trouble.kind)
        match trouble.kind:
            case Kind.KILL:
                self._dead = True
                raise KilledError
            case Kind.STORAGE:
                raise StorageUnavailableError("The storage did not answer.")
            case Kind.OUTAGE:
                self._down = True
                raise StorageUnavailableError("The storage is down.")
            case Kind.SOURCE:
                raise SourceUnavailableError("The source answered 503.")
            case Kind.LIMIT:
                raise RateLimitedError("The source's budget is spent.", retry_after=120)
            case Kind.WRONG:
                self.wrong = True
            case Kind.LATE:
                self.late = True
            case _:
                self._held_up = True
                try:
                    self._meanwhile(trouble.kind)
                finally:
                    self._held_up = False


class Guarded:
    """A port whose calls, and those of the streams that it opens, go by the troublemaker."""

    def __init__(self, port: str, target: object, trouble: Troublemaker) -> None:
        self._port = port
        self._target = target
        self._trouble = trouble

    def __getattr__(self, operation: str) -> Any:
        found = getattr(self._target, operation)
        if not callable(found) or operation in ("close", "prefix"):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            given = [list(a) if isinstance(a, Iterator) else a for a in arguments]

            def take_effect(effect: Effect) -> Any:
                if effect is Effect.HALF and operation in BATCHES:
                    batch = list(given[-1])
                    return found(*given[:-1], batch[: len(batch) // 2], **options)
                result = found(*given, **options)
                return iter(list(result)) if isinstance(result, Iterator) else result

            result = self._trouble.call(self._port, operation, take_effect)
            return Guarded(self._port, result, self._trouble) if hasattr(result, "readinto") else result

        return call

    def __enter__(self) -> "Guarded":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class PolledSegments:
    """Segments of which each reading takes two seconds. A function that waits for others reads them again and again."""

    segments: SegmentRepository
    clock: ManualClock

    def find_upload(self, key: UploadKey) -> FileUpload | None:
        self.clock.now += 2
        return self.segments.find_upload(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.segments, name)


@dataclass
class WatchedDeployment(Deployment):
    """Remembers every message, and what no step may raise."""

    delivered: dict[str, Message] = field(default_factory=dict)
    unexpected: list[Exception] = field(default_factory=list)

    def connect(self, database: Database, store: Bucket, queue: MessageQueue, stream_settings: StreamSettings) -> None:
        segments = cast("SegmentRepository", PolledSegments(database.segments, self.clock))
        super().connect(replace(database, segments=segments), store, queue, stream_settings)

    def deliver(self, message: Message, *, deliveries: int = 1) -> None:
        self.delivered[message.model_dump_json()] = message
        super().deliver(message, deliveries=deliveries)

    def _step(self, message: Message) -> None:
        try:
            super()._step(message)
        except (ModelhaulError, TransferError):
            raise
        except Exception as error:
            self.unexpected.append(error)
            raise
