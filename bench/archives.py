"""Cost of an archive import on the local stack, compared with a download, extraction and upload."""

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench.servers import PYTHONPATH
from bench.usage import Usage
from local.sources import SourceUrls
from local.stack import CLIENT_CONFIG, LocalStack, StackState, open_session
from tests.weights import wrap_weights

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MB = 1_000_000
_POLL_INTERVAL = 0.5  # seconds
_IMPORT_TIMEOUT = 3600.0  # seconds
_CHUNK_SIZE = 16 * 1024 * 1024
_STEPS = ("accept-archive", "plan-import", "transfer-files", "publish-models")


@dataclass(frozen=True)
class ProcessUsage:
    """Usage of all processes of a function: total CPU seconds, highest peak of memory, and total bytes written."""

    processes: int
    cpu_seconds: float
    peak_rss: int
    written: int


def generate_weights(size: int) -> bytes:
    """Return bytes that compress like float32 weights: three random bytes, and one byte with few distinct values."""
    count = size // 4
    weights = bytearray(os.urandom(count * 4))
    exponents = bytes((60, 61, 188, 189))
    weights[3::4] = os.urandom(count).translate(exponents * 64)
    return bytes(weights)


def _write_archive(path: Path, size: int, entries: int) -> None:
    """Write one model with four deflated entries of `size` bytes in total, and `entries` small ones."""
    directory = "large" if size else "small"  # also the name of the model
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(f"{directory}/config.json", "{}")
        archive.writestr(f"{directory}/tokenizer.json", "{}")
        archive.writestr(f"{directory}/model.safetensors", wrap_weights(b"weights"))
        for number in range(4 if size else 0):
            with archive.open(f"{directory}/shard-{number}.bin", "w", force_zip64=True) as entry:
                for _ in range(size // 4 // _CHUNK_SIZE):
                    entry.write(generate_weights(_CHUNK_SIZE))
        for number in range(entries):
            archive.writestr(f"{directory}/{number % 100:02d}/{number}.txt", f"{number} " * 40)


def _list_workers(state: StackState) -> Iterator[tuple[str, psutil.Process]]:
    """Yield the step and process of each function that MiniStack has started."""
    for process in psutil.Process(state.ministack_pid).children(recursive=True):
        try:
            name = process.environ().get("AWS_LAMBDA_FUNCTION_NAME", "")
        except psutil.Error:
            continue
        step = next((step for step in _STEPS if step.replace("-", "") in name.lower().replace("-", "")), None)
        if step is not None:
            yield step, process


def _read_usages(state: StackState) -> dict[tuple[str, int], tuple[float, int, int]]:
    found = {}
    for step, process in _list_workers(state):
        try:
            cpu = process.cpu_times()
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
            found[step, process.pid] = (cpu.user + cpu.system, peak, process.io_counters().write_bytes)
        except (psutil.Error, OSError, IndexError):
            continue
    return found


def _measure_import(stack: StackState, s3: "S3Client", path: Path, key: str) -> tuple[float, dict[str, ProcessUsage]]:
    """Copy the archive to the incoming bucket and wait for its outcome. Raises RuntimeError unless it is DONE."""
    s3.upload_file(str(path), stack.incoming_bucket, f"hold/{key}")
    before = _read_usages(stack)
    started = time.monotonic()
    # The archive is already in the bucket, so that the time does not include its upload.
    source = {"Bucket": stack.incoming_bucket, "Key": f"hold/{key}"}
    s3.copy(source, stack.incoming_bucket, f"incoming/{key}")  # type: ignore[arg-type]
    outcome = _wait_for_outcome(s3, stack.incoming_bucket, f"outcomes/incoming/{key}.json")
    seconds = time.monotonic() - started
    if outcome["task_status"] != "DONE":
        raise RuntimeError(f"the import failed: {outcome}")
    usages: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
    for (step, pid), (cpu, peak, written) in _read_usages(stack).items():
        earlier = before.get((step, pid), (0.0, 0, 0))
        usages[step].append((cpu - earlier[0], peak, written - earlier[2]))
    return seconds, {
        step: ProcessUsage(len(found), sum(f[0] for f in found), max(f[1] for f in found), sum(f[2] for f in found))
        for step, found in usages.items()
    }


def _wait_for_outcome(s3: "S3Client", bucket: str, key: str) -> dict[str, object]:
    deadline = time.monotonic() + _IMPORT_TIMEOUT
    while time.monotonic() < deadline:
        try:
            outcome: dict[str, object] = json.load(s3.get_object(Bucket=bucket, Key=key)["Body"])
            if outcome["task_status"] != "PENDING":
                return outcome
        except s3.exceptions.NoSuchKey:
            pass
        time.sleep(_POLL_INTERVAL)
    raise RuntimeError(f"the import did not end within {_IMPORT_TIMEOUT:.0f} s")


def _measure_extraction(stack: StackState, key: str) -> Usage:
    """Measure download, extraction and upload in a separate process."""
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.run(
            [sys.executable, "-m", "bench.extraction", stack.incoming_bucket, key, stack.models_bucket],
            env={
                **os.environ,
                "PYTHONPATH": PYTHONPATH,
                "TMPDIR": folder,
                "AWS_ENDPOINT_URL": stack.aws_endpoint_url,
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": stack.region,
            },
            capture_output=True,
            text=True,
            check=False,
        )
    if child.returncode:
        raise RuntimeError(f"the extraction failed:\n{child.stderr}")
    return Usage(**json.loads(child.stdout))


def describe_archives(size: int, entries: int) -> str:
    """Return the section: two archives are imported on a separate stack, and extracted by a plain process."""
    local = LocalStack("bench")
    try:
        state = local.start("loopback", SourceUrls(), 0, lambda _: None)
        s3 = open_session().client("s3", endpoint_url=state.aws_endpoint_url, config=CLIENT_CONFIG)
        rows: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            for name, weight, count in ((f"{size // _MB:,} MB in 4", size, 0), (f"{entries:,} small", 0, entries)):
                path = Path(folder) / "archive.zip"
                _write_archive(path, weight, count)
                key = f"{name.replace(' ', '-').replace(',', '')}.zip"
                seconds, usages = _measure_import(state, s3, path, key)
                plain = _measure_extraction(state, f"hold/{key}")
                rows += _describe_rows(name, seconds, usages, plain)
    finally:
        local.stop()
    return f"""\
## Import of an archive

The import of an archive with deflated entries runs on the deployed local stack, where up to 8 functions transfer files
on the same cores as MiniStack. It is compared with a process that downloads the archive, extracts it and uploads every
file with the defaults of boto3. Only the import also verifies, records and publishes the files. The CPU times do not
include MiniStack. RSS is the highest value of all processes of a function.

| Archive | Method | Seconds | CPU s | Processes | Peak RSS | Written to disk |
|:---|:---|---:|---:|---:|---:|---:|
{"\n".join(rows)}"""


def _describe_rows(name: str, seconds: float, usages: dict[str, ProcessUsage], plain: Usage) -> Iterator[str]:
    cpu = sum(usage.cpu_seconds for usage in usages.values())
    yield f"| {name} | the import | {seconds:.1f} | {cpu:.1f} | | | |"
    for step in _STEPS:
        if step in usages:
            usage = usages[step]
            cells = [
                f"{usage.cpu_seconds:.1f}",
                str(usage.processes),
                f"{usage.peak_rss // _MB} MB",
                f"{usage.written:,} B",
            ]
            yield f"| | {step} | | {' | '.join(cells)} |"
    plain_cpu = plain.user_seconds + plain.system_seconds
    cells = [f"{plain.seconds:.1f}", f"{plain_cpu:.1f}", "1", f"{plain.peak_rss // _MB} MB", f"{plain.written:,} B"]
    yield f"| | download, extractall, upload | {' | '.join(cells)} |"
