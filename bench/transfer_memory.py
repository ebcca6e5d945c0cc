"""The memory and disk that moving one file takes, whatever its size."""

from dataclasses import dataclass

from bench.loopback import Shape, compute_digest, start_loopback
from bench.movers import MODELHAUL, build_environment, build_modelhaul, move, start_mover, start_way
from bench.report import MB, Run, draw_lines, format_table
from bench.servers import start_server
from bench.usage import Usage

BOUND = 256 * MB
_SIZES = [64 * MB * 2**doubling for doubling in range(8)]
_STORE_RATE = 100 * MB  # a second, for each of two parts at a time: slower than the source


@dataclass(frozen=True)
class Transfer:
    size: int
    usage: Usage
    files_left: list[str]
    """Names in the process's temporary, home and current folder, which were one and empty."""


def measure_transfer(size: int, *, part_size: int | None = None, store_rate: int | None = None) -> Transfer:
    """Move a generated file of `size` bytes in a fresh process, over plain http by servers that need no compiler.

    part_size None: as the engine chooses. store_rate: bytes per second at which the store takes each part, which
    fills all buffers if the source is faster. Raises RuntimeError, with what the process printed,
    if the file did not arrive verified.
    """
    settings = {"part_size": part_size} if part_size else {}
    with (
        start_server("bench.generated_hub", str(size)) as hub,
        start_server("bench.discarding_store", *([str(store_rate)] if store_rate else [])) as store,
        start_mover(
            build_modelhaul(hub["commit"], hub["sha256"], size, settings),
            build_environment(hub["endpoint"], store["endpoint"]),
        ) as mover,
    ):
        return Transfer(size, move(mover), mover.list_files())


def _measure_over_tls(size: int) -> Transfer:
    with (
        start_loopback(size) as source,
        start_loopback(size, Shape(connection_rate=_STORE_RATE)) as store,
        start_way(MODELHAUL, size, compute_digest(size), source, store) as mover,
    ):
        return Transfer(size, move(mover), mover.list_files())


def describe_memory(run: Run) -> str:
    """A file of each size, once, with a store that is slower than the source; in Markdown."""
    transfers = [_measure_over_tls(run.scale_size(size)) for size in _SIZES]
    peaks = [(transfer.size / 1e9, transfer.usage.peak_rss / MB) for transfer in transfers]
    sizes = [size for size, _ in peaks]
    plot = draw_lines(
        run,
        "memory",
        "Peak memory of a transfer",
        {"peak RSS": peaks, "bound": [(min(sizes), BOUND / MB), (max(sizes), BOUND / MB)]},
        x_title="size of the file, GB (logarithmic)",
        y_title="MB",
        logarithmic=True,
    )
    rows = [
        [
            f"{transfer.size / MB:,.0f} MB",
            f"{transfer.usage.rss_before / MB:.0f} MB",
            f"{transfer.usage.peak_rss / MB:.0f} MB",
            f"{transfer.usage.disk:,} B",
            str(len(transfer.files_left)),
        ]
        for transfer in transfers
    ]
    highest = max(transfer.usage.peak_rss for transfer in transfers)
    return f"""\
## Memory

A file of each size by the engine at its own settings, over TLS, into a store that takes {_STORE_RATE // MB} MB/s of
each part: slower than the source, so that all buffers fill. There are four, of 16 MiB for files up to 1 GiB and of
32 MiB above. The highest peak is {highest / MB:.0f} MB; the bound is {BOUND // MB} MB.

{plot}

{format_table(["File", "RSS before", "Peak RSS", "Written to disk", "Files left"], rows)}"""
