"""A share of a processor for a process, as the quota of Linux's scheduler gives it to a function.

By stopping and continuing the process, which needs no rights and no control groups.
"""

import signal
import subprocess
import threading
import time

_PERIOD = 0.02  # seconds
_LOOK = 0.001


def limit_processor(process: subprocess.Popen[str], share: float, stop: threading.Event) -> None:
    """Returns when `stop` is set or the process has ended. In each period it gets `share` of it as CPU time, what it
    took too much in one is missing in the next, and what it leaves is lost.
    """
    clock = (~process.pid << 3) | 2  # https://man7.org/linux/man-pages/man3/clock_getcpuclockid.3.html
    quota = share * _PERIOD
    left, used, refill, stopped = quota, time.clock_gettime(clock), time.monotonic() + _PERIOD, False
    try:
        while process.poll() is None and not stop.wait(_LOOK):
            now_used = time.clock_gettime(clock)
            left, used = left - (now_used - used), now_used
            while time.monotonic() >= refill:
                left, refill = min(quota, left + quota), refill + _PERIOD
            if stopped != (left <= 0):
                stopped = left <= 0
                process.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)
    except OSError:  # it ended meanwhile
        return
    finally:
        process.send_signal(signal.SIGCONT)
