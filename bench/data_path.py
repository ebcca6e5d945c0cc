"""Cost of the transfer of one file, compared with other methods: CPU time, time, memory, disk, requests."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench.loopback import FAST, Shape, compute_digest, start_loopback
from bench.movers import DISK, FLOOR, MODELHAUL, NAIVE, VERIFIED, move, start_way
from bench.report import GB, MB, Run, draw_bars, format_spread, format_table
from bench.usage import Usage

_SIZE = 1000 * MB
_ROUNDS = 5
_WAYS = [FLOOR, MODELHAUL, NAIVE, VERIFIED, DISK]
_TARGETS = {FLOOR: 1.7, VERIFIED: 0.7, DISK: 0.45}

# 1,769 MB correspond to one vCPU: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
_FUNCTION_MEMORY = 512
_FUNCTION_SHARE = _FUNCTION_MEMORY / 1769
_FUNCTION_RATE = 75 * MB
_FUNCTION_LATENCY = 0.02
_FUNCTION_ROUNDS = 2
_FUNCTION_TARGET = 1.06


@dataclass(frozen=True, slots=True)
class Result:
    size: int
    usage: Usage
    source_requests: int
    store_requests: int

    @property
    def cpu_per_gb(self) -> float:
        return self.usage.cpu_seconds * GB / self.size

    @property
    def seconds_per_gb(self) -> float:
        return self.usage.seconds * GB / self.size


def measure_way(way: str, size: int, shape: Shape = FAST, *, share: float | None = None) -> Result:
    """Measure one transfer. Raises RuntimeError unless all bytes arrived; methods that verify also check them."""
    with (
        start_loopback(size, shape) as source,
        start_loopback(size, shape) as store,
        start_way(way, size, compute_digest(size), source, store) as mover,
    ):
        usage = move(mover, share=share)
        files = mover.list_files() if way == MODELHAUL else []
    if store.counts["received"] != size or files:
        raise RuntimeError(f"{way}: {store.counts['received']:,} of {size:,} bytes arrived, files left: {files}")
    return Result(size, usage, source.counts["requests"], store.counts["requests"])


def describe_data_path(run: Run) -> str:
    """Return the section. The methods take turns in each round."""
    size = run.scale_size(_SIZE)
    found: dict[str, list[Result]] = defaultdict(list)
    for number in range(_ROUNDS):
        # Each round starts with a different method.
        for way in _WAYS[number % len(_WAYS) :] + _WAYS[: number % len(_WAYS)]:
            found[way].append(measure_way(way, size))
    plot = draw_bars(
        run,
        "data-path",
        "CPU time of the process that moves a file",
        {
            way: {
                "user": _find_median([r.usage.user_seconds * GB / size for r in found[way]]),
                "system": _find_median([r.usage.system_seconds * GB / size for r in found[way]]),
            }
            for way in _WAYS
        },
        x_title="seconds for 10⁹ bytes",
    )
    ratios = {
        way: [own.cpu_per_gb / other.cpu_per_gb for own, other in zip(found[MODELHAUL], found[way], strict=True)]
        for way in _WAYS
    }
    heads = [
        "Method",
        "CPU s/GB",
        "s/GB",
        "Modelhaul's CPU / this CPU",
        "Target",
        "Peak RSS",
        "Written to disk",
        "Requests",
    ]
    return f"""\
## Transfer of one file

Each method transfers {size / MB:,.0f} MB from a Hub to S3, with TLS 1.3 (AES-128-GCM) on both sides, in a separate
process. The methods take turns, and the values are medians of {_ROUNDS} rounds (lowest to highest). The servers are
small C programs on the same machine, which count the bytes and discard them. The C program in the table does only the
necessary work in one thread: read, sha256, write. snapshot_download and the first method with requests do not verify
the digest. All libraries use their defaults. The wall-clock time depends on the load of the machine; the CPU time
depends on it only slightly.

{plot}

{format_table(heads, [_describe_way(way, found[way], ratios[way]) for way in _WAYS])}"""


def _describe_way(way: str, results: Sequence[Result], ratios: Sequence[float]) -> list[str]:
    return [
        way,
        format_spread([result.cpu_per_gb for result in results]),
        format_spread([result.seconds_per_gb for result in results], 1),
        "" if way == MODELHAUL else format_spread(ratios),
        f"≤ {_TARGETS[way]}" if way in _TARGETS else "",
        *_describe_resources(results),
    ]


def _describe_resources(results: Sequence[Result]) -> list[str]:
    last = results[-1]
    return [
        f"{max(result.usage.peak_rss for result in results) / MB:.0f} MB",
        f"{last.usage.disk / MB:,.0f} MB",
        f"{last.source_requests} + {last.store_requests}",
    ]


def describe_function(run: Run) -> str:
    """Return the section for a simulated small function."""
    size = run.scale_size(_SIZE)
    shape = Shape(latency=_FUNCTION_LATENCY, rate=_FUNCTION_RATE)
    ideal = GB / _FUNCTION_RATE
    found: dict[str, list[Result]] = defaultdict(list)
    for number in range(_FUNCTION_ROUNDS):
        for way in (MODELHAUL, VERIFIED, *([DISK] if number == 0 else [])):
            found[way].append(measure_way(way, size, shape, share=_FUNCTION_SHARE))
    rows = [
        [
            way,
            format_spread([result.seconds_per_gb for result in results], 1),
            format_spread([result.seconds_per_gb / ideal for result in results]),
            f"≤ {_FUNCTION_TARGET}" if way == MODELHAUL else "",
            format_spread([result.cpu_per_gb for result in results]),
            *_describe_resources(results),
        ]
        for way, results in found.items()
    ]
    heads = ["Method", "s/GB", "Time / network time", "Target", "CPU s/GB", "Peak RSS", "Written to disk", "Requests"]
    return f"""\
## Transfer in a small function

The same transfer runs in a simulated function of {_FUNCTION_MEMORY} MB: {_FUNCTION_SHARE:.2f} of a processor,
{_FUNCTION_RATE // MB} MB/s in each direction, and {_FUNCTION_LATENCY * 1000:.0f} ms of latency. Like Lambda's
scheduler, the benchmark stops the process when it has used its share of each 20 ms. The network alone takes
{ideal:.1f} s/GB.

{format_table(heads, rows)}"""


def _find_median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 3)
