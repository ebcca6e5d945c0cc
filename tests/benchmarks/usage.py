"""What this process uses, from Linux's own books."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """Sizes in bytes, times in seconds; `seconds` and CPU times are those of the transfer alone.

    `peak_rss` is the process's from its start. `written` is what it handed to write calls, which sends on
    sockets are not, or what it caused to be written to a disk if that is more.
    """

    seconds: float
    user_seconds: float
    system_seconds: float
    rss_before: int
    peak_rss: int
    written: int


def measure(move: Callable[[], None]) -> Usage:
    rss_before = _read_memory("VmRSS")
    cpu, started = os.times(), time.monotonic()
    move()
    seconds, cpu_after = time.monotonic() - started, os.times()
    return Usage(
        seconds=seconds,
        user_seconds=cpu_after.user - cpu.user,
        system_seconds=cpu_after.system - cpu.system,
        rss_before=rss_before,
        # Not ru_maxrss of getrusage: that starts with the peak of the process that started this one.
        peak_rss=_read_memory("VmHWM"),
        written=_read_written(),
    )


def _read_memory(name: str) -> int:
    """https://man7.org/linux/man-pages/man5/proc_pid_status.5.html"""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def _read_written() -> int:
    """https://man7.org/linux/man-pages/man5/proc_pid_io.5.html: wchar sees tmpfs too, write_bytes mapped files."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return max(int(counts["wchar"]), int(counts["write_bytes"]))
