"""Network errors, and the output on a terminal."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from modelhaul_cli.store import FileSlice, ObjectStore
from tests.command_line.conftest import COMMAND, CommandLine
from tests.fakes.api_server import MODEL_ID, TASK_ID, ApiServer, Fault, make_progress, make_task
from tests.http_servers import run_server


def test_refused_connection_is_reported(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        monkeypatch.setenv("MODELHAUL_API_URL", url)
        outcome = command_line.run("ls")
    assert outcome.code == 6
    assert outcome.err.splitlines()[-2:] == [f"Error: Cannot reach the API at {url}.", "The connection was refused."]
    assert "in 0 s" not in outcome.err


class Outage:
    """Servers that stop responding, in virtual time: each wait and each timeout takes its time on `clock` only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: str, lost: str) -> None:
        self.clock = 0.0
        self.started_at: float | None = None
        self.after = 0
        self._kind = kind
        self._lost = lost
        self._send = requests.Session.request
        monkeypatch.setattr("modelhaul_cli.retries.INITIAL_BACKOFF", 0.5)
        monkeypatch.setattr("modelhaul_cli.follower.INITIAL_POLL_INTERVAL", 0.5)
        monkeypatch.setattr(time, "monotonic", lambda: self.clock)
        monkeypatch.setattr(time, "sleep", self.wait)

        def send(session: requests.Session, method: str, url: str, **options: Any) -> requests.Response:
            return self.send(session, method, url, **options)

        monkeypatch.setattr(requests.Session, "request", send)

    def wait(self, seconds: float) -> None:
        self.clock += seconds

    def send(self, session: requests.Session, method: str, url: str, **options: Any) -> requests.Response:
        if self._lost not in url or self.after > 0:
            self.after -= self._lost in url
            return self._send(session, method, url, **options)
        if self.started_at is None:
            self.started_at = self.clock
        if self._kind == "refused":
            raise requests.ConnectionError("Connection refused")
        connect, read = options["timeout"]
        if isinstance(options.get("data"), FileSlice):
            # The buffers of the kernel do not hold the whole body.
            self.wait(connect if self._kind == "unroutable" else 2 * connect)
            raise requests.ConnectionError("TimeoutError: timed out")
        self.wait(connect if self._kind == "unroutable" else connect + read)
        raise requests.ConnectTimeout if self._kind == "unroutable" else requests.ReadTimeout

    @property
    def seconds(self) -> float:
        assert self.started_at is not None
        return self.clock - self.started_at


KINDS = ["refused", "unroutable", "silent"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("command", "after"),
    [
        ("ls", 0),
        ("tasks", 0),
        ("show some/model", 0),
        ("get some/model", 0),
        (f"rm {MODEL_ID} --yes", 0),
        (f"status {TASK_ID}", 0),
        (f"status {TASK_ID} --follow", 3),
        (f"cancel {TASK_ID}", 0),
        ("hf a/b", 0),
        ("hf a/b", 3),
        ("github a/b", 0),
        ("zip models.zip", 0),
        ("zip models.zip", 2),
        ("keys create laptop", 0),
        ("keys ls", 0),
        ("keys rm 0123456789abcdef", 0),
        ("env", 0),
    ],
)
def test_commands_end_within_a_minute_after_the_api_has_disappeared(
    api: ApiServer,
    command_line: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    archive: Path,
    command: str,
    after: int,
    kind: str,
) -> None:
    api.tasks[TASK_ID] = [make_task("TRANSFERRING")]
    outage = Outage(monkeypatch, kind, "/stage/v1")
    outage.after = after
    outcome = command_line.run(*command.split())
    assert outcome.code == 6
    assert outage.seconds <= 60
    assert f"Cannot reach the API at {api.api_url}." in outcome.err


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", [["zip", "models.zip"], ["get", MODEL_ID], ["show", MODEL_ID]])
def test_transfers_end_within_a_minute_after_s3_has_disappeared(
    api: ApiServer,
    command_line: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    archive: Path,
    command: list[str],
    kind: str,
) -> None:
    api.add_model({"config.json": b"{}"}, inline=command[0] != "show")
    outage = Outage(monkeypatch, kind, "/store/")
    outcome = command_line.run(*command)
    assert (outcome.code, "Cannot reach S3." in outcome.err) == (6, True)
    assert outage.seconds <= 60


@pytest.fixture
def slow_store() -> Iterator[str]:
    """The URL of a store that reads slowly, so that most of a body is still in the kernel's buffers when it is sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            rest = int(self.headers["Content-Length"])
            while rest:
                time.sleep(0.02)
                rest -= len(self.rfile.read(min(rest, 4096)))
            self.send_response(200)
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def server_bind(self) -> None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            super().server_bind()

    with run_server(Server(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}/object"


def test_slow_uplink_gets_time_to_send_the_buffers(
    slow_store: str, monkeypatch: pytest.MonkeyPatch, archive: Path
) -> None:
    monkeypatch.setattr("modelhaul_cli.store.TIMEOUT", (10.0, 0.05))
    with closing(FileSlice(archive, 0, 65536, count=lambda _: None, stopped=threading.Event())) as body:
        assert ObjectStore().put(slow_store, body) == '"1"'


@pytest.mark.parametrize("lost", ["partNumber=2", "complete=1"])
def test_wait_for_the_response_to_a_body_is_not_an_outage(
    api: ApiServer, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, archive: Path, lost: str
) -> None:
    api.max_put = 0
    timeouts: list[tuple[float, float]] = []
    send = requests.Session.request
    clock = 0.0

    def request(session: requests.Session, method: str, url: str, **options: Any) -> requests.Response:
        nonlocal clock
        if lost in url and len(timeouts) < 3:
            for _ in options["data"]:
                pass
            timeouts.append(options["timeout"])
            clock += options["timeout"][1]
            raise requests.ReadTimeout
        return send(session, method, url, **options)

    monkeypatch.setattr(requests.Session, "request", request)
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    outcome = command_line.run("zip", archive)
    assert (outcome.code, len(api.archives)) == (0, 1)
    assert timeouts == [(10.0, 60.0)] * 3
    assert "S3 did not respond within 60 s after the body was sent." in outcome.err


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
    assert f"Error: TLS connection to the API at {api.api_url.replace('http:', 'https:')} failed." in outcome.err
    assert "Retrying" not in outcome.err


def test_hanging_api_times_out(api: ApiServer, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhaul_cli.client.FIRST_TIMEOUT", (10.0, 0.05))
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
