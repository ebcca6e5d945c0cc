"""Limit a process to a share of a processor, like the quota of the Linux scheduler for a function.

The process is stopped and continued by signals, which requires neither privileges nor control groups.
"""

import signal
import subprocess
import threading
import time

_PERIOD = 0.02  # seconds
_POLL_INTERVAL = 0.001  # seconds


def limit_processor(process: subprocess.Popen[str], share: float, stop: threading.Event) -> None:
    """Limit a process until `stop` is set or it ends. In each period it gets the `share` of the period as CPU time.
    Excess use is subtracted from the next period; unused time is lost.
    """
    clock = (~process.pid << 3) | 2  # https://man7.org/linux/man-pages/man3/clock_getcpuclockid.3.html
    quota = share * _PERIOD
    remaining, used, refill, stopped = quota, time.clock_gettime(clock), time.monotonic() + _PERIOD, False
    try:
        while process.poll() is None and not stop.wait(_POLL_INTERVAL):
            now_used = time.clock_gettime(clock)
            remaining, used = remaining - (now_used - used), now_used
            while time.monotonic() >= refill:
                remaining, refill = min(quota, remaining + quota), refill + _PERIOD
            if stopped != (remaining <= 0):
                stopped = remaining <= 0
                process.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)
    except OSError:  # the process has ended
        return
    finally:
        process.send_signal(signal.SIGCONT)
