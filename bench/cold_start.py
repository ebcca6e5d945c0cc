"""Cold start time of each function, with its deployed layers."""

import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from layers.build_layer import build_layer
from tests.template.functions import LAYERS, Function, list_functions
from tests.template.transformed import read_template

ROUNDS = 10
UNPACKED_LIMIT = 250_000_000  # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
_MB = 1_000_000
_START_TIMEOUT = 30.0  # seconds
_MAX_PACKAGES = 8

# `-I` keeps the folders of installed packages in sys.path. They are removed: only the layers may provide packages.
_SET_PATH = """
import os, sys
sys.path[:] = [*sys.argv[2:], *(p for p in sys.path if not p.endswith("-packages"))]
"""
_EXIT = "import os; os._exit(0)"
_IMPORT = f"{_SET_PATH}import handler; os._exit(0)"
_FIRST_CALL = f"""{_SET_PATH}import handler, json
class Context:
    function_name = "function"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:function"
    aws_request_id = "request"
    def get_remaining_time_in_millis(self):
        return 28000
handler.handler(json.load(open(sys.argv[1])), Context())
# A function that makes no request of its own connects when it has returned.
import socket
from urllib.parse import urlsplit
address = urlsplit(os.environ["AWS_ENDPOINT_URL"])
socket.create_connection((address.hostname, address.port)).recv(1)
"""


@dataclass(frozen=True)
class Start:
    """Wall-clock and CPU time (user and system), in seconds."""

    wall: float
    cpu: float


def build_layers(folder: Path) -> dict[str, Path]:
    """Build all layers for this machine. Returns their folders by logical name in the template."""
    for layer in LAYERS.values():
        build_layer(layer, folder / layer, "host")
    return {name: folder / layer / "python" for name, layer in LAYERS.items()}


def measure_start(program: str, function: Function | None, listener: socket.socket | None) -> Start:
    """Measure a start of a new interpreter, until it exits or first connects to `listener`.

    Raises RuntimeError with its output if it fails earlier.
    """
    with tempfile.TemporaryFile() as printed:
        started = time.perf_counter()
        child = subprocess.Popen(
            _build_command(program, function),
            env=_build_environment(function, listener),
            stdout=printed,
            stderr=printed,
        )
        try:
            if listener is not None:
                with listener.accept()[0]:
                    wall = time.perf_counter() - started
                child.kill()
            _, status, usage = os.wait4(child.pid, 0)
            if listener is None:
                wall = time.perf_counter() - started
            child.returncode = os.waitstatus_to_exitcode(status)
        except TimeoutError:
            child.kill()
            child.wait()
        if child.returncode != (0 if listener is None else -9):
            printed.seek(0)
            raise RuntimeError(f"{function and function.name} did not start:\n{printed.read().decode()}")
    return Start(wall, usage.ru_utime + usage.ru_stime)


def _build_command(program: str, function: Function | None, *options: str) -> list[str]:
    arguments = [str(function.event), *map(str, function.folders)] if function is not None else []
    return [sys._base_executable, "-I", "-B", *options, "-c", program, *arguments]  # type: ignore[attr-defined]


def _build_environment(function: Function | None, listener: socket.socket | None) -> dict[str, str]:
    endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}" if listener is not None else "http://127.0.0.1:9"
    aws = {
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL": endpoint,
    }
    # Without a function name, `modelhaul.wiring.build_early` builds nothing, so that only the import is measured.
    name = {"AWS_LAMBDA_FUNCTION_NAME": "function"} if listener is not None else {}
    return {**aws, **name, **(function.environment if function is not None else {})}


@contextmanager
def open_functions() -> Iterator[tuple[list[Function], dict[str, Path], socket.socket]]:
    """Yield the functions, the folders of the layers, and the listener for the first requests of the functions."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(_START_TIMEOUT)
        layers = build_layers(Path(folder) / "layers")
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield list(list_functions(read_template(), layers, Path(folder), endpoint)), layers, listener


def list_imports(function: Function, listener: socket.socket) -> Counter[str]:
    """Return the import time in microseconds by top-level package until the first request, from `-X importtime`."""
    with subprocess.Popen(
        _build_command(_FIRST_CALL, function, "-X", "importtime"),
        env=_build_environment(function, listener),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        with listener.accept()[0]:
            child.kill()
        assert child.stderr is not None
        lines = child.stderr.read()
    times: Counter[str] = Counter()
    for microseconds, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \| +([^.\s]+)", lines, re.MULTILINE):
        times["the standard library" if name in sys.stdlib_module_names else name] += int(microseconds)
    return times


def describe_cold_starts(rounds: int = ROUNDS) -> str:
    """Return the section. Starts of functions and of an empty interpreter take turns."""
    with open_functions() as (functions, layers, listener):
        bare: list[Start] = []
        imports: dict[str, list[Start]] = {function.name: [] for function in functions}
        first_calls: dict[str, list[Start]] = {function.name: [] for function in functions}
        for _ in range(rounds):
            for function in functions:
                bare.append(measure_start(_EXIT, None, None))
                imports[function.name].append(measure_start(_IMPORT, function, None))
                first_calls[function.name].append(measure_start(_FIRST_CALL, function, listener))
        rows = [
            _describe_row(function, bare, imports[function.name], first_calls[function.name])
            for function in sorted(functions, key=lambda f: (not f.answers_requests, f.name))
        ]
        slowest = [
            _describe_imports(max(kind, key=lambda f: _median(first_calls[f.name])), listener)
            for kind in ([f for f in functions if f.answers_requests], [f for f in functions if not f.answers_requests])
        ]
        sizes = [f"{name} {_measure_folder(path) / _MB:.0f} MB" for name, path in layers.items()]
    return f"""\
## Cold starts

Each function starts from its built layers and code, in a new interpreter without other packages. *Import* is the
import of the handler's module. *First call* is the time until the function connects to AWS or its source. It includes
*Import*, the creation of settings and clients, and the processing of a sample event. Lambda runs the creation in the
init phase with a full CPU. The columns *Import* and *First call* are multiples of the CPU time of an empty interpreter
({_median(bare) * 1000:.1f} ms). The functions take turns, and the values are medians of {rounds} rounds.

| Function | Import | First call | CPU ms | Wall ms |
|:---|---:|---:|---:|---:|
{"\n".join(rows)}

Import time by package in ms, for the slowest function of each kind (`-X importtime`, which increases the times):

{"\n".join(slowest)}

Unpacked layers (Lambda allows {UNPACKED_LIMIT // _MB} MB): {", ".join(sizes)}."""


def _median(starts: Sequence[Start]) -> float:
    return statistics.median(start.cpu for start in starts)


def _describe_row(
    function: Function, bare: Sequence[Start], imports: Sequence[Start], first_calls: Sequence[Start]
) -> str:
    floor = _median(bare)
    wall = statistics.median(start.wall for start in first_calls)
    cells = [
        function.name,
        f"{_median(imports) / floor:.1f}",
        f"{_median(first_calls) / floor:.1f}",
        f"{_median(first_calls) * 1000:.0f}",
        f"{wall * 1000:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _describe_imports(function: Function, listener: socket.socket) -> str:
    packages = list_imports(function, listener).most_common(_MAX_PACKAGES)
    return f"- {function.name}: {', '.join(f'{name} {time / 1000:.0f}' for name, time in packages)}."


def _measure_folder(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
