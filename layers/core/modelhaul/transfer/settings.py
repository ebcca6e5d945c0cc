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

    A broken connection is reopened at most `reconnects` times for each part, first after `reconnect_delay`. `span` is
    the maximum size of one GET: each GET of a large file costs a resolver request, but some hosts reject very large
    ranges. `stop_before` is the time that a function reserves at its end for uploads that have started.
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
    checkpoint_bytes: int = 256 * MIB
    # Maximum per file, without those of heartbeats, because each checkpoint writes the list of all parts again.
    checkpoints: int = 32
    heartbeat: float = 20.0
    stop_before: float = 75.0
