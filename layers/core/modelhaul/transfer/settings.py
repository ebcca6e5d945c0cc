"""Settings of the transfer of one file."""

import math
from collections.abc import Callable
from dataclasses import dataclass

MIB = 1024 * 1024
MAX_PARTS = 10_000  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html


def choose_part_size(size: int) -> int:
    """Return the bytes of each part of a file of `size` bytes.

    16 MiB for files up to 1 GiB, 32 MiB for larger files, and more if the file would need more than 10,000 parts.
    """
    base = 16 * MIB if size <= 1024 * MIB else 32 * MIB
    needed = math.ceil(size / MAX_PARTS / (16 * MIB)) * 16 * MIB
    return max(base, needed)


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Rates are bytes per second, times seconds, sizes bytes.

    A broken connection is reopened at most `reconnects` times for each part, first after `reconnect_delay`. In an
    outage (`is_outage`), the first request is not repeated if it fails: it decides whether the outage has ended. `span`
    is the maximum size of one GET: each GET of a large file costs a resolver request, but some hosts reject very large
    ranges. A segment has as many parts as there are `buffers`. A function that waits for the hash state at the start of
    its segment reads the progress every `poll`, or less often if other segments are between. It waits for `patience` at
    most, and leaves the file if another function leads its transfer. A function that joins a transfer waits for `join`
    at most until it has started. The leading function counts the progress every `progress`. The small files of a group
    that are stored are recorded every `batch`. `stop_before` is the time that a function reserves at its end for
    uploads that have started.
    """

    part_size: Callable[[int], int] = choose_part_size
    buffers: int = 4
    uploaders: int = 2
    connections: int = 3
    slow_rate: float = 60e6  # below this rate, another connection may help: a function's network has about 75 MB/s
    rate_window: float = 2.0
    chunk: int = 256 * 1024  # small enough to be in the CPU's cache when it is hashed
    span: int = 8 * 1024 * MIB
    reconnects: int = 3
    reconnect_delay: float = 0.5
    is_outage: bool = False
    heartbeat: float = 20.0
    progress: float = 2.5
    batch: float = 2.5
    poll: float = 0.05
    patience: float = 120.0
    join: float = 3.0
    stop_before: float = 75.0
