"""Background processes that keep running after their command exits, and that a later command can stop.

Each process is the leader of its own session. Its descendants stay in that session, so that they are found (the Lambda
workers of MiniStack) even after their parent was killed.
"""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

TERMINATION_TIMEOUT = 5  # seconds
_CLOCK_TOLERANCE = 2.0  # seconds


@dataclass(frozen=True)
class RecordedProcess:
    """`create_time` (seconds since the epoch) distinguishes the process from a later process with the same PID. It
    shifts when the system clock is set, because Linux stores it relative to the boot time.
    """

    name: str
    pid: int
    create_time: float

    def is_alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return self._is_same(process) and is_running(process)
        except psutil.NoSuchProcess:
            return False

    def list_session(self) -> list[psutil.Process]:
        """Return the process and its descendants that are still running.

        The kernel does not reuse a PID while a session with this ID exists. If the PID now belongs to another process,
        the session is therefore empty.
        """
        with contextlib.suppress(psutil.NoSuchProcess):
            if not self._is_same(psutil.Process(self.pid)):
                return []
        return [process for process in psutil.process_iter() if self._is_member(process)]

    def _is_same(self, process: psutil.Process) -> bool:
        return abs(process.create_time() - self.create_time) < _CLOCK_TOLERANCE

    def _is_member(self, process: psutil.Process) -> bool:
        try:
            return os.getsid(process.pid) == self.pid and is_running(process)
        except (ProcessLookupError, PermissionError):
            return False


class ProcessRecord:
    """The processes of one stack, recorded in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._children: dict[RecordedProcess, subprocess.Popen[bytes]] = {}

    def read(self) -> list[RecordedProcess]:
        if not self._path.is_file():
            return []
        return [RecordedProcess(**entry) for entry in json.loads(self._path.read_text())]

    def find_alive(self, name: str) -> RecordedProcess | None:
        return next((process for process in self.read() if process.name == name and process.is_alive()), None)

    def start(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str], folder: Path, log: Path
    ) -> RecordedProcess:
        """Start a process in a new session. Its output is appended to `log`."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        recorded = RecordedProcess(name, process.pid, psutil.Process(process.pid).create_time())
        self._children[recorded] = process
        self._write([*self.read(), recorded])
        return recorded

    def wait(self, process: RecordedProcess) -> int | None:
        """Wait until a process exits, and return its exit status, or None if this object did not start it."""
        if child := self._children.get(process):
            return child.wait()
        while process.is_alive():
            time.sleep(0.1)
        return None

    def stop(self, process: RecordedProcess) -> None:
        """Terminate a process and its descendants."""
        # The leader first, so that it cannot start new descendants.
        terminate_processes([member for member in process.list_session() if member.pid == process.pid])
        terminate_processes(process.list_session())
        if child := self._children.pop(process, None):
            child.wait()
        self._write([other for other in self.read() if other != process])

    def stop_all(self) -> None:
        for process in reversed(self.read()):
            self.stop(process)

    def _write(self, processes: list[RecordedProcess]) -> None:
        self._path.write_text(json.dumps([asdict(process) for process in processes], indent=2) + "\n")


def terminate_processes(processes: list[psutil.Process]) -> None:
    """Send SIGTERM, and SIGKILL to the processes that are still running after TERMINATION_TIMEOUT."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    remaining = wait_for_exit(processes)
    for process in remaining:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_for_exit(remaining)


def wait_for_exit(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Wait up to TERMINATION_TIMEOUT, and return the processes that are still running."""
    deadline = time.monotonic() + TERMINATION_TIMEOUT
    while (remaining := [process for process in processes if is_running(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return remaining


def is_running(process: psutil.Process) -> bool:
    """Return whether a process is running. A zombie is not: it has exited, and only its parent can remove it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
