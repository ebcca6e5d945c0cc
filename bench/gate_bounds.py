"""Memory, time and reads of the inspection of large models, measured in a separate process.

`python -m bench.gate_bounds arrays|pickles|safetensors|torch`. Files are generated while they are read.
"""

import io
import json
import pickle
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import batched
from typing import cast

from bench.servers import PYTHONPATH, ROOT
from bench.usage import Usage, measure
from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.files import FileRecord, SourceFile
from modelhaul.domain.gate import PicklePolicy
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.inspection.file_checks import FileChecker
from modelhaul.inspection.gate import Gate
from modelhaul.ports.object_store import ObjectStore
from modelhaul.transfer.policy import TransferPolicy
from tests.fakes.pickle_scanner import InMemoryPickleScanner
from tests.pickles import build_array, build_state_dict, build_torch_zip
from tests.weights import build_header

LARGE = 100_000_000_000  # bytes


@dataclass(frozen=True)
class Inspection:
    """`reads` and `read_bytes` are the reads from the store."""

    usage: Usage
    verdict: str
    reads: int
    read_bytes: int


@dataclass(frozen=True)
class VirtualFile:
    """A file of `size` bytes: `head`, then zeros, then `tail`."""

    head: bytes
    size: int
    tail: bytes = b""

    def read(self, start: int, end: int) -> bytes:
        tail_start = self.size - len(self.tail)
        data = self.head[start:end]
        position = start + len(data)
        zeros = max(0, min(end, tail_start) - position)
        data += bytes(zeros)
        position += zeros
        return data + self.tail[position - tail_start : end - tail_start] if position < end else data


@dataclass
class VirtualStore:
    files: dict[str, VirtualFile]
    reads: int = 0
    read_bytes: int = 0

    def read(self, key: str, start: int, end: int, *, etag: str | None = None) -> bytes:
        self.reads += 1
        self.read_bytes += end - start
        return self.files[key.partition("/")[2].partition("/")[2]].read(start, end)

    def put(self, key: str, body: bytes, *, sha256: str) -> str:
        return "etag"

    def delete(self, keys: Iterable[str]) -> None:
        pass


def _make_file(content: bytes) -> VirtualFile:
    return VirtualFile(content, len(content))


def make_arrays() -> dict[str, VirtualFile]:
    """Return 15,000 arrays."""
    array = build_array("'<f4'", bytes(8))
    return {f"{number:05}.npy": _make_file(array) for number in range(15_000)}


def make_pickles() -> dict[str, VirtualFile]:
    """Return 1,000 checkpoints, half of which are plain pickles."""
    checkpoint = build_torch_zip(build_state_dict(), **{f"data/{number}": bytes(100_000) for number in range(1, 4)})
    plain = pickle.dumps({number: [str(number), number * 1.5] for number in range(1000)})
    return {f"{number:04}.pt": _make_file(plain if number % 2 else checkpoint) for number in range(1_000)}


def make_safetensors() -> dict[str, VirtualFile]:
    """Return one file of 100 GB."""
    head = build_header(LARGE)
    return {"model.safetensors": VirtualFile(head, len(head) + LARGE)}


def make_torch() -> dict[str, VirtualFile]:
    """Return one torch archive of 100 GB with one storage."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("model/data.pkl", build_state_dict())
        archive.writestr("model/version", b"3\n")
    content = body.getvalue()
    (_, _, _, _, _, size, start, _) = struct.unpack("<4s4H2LH", content[-22:])
    name = b"model/data/0"
    sizes = struct.pack("<HHQQ", 1, 16, LARGE, LARGE)
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 45, 0, 0, 0, 33, 0, 2**32 - 1, 2**32 - 1, len(name), len(sizes))
    head = content[:start] + local + name + sizes
    entry = struct.pack(
        "<4s4B4H3L5H2L",
        b"PK\x01\x02", 45, 3, 45, 0, 0, 0, 0, 33, 0, 2**32 - 1, 2**32 - 1, len(name), len(sizes), 0, 0, 0, 0, start,
    )  # fmt: skip
    directory = content[start : start + size] + entry + name + sizes
    offset = len(head) + LARGE
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 3, 3, len(directory), offset)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, offset + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 3, 3, len(directory), 2**32 - 1, 0)
    tail = directory + end64 + locator + end
    return {"pytorch_model.bin": VirtualFile(head, offset + len(tail), tail)}


MODELS: dict[str, Callable[[], dict[str, VirtualFile]]] = {
    "arrays": make_arrays,
    "pickles": make_pickles,
    "safetensors": make_safetensors,
    "torch": make_torch,
}


def inspect(files: dict[str, VirtualFile]) -> tuple[str, VirtualStore]:
    """Check the files in groups, as transfer_files does, and then the model, as publish_models does."""
    store = VirtualStore(files)
    gate = Gate(cast("ObjectStore", store), PicklePolicy.BLOCK, InMemoryPickleScanner(), time.time)
    session = gate.open_session("task", lambda: 900.0, on_save=lambda: None, resume=False)
    model = ResolvedModel(Source.HUGGINGFACE, "org/model", "main", "0" * 40)
    records = (
        FileRecord("task", SourceFile(path, file.size, Digest(Algorithm.SHA256, "0" * 64)))
        for path, file in sorted(files.items())
    )
    groups = batched(records, TransferPolicy().group_files, strict=False)
    return session.inspect(model, [record for group in groups for record in check_group(group, store)]).verdict, store


def check_group(records: Sequence[FileRecord], store: VirtualStore) -> Iterator[FileRecord]:
    """Return the records with their checks."""
    checker = FileChecker(PicklePolicy.BLOCK, InMemoryPickleScanner())
    found = {r.file.path: checker.check(r.file.path, r.file.size, partial(store.read, r.staging_key)) for r in records}
    checks = checker.add_opinions(found, seconds=60.0)
    return (replace(record, check=checks[record.file.path]) for record in records)


def measure_model(name: str) -> Inspection:
    """Inspect a model in a separate process. Raises CalledProcessError if the process fails."""
    completed = subprocess.run(
        [sys.executable, "-m", "bench.gate_bounds", name],
        cwd=ROOT,
        env={"PYTHONPATH": PYTHONPATH, "PATH": ""},
        stdout=subprocess.PIPE,
        check=True,
    )
    result = json.loads(completed.stdout)
    return Inspection(Usage(**result.pop("usage")), **result)


if __name__ == "__main__":
    files = MODELS[sys.argv[1]]()
    results: list[tuple[str, VirtualStore]] = []
    usage = measure(lambda: results.append(inspect(files)))
    verdict, store = results[0]
    print(
        json.dumps({"usage": asdict(usage), "verdict": verdict, "reads": store.reads, "read_bytes": store.read_bytes})
    )
