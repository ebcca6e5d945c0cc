"""Faults that a test switches on in a loopback upstream, and the book-keeping of which are due."""

import re
import threading
from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Origin = Literal["api", "resolve", "cdn", "lfs", "raw", "media"]
"""The Hub's are `api`, `resolve` and `cdn`, GitHub's `api`, `lfs` (the batch API), `raw` and `media` (LFS links)."""


class FaultKind(StrEnum):
    DROP = "drop"
    """Reset the connection after `after_bytes` bytes of the body."""
    STALL = "stall"
    """Send nothing more after `after_bytes` bytes, until the client goes or the stall is released."""
    SLOW = "slow"
    """Send `bytes_per_second` at most, on each connection."""
    RATE_LIMIT = "rate_limit"
    """429 with `Retry-After: retry_after` and spent rate-limit headers. GitHub's API: 403 with spent headers alone."""
    SECONDARY_LIMIT = "secondary_limit"
    """GitHub's API: 403 with `Retry-After: retry_after`, or without it if there is none."""
    SERVER_ERROR = "server_error"
    """Response `status`, with `Retry-After` when `retry_after` is given."""
    REFUSAL = "refusal"
    """Response `status`, a 4xx."""
    WRONG_BYTES = "wrong_bytes"
    """Invert the byte at `after_bytes` of the body (its last one when the body is shorter)."""
    IGNORE_RANGE = "ignore_range"
    """200 and the whole file, framed as `framing` says."""
    WRONG_CONTENT_RANGE = "wrong_content_range"
    """Send `header_value` as Content-Range; without one, the right range moved on by a byte."""
    SHORT_ANSWER = "short_answer"
    """Leave out the last `by_bytes` bytes. Content-Length fits them, Content-Range still says all."""
    LONG_ANSWER = "long_answer"
    """Add the `by_bytes` bytes that follow (zeros after the end). Content-Length fits them."""
    WRONG_CONTENT_LENGTH = "wrong_content_length"
    """Content-Length says `by_bytes` more (negative: fewer) than are sent; the connection then closes."""
    CHANGED_ETAG = "changed_etag"
    """Send `header_value` as ETag and X-Linked-Etag; without one, an ETag seen nowhere else."""
    EXPIRED_URL = "expired_url"
    """At `cdn`: 403 as for an expired signature. At `resolve`: redirect to a URL that has expired."""
    GZIP = "gzip"
    """200 and the whole file as `Content-Encoding: gzip`, chunked, whatever the request accepts."""


class Fault(BaseModel):
    """One fault, and which requests it befalls: all of origin, path, method and `holding_byte` must match.

    Faults that match together add up in the order in which they were added (slow and then a drop, say).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    origin: Origin
    path: str = ""
    """Regular expression searched in the decoded path without the query; a plain file name will do."""
    method: Literal["GET", "HEAD", "POST"] | None = None
    holding_byte: int | None = Field(default=None, ge=0)
    """Only answers whose body holds the byte at this position of the file."""
    skip: int = Field(default=0, ge=0)
    """Matching requests that go unharmed first."""
    times: int | None = Field(default=None, ge=1)
    """Matching requests that are harmed; None until the faults are cleared."""
    after_bytes: int = Field(default=0, ge=0)
    by_bytes: int = 1
    bytes_per_second: int = Field(default=1024 * 1024, ge=1)
    status: int = Field(default=503, ge=400, le=599)
    retry_after: int | None = Field(default=None, ge=0)
    """Seconds; a RATE_LIMIT without it says 1."""
    framing: Literal["length", "chunked", "until_close"] = "length"
    header_value: str | None = None

    @field_validator("path")
    @classmethod
    def check_path(cls, path: str) -> str:
        try:
            re.compile(path)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return path


class _Due:
    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.skip = fault.skip
        self.times = fault.times


class ActiveFaults:
    """The faults that are switched on. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: list[_Due] = []
        self._released = threading.Event()

    @property
    def released(self) -> threading.Event:
        """Set when the stalls that begin from now on are let go."""
        with self._lock:
            return self._released

    def add(self, faults: Sequence[Fault]) -> None:
        with self._lock:
            self._due.extend(_Due(fault) for fault in faults)

    def list_pending(self) -> list[Fault]:
        """Faults that can still strike, oldest first."""
        with self._lock:
            return [due.fault for due in self._due if due.times != 0]

    def clear(self) -> None:
        """Switch all faults off and let the stalled answers go on."""
        with self._lock:
            self._due.clear()
            released, self._released = self._released, threading.Event()
        released.set()

    def take(self, origin: Origin, method: str, path: str, body: range) -> list[Fault]:
        """Return the faults that befall this request, and count them as used.

        body: positions of the file that the unharmed answer would hold.
        """
        taken = []
        with self._lock:
            for due in self._due:
                fault = due.fault
                if (
                    fault.origin != origin
                    or fault.method not in (None, method)
                    or (fault.holding_byte is not None and fault.holding_byte not in body)
                    or not re.search(fault.path, path)
                ):
                    continue
                if due.skip:
                    due.skip -= 1
                elif due.times != 0:
                    due.times = due.times and due.times - 1
                    taken.append(fault)
        return taken
