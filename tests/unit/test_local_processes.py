"""What `make down` and Ctrl-C promise: every process that was started ends, and no other one."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from local import processes
from local.processes import ProcessRecord, RecordedProcess, runs

# Both wait for input that never comes; the child says its id once it is as it should be.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE)
child.wait()
"""
OBEYING = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + OBEYING


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


def test_another_run_of_the_program_stops_a_process_and_its_children(record: ProcessRecord, tmp_path: Path) -> None:
    parent, child = start_family(record, tmp_path, OBEYING)

    ProcessRecord(tmp_path / "processes.json").stop_all()
    record.wait(parent)

    assert not parent.is_alive()
    assert not runs(child)
    assert record.read() == []


def test_children_are_found_after_their_parent_was_killed(record: ProcessRecord, tmp_path: Path) -> None:
    parent, child = start_family(record, tmp_path, OBEYING)
    psutil.Process(parent.pid).kill()
    record.wait(parent)

    record.stop_all()

    assert not runs(child)


def test_a_child_that_ignores_sigterm_is_killed(
    record: ProcessRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "TERMINATION_SECONDS", 0.5)
    _, child = start_family(record, tmp_path, STUBBORN)

    record.stop_all()

    assert not runs(child)


def test_a_process_that_was_given_a_recorded_id_later_is_left_alone(record: ProcessRecord, tmp_path: Path) -> None:
    stranger, _ = start_family(record, tmp_path, OBEYING)
    before = RecordedProcess("ministack", stranger.pid, stranger.create_time - 100)

    assert not before.is_alive()
    record.stop(before)

    assert stranger.is_alive()


def test_only_a_living_process_is_found_by_its_name(record: ProcessRecord, tmp_path: Path) -> None:
    parent, _ = start_family(record, tmp_path, OBEYING)
    assert record.find_alive("parent") == parent
    assert record.find_alive("another") is None

    psutil.Process(parent.pid).kill()
    record.wait(parent)

    assert record.find_alive("parent") is None
