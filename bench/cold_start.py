"""How long each function takes to start, from its layers as they are shipped."""

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
_WAIT = 30.0  # seconds for one start, on however busy a machine
_WORST = 8

# `-I` leaves the folders of installed packages in place: what a layer lacks must be missing here too.
_PREPARE = """
import os, sys
sys.path[:] = [*sys.argv[2:], *(p for p in sys.path if not p.endswith("-packages"))]
"""
_BARE = "import os; os._exit(0)"
_IMPORT = f"{_PREPARE}import handler; os._exit(0)"
_ANSWER = f"""{_PREPARE}import handler, json
class Context:
    function_name = "function"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:function"
    aws_request_id = "request"
    def get_remaining_time_in_millis(self):
        return 28000
handler.handler(json.load(open(sys.argv[1])), Context())
# Who calls nobody says itself that it has answered.
import socket
from urllib.parse import urlsplit
address = urlsplit(os.environ["AWS_ENDPOINT_URL"])
socket.create_connection((address.hostname, address.port)).recv(1)
"""


@dataclass(frozen=True)
class Start:
    """Seconds of wall and of CPU (user and system)."""

    wall: float
    cpu: float


def build_layers(folder: Path) -> dict[str, Path]:
    """Every layer for this machine, by its logical name in the template."""
    for layer in LAYERS.values():
        build_layer(layer, folder / layer, "host")
    return {name: folder / layer / "python" for name, layer in LAYERS.items()}


def measure_start(program: str, function: Function | None, listener: socket.socket | None) -> Start:
    """One start of a fresh interpreter: to its end, or to its first connection to `listener`.

    Raises RuntimeError, with what it printed, if it fails before.
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
    # Without a name nothing is built at once (`modelhaul.wiring.build_early`): that is the import alone.
    name = {"AWS_LAMBDA_FUNCTION_NAME": "function"} if listener is not None else {}
    return {**aws, **name, **(function.environment if function is not None else {})}


@contextmanager
def open_functions() -> Iterator[tuple[list[Function], dict[str, Path], socket.socket]]:
    """The functions, the layers' folders, and where the functions' first calls arrive."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(_WAIT)
        layers = build_layers(Path(folder) / "layers")
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield list(list_functions(read_template(), layers, Path(folder), endpoint)), layers, listener


def list_imports(function: Function, listener: socket.socket) -> Counter[str]:
    """Milliseconds that importing took of each top-level package, until the first call, by `-X importtime`."""
    with subprocess.Popen(
        _build_command(_ANSWER, function, "-X", "importtime"),
        env=_build_environment(function, listener),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        with listener.accept()[0]:
            child.kill()
        assert child.stderr is not None
        lines = child.stderr.read()
    found: Counter[str] = Counter()
    for microseconds, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \| +([^.\s]+)", lines, re.MULTILINE):
        found["the standard library" if name in sys.stdlib_module_names else name] += int(microseconds)
    return found


def describe_cold_starts(rounds: int = ROUNDS) -> str:
    """Every function's start, by turns with a bare interpreter's; in Markdown."""
    with open_functions() as (functions, layers, listener):
        bare: list[Start] = []
        imports: dict[str, list[Start]] = {function.name: [] for function in functions}
        answers: dict[str, list[Start]] = {function.name: [] for function in functions}
        for _ in range(rounds):
            for function in functions:
                bare.append(measure_start(_BARE, None, None))
                imports[function.name].append(measure_start(_IMPORT, function, None))
                answers[function.name].append(measure_start(_ANSWER, function, listener))
        rows = [
            _describe_row(function, bare, imports[function.name], answers[function.name])
            for function in sorted(functions, key=lambda f: (not f.answers_requests, f.name))
        ]
        worst = [
            _describe_imports(max(kind, key=lambda f: _median(answers[f.name])), listener)
            for kind in ([f for f in functions if f.answers_requests], [f for f in functions if not f.answers_requests])
        ]
        sizes = [f"{name} {_measure_folder(path) / _MB:.0f} MB" for name, path in layers.items()]
    return f"""\
## Cold start

Every function from its built layers and its code, as they are shipped, in a fresh interpreter that sees nothing else.
*Import* is the handler's module and what it imports. *First call* is all: settings and clients too, which Lambda's init
phase builds with a whole CPU, and the sample event, to the moment when the function connects to AWS or to its source.
CPU times, as multiples of a bare interpreter's ({_median(bare) * 1000:.1f} ms); medians of {rounds}, by turns.

| Function | Import | First call | CPU ms | Wall ms |
|:---|---:|---:|---:|---:|
{"\n".join(rows)}

Importing, by package, in ms as `-X importtime` counts it (which takes time itself), of the slowest of each kind:

{"\n".join(worst)}

Unpacked, of the {UNPACKED_LIMIT // _MB} MB that Lambda allows: {", ".join(sizes)}."""


def _median(starts: Sequence[Start]) -> float:
    return statistics.median(start.cpu for start in starts)


def _describe_row(function: Function, bare: Sequence[Start], imports: Sequence[Start], answers: Sequence[Start]) -> str:
    floor = _median(bare)
    wall = statistics.median(start.wall for start in answers)
    cells = [
        function.name,
        f"{_median(imports) / floor:.1f}",
        f"{_median(answers) / floor:.1f}",
        f"{_median(answers) * 1000:.0f}",
        f"{wall * 1000:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _describe_imports(function: Function, listener: socket.socket) -> str:
    worst = list_imports(function, listener).most_common(_WORST)
    return f"- {function.name}: {', '.join(f'{name} {time / 1000:.0f}' for name, time in worst)}."


def _measure_folder(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
