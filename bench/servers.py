"""Servers in separate processes, so that their usage is not included in that of the transfer."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = "acme/generated"
PATH = "model.safetensors"
"""The file that the servers provide."""

ROOT = Path(__file__).parents[1]
PYTHONPATH = os.pathsep.join(str(ROOT / folder) for folder in ("", "layers/core", "layers/sources", "layers/scanner"))


@contextmanager
def start_server(module: str, *arguments: str) -> Iterator[dict[str, str]]:
    """Run `python -m module` and yield its announcement. Raises RuntimeError if it ends earlier."""
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            announcement = process.stdout.readline()
            if not announcement:
                raise RuntimeError(f"{module} did not start")
            yield json.loads(announcement)
        finally:
            process.stdin.close()


def announce(values: Mapping[str, str]) -> None:
    """Send values from a server to the process that started it. Returns when that process closes the pipe or ends."""
    print(json.dumps(values), flush=True)
    with suppress(KeyboardInterrupt):
        sys.stdin.read()
