"""Memory usage of the inspection of one file, in a process that loads the same AWS clients as the functions.

`python -m bench.gate_memory FILE PATH` inspects FILE as the file at PATH of a model.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import cast

from bench.servers import PYTHONPATH, ROOT
from bench.usage import Usage, measure
from modelhaul import wiring
from modelhaul.adapters import dynamodb, s3, sqs
from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.errors import PermanentError
from modelhaul.domain.files import FileRecord, SourceFile
from modelhaul.domain.gate import PicklePolicy
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.inspection.file_checks import FileChecker
from modelhaul.inspection.gate import Gate
from modelhaul.ports.object_store import ObjectStore
from tests.fakes.pickle_scanner import InMemoryPickleScanner

LOADED = (wiring, dynamodb, s3, sqs)


@dataclass(frozen=True)
class Inspection:
    """`refused` is the error detail of the gate if it rejected the file."""

    usage: Usage
    refused: str | None


@dataclass(frozen=True)
class _FileStore:
    file: int

    def read(self, key: str, start: int, end: int, *, etag: str | None = None) -> bytes:
        return os.pread(self.file, end - start, start)


def measure_gate(file: Path, path: str) -> Inspection:
    """Inspect a file in a separate process. Raises CalledProcessError if the process fails."""
    completed = subprocess.run(
        [sys.executable, "-m", "bench.gate_memory", str(file), path],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        stdout=subprocess.PIPE,
        check=True,
    )
    result = json.loads(completed.stdout)
    return Inspection(Usage(**result["usage"]), result["refused"])


def inspect(file: Path, path: str) -> str | None:
    """Inspect a model with only this file. Returns the error detail of the gate, or None if the file passes."""
    store = _FileStore(os.open(file, os.O_RDONLY))
    gate = Gate(cast("ObjectStore", store), PicklePolicy.BLOCK, InMemoryPickleScanner(), time.time)
    size = file.stat().st_size
    source_file = SourceFile(path, size, Digest(Algorithm.SHA256, "0" * 64))
    model = ResolvedModel(Source.HUGGINGFACE, "org/model", "main", "0" * 40)
    check = FileChecker(gate.policy, gate.scanner).check(path, size, partial(store.read, path))
    try:
        session = gate.open_session("task", lambda: 900.0, on_save=lambda: None, resume=False)
        session.inspect(model, [FileRecord("task", source_file, check=check)])
    except PermanentError as error:
        return error.detail
    return None


if __name__ == "__main__":
    results: list[str | None] = []
    usage = measure(lambda: results.append(inspect(Path(sys.argv[1]), sys.argv[2])))
    print(json.dumps({"usage": asdict(usage), "refused": results[0]}))
