"""Fill the parts of one file from its source, each connection in its own thread."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from modelhaul.transfer.ranges import Connections, RangeReader, RangesIgnoredError
from modelhaul.transfer.window import PartBuffer, PartWindow


@dataclass(slots=True, kw_only=True)
class PartDownloader:
    """Fills the parts of the window. `on_received` is called after each read. An error fails the window."""

    connections: Connections
    window: PartWindow
    on_received: Callable[[PartBuffer], None]
    _threads: list[threading.Thread] = field(default_factory=list)
    _measured: float = field(default_factory=time.monotonic)
    _received: int = 0
    _waited: float = 0.0

    def start(self) -> None:
        """Open one connection."""
        index = len(self._threads)
        thread = threading.Thread(target=self._fetch, args=(index,), name=f"fetch-{index}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def widen_if_slow(self, now: float) -> None:
        """Open one more connection if the transfer waits for the source, and not for uploads or memory.

        `now`: monotonic seconds. No-op within a rate window.
        """
        connections, settings = self.connections, self.connections.settings
        elapsed = now - self._measured
        if elapsed < settings.rate_window or not connections.is_open:
            return
        received, waited = connections.received - self._received, self.window.waited - self._waited
        active = elapsed - waited / len(self._threads)
        self._measured, self._received, self._waited = now, connections.received, self.window.waited
        is_slow = active > elapsed / 2 and received < settings.slow_rate * active
        if is_slow and self.window.unstored < settings.uploaders and connections.wanted < connections.limit:
            connections.wanted += 1
            self.start()

    def close(self) -> None:
        """Close all connections, and wait for their threads. The window must be stopped."""
        self.connections.close()
        for thread in self._threads:
            thread.join()

    def _fetch(self, index: int) -> None:
        window, connections = self.window, self.connections
        reader = RangeReader(connections, index)
        try:
            while (part := window.take(lambda: index < connections.wanted)) is not None:
                try:
                    reader.fill(part, self.on_received)
                except RangesIgnoredError:
                    if connections.needs_ranges:
                        raise
                    connections.keep_one()
                    window.give_back(part)
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread, which raises it
            window.fail(error)
        finally:
            reader.close()
