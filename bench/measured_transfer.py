"""Moves one file as transfer_files does, in a process that does nothing else, and prints what that took.

python -m bench.measured_transfer ORDER, where ORDER is JSON: commit, sha256, size, settings
(of StreamSettings, those that are not the engine's own; part_size is a number).
The environment is the function's, as `modelhaul.wiring` reads it.
"""

import json
import math
import os
import sys
from dataclasses import replace

import requests

# What the function loads besides: it is part of the process's memory.
import modelhaul.entrypoints.workers  # noqa: F401
from bench.servers import NAME, PATH
from bench.usage import measure_when_told
from modelhaul import wiring
from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.files import SourceFile
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.ports.object_store import ObjectStore
from modelhaul.transfer.engine import FileStream, Moved, StreamSettings


def move_file(file: SourceFile, commit: str, settings: StreamSettings, store: ObjectStore) -> None:
    """Raises AssertionError unless the whole file was stored and its digest verified."""
    source = wiring.open_hub()
    model = ResolvedModel(Source.HUGGINGFACE, NAME, "main", commit)
    key = f"staging/task/{file.path}"
    outcome = FileStream(
        file=file,
        key=key,
        open_range=lambda start, end: source.open_range(model, file, start, end),
        store=store,
        save=lambda checkpoint: None,
        beat=lambda: None,
        remaining=lambda: math.inf,
        settings=settings,
    ).run()
    assert isinstance(outcome, Moved), outcome
    assert outcome.sha256 == file.digest.value
    assert store.find_object(key) == (file.size, f"{0:032x}")


def main() -> None:
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        # The sources' client takes no certificates from the environment.
        requests.adapters.DEFAULT_CA_BUNDLE_PATH = bundle
    order = json.loads(sys.argv[1])
    file = SourceFile(PATH, order["size"], Digest(Algorithm.SHA256, order["sha256"]))
    transferrer = wiring.create_transferrer()
    wiring.create_runner()
    changed = order["settings"]
    if "part_size" in changed:
        part_size = changed["part_size"]
        changed["part_size"] = lambda _: part_size
    settings = replace(transferrer.settings, **changed)
    measure_when_told(lambda: move_file(file, order["commit"], settings, transferrer.store))


if __name__ == "__main__":
    main()
