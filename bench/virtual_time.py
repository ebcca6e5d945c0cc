"""Functions that run side by side in a time that passes only as they say."""

import heapq
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(slots=True)
class _Turn:
    """A thread that goes on when its time has come."""

    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class VirtualTime:
    """Each thread has its own time, which `pass_time` moves; `meet` lets all others come as far first. One thread runs
    at once, so that a run is the same every time.
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

    @property
    def cpu(self) -> float:
        """Seconds of its function's processor that this thread has used so far."""
        return float(getattr(self._local, "cpu", 0.0))

    def pass_time(self, seconds: float, *, cpu: float = 0.0) -> None:
        """`cpu` seconds of it cannot pass beside those of the function's other threads."""
        self._local.now = self() + seconds
        self._local.cpu = self.cpu + cpu

    def call_at(self, when: float, act: Callable[[], None]) -> None:
        """`act` is called at `when`, and may not wait."""
        heapq.heappush(self._waiting, (when, next(self._numbers), act))

    def start(self, work: Callable[[], None]) -> None:
        """Runs `work` in a thread of its own, from now on."""
        now, turn = self(), _Turn()

        def run() -> None:
            turn.go.acquire()
            self._local.now = now
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - handed to `run`
                self._errors.append(error)
            finally:
                self._rest.release()

        threading.Thread(target=run, daemon=True).start()
        heapq.heappush(self._waiting, (now, next(self._numbers), turn))

    def meet(self) -> None:
        """Waits until no other thread is behind."""
        if self._waiting and self._waiting[0][0] < self():
            turn = _Turn()
            heapq.heappush(self._waiting, (self(), next(self._numbers), turn))
            self._rest.release()
            turn.go.acquire()

    def run(self) -> None:
        """Until nobody waits any more."""
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
    """Stands for a ThreadPoolExecutor: lanes whose times pass side by side, but for the one processor's."""

    time: VirtualTime

    def __init__(self, lanes: int, **_: object) -> None:
        self._count = lanes
        self._joined = -1.0

    def submit[**P, T](self, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> Future[T]:
        """Works at once. Afterwards it is the time when all that was submitted until then is done."""
        if self.time() != self._joined:  # time has passed since: none of the lanes is busy
            self._start, self._cpu = self.time(), self.time.cpu
            self._lanes = [self._start] * self._count
        self.time.set_time(heapq.heappop(self._lanes))
        future: Future[T] = Future()
        try:
            future.set_result(work(*arguments, **options))
        except Exception as error:  # noqa: BLE001 - the future's
            future.set_exception(error)
        heapq.heappush(self._lanes, self.time())
        self._joined = max(*self._lanes, self._start + self.time.cpu - self._cpu)
        self.time.set_time(self._joined)
        return future

    def map[T](self, work: Callable[[Any], T], items: Iterable[Any]) -> Iterator[T]:
        return iter([self.submit(work, item).result() for item in items])

    def shutdown(self, **_: object) -> None:
        """Nothing is under way."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return
