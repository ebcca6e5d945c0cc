"""The command line against a loopback API: in this process, or in a child process for tests of signals."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelhaul_cli.application import main
from tests.fakes.api_server import KEY, ApiServer, serve_api

COMMAND = Path(sys.executable).with_name("modelhaul")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class CommandLine:
    folder: Path
    environment: dict[str, str]
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def run(self, *arguments: str | Path) -> Outcome:
        self.monkeypatch.setattr(sys, "argv", ["modelhaul", *map(str, arguments)])
        code = main()
        captured = self.capsys.readouterr()
        assert KEY not in captured.out + captured.err
        assert "X-Amz-Signature=secret" not in captured.err
        return Outcome(code, captured.out, captured.err)

    def show(self, *arguments: str, columns: int) -> list[str]:
        """Return the lines that the command shows on a terminal of this width."""
        leader, follower = os.openpty()
        environment = {**os.environ, **self.environment, "TERM": "xterm", "COLUMNS": str(columns)}
        with subprocess.Popen((str(COMMAND), *arguments), env=environment, stdout=follower, stderr=follower) as process:
            assert process.wait(60) == 0
        os.close(follower)
        shown = os.read(leader, 100_000).decode()
        os.close(leader)
        return shown.splitlines()

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        # A background job of a shell ignores SIGINT, and its child processes inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return subprocess.Popen(
            [COMMAND, *map(str, arguments)],
            cwd=self.folder,
            env={"PATH": os.defpath, "HOME": str(self.folder), **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def journal(self) -> str:
        """The content of all journals of unfinished uploads."""
        return "".join(path.read_text() for path in self.folder.glob("state/modelhaul/uploads/*.jsonl"))


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with serve_api() as served:
        yield served


@pytest.fixture
def command_line(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    environment = {
        "MODELHAUL_API_URL": api.api_url,
        "MODELHAUL_API_KEY": KEY,
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modelhaul_cli.retries.INITIAL_BACKOFF", 0.0)
    monkeypatch.setattr("modelhaul_cli.follower.INITIAL_POLL_INTERVAL", 0.0)
    return CommandLine(tmp_path, environment, monkeypatch, capsys)


def make_archive(size: int) -> bytes:
    """Return a ZIP archive of about `size` bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("model/config.json", "{}")
        archive.writestr("model/model.safetensors", random.Random(size).randbytes(size))
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive that is too large for a POST: six parts of 1 MB."""
    path = tmp_path / "models.zip"
    path.write_bytes(make_archive(5_600_000))
    return path
