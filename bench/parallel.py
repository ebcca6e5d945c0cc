"""Throughput by number of functions and connections, from a source that limits the rate of each connection."""

import statistics
import time
from contextlib import ExitStack

from bench.loopback import Shape, compute_digest, start_loopback
from bench.movers import MODELHAUL, Mover, move, start_way
from bench.report import MB, MIB, Run, draw_lines, format_spread, format_table
from bench.shared_segments import serve_segments

_FUNCTIONS = [1, 2, 4, 8, 16]
_FUNCTION_SIZE = 64 * MIB  # four parts
_FUNCTION_RATE = 4 * MB
_ROUNDS = 2
_LINEAR_TO = 8
_LINEAR_TARGET = 0.9

_SHARED_FUNCTIONS = [1, 2, 4, 8]
_SHARED_SIZE = 1024 * MIB
_SHARED_PART_SIZE = 5 * MIB  # the minimum of S3: a smaller file has as many parts as a large one in a function
_SHARED_LINEAR_TO = 4
_SHARED_TARGET = 0.8

_CONNECTIONS = [1, 2, 3, 4, 8]
_FILE_SIZE = 400 * MB
_FILE_RATE = 15 * MB


def measure_functions(count: int, size: int) -> float:
    """Return the total bytes per second of `count` processes that start together and transfer `size` bytes each."""
    with start_loopback(size, Shape(connection_rate=_FUNCTION_RATE)) as source, ExitStack() as stack:
        movers: list[Mover] = []
        for _ in range(count):
            store = stack.enter_context(start_loopback(size))
            movers.append(stack.enter_context(start_way(MODELHAUL, size, compute_digest(size), source, store)))
        started = time.monotonic()
        for mover in movers:
            mover.signal_start()
        for mover in movers:
            mover.finish()
        return count * size / (time.monotonic() - started)


def measure_connections(count: int, size: int) -> float:
    """Return the bytes per second of one process with up to `count` connections to the source."""
    settings = {"connections": count, "buffers": max(4, count + 1)}
    with (
        start_loopback(size, Shape(connection_rate=_FILE_RATE)) as source,
        start_loopback(size) as store,
        start_way(MODELHAUL, size, compute_digest(size), source, store, settings) as mover,
    ):
        return size / move(mover).seconds


def measure_shared_file(count: int, size: int) -> float:
    """Return the bytes per second of `count` processes that start together and transfer one file of `size` bytes."""
    settings = {"part_size": _SHARED_PART_SIZE}
    with (
        start_loopback(size, Shape(connection_rate=_FUNCTION_RATE)) as source,
        start_loopback(size) as store,
        serve_segments() as port,
        ExitStack() as stack,
    ):
        movers = [
            stack.enter_context(
                start_way(
                    MODELHAUL,
                    size,
                    compute_digest(size),
                    source,
                    store,
                    settings,
                    {"segments": port, "leads": number == 0},
                )
            )
            for number in range(count)
        ]
        started = time.monotonic()
        for mover in movers:
            mover.signal_start()
        for mover in movers:
            mover.finish()
        return size / (time.monotonic() - started)


def describe_functions(run: Run) -> str:
    """Return the section in Markdown."""
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
        y_title="Total MB/s",
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
## Parallel functions

Each function is a process that transfers {size / MB:,.0f} MB with the engine's default settings and TLS, from a shared
source to its own store. The source limits each connection to {_FUNCTION_RATE // MB} MB/s, so the processors of this
machine stay mostly idle, and the result shows whether functions slow each other down. Because the source is slow, each
function opens up to three connections, one every two seconds. The values are medians of {_ROUNDS} rounds.

{plot}

{format_table(["Functions", "Total MB/s", "Total rate / sum of the rates of separate functions", "Target"], rows)}"""


def describe_connections(run: Run) -> str:
    """Return the section in Markdown."""
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

One file of {size / MB:,.0f} MB comes from a source that limits each connection to {_FILE_RATE // MB} MB/s. The engine
begins with one connection. While it waits for the source, it adds a connection every two seconds, up to its maximum (by
default 3). More connections need more memory: the engine has one buffer for each connection and one for the upload.

{plot}

{format_table(["Maximum connections", "MB/s", "Rate / rate of one connection"], rows)}"""


def describe_shared_file(run: Run) -> str:
    """Return the section in Markdown."""
    size = run.scale_size(_SHARED_SIZE)
    rates = {count: measure_shared_file(count, size) for count in _SHARED_FUNCTIONS}
    plot = draw_lines(
        run,
        "shared-file",
        "Functions that transfer one file",
        {
            "measured": [(count, rate / MB) for count, rate in rates.items()],
            "linear": [(count, count * rates[1] / MB) for count in _SHARED_FUNCTIONS],
        },
        x_title="functions",
        y_title="MB/s",
    )
    rows = [
        [
            str(count),
            f"{rate / MB:.1f}",
            f"{rate / count / rates[1]:.2f}",
            f"≥ {_SHARED_TARGET}" if 1 < count <= _SHARED_LINEAR_TO else "",
        ]
        for count, rate in rates.items()
    ]
    return f"""\
## One file through several functions

Processes transfer one file of {size / MB:,.0f} MB together. The source limits each connection to
{_FUNCTION_RATE // MB} MB/s, and each process opens up to three connections, one every two seconds. The parts have
{_SHARED_PART_SIZE // MIB} MiB. The segments are recorded in a server that takes the time of DynamoDB for each request.

{plot}

{format_table(["Functions", "MB/s", "Rate / linear", "Target"], rows)}"""
