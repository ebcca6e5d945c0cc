"""The environments of Hub clients, which `make test` installs, and processes in them."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from local.stack import ENVIRONMENTS

FOLDER = Path(__file__).parent
OLD, NEW = "hub_client_old", "hub_client_new"


class ClientError(Exception):
    """A client raised an exception. `bases` are the names of its class and all base classes."""

    def __init__(self, error: str, message: str, bases: list[str]) -> None:
        super().__init__(f"{error}: {message}")
        self.message = message
        self.bases = bases


@dataclass(frozen=True)
class HubAccess:
    """The address and the key that a client uses. `home` is its HF_HOME, and HOME."""

    endpoint: str
    key: str | None
    home: Path

    def build_environment(self) -> dict[str, str]:
        """Return the variables of a client's process. Nothing else of this process is passed on."""
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(self.home)}
        environment |= {"HF_HOME": str(self.home / "hub"), "HF_ENDPOINT": self.endpoint, "NO_PROXY": "127.0.0.1"}
        # The check for a newer version needs the internet.
        environment |= {"HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        return environment | ({"HF_TOKEN": self.key} if self.key else {})


def find_environment(name: str) -> Path:
    """Return the folder of the programs of a Python client. Skips the test if it is not installed."""
    folder = ENVIRONMENTS / name / "bin"
    if not (folder / "hf").is_file():
        pytest.skip(f"{name} is not installed (`make test` installs it)")
    return folder


def find_node_client() -> Path:
    """Return the folder with the packages of the JavaScript client. Skips the test if it cannot run."""
    if not shutil.which("node"):
        pytest.skip("Node.js is not installed")
    folder = ENVIRONMENTS / "hub_client_node"
    if not (folder / ".stamp").is_file():
        pytest.skip("hub_client_node is not installed (`make test` installs it if npm is present)")
    return folder


class PythonClient:
    """A process with one version of huggingface_hub (tests/hub_clients/python_client.py)."""

    def __init__(self, name: str, access: HubAccess, variables: Mapping[str, str] | None = None) -> None:
        self.access = access
        self._process = subprocess.Popen(
            [find_environment(name) / "python", FOLDER / "python_client.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**access.build_environment(), **(variables or {})},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, operation: str, **options: Any) -> None:
        """Start an operation, whose result `wait` returns."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"operation": operation, "options": options}) + "\n")
        self._process.stdin.flush()

    def wait(self) -> Any:
        """Return the result of the operation that was started. Raises ClientError."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, f"the client exited with status {self._process.wait()}"
        response = json.loads(line)
        if "error" in response:
            raise ClientError(response["error"], response["message"], response["bases"])
        return response["result"]

    def call(self, operation: str, **options: Any) -> Any:
        self.start(operation, **options)
        return self.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def run_hf(name: str, access: HubAccess, *arguments: str, code: int = 0) -> str:
    """Run the `hf` command, and return its output. If it is to fail with `code`, its error output is included."""
    return _run([str(find_environment(name) / "hf"), *arguments], access, code)


def run_program(name: str, access: HubAccess, program: str, *arguments: str) -> str:
    """Run a program of this folder in the environment of a Python client, and return its output."""
    return _run([str(find_environment(name) / "python"), str(FOLDER / program), *arguments], access, 0)


def run_node(access: HubAccess, program: str, *arguments: str) -> str:
    """Run a program of this folder with the JavaScript client, and return its output."""
    # Node.js searches for packages from the program's own folder.
    copy = find_node_client() / program
    shutil.copyfile(FOLDER / program, copy)
    return _run(["node", str(copy), *arguments], access, 0)


def _run(command: Sequence[str], access: HubAccess, code: int) -> str:
    ended = subprocess.run(
        command,
        check=False,
        env=access.build_environment(),
        cwd=access.home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if code else subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert ended.returncode == code, f"{command}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout
