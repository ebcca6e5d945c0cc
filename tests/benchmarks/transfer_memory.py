"""What moving one large file costs: time, CPU, memory and disk of the process that moves it."""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.servers import PYTHONPATH, start_server
from tests.benchmarks.usage import Usage

_MB = 1_000_000
_GB = 1_000_000_000
_ROUNDS = 3
_SLOW_RATE = 75 * _MB  # a second, for each of two parts at a time: slower than the source


@dataclass(frozen=True)
class Transfer:
    size: int
    usage: Usage
    files_left: list[str]
    """Names in the process's temporary, home and current folder, which were one and empty."""


def measure_transfer(size: int, *, part_size: int | None = None, store_rate: int | None = None) -> Transfer:
    """Move a generated file of `size` bytes in a fresh process.

    part_size None: as the engine chooses. store_rate: bytes per second at which the store takes each part, which
    fills all buffers if the source is faster. Raises RuntimeError, with what the process printed,
    if the file did not arrive verified.
    """
    with (
        start_server("tests.benchmarks.generated_hub", str(size)) as hub,
        start_server("tests.benchmarks.discarding_store", *([str(store_rate)] if store_rate else [])) as store,
        tempfile.TemporaryDirectory() as folder,
    ):
        order = {"commit": hub["commit"], "sha256": hub["sha256"], "size": size, "part_size": part_size}
        child = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.measured_transfer", json.dumps(order)],
            env=_build_environment(hub["endpoint"], store["endpoint"], folder),
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if child.returncode:
            raise RuntimeError(f"the transfer failed:\n{child.stderr}")
        left = sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))
    return Transfer(size, Usage(**json.loads(child.stdout)), left)


def _build_environment(hub: str, store: str, folder: str) -> dict[str, str]:
    return {
        "PYTHONPATH": PYTHONPATH,
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": folder,
        "TMPDIR": folder,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL": store,
        "TASKS_TABLE": "tasks",
        "MODELS_TABLE": "models",
        "FILES_TABLE": "files",
        "BLOBS_TABLE": "blobs",
        "MODELS_BUCKET": "models",
        "INCOMING_BUCKET": "incoming",
        "TRANSFER_QUEUE_URL": f"{store}/queue",
        "HUGGINGFACE_ENDPOINT": hub,
        "HUGGINGFACE_TOKEN_SECRET": "",
        "ALLOWED_HOSTS": "",
        "LOCAL_MODE": "true",
        "POWERTOOLS_SERVICE_NAME": "modelhaul",
        "POWERTOOLS_METRICS_NAMESPACE": "Modelhaul",
    }


def describe_transfers(sizes: Sequence[int]) -> str:
    """Measure each size several times, by turns, and the largest with a slow store; describe them in Markdown."""
    rounds = [{size: measure_transfer(size) for size in sizes} for _ in range(_ROUNDS)]
    largest = max(sizes)
    peaks = {size: max(transfers[size].usage.peak_rss for transfers in rounds) for size in sizes}
    pair = f"{_format_size(largest)} : {_format_size(min(sizes))}"
    ratio = peaks[largest] / peaks[min(sizes)]
    rows = [
        *(_describe_row(_format_size(size), [transfers[size] for transfers in rounds]) for size in sizes),
        _describe_row(f"{_format_size(largest)}, slow store", [measure_transfer(largest, store_rate=_SLOW_RATE)]),
    ]
    return f"""\
## Moving one file

From the loopback Hub into an S3 that drops what it gets, by the transfer engine with its own settings, in a process of
its own which verifies the digest. Times are medians, memory and writes the highest of {_ROUNDS} rounds.
The last row is one round with a store that takes {_SLOW_RATE // _MB} MB/s for each part, so that all buffers fill.

| File | Seconds | MB/s | CPU s/GB (user + system) | RSS before | Peak RSS | Written | Files left |
|:---|---:|---:|---:|---:|---:|---:|---:|
{"\n".join(rows)}

Peak RSS, {pair} = {ratio:.2f} (parts have 16 MiB up to 1 GiB, 32 MiB above).

MB and GB are 10^6 and 10^9 bytes. The servers share the processors with the transfer. Over plain http: TLS would be
added to this. Payloads are not hashed for signing, as on AWS."""


def _describe_row(name: str, transfers: Sequence[Transfer]) -> str:
    size = transfers[0].size
    usages = [t.usage for t in transfers]
    seconds = statistics.median(u.seconds for u in usages)
    user = statistics.median(u.user_seconds for u in usages) * _GB / size
    system = statistics.median(u.system_seconds for u in usages) * _GB / size
    cells = [
        name,
        f"{seconds:.1f}",
        f"{size / _MB / seconds:.0f}",
        f"{user + system:.2f} ({user:.2f} + {system:.2f})",
        f"{max(u.rss_before for u in usages) / _MB:.0f} MB",
        f"{max(u.peak_rss for u in usages) / _MB:.0f} MB",
        f"{max(u.written for u in usages):,} B",
        str(max(len(t.files_left) for t in transfers)),
    ]
    return f"| {' | '.join(cells)} |"


def _format_size(size: int) -> str:
    return f"{size // _MB:,} MB"
