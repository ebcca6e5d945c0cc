"""The record that a loopback upstream keeps of the requests it was sent."""

import threading
import time
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel

from tests.upstream.faults import FaultKind, Origin


class RequestRecord(BaseModel):
    origin: Origin
    method: str
    path: str
    """Decoded, without the query."""
    query: str
    range: str | None
    """The Range header."""
    authorized: bool
    """Whether an Authorization header was sent."""
    status: int | None = None
    bytes_sent: int = 0
    """Bytes of the body (before chunked framing) that the kernel took. Complete once the client has them."""
    faults: list[FaultKind] = []
    state: Literal["answering", "stalled", "finished", "broken"] = "answering"
    """`broken`: ended before the body was out, by a fault or because the client went."""


class RequestLog:
    """Safe to use from any thread; what it hands out are copies."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._records: list[RequestRecord] = []

    def add(self, record: RequestRecord) -> None:
        with self._changed:
            self._records.append(record)
            self._changed.notify_all()

    def set_state(self, record: RequestRecord, state: Literal["stalled", "finished", "broken"]) -> None:
        with self._changed:
            record.state = state
            self._changed.notify_all()

    def list_records(self) -> list[RequestRecord]:
        with self._changed:
            return [record.model_copy(deep=True) for record in self._records]

    def clear(self) -> None:
        with self._changed:
            self._records = []

    def wait_for(self, satisfied: Callable[[list[RequestRecord]], bool], timeout: float) -> list[RequestRecord]:
        """Return the records once `satisfied` holds for them.

        It is asked when a request arrives, stalls or ends, and every 50 ms for the bytes in between.
        Raises TimeoutError after `timeout` seconds.
        """
        records: list[RequestRecord] = []

        def check() -> bool:
            nonlocal records
            records = [record.model_copy(deep=True) for record in self._records]
            return satisfied(records)

        deadline = time.monotonic() + timeout
        with self._changed:
            while not check():
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not satisfied after {timeout} s by {records}")
                self._changed.wait(0.05)
        return records
