"""What more functions, and more connections of one, bring when a source gives each connection so much and no more."""

import statistics
import time
from contextlib import ExitStack

from bench.loopback import Shape, compute_digest, start_loopback
from bench.movers import MODELHAUL, Mover, move, start_way
from bench.report import MB, MIB, Run, draw_lines, format_spread, format_table

_FUNCTIONS = [1, 2, 4, 8, 16]
_FUNCTION_SIZE = 64 * MIB  # four parts
_FUNCTION_RATE = 4 * MB
_ROUNDS = 2
_LINEAR_TO = 8
_LINEAR_TARGET = 0.9

_CONNECTIONS = [1, 2, 3, 4, 8]
_FILE_SIZE = 400 * MB
_FILE_RATE = 15 * MB


def measure_functions(count: int, size: int) -> float:
    """Bytes per second of `count` processes together, each of which moves `size` bytes, all from one moment on."""
    with start_loopback(size, Shape(connection_rate=_FUNCTION_RATE)) as source, ExitStack() as stack:
        movers: list[Mover] = []
        for _ in range(count):
            store = stack.enter_context(start_loopback(size))
            movers.append(stack.enter_context(start_way(MODELHAUL, size, compute_digest(size), source, store)))
        started = time.monotonic()
        for mover in movers:
            mover.tell()
        for mover in movers:
            mover.finish()
        return count * size / (time.monotonic() - started)


def measure_connections(count: int, size: int) -> float:
    """Bytes per second of one process that may open `count` connections to the source."""
    settings = {"connections": count, "buffers": max(4, count + 1)}
    with (
        start_loopback(size, Shape(connection_rate=_FILE_RATE)) as source,
        start_loopback(size) as store,
        start_way(MODELHAUL, size, compute_digest(size), source, store, settings) as mover,
    ):
        return size / move(mover).seconds


def describe_functions(run: Run) -> str:
    """In Markdown."""
    size = run.scale_size(_FUNCTION_SIZE)
    rounds = [{count: measure_functions(count, size) for count in _FUNCTIONS} for _ in range(_ROUNDS)]
    rates = {count: statistics.median(found[count] for found in rounds) for count in _FUNCTIONS}
    plot = draw_lines(
        run,
        "functions",
        "Functions at the same time",
        {
            "measured": [(count, rate / MB) for count, rate in rates.items()],
            "linear": [(count, count * rates[1] / MB) for count in _FUNCTIONS],
        },
        x_title="functions",
        y_title="MB/s together",
    )
    rows = [
        [
            str(count),
            f"{rates[count] / MB:.1f}",
            format_spread([found[count] / count / found[1] for found in rounds]),
            f"≥ {_LINEAR_TARGET}" if 1 < count <= _LINEAR_TO else "",
        ]
        for count in _FUNCTIONS
    ]
    return f"""\
## Functions at the same time

Each a process with the engine's own settings that moves {size / MB:,.0f} MB over TLS, from one source to a store each.
The source gives each connection {_FUNCTION_RATE // MB} MB/s, so that all of them together leave the processors of this
machine idle: what is seen is whether functions hinder each other. Each opens up to three connections, one every two
seconds, as it finds the source slow. Medians of {_ROUNDS} rounds.

{plot}

{format_table(["Functions", "MB/s together", ": as many times one", "Target"], rows)}"""


def describe_connections(run: Run) -> str:
    """In Markdown."""
    size = run.scale_size(_FILE_SIZE)
    rates = {count: measure_connections(count, size) for count in _CONNECTIONS}
    plot = draw_lines(
        run,
        "connections",
        "Connections of one function",
        {"measured": [(count, rate / MB) for count, rate in rates.items()]},
        x_title="connections at most",
        y_title="MB/s",
    )
    rows = [[str(count), f"{rate / MB:.1f}", f"{rate / rates[1]:.2f}"] for count, rate in rates.items()]
    return f"""\
## Connections of one function

One file of {size / MB:,.0f} MB from a source that gives each connection {_FILE_RATE // MB} MB/s. The engine begins with
one connection and opens another every two seconds while it waits for the source, up to as many as it may: 3 are the
default. With more it gets more buffers, one for each and one on its way out, which is the price.

{plot}

{format_table(["Connections at most", "MB/s", ": one connection"], rows)}"""
