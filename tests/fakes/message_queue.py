import heapq
import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Iterable

from modelhaul.domain.messages import Message, parse_message
from modelhaul.ports.clock import Clock


class InMemoryMessageQueue:
    """All three queues in one. Messages wait as JSON until they are due, and are gone once received.

    `count_deliveries` says how often a message arrives (0 loses it, 2 duplicates it); with `shuffle`, those
    that are due together come in random order, else as sent. Both may be set at any time.
    """

    def __init__(
        self,
        clock: Clock = time.time,
        *,
        count_deliveries: Callable[[Message], int] = lambda _: 1,
        shuffle: random.Random | None = None,
    ) -> None:
        self.count_deliveries = count_deliveries
        self.shuffle = shuffle
        self._clock = clock
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, str]] = []

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiting)

    @property
    def next_due(self) -> float | None:
        """Epoch seconds of the first message, None if none waits."""
        with self._lock:
            return self._waiting[0][0] if self._waiting else None

    def send(self, messages: Iterable[Message], *, delay: float = 0) -> None:
        due = self._clock() + min(900, max(0, math.ceil(delay)))
        for message in messages:
            body = message.model_dump_json()
            with self._lock:
                for _ in range(self.count_deliveries(message)):
                    heapq.heappush(self._waiting, (due, next(self._numbers), body))

    def receive(self, now: float) -> list[Message]:
        """Takes out and returns all messages that are due at `now` (epoch seconds)."""
        bodies: list[str] = []
        with self._lock:
            while self._waiting and self._waiting[0][0] <= now:
                bodies.append(heapq.heappop(self._waiting)[2])
        if self.shuffle is not None:
            self.shuffle.shuffle(bodies)
        return [parse_message(body) for body in bodies]
