"""`make down` and Ctrl-C stop all processes of a stack, and no other process."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from local import processes
from local.processes import ProcessRecord, RecordedProcess, is_running

# Both processes wait for input that never comes. The child prints its PID when it is ready.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE)
child.wait()
"""
COOPERATIVE = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + COOPERATIVE


@pytest.fixture
def record(tmp_path: Path) -> Iterator[ProcessRecord]:
    record = ProcessRecord(tmp_path / "processes.json")
    yield record
    record.stop_all()


def start_family(record: ProcessRecord, folder: Path, child: str) -> tuple[RecordedProcess, psutil.Process]:
    log = folder / "log"
    command = [sys.executable, "-c", PARENT.replace("CHILD", repr(child))]
    parent = record.start("parent", command, environment=os.environ, folder=folder, log=log)
    while not log.read_text().endswith("\n"):
        assert parent.is_alive()
    return parent, psutil.Process(int(log.read_text()))


def test_later_command_stops_a_process_and_its_children(record: ProcessRecord, tmp_path: Path) -> None:
    parent, child = start_family(record, tmp_path, COOPERATIVE)

    ProcessRecord(tmp_path / "processes.json").stop_all()
    record.wait(parent)

    assert not parent.is_alive()
    assert not is_running(child)
    assert record.read() == []


def test_children_are_found_after_their_parent_was_killed(record: ProcessRecord, tmp_path: Path) -> None:
    parent, child = start_family(record, tmp_path, COOPERATIVE)
    psutil.Process(parent.pid).kill()
    record.wait(parent)

    record.stop_all()

    assert not is_running(child)


def test_child_that_ignores_sigterm_is_killed(
    record: ProcessRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "TERMINATION_TIMEOUT", 0.5)
    _, child = start_family(record, tmp_path, STUBBORN)

    record.stop_all()

    assert not is_running(child)


def test_process_with_a_reused_pid_is_not_stopped(record: ProcessRecord, tmp_path: Path) -> None:
    stranger, _ = start_family(record, tmp_path, COOPERATIVE)
    earlier = RecordedProcess("ministack", stranger.pid, stranger.create_time - 100)

    assert not earlier.is_alive()
    record.stop(earlier)

    assert stranger.is_alive()


def test_only_running_processes_are_found(record: ProcessRecord, tmp_path: Path) -> None:
    parent, _ = start_family(record, tmp_path, COOPERATIVE)
    assert record.find_alive("parent") == parent
    assert record.find_alive("another") is None

    psutil.Process(parent.pid).kill()
    record.wait(parent)

    assert record.find_alive("parent") is None
