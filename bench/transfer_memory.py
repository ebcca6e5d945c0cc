"""Memory and disk usage of the transfer of one file, by its size."""

from dataclasses import dataclass

from bench.loopback import Shape, compute_digest, start_loopback
from bench.movers import MODELHAUL, build_environment, build_modelhaul_command, move, start_mover, start_way
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
    """Files in the temporary, home and current folder of the process, which is one folder and was empty."""


def measure_transfer(size: int, *, part_size: int | None = None, store_rate: int | None = None) -> Transfer:
    """Transfer a generated file of `size` bytes in a new process, over HTTP, with servers that need no compiler.

    Without `part_size`, the engine selects it. `store_rate` limits the bytes per second of each part; if the source is
    faster, all buffers fill. Raises RuntimeError with the output of the process unless the file was verified.
    """
    settings = {"part_size": part_size} if part_size else {}
    with (
        start_server("bench.generated_hub", str(size)) as hub,
        start_server("bench.discarding_store", *([str(store_rate)] if store_rate else [])) as store,
        start_mover(
            build_modelhaul_command(hub["commit"], hub["sha256"], size, settings, {}),
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
    """Return the section: one transfer of each size, with a store that is slower than the source."""
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
## Memory of a transfer

The engine transfers files of different sizes with its default settings and TLS. The store accepts {_STORE_RATE // MB}
MB/s for each part and is slower than the source, so all four buffers fill. A buffer has 16 MiB for files up to 1 GiB,
and 32 MiB for larger files. The highest peak is {highest / MB:.0f} MB; the limit is {BOUND // MB} MB.

{plot}

{format_table(["File", "RSS before", "Peak RSS", "Written to disk", "Temporary files left"], rows)}"""
