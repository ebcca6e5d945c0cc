"""Network errors, and the output on a terminal."""

import os
import socket
import subprocess

import pytest

from tests.command_line.conftest import COMMAND, CommandLine
from tests.fakes.api_server import MODEL_ID, TASK_ID, ApiServer, Fault, make_progress, make_task


def test_refused_connection_is_reported(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MODELHAUL_API_URL", f"http://127.0.0.1:{unused.getsockname()[1]}/v1")
        outcome = command_line.run("ls")
    assert outcome.code == 6
    assert outcome.err.splitlines()[-2:] == ["Error: Cannot reach the API.", "The connection was refused."]


def test_unresolvable_host_name_is_reported(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setenv("MODELHAUL_API_URL", "https://modelhaul.invalid/v1")
    outcome = command_line.run("ls")
    assert (outcome.code, outcome.err.splitlines()[-1]) == (6, "The host name cannot be resolved.")


def test_tls_failure_is_not_retried(api: ApiServer, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELHAUL_API_URL", api.api_url.replace("http:", "https:"))
    outcome = command_line.run("ls")
    assert outcome.code == 6
    assert "Error: TLS connection to the API failed." in outcome.err
    assert "Retrying" not in outcome.err


def test_hanging_api_times_out(api: ApiServer, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhaul_cli.client.TIMEOUT", (10.0, 0.05))
    api.faults = [Fault("GET", "", "hold", times=100)]
    outcome = command_line.run("ls")
    assert (outcome.code, outcome.err.splitlines()[-1]) == (6, "The request timed out.")


def test_proxy_failure_is_reported(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("MODELHAUL_API_URL", "https://modelhaul.invalid/v1")
        outcome = command_line.run("ls")
    assert (outcome.code, outcome.err.splitlines()[-1]) == (6, "The connection to the proxy failed.")


def test_loopback_requests_bypass_the_proxy(
    api: ApiServer, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    assert command_line.run("tasks").code == 0
    assert len(api.requests) == 1


@pytest.mark.slow
def test_terminal_shows_a_progress_bar(api: ApiServer, command_line: CommandLine) -> None:
    model = {"model_id": MODEL_ID, "name": "a/b", "status": "READY", "location": "s3://models/a/"}
    api.tasks[TASK_ID] = [
        make_task("TRANSFERRING", progress=make_progress(500, 1000, bytes_per_second=75_000_000, seconds_left=45)),
        make_task("DONE", progress=make_progress(1000, 1000), models=[model]),
    ]
    leader, follower = os.openpty()
    environment = {**os.environ, **command_line.environment, "TERM": "xterm", "COLUMNS": "120"}
    command = (str(COMMAND), "hf", "a/b")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=follower, text=True) as process:
        out, _ = process.communicate(timeout=60)
    os.close(follower)
    shown = os.read(leader, 100_000).decode()
    os.close(leader)
    assert process.returncode == 0
    assert out == f"a/b: s3://models/a/ ({MODEL_ID})\n"
    assert "transferring 5/10 files" in shown
    assert "75.0 MB/s, 45 s left" in shown
    assert "━" in shown
