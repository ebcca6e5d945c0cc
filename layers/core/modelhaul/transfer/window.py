"""The parts of one file that are in memory."""

import heapq
import math
import mmap
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isal import isal_zlib

from modelhaul.domain.digests import FileHasher
from modelhaul.domain.files import Part
from modelhaul.transfer.settings import MIB


@dataclass(slots=True)
class PartBuffer:
    """One part in memory: `filled` bytes have been received, `hashed` of them are part of the file's hash.

    `state` is the hash's state at the end of the part.
    """

    number: int
    start: int
    size: int
    buffer: memoryview
    filled: int = 0
    hashed: int = 0
    crc32: int = 0
    state: bytes | None = None


class PartWindow:
    """The parts in memory. They are taken in order, filled in any order, hashed in order, and stored in any order.

    `parts`: the stored parts 1..n, without a gap. `state`: the hash state after them. All methods are thread-safe,
    except `allocate` (call before the transfer) and `free` (call after it).
    """

    def __init__(
        self, *, size: int, part_size: int, hasher: FileHasher, parts: Sequence[Part] = (), state: bytes | None = None
    ) -> None:
        self.part_size = part_size
        self.count = math.ceil(size / part_size)
        self.parts = list(parts)
        self.state = state
        self.error: BaseException | None = None
        self.stopping = threading.Event()
        self._size = size
        self._hasher = hasher
        self._changed = threading.Condition()
        self._hash_lock = threading.Lock()
        self._free: list[memoryview] = []
        self._taken: dict[int, PartBuffer] = {}
        self._returned: list[tuple[int, PartBuffer]] = []
        self._stored_ahead: dict[int, tuple[Part, bytes | None]] = {}
        self._next_taken = self._next_hashed = len(self.parts) + 1

    @property
    def stored_bytes(self) -> int:
        return min(len(self.parts) * self.part_size, self._size)

    @property
    def is_stored(self) -> bool:
        return len(self.parts) == self.count

    @property
    def waiting(self) -> int:
        """Return the number of complete parts that are not stored yet."""
        return self._next_hashed - 1 - len(self.parts)

    def read_stored(self) -> tuple[tuple[Part, ...], bytes | None]:
        """Return the stored parts, and the hash state after exactly these parts."""
        with self._changed:
            return tuple(self.parts), self.state

    def allocate(self, buffers: int) -> None:
        """Allocate memory for at most `buffers` parts."""
        missing = min(buffers, self.count - len(self.parts))
        # Anonymous maps, because freeing one returns its memory to the operating system immediately.
        self._free = [memoryview(mmap.mmap(-1, self.part_size)) for _ in range(missing)]

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
                if self._free and self._next_taken <= self.count:
                    number = self._next_taken
                    self._next_taken += 1
                    start = (number - 1) * self.part_size
                    part = PartBuffer(number, start, min(self.part_size, self._size - start), self._free.pop())
                    self._taken[number] = part
                    return part
                self._changed.wait()
        return None

    def give_back(self, part: PartBuffer) -> None:
        """Return a part that is not complete, so that another thread fills the rest."""
        with self._changed:
            heapq.heappush(self._returned, (part.number, part))
            self._changed.notify_all()

    def hash_received(self, part: PartBuffer) -> list[PartBuffer]:
        """Hash the received bytes in the file's order, after bytes of `part` arrived.

        Return the parts whose bytes are now all hashed.
        """
        whole: list[PartBuffer] = []
        if part.number != self._next_hashed and part.filled != part.size:
            return whole
        with self._hash_lock:
            while (current := self._taken.get(self._next_hashed)) is not None:
                filled = current.filled
                while current.hashed < filled:
                    piece = current.buffer[current.hashed : min(current.hashed + MIB, filled)]
                    self._hasher.update(piece)
                    current.crc32 = isal_zlib.crc32(piece, current.crc32)
                    current.hashed += len(piece)
                if current.hashed < current.size:
                    break
                current.state = self._hasher.export_state()
                self._next_hashed += 1
                whole.append(current)
        return whole

    def record_stored(self, buffer: PartBuffer, part: Part) -> None:
        """Record that the part is stored, and free its buffer for the next."""
        with self._changed:
            self._stored_ahead[buffer.number] = (part, buffer.state)
            while (following := self._stored_ahead.pop(len(self.parts) + 1, None)) is not None:
                self.parts.append(following[0])
                self.state = following[1]
            del self._taken[buffer.number]
            self._free.append(buffer.buffer)
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait for a change. Return False if all parts are stored, or a thread has failed."""
        with self._changed:
            if self.error is not None or self.is_stored:
                return False
            self._changed.wait(seconds)
        return True

    def fail(self, error: BaseException) -> None:
        """Record the error, unless there was an earlier one, and stop all threads."""
        with self._changed:
            if self.error is None:
                self.error = error
        self.stop()

    def stop(self) -> None:
        """Stop all threads: `take` returns None from now on."""
        self.stopping.set()
        with self._changed:
            self._changed.notify_all()
