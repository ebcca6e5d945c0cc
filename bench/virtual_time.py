"""Concurrent functions in a virtual time, which passes only when they advance it."""

import heapq
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(slots=True)
class _Turn:
    """A thread that waits for its turn."""

    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class VirtualTime:
    """Each thread has its own time, which `pass_time` advances. `synchronize` waits until all other threads have the
    same time or a later one. Only one thread runs at once, so that runs are deterministic.
    """

    def __init__(self, start: float) -> None:
        self._start = start
        self._local = threading.local()
        self._waiting: list[tuple[float, int, _Turn | Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._rest = threading.Semaphore(0)
        self._errors: list[BaseException] = []

    def __call__(self) -> float:
        return float(getattr(self._local, "now", self._start))

    def set_time(self, now: float) -> None:
        self._local.now = now

    def set_speed(self, speed: float) -> None:
        """Set how much faster than other functions the function of this thread computes."""
        self._local.speed = speed

    @property
    def cpu(self) -> float:
        """CPU seconds that this thread has used so far."""
        return float(getattr(self._local, "cpu", 0.0))

    def pass_time(self, seconds: float, *, cpu: float = 0.0) -> None:
        """Advance the time. `cpu` seconds of it do not overlap with CPU time of other threads of the function."""
        self._local.now = self() + seconds
        self._local.cpu = self.cpu + self._scale(cpu)

    def compute(self, cpu: float) -> None:
        """Advance the time by CPU time."""
        self.pass_time(self._scale(cpu), cpu=cpu)

    def _scale(self, cpu: float) -> float:
        return cpu / float(getattr(self._local, "speed", 1.0))

    def call_at(self, when: float, act: Callable[[], None]) -> None:
        """Call `act` at `when`. It must not wait."""
        heapq.heappush(self._waiting, (when, next(self._numbers), act))

    def start(self, work: Callable[[], None]) -> None:
        """Run `work` in a new thread, from the current time on."""
        now, turn = self(), _Turn()

        def run() -> None:
            turn.go.acquire()
            self._local.now = now
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised by `run`
                self._errors.append(error)
            finally:
                self._rest.release()

        threading.Thread(target=run, daemon=True).start()
        heapq.heappush(self._waiting, (now, next(self._numbers), turn))

    def synchronize(self) -> None:
        """Wait until no other thread has an earlier time."""
        if self._waiting and self._waiting[0][0] < self():
            turn = _Turn()
            heapq.heappush(self._waiting, (self(), next(self._numbers), turn))
            self._rest.release()
            turn.go.acquire()

    def run(self) -> None:
        """Run until no thread is waiting."""
        while self._waiting:
            when, _, waiting = heapq.heappop(self._waiting)
            if isinstance(waiting, _Turn):
                waiting.go.release()
                self._rest.acquire()
            else:
                self.set_time(when)
                waiting()
            if self._errors:
                raise self._errors[0]


class VirtualPool:
    """Replaces ThreadPoolExecutor: lanes whose times overlap, except for their CPU time."""

    time: VirtualTime

    def __init__(self, lanes: int, **_: object) -> None:
        self._count = lanes
        self._joined = -1.0

    def submit[**P, T](self, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> Future[T]:
        """Run `work` immediately. Afterwards, the time is the end of all work submitted so far."""
        if self.time() != self._joined:  # time has passed: all lanes are idle
            self._start, self._cpu = self.time(), self.time.cpu
            self._lanes = [self._start] * self._count
        self.time.set_time(heapq.heappop(self._lanes))
        future: Future[T] = Future()
        try:
            future.set_result(work(*arguments, **options))
        except Exception as error:  # noqa: BLE001 - raised by the future
            future.set_exception(error)
        heapq.heappush(self._lanes, self.time())
        self._joined = max(*self._lanes, self._start + self.time.cpu - self._cpu)
        self.time.set_time(self._joined)
        return future

    def map[T](self, work: Callable[[Any], T], items: Iterable[Any]) -> Iterator[T]:
        return iter([self.submit(work, item).result() for item in items])

    def shutdown(self, **_: object) -> None:
        """No-op: all work has ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return
