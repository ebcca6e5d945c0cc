"""Resource usage of this process, from Linux's accounting."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """Usage of the transfer, with sizes in bytes and times in seconds. Only `peak_rss` covers the whole process.

    `written` is the larger of two numbers: bytes passed to write calls (which include OpenSSL's socket writes, but not
    other socket sends), and bytes written to disk. `disk` is the latter, which excludes memory file systems.
    """

    seconds: float
    user_seconds: float
    system_seconds: float
    rss_before: int
    peak_rss: int
    written: int
    disk: int

    @property
    def cpu_seconds(self) -> float:
        return self.user_seconds + self.system_seconds


def measure(move: Callable[[], None]) -> Usage:
    rss_before = _read_memory("VmRSS")
    io_before = _read_io()
    cpu, started = os.times(), time.monotonic()
    move()
    seconds, cpu_after = time.monotonic() - started, os.times()
    io = {name: count - io_before[name] for name, count in _read_io().items()}
    return Usage(
        seconds=seconds,
        user_seconds=cpu_after.user - cpu.user,
        system_seconds=cpu_after.system - cpu.system,
        rss_before=rss_before,
        # Not ru_maxrss of getrusage, which starts with the peak of the parent process.
        peak_rss=_read_memory("VmHWM"),
        # wchar includes tmpfs, write_bytes includes mapped files.
        written=max(io["wchar"], io["write_bytes"]),
        disk=io["write_bytes"],
    )


def measure_on_signal(move: Callable[[], None]) -> None:
    """Wait for the start signal of bench.movers, run the transfer, and print its Usage as JSON."""
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(asdict(measure(move))))


def _read_memory(name: str) -> int:
    """See https://man7.org/linux/man-pages/man5/proc_pid_status.5.html."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def _read_io() -> dict[str, int]:
    """See https://man7.org/linux/man-pages/man5/proc_pid_io.5.html."""
    lines = (line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {name: int(count) for name, count in lines}
