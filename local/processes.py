"""Background processes that outlive the command which started them, and that a later command can stop.

Each is the leader of a session of its own. A process's descendants stay in its session, so the session finds
them (MiniStack's Lambda workers) even after their parent was killed.
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

TERMINATION_SECONDS = 5
_CLOCK_STEP = 2.0  # seconds


@dataclass(frozen=True)
class RecordedProcess:
    """`create_time` (seconds since the epoch) tells the process from a later one with the same id. Where the clock is
    set it moves along, as Linux counts from the boot.
    """

    name: str
    pid: int
    create_time: float

    def is_alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return self._is_same(process) and runs(process)
        except psutil.NoSuchProcess:
            return False

    def list_session(self) -> list[psutil.Process]:
        """The process and its descendants that still run.

        A process id is not given out again while a session bears it. So when it now belongs to another
        process, nothing of the session is left.
        """
        with contextlib.suppress(psutil.NoSuchProcess):
            if not self._is_same(psutil.Process(self.pid)):
                return []
        return [process for process in psutil.process_iter() if self._holds(process)]

    def _is_same(self, process: psutil.Process) -> bool:
        return abs(process.create_time() - self.create_time) < _CLOCK_STEP

    def _holds(self, process: psutil.Process) -> bool:
        try:
            return os.getsid(process.pid) == self.pid and runs(process)
        except (ProcessLookupError, PermissionError):
            return False


class ProcessRecord:
    """The processes of one stack, kept in a file."""

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
        """Start a process in a session of its own; what it prints is appended to `log`."""
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

    def wait(self, process: RecordedProcess) -> int:
        """The exit status of a process that this object started, once it ended."""
        return self._children[process].wait()

    def stop(self, process: RecordedProcess) -> None:
        """End a process and its descendants."""
        # The leader first, so that it starts no new ones.
        end_processes([member for member in process.list_session() if member.pid == process.pid])
        end_processes(process.list_session())
        if child := self._children.pop(process, None):
            child.wait()
        self._write([other for other in self.read() if other != process])

    def stop_all(self) -> None:
        for process in reversed(self.read()):
            self.stop(process)

    def _write(self, processes: list[RecordedProcess]) -> None:
        self._path.write_text(json.dumps([asdict(process) for process in processes], indent=2) + "\n")


def end_processes(processes: list[psutil.Process]) -> None:
    """SIGTERM, then SIGKILL for those that are still there after some seconds."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    left = wait_for_end(processes)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_for_end(left)


def wait_for_end(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run after some seconds."""
    deadline = time.monotonic() + TERMINATION_SECONDS
    while (left := [process for process in processes if runs(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def runs(process: psutil.Process) -> bool:
    """False also for a zombie: it ended, and only its parent can clear it away."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
