"""AWS requests, queue messages and DynamoDB units of an import, by its number of files and parts.

`make pages PAGES=calls` writes `docs/calls.md`, and `bench/tests/test_pages.py` compares it with the code.
The counts do not depend on the machine.
"""

import random
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import moto.s3.models
import pytest

from bench.counted_import import CountedImport, count_import, submit
from bench.pace import Pace
from modelhaul.adapters import s3_uploads
from modelhaul.domain.models import Source
from modelhaul.domain.tasks import TaskStatus
from modelhaul.transfer import mover
from modelhaul.transfer.policy import TransferPolicy
from modelhaul.transfer.segments import SegmentClaims
from modelhaul.transfer.settings import StreamSettings
from tests.archives.zipping import zip_files
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.weights import build_header

_POLICY = TransferPolicy()
_NAME = "org/model"
_SETTINGS = StreamSettings()
# All sizes of large files are divided by 2,048, so that the number of parts is the same as in a function.
_SCALE = 2048
_PART = 16 * 1024
_SEGMENT = _SETTINGS.buffers * _PART
_LARGE = 32 * _PART
_COPY_PART = 8 * _PART
_SINGLE_COPY = 32 * _PART
_SMALL = (_POLICY.group_files, 2 * _POLICY.group_files, 4 * _POLICY.group_files)
PARTS = 128  # of each large file when the number of files varies: 4 GiB

type Counts = dict[str, float]


class _SegmentPacer:
    """Delays the source until the segment before is recorded, and moves the clock of the transfer by the time that a
    function takes for the segment. Otherwise, the number of requests would depend on the machine.

    The files are transferred one after the other.
    """

    def __init__(self) -> None:
        self._offset = -1  # of the file, -1 until its upload is recorded
        self._seconds = 0.0
        self._recorded = threading.Condition()

    def wait(self, path: str, position: int) -> None:
        """Wait until the upload is recorded, and the segments before `position`. The first part does not wait."""
        due = position // _SEGMENT * _SEGMENT
        with self._recorded:
            if position == 0:
                self._offset = -1
            if position >= _PART and not self._recorded.wait_for(lambda: self._offset >= due, timeout=120):
                raise RuntimeError(f"no segment of {path} was recorded before {due}")

    def observe(self, patch: pytest.MonkeyPatch) -> None:
        for method in (SegmentClaims.record, SegmentClaims.advance):
            patch.setattr(SegmentClaims, method.__name__, self._notify_after(method))
        patch.setattr(mover, "time", SimpleNamespace(monotonic=lambda: self._seconds))

    def _notify_after(self, method: Callable[..., None]) -> Callable[..., None]:
        def call_and_notify(claims: SegmentClaims, *arguments: Any, **options: Any) -> None:
            method(claims, *arguments, **options)
            with self._recorded:
                new = claims.upload.offset - max(self._offset, 0)
                if new >= 0:  # else `_offset` is that of the file before
                    self._offset = claims.upload.offset
                    self._seconds += new * _SCALE / Pace().rate
                    self._recorded.notify_all()

        return call_and_notify


def _build_small(count: int) -> dict[str, bytes]:
    return {f"{number % 100:02}/{number:06}.json": b'{"number": %d}' % number * 20 for number in range(count)}


def _build_shards(count: int, parts: int) -> dict[str, bytes]:
    header = build_header(parts * _PART - len(build_header(parts * _PART)))
    size = parts * _PART - len(header)
    return {f"{n:05}.safetensors": header + random.Random(n).randbytes(size) for n in range(count)}


def _count_hub(files: dict[str, bytes]) -> CountedImport:
    pacer = _SegmentPacer()
    source = InMemoryModelSource({_NAME: {"main": files}}, on_read=pacer.wait)
    settings = partial(StreamSettings, part_size=lambda _: _PART)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moto.s3.models, "S3_UPLOAD_PART_MIN_SIZE", 1)
        patch.setattr(s3_uploads, "_MIN_PART_SIZE", 1)
        pacer.observe(patch)
        return count_import(
            source,
            submit(Source.HUGGINGFACE, _NAME),
            stream_settings=settings,
            policy=TransferPolicy(small_file=_LARGE),
            single_copy_limit=_SINGLE_COPY,
            copy_part_size=_COPY_PART,
        )


def _count_archive(entries: int) -> CountedImport:
    required = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": build_header(1) + b"w"}
    files = {**required, **_build_small(entries - len(required))}
    archive = zip_files({f"model/{path}": content for path, content in files.items()}, zipfile.ZIP_DEFLATED)

    def start(deployment: Deployment) -> str:
        return deployment.drop(archive)

    return count_import(InMemoryModelSource(), start)


@dataclass(frozen=True, slots=True)
class Shape:
    """A series of imports that grow in one dimension. Each size is twice the previous one."""

    title: str
    unit: str
    sizes: tuple[int, int, int]
    run: Callable[[int], CountedImport]


SHAPES = {
    "small files": Shape("Small files (up to 8 MiB)", "file", _SMALL, lambda n: _count_hub(_build_small(n))),
    "parts": Shape("Parts of one large file", "part", (256, 512, 1024), lambda n: _count_hub(_build_shards(1, n))),
    "large files": Shape(
        f"Large files, of {PARTS} parts each", "file", (1, 2, 4), lambda n: _count_hub(_build_shards(n, PARTS))
    ),
    "entries": Shape("Small entries of an archive in S3", "entry", _SMALL, _count_archive),
}


@cache
def run_shape(name: str) -> dict[int, CountedImport]:
    """Return imports by size. Raises RuntimeError unless every import ends DONE."""
    shape = SHAPES[name]
    imports = {size: shape.run(size) for size in shape.sizes}
    for counted in imports.values():
        if counted.task.status is not TaskStatus.DONE:
            raise RuntimeError(f"the import failed: {counted.task.error}")
    return imports


def count_shape(name: str) -> dict[int, Counts]:
    """Return counts by size: requests by `service Operation`, `queue messages`, and DynamoDB `read units` and
    `write units`.
    """
    return {size: _read_counts(counted) for size, counted in run_shape(name).items()}


def _read_counts(counted: CountedImport) -> Counts:
    usage = counted.usage
    return {
        "queue messages": counted.messages.total(),
        **dict(sorted(usage.calls.items())),
        "read units": usage.read_units,
        "write units": usage.write_units,
    }


def find_slope(counts: Mapping[int, Counts], name: str) -> float:
    """Return the increase per unit between the smallest and the largest size."""
    first, *_, last = counts
    return (counts[last].get(name, 0) - counts[first].get(name, 0)) / (last - first)


def find_constant(counts: Mapping[int, Counts], name: str) -> float:
    first = next(iter(counts))
    return counts[first].get(name, 0) - find_slope(counts, name) * first


def list_names(counts: Mapping[int, Counts]) -> list[str]:
    """Return the names of all counts, grouped by service."""
    names = {name for column in counts.values() for name in column}
    order = ("queue messages", "sqs", "dynamodb", "read units", "write units", "s3")
    return sorted(names, key=lambda name: (next(i for i, start in enumerate(order) if name.startswith(start)), name))


def _describe_shape(shape: Shape, counts: Mapping[int, Counts]) -> str:
    rows = [
        f"| {f'DynamoDB {name}' if name.endswith('units') else name} | "
        + " | ".join(f"{column.get(name, 0):,.10g}" for column in counts.values())
        + f" | {find_constant(counts, name):.1f} | {find_slope(counts, name):.3f} |"
        for name in list_names(counts)
    ]
    return f"""\
## {shape.title}

| | {" | ".join(f"{size:,}" for size in counts)} | constant | each further {shape.unit} |
|:---|{"---:|" * (len(counts) + 2)}
{"\n".join(rows)}"""


def describe_counts() -> str:
    """Return the page in Markdown."""
    rate = Pace().rate
    seconds, polls = _SEGMENT * _SCALE / rate, 1 / _SETTINGS.poll
    return f"""\
# Requests, messages and request units of an import

`make pages PAGES=calls` generates this page. `bench/tests/test_pages.py` fails if a code change alters a number,
until the page is generated again. Each column is an import of that size through the complete pipeline and the real
adapters, with moto, and every request is counted in botocore. `constant` and `each further …` are the intercept and the
slope of a straight line through the first and the last column.

- The request units of DynamoDB are computed from the sizes of the items and indexes, by the rules of its documentation,
  because moto does not report them.
- The counts do not include Lambda's own requests to the queues (receive and delete for each message, polling of idle
  queues), or the requests of the API and the sweep.
- Large files are scaled down by a factor of 2,048: parts of 32 MiB become 16 KiB, and all limits are scaled too. The
  number of requests is therefore the same as in a function.
- Each large file is transferred by one function at {rate / 1e6:.0f} MB/s: the source waits until the segment before is
  recorded, and the clock of the transfer advances by {seconds:.1f} s for each segment of {_SETTINGS.buffers} parts. A
  segment costs a write when it is claimed, and a transaction of two writes when it is recorded. The offset is recorded
  at most every {_SETTINGS.progress:g} s.
- Each further function of a shared file costs two messages, about ten requests to DynamoDB when it starts and ends, and
  one read unit for each time that it reads the upload while it waits for the hash state, at most {polls:.0f} times per
  second. When two functions change the upload at the same time, one of them reads and writes it again. The prices in
  [scale.md](scale.md) include these reads and writes.
- The PutObject that uploads the archive is included.
- One function publishes these models. A larger model needs one message more, with about ten requests to DynamoDB, for
  each {_POLICY.copy_files:,} small files or {_POLICY.copy_bytes / 2**30:,.0f} GiB.

{"\n\n".join(_describe_shape(shape, count_shape(name)) for name, shape in SHAPES.items())}
"""
