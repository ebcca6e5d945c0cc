"""Servers in processes of their own, so that what they use is not counted as the transfer's."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = "acme/generated"
PATH = "model.safetensors"
"""The file that the servers have."""

ROOT = Path(__file__).parents[1]
PYTHONPATH = os.pathsep.join(str(ROOT / folder) for folder in ("", "layers/core", "layers/sources", "layers/scanner"))


@contextmanager
def start_server(module: str, *arguments: str) -> Iterator[dict[str, str]]:
    """Run `python -m module` and yield what it announces. Raises RuntimeError when it ends before that."""
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
            announced = process.stdout.readline()
            if not announced:
                raise RuntimeError(f"{module} did not start")
            yield json.loads(announced)
        finally:
            process.stdin.close()


def announce(values: Mapping[str, str]) -> None:
    """Called by a server: tell whoever started it, and return when that process closes the pipe or has ended."""
    print(json.dumps(values), flush=True)
    with suppress(KeyboardInterrupt):
        sys.stdin.read()
