import threading


class InMemoryRateLimitStore:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pauses: dict[str, float] = {}

    def find_pause(self, limit: str) -> float:
        with self._lock:
            return self._pauses.get(limit, 0.0)

    def record_pause(self, limit: str, until: float) -> None:
        with self._lock:
            self._pauses[limit] = max(until, self._pauses.get(limit, 0.0))
