"""What importing an archive costs on the deployed local stack, beside downloading, extracting and uploading it."""

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
from local.sources import Addresses
from local.stack import CLIENT_CONFIG, LocalStack, StackState, open_session
from tests.weights import wrap_weights

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MB = 1_000_000
_POLL = 0.5
_ENDS_WITHIN = 3600.0
_PIECE = 16 * 1024 * 1024
_STEPS = ("accept-archive", "plan-import", "transfer-files", "publish-models")


@dataclass(frozen=True)
class Work:
    """Of all of a function's processes: CPU seconds together, the highest peak of memory and the bytes written."""

    processes: int
    cpu_seconds: float
    peak_rss: int
    written: int


def draw_weights(size: int) -> bytes:
    """As float32 weights deflate: three bytes of noise, and one that is nearly always one of a few."""
    count = size // 4
    weights = bytearray(os.urandom(count * 4))
    exponents = bytes((60, 61, 188, 189))
    weights[3::4] = os.urandom(count).translate(exponents * 64)
    return bytes(weights)


def _write_archive(path: Path, size: int, entries: int) -> None:
    """Four deflated entries of together `size` bytes, and `entries` of a few hundred, in one model."""
    directory = "large" if size else "small"  # which names the model
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(f"{directory}/config.json", "{}")
        archive.writestr(f"{directory}/tokenizer.json", "{}")
        archive.writestr(f"{directory}/model.safetensors", wrap_weights(b"weights"))
        for number in range(4 if size else 0):
            with archive.open(f"{directory}/shard-{number}.bin", "w", force_zip64=True) as entry:
                for _ in range(size // 4 // _PIECE):
                    entry.write(draw_weights(_PIECE))
        for number in range(entries):
            archive.writestr(f"{directory}/{number % 100:02d}/{number}.txt", f"{number} " * 40)


def _list_workers(state: StackState) -> Iterator[tuple[str, psutil.Process]]:
    """(function's name, process) of all that MiniStack has started."""
    for process in psutil.Process(state.ministack_pid).children(recursive=True):
        try:
            name = process.environ().get("AWS_LAMBDA_FUNCTION_NAME", "")
        except psutil.Error:
            continue
        step = next((step for step in _STEPS if step.replace("-", "") in name.lower().replace("-", "")), None)
        if step is not None:
            yield step, process


def _read_work(state: StackState) -> dict[tuple[str, int], tuple[float, int, int]]:
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


def _measure_import(stack: StackState, s3: "S3Client", path: Path, key: str) -> tuple[float, dict[str, Work]]:
    """Drops the archive and waits for its outcome. Raises RuntimeError unless that is DONE."""
    s3.upload_file(str(path), stack.incoming_bucket, f"hold/{key}")
    before = _read_work(stack)
    started = time.monotonic()
    # The copy is what arrives, so that the time does not include sending it.
    source = {"Bucket": stack.incoming_bucket, "Key": f"hold/{key}"}
    s3.copy(source, stack.incoming_bucket, f"incoming/{key}")  # type: ignore[arg-type]
    outcome = _wait_for_outcome(s3, stack.incoming_bucket, f"outcomes/incoming/{key}.json")
    seconds = time.monotonic() - started
    if outcome["task_status"] != "DONE":
        raise RuntimeError(f"the import failed: {outcome}")
    works: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
    for (step, pid), (cpu, peak, written) in _read_work(stack).items():
        earlier = before.get((step, pid), (0.0, 0, 0))
        works[step].append((cpu - earlier[0], peak, written - earlier[2]))
    return seconds, {
        step: Work(len(found), sum(f[0] for f in found), max(f[1] for f in found), sum(f[2] for f in found))
        for step, found in works.items()
    }


def _wait_for_outcome(s3: "S3Client", bucket: str, key: str) -> dict[str, object]:
    deadline = time.monotonic() + _ENDS_WITHIN
    while time.monotonic() < deadline:
        try:
            outcome: dict[str, object] = json.load(s3.get_object(Bucket=bucket, Key=key)["Body"])
            if outcome["task_status"] != "PENDING":
                return outcome
        except s3.exceptions.NoSuchKey:
            pass
        time.sleep(_POLL)
    raise RuntimeError("the import does not end")


def _measure_extraction(stack: StackState, key: str) -> Usage:
    """The plain way, in a process of its own."""
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
    """Import two archives on a stack of their own, and extract the same ones the plain way; in Markdown."""
    local = LocalStack("bench")
    try:
        state = local.start("loopback", Addresses(), 0, lambda _: None)
        s3 = open_session().client("s3", endpoint_url=state.aws_endpoint_url, config=CLIENT_CONFIG)
        rows: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            for name, weight, count in ((f"{size // _MB:,} MB in 4", size, 0), (f"{entries:,} small", 0, entries)):
                path = Path(folder) / "archive.zip"
                _write_archive(path, weight, count)
                key = f"{name.replace(' ', '-').replace(',', '')}.zip"
                seconds, works = _measure_import(state, s3, path, key)
                plain = _measure_extraction(state, f"hold/{key}")
                rows += _describe_rows(name, seconds, works, plain)
    finally:
        local.stop()
    return f"""\
## Importing an archive

Deflated entries, on the deployed local stack (8 functions at most move files, on the same cores as MiniStack), beside a
process that downloads the archive, extracts it and uploads every file with boto3's defaults. The import also verifies,
records, and lays out the model; wall clock and CPU of MiniStack are in neither's CPU. RSS is the highest of any process
of the function.

| Archive | By | Seconds | CPU s | Processes | Peak RSS | Written to disk |
|:---|:---|---:|---:|---:|---:|---:|
{"\n".join(rows)}"""


def _describe_rows(name: str, seconds: float, works: dict[str, Work], plain: Usage) -> Iterator[str]:
    cpu = sum(work.cpu_seconds for work in works.values())
    yield f"| {name} | the import | {seconds:.1f} | {cpu:.1f} | | | |"
    for step in _STEPS:
        if step in works:
            work = works[step]
            cells = [
                f"{work.cpu_seconds:.1f}",
                str(work.processes),
                f"{work.peak_rss // _MB} MB",
                f"{work.written:,} B",
            ]
            yield f"| | {step} | | {' | '.join(cells)} |"
    plain_cpu = plain.user_seconds + plain.system_seconds
    cells = [f"{plain.seconds:.1f}", f"{plain_cpu:.1f}", "1", f"{plain.peak_rss // _MB} MB", f"{plain.written:,} B"]
    yield f"| | download, extractall, upload | {' | '.join(cells)} |"
