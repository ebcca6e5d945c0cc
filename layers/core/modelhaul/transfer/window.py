"""The parts of one file that are in memory."""

import bisect
import heapq
import mmap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from isal import isal_zlib

from modelhaul.domain.digests import FileHasher
from modelhaul.domain.files import Part
from modelhaul.transfer.settings import MIB

_WAIT = 0.2  # seconds between two updates of `waited`


@dataclass(slots=True)
class PartBuffer:
    """One part in memory: `filled` bytes have been received, `hashed` of them are part of the file's hash.

    `crc32` is that of the first `checked` bytes. `is_hashed` is set when all bytes are hashed, with the hash `state`
    after them. `stored` is set when the part is stored.
    """

    number: int
    start: int
    size: int
    buffer: memoryview
    filled: int = 0
    checked: int = 0
    crc32: int = 0
    hashed: int = 0
    is_hashed: bool = False
    state: bytes | None = None
    stored: Part | None = None

    @property
    def is_full(self) -> bool:
        return self.filled == self.size

    def check_received(self) -> None:
        """Update the CRC-32 with the received bytes. Only the thread that fills the part may call this."""
        self.crc32 = isal_zlib.crc32(self.buffer[self.checked : self.filled], self.crc32)
        self.checked = self.filled


class PartWindow:
    """The parts in memory. They are taken in order, and filled and stored in any order. They are hashed in the file's
    order, those after a gap when the hash state at their start is known. A part's memory is free when the part is
    stored and hashed.

    All methods are thread-safe, except `free`, which must be called after the transfer.
    """

    def __init__(self, *, size: int, part_size: int, buffers: int) -> None:
        self.part_size = part_size
        self.error: BaseException | None = None
        self.stopping = threading.Event()
        self.waited = 0.0  # seconds that all threads together have waited for parts
        self.hasher: FileHasher | None = None
        self.next_hashed = 0  # the part that `hasher` continues with
        self._size = size
        lock = threading.RLock()
        self._changed = threading.Condition(lock)  # for the threads that take parts
        self._news = threading.Condition(lock)  # for the thread that coordinates them
        self._has_changed = False
        self._idle = 0  # threads that wait for a part
        self._hash_lock = threading.Lock()
        # Anonymous maps, because freeing one returns its memory to the operating system immediately.
        self._free = [memoryview(mmap.mmap(-1, part_size)) for _ in range(buffers)]
        self._waiting: list[int] = []  # numbers of parts to take
        self._claimed_until: dict[int, int] = {}  # ends of segments by their starts
        self._taken: dict[int, PartBuffer] = {}
        self._returned: list[tuple[int, PartBuffer]] = []
        self._done: dict[int, tuple[Part, bytes | None]] = {}

    def needs_segment(self, *, ahead: bool) -> bool:
        """Return whether there is memory, but no part to fill. `ahead`: before a thread waits for it."""
        with self._changed:
            is_wanted = ahead or self._idle > 0
            return is_wanted and bool(self._free) and not self._waiting and not self._returned

    @property
    def unstored(self) -> int:
        """Return the number of full parts that are not stored yet."""
        with self._changed:
            return sum(part.is_full and part.stored is None for part in self._taken.values())

    def add(self, segment: range) -> None:
        """Add parts to take."""
        with self._changed:
            self._claimed_until[segment.start] = segment.stop
            for number in segment:
                bisect.insort(self._waiting, number)
            self._notify()

    @property
    def is_full(self) -> bool:
        """Return whether there is no memory for another part."""
        with self._changed:
            return not self._free

    def find_end(self, part: PartBuffer) -> int:
        """Return the end of the part's segment, and of those that follow it without a gap, in bytes."""
        with self._changed:
            end = next(e for start, e in self._claimed_until.items() if start <= part.number < e)
            while end in self._claimed_until:
                end = self._claimed_until[end]
        return min((end - 1) * self.part_size, self._size)

    def read_done(self, first: int) -> tuple[list[Part], list[bytes | None]]:
        """Return the parts from `first` on that are stored and hashed, without a gap, and the hash states after
        them.
        """
        parts: list[Part] = []
        states: list[bytes | None] = []
        with self._changed:
            while (found := self._done.get(first + len(parts))) is not None:
                parts.append(found[0])
                states.append(found[1])
        return parts, states

    def count_received(self, first: int) -> int:
        """Return the received bytes of the parts from `first` on."""
        with self._changed:
            done = sum(self._find_size(number) for number in self._done if number >= first)
            return done + sum(part.filled for number, part in self._taken.items() if number >= first)

    def _find_size(self, number: int) -> int:
        return min(self.part_size, self._size - (number - 1) * self.part_size)

    def free(self) -> None:
        """Free the memory. Without this, a warm function keeps it until its garbage is collected."""
        self._free, self._taken, self._returned = [], {}, []

    def take(self, is_wanted: Callable[[], bool]) -> PartBuffer | None:
        """Wait for a free buffer, and return the next part to fill.

        Return None when the threads are stopped, or if `is_wanted()` becomes false.
        """
        with self._changed:
            while not self.stopping.is_set() and is_wanted():
                if self._returned:
                    return heapq.heappop(self._returned)[1]
                if self._free and self._waiting:
                    number = self._waiting.pop(0)
                    start = (number - 1) * self.part_size
                    part = PartBuffer(number, start, self._find_size(number), self._free.pop())
                    self._taken[number] = part
                    self._notify()
                    return part
                self._wait_for_part()
        return None

    def _wait_for_part(self) -> None:
        since = time.monotonic()
        self._idle += 1
        self._notify_coordinator()
        self._changed.wait(_WAIT)
        self._idle -= 1
        self.waited += time.monotonic() - since

    def give_back(self, part: PartBuffer) -> None:
        """Return a part that is not full, so that another thread fills the rest."""
        with self._changed:
            heapq.heappush(self._returned, (part.number, part))
            self._notify()

    def resume_hash(self, number: int, hasher: FileHasher) -> None:
        """Continue at the start of part `number` with `hasher`, and hash the bytes that have arrived."""
        with self._hash_lock:
            self.hasher, self.next_hashed = hasher, number
        self.hash_received()

    def hash_received(self) -> None:
        """Hash the received bytes in the file's order. No-op while another thread is hashing: it hashes these, too."""
        while self._find_unhashed() is not None and self._hash_lock.acquire(blocking=False):
            try:
                self._hash_all()
            finally:
                self._hash_lock.release()

    def _find_unhashed(self) -> PartBuffer | None:
        part = self._taken.get(self.next_hashed)
        return part if part is not None and part.hashed < part.filled else None

    def _hash_all(self) -> None:
        whole: list[PartBuffer] = []
        while self.hasher is not None and (part := self._find_unhashed()) is not None:
            piece = part.buffer[part.hashed : min(part.hashed + MIB, part.filled)]
            self.hasher.update(piece)
            part.hashed += len(piece)
            if part.hashed == part.size:
                part.state = self.hasher.export_state()
                self.next_hashed += 1
                whole.append(part)
        # Freed together: new downloads would take processor time from the hash, for which other functions may wait.
        if whole:
            self._free_hashed(whole)

    def _free_hashed(self, parts: list[PartBuffer]) -> None:
        with self._changed:
            for part in parts:
                part.is_hashed = True
                self._free_if_done(part)

    def record_stored(self, buffer: PartBuffer, part: Part) -> None:
        """Record that the part is stored."""
        with self._changed:
            buffer.stored = part
            self._free_if_done(buffer)

    def _free_if_done(self, part: PartBuffer) -> None:
        if part.stored is not None and part.is_hashed:
            self._done[part.number] = (part.stored, part.state)
            del self._taken[part.number]
            self._free.append(part.buffer)
        self._notify()

    def wait(self, seconds: float) -> None:
        """Wait for a change since the last call, at most `seconds`. The caller checks `error`."""
        with self._changed:
            if not self._has_changed:
                self._news.wait(seconds)
            self._has_changed = False

    def notify(self) -> None:
        """End `wait`."""
        with self._changed:
            self._notify()

    def fail(self, error: BaseException) -> None:
        """Record the error, unless there was an earlier one, and stop all threads."""
        with self._changed:
            if self.error is None:
                self.error = error
        self.stop()

    def stop(self) -> None:
        """Stop all threads: `take` returns None from now on."""
        self.stopping.set()
        self.notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        self._notify_coordinator()

    def _notify_coordinator(self) -> None:
        self._has_changed = True
        self._news.notify()
