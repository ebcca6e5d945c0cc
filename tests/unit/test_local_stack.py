"""Validation, configuration and crashes of the local stack, without a running stack."""

import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from local import __main__ as command_line
from local import stack
from local.errors import LocalStackError
from local.sources import SourceUrls
from local.stack import LocalStack, find_ports


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stack, "LOCAL", tmp_path)
    return tmp_path


def test_each_stack_has_its_own_state(own_folder: Path) -> None:
    assert LocalStack().state_path == own_folder / "stack.json"
    assert LocalStack("second").state_path == own_folder / "second" / "stack.json"


@pytest.mark.parametrize("name", ["", "../x", "Name", "a" * 40])
def test_invalid_names_are_rejected(name: str) -> None:
    with pytest.raises(LocalStackError, match="Invalid stack name"):
        LocalStack(name)


@pytest.mark.parametrize("name", ["venvs", "builds", "tools", "benchmarks", "logs"])
def test_reserved_names_are_rejected(name: str) -> None:
    with pytest.raises(LocalStackError, match=f"The stack name '{name}' is reserved"):
        LocalStack(name)


def test_port_in_use_is_rejected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LocalStackError, match=f"Cannot use port {port} of 127.0.0.1"):
            find_ports(port, 1)


def test_invalid_endpoint_is_rejected_and_leaves_no_state(own_folder: Path) -> None:
    with pytest.raises(LocalStackError, match="HF_ENDPOINT must be an HTTP or HTTPS URL"):
        LocalStack().start("auto", SourceUrls(hub="hub.example"), 0, lambda _: None)
    assert not (own_folder / "stack.json").exists()


def test_failed_start_includes_the_end_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.stack.ROOT", Path("/"))
    with pytest.raises(
        LocalStackError, match=r"The loopback Hub and GitHub process exited during startup:\n.*No module named"
    ):
        LocalStack().start("loopback", SourceUrls(), 0, lambda _: None)


def test_stop_is_a_no_op_without_a_stack() -> None:
    assert LocalStack().stop() is False


@pytest.fixture
def local() -> Iterator[LocalStack]:
    local = LocalStack()
    local.folder.mkdir()
    local.state_path.write_text("{}")
    yield local
    local.stop()


@pytest.mark.slow
def test_loopback_servers_start_again_after_they_died(local: LocalStack) -> None:
    assert requests.get(f"{local._start_loopback()['hub']}/api/models/tests/small-model", timeout=30).ok
    first = local.processes.find_alive("upstream")
    assert first is not None
    psutil.Process(first.pid).kill()
    local.processes.wait(first)

    assert requests.get(f"{local._start_loopback()['hub']}/api/models/tests/small-model", timeout=30).ok


def start_ministack_that_crashes(local: LocalStack, code: str) -> None:
    command = [sys.executable, "-c", f"import os, signal; print('the last line', flush=True); {code}"]
    local.processes.start("ministack", command, environment=os.environ, folder=local.folder, log=local.ministack_log)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", r"was killed \(SIGKILL\), usually because .* out of memory"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "was ended by SIGTERM"),
        ("os._exit(3)", "exited with status 3"),
    ],
)
def test_run_reports_why_ministack_exited_and_keeps_the_logs(
    local: LocalStack,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: str,
    reason: str,
) -> None:
    """Also if it exits during an import."""

    def lose_connection(*_: object) -> bool:
        start_ministack_that_crashes(local, code)
        local.processes.wait(local.processes.read()[-1])
        raise requests.ConnectionError

    monkeypatch.setattr(command_line, "deploy_stack", lambda *_: None)
    monkeypatch.setattr(command_line, "run_imports", lose_connection)
    monkeypatch.setattr(command_line, "LocalStack", lambda _: local)
    monkeypatch.setattr(sys, "argv", ["local", "run"])

    assert command_line.main() == 1

    shown = capsys.readouterr()
    assert re.fullmatch(f"MiniStack {reason}. The end of its log:\nthe last line\n", shown.err)
    assert f"Logs: {local.kept_logs}" in shown.out
    assert (local.kept_logs / "ministack.log").read_text() == "the last line\n"
    assert not local.folder.exists()


def test_run_reports_that_another_command_stopped_the_stack(
    local: LocalStack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop_elsewhere(*_: object) -> bool:
        start_ministack_that_crashes(local, "import time; time.sleep(600)")
        (process,) = local.processes.read()
        LocalStack().stop()
        local.processes.wait(process)
        raise requests.ConnectionError

    monkeypatch.setattr(command_line, "deploy_stack", lambda *_: None)
    monkeypatch.setattr(command_line, "run_imports", stop_elsewhere)
    monkeypatch.setattr(command_line, "LocalStack", lambda _: local)
    monkeypatch.setattr(sys, "argv", ["local", "run"])

    assert command_line.main() == 1

    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "The stack was stopped by another command, such as `make down`.\n")


def test_run_does_not_take_over_a_running_stack(
    local: LocalStack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start_ministack_that_crashes(local, "import time; time.sleep(600)")
    monkeypatch.setattr(sys, "argv", ["local", "run"])

    assert command_line.main() == 1

    assert "is already running.\nTo stop it, run `make down`.\n" in capsys.readouterr().err
    assert local.is_up()


def test_up_and_down_after_a_crash_keep_the_logs(
    local: LocalStack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start_ministack_that_crashes(local, "")
    local.processes.wait(local.processes.read()[-1])
    reports: list[str] = []

    def fail(*_: object) -> None:
        raise LocalStackError("not in this test")

    monkeypatch.setattr(stack, "choose_sources", fail)
    # A later command, which is not the parent of the process.
    with pytest.raises(LocalStackError, match="not in this test"):
        LocalStack().start("loopback", SourceUrls(), 0, reports.append)
    assert reports == [f"MiniStack has exited unexpectedly. The data of the stack is lost. Logs: {local.kept_logs}"]
    assert (local.kept_logs / "ministack.log").read_text() == "the last line\n"

    start_ministack_that_crashes(local, "print('again')")
    local.processes.wait(local.processes.read()[-1])
    monkeypatch.setattr(sys, "argv", ["local", "down"])
    assert command_line.main() == 0
    assert f"Logs: {local.kept_logs}" in capsys.readouterr().out
    assert (local.kept_logs / "ministack.log").read_text() == "the last line\nagain\n"
