"""Cost of extracting a ZIP archive to S3, by Modelhaul and by other libraries."""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from bench.archive_store import REQUESTS
from bench.archives import generate_weights
from bench.inflaters import LIBRARIES
from bench.servers import PYTHONPATH, ROOT, start_server
from bench.unzippers import LISTERS, UNZIPPERS
from bench.usage import Usage
from requirements.install import find_uv, run
from tests.weights import wrap_weights

DIRECTORIES = (10_000, 50_000)  # entries
ROUNDS = 3
_MB = 1_000_000
_GB = 1_000_000_000
_LIBRARIES = ROOT / ".local" / "contenders"


@dataclass(frozen=True)
class Sample:
    """An archive. `size` is the size of its content."""

    name: str
    path: Path
    size: int
    entries: int

    @property
    def is_of_small_files(self) -> bool:
        return self.size < 10_000 * self.entries


def install_contenders() -> Path:
    """Install the libraries that only this benchmark uses, unless they are up to date. Returns their folder."""
    requirements = ROOT / "requirements" / "contenders.txt"
    stamp = _LIBRARIES / "requirements.txt"
    if not stamp.is_file() or stamp.read_bytes() != requirements.read_bytes():
        options = ["--quiet", "--no-deps", "--require-hashes", "--python", sys.executable, "--target", str(_LIBRARIES)]
        run(find_uv(), "pip", "install", *options, "--requirement", requirements)
        stamp.write_bytes(requirements.read_bytes())
    return _LIBRARIES


def generate_vocabulary(size: int) -> bytes:
    """Return text that compresses like tokenizer.json: words and their numbers."""
    generator = random.Random(0)
    letters = "etaoinshrdlu" * 3 + "cmfwypvbgkqjxz"
    words = (
        f'"\\u0120{"".join(generator.choices(letters, k=generator.randint(2, 9)))}": {number},\n'
        for number in range(size // 24)
    )
    text = "".join(words).encode()
    return (text * (size // len(text) + 1))[:size]


def write_samples(folder: Path, size: int, entries: int) -> Iterator[Sample]:
    """Yield three archives with two large entries of `size` bytes in total, and one with `entries` small entries."""
    weights = [generate_weights(size // 2), generate_weights(size // 2)]
    vocabulary = generate_vocabulary(size)
    texts = [vocabulary[: size // 2], vocabulary[size // 2 :]]
    yield _write_sample(folder, "float32 weights, deflated", zipfile.ZIP_DEFLATED, weights)
    yield _write_sample(folder, "tokenizer JSON, deflated", zipfile.ZIP_DEFLATED, texts)
    yield _write_sample(folder, "float32 weights, stored", zipfile.ZIP_STORED, weights)
    small = [f"{number} {vocabulary[number * 100 : number * 100 + 400]!r}".encode() for number in range(entries)]
    yield _write_sample(folder, f"{entries:,} entries", zipfile.ZIP_DEFLATED, small)


def _write_sample(folder: Path, name: str, method: int, contents: Sequence[bytes]) -> Sample:
    path = folder / f"{len(list(folder.iterdir()))}.zip"
    required = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": wrap_weights(b"weights")}
    others = {f"{number % 100:02d}/{number}.bin": content for number, content in enumerate(contents)}
    files = {**required, **others}
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        for file, content in files.items():
            archive.writestr(f"model/{file}", content)
    return Sample(name, path, sum(map(len, files.values())), len(files))


def write_directory(folder: Path, entries: int) -> Sample:
    path = folder / f"listed-{entries}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(entries):
            archive.writestr(f"model/data/{number % 100:02d}/part-{number:06d}.json", b"{}" * 200)
    return Sample(f"{entries:,} entries", path, 400 * entries, entries)


@contextmanager
def make_certificate() -> Iterator[Path]:
    """Yield a PEM file with a key and its certificate for 127.0.0.1."""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate, both = (Path(folder) / name for name in ("key", "certificate", "both"))
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True)
        both.write_bytes(key.read_bytes() + certificate.read_bytes())
        yield both


@dataclass(frozen=True)
class Work:
    """Usage of a method, its reads of the archive and its write requests."""

    usage: Usage
    reads: int
    writes: int


def measure_way(way: str, name: str, sample: Sample, certificate: Path, libraries: Path) -> Work:
    """Measure a method. `way` is `unzip` or `list`. Raises RuntimeError with the output of the process if it failed."""
    with (
        start_server("bench.archive_store", str(sample.path), str(certificate)) as store,
        tempfile.TemporaryDirectory() as folder,
    ):
        child = subprocess.run(
            [sys.executable, "-m", "bench.unzippers", way, name, str(sample.path.stat().st_size)],
            env={
                "PYTHONPATH": os.pathsep.join([PYTHONPATH, str(libraries)]),
                "HOME": folder,
                "TMPDIR": folder,
                "AWS_ENDPOINT_URL": store["endpoint"],
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_CA_BUNDLE": str(certificate),
                "REQUESTS_CA_BUNDLE": str(certificate),
            },
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if child.returncode:
            raise RuntimeError(f"{name} failed:\n{child.stderr}")
        counted = requests.get(store["endpoint"] + REQUESTS, verify=str(certificate), timeout=10).text
    reads, writes = map(int, counted.split())
    return Work(Usage(**json.loads(child.stdout)), reads, writes)


def measure_inflating(contents: dict[str, bytes], libraries: Path) -> dict[str, dict[str, float]]:
    """Return CPU seconds per GB of content, by library and content."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents.items():
            deflater = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
            (Path(folder) / name).write_bytes(deflater.compress(content) + deflater.flush())
        child = subprocess.run(
            [sys.executable, "-m", "bench.inflaters", *contents],
            env={"PYTHONPATH": os.pathsep.join([PYTHONPATH, str(libraries)])},
            cwd=folder,
            stdout=subprocess.PIPE,
            check=True,
        )
    costs = json.loads(child.stdout)
    return {library: {name: costs[f"{library} {name}"] for name in contents} for library in LIBRARIES}


def describe_unzipping(size: int, entries: int, rounds: int = ROUNDS) -> str:
    """Return the section. The methods take turns. `size` is the content size of each large archive, in bytes."""
    libraries = install_contenders()
    with tempfile.TemporaryDirectory() as folder, make_certificate() as certificate:
        rows: list[str] = []
        for sample in write_samples(Path(folder), size, entries):
            works: dict[str, list[Work]] = {name: [] for name in UNZIPPERS}
            # Many entries are already many measurements.
            for _ in range(1 if sample.is_of_small_files else rounds):
                for name, found in works.items():
                    found.append(measure_way("unzip", name, sample, certificate, libraries))
            rows += _describe_rows(sample, works)
        listings = [
            _describe_listing(write_directory(Path(folder), count), certificate, libraries, rounds)
            for count in DIRECTORIES
        ]
    piece = min(size, 64 * _MB)
    contents = {"float32": generate_weights(piece // 4 * 4), "JSON": generate_vocabulary(piece)}
    inflating = measure_inflating(contents, libraries)
    speeds = [
        f"| {library} | {' | '.join(f'{1 / cost:.2f}' for cost in costs.values())} |"
        for library, costs in inflating.items()
    ]
    return f"""\
## Decompression of archives

Each method decompresses an archive in one bucket to files in another bucket, with TLS and a store that discards the
bytes. CPU is the CPU time of the process for a GB of content, or for each entry (ms) of the archive with many entries.
The methods take turns, and the values are medians of {rounds} rounds with their range; the archive of {entries:,}
entries has one round. Modelhaul checks every local header, verifies every entry, and records it in memory. The other
methods follow their documentation, with the defaults of boto3. *CPU ratio* is the CPU time divided by Modelhaul's.
*Requests* are reads of the archive and writes of files.

| Archive | Method | CPU s/GB | CPU ratio | Seconds | Peak RSS | Written to disk | Requests |
|:---|:---|---:|---:|---:|---:|---:|---:|
{"\n".join(rows)}

Listing of an archive:

| | {" | ".join(f"{name}: CPU ms | requests" for name in LISTERS)} |
|:---|{"---:|" * 2 * len(LISTERS)}
{"\n".join(listings)}

Decompression alone, in GB of content per second of CPU:

| | {" | ".join(contents)} |
|:---|{"---:|" * len(contents)}
{"\n".join(speeds)}"""


def _describe_listing(sample: Sample, certificate: Path, libraries: Path, rounds: int) -> str:
    cells = [sample.name]
    for name in LISTERS:
        found = [measure_way("list", name, sample, certificate, libraries) for _ in range(rounds)]
        cpu = statistics.median(work.usage.cpu_seconds for work in found)
        cells += [f"{cpu * 1000:.0f}", str(max(work.reads for work in found))]
    return f"| {' | '.join(cells)} |"


def _describe_rows(sample: Sample, works: dict[str, list[Work]]) -> Iterator[str]:
    label = sample.name if sample.is_of_small_files else f"{sample.name}, {sample.size / _MB:.0f} MB"
    costs = {name: sorted(_compute_cost(work.usage, sample) for work in found) for name, found in works.items()}
    ours = statistics.median(costs[next(iter(UNZIPPERS))])
    unit = " ms" if sample.is_of_small_files else ""
    for number, (name, found) in enumerate(works.items()):
        cost = statistics.median(costs[name])
        cells = [
            "" if number else label,
            name,
            f"{cost:.1f}{unit} ({costs[name][0]:.1f}-{costs[name][-1]:.1f})",
            f"{cost / ours:.1f}",
            f"{statistics.median(work.usage.seconds for work in found):.1f}",
            f"{max(work.usage.peak_rss for work in found) / _MB:.0f} MB",
            f"{found[-1].usage.disk / _MB:.0f} MB",
            f"{found[-1].reads:,} + {found[-1].writes:,}",
        ]
        yield f"| {' | '.join(cells)} |"


def _compute_cost(usage: Usage, sample: Sample) -> float:
    """Return seconds per GB, or milliseconds per entry for an archive of small files."""
    return (
        usage.cpu_seconds * 1000 / sample.entries if sample.is_of_small_files else usage.cpu_seconds * _GB / sample.size
    )
