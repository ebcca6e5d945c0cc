"""Transfer one file as transfer_files does, in a separate process, and print the usage as JSON.

python -m bench.measured_transfer OPTIONS, where OPTIONS is JSON: commit, sha256, size, settings (overrides of
StreamSettings; part_size is a number). The environment is that of the function, as `modelhaul.wiring` reads it.
"""

import json
import math
import os
import sys
from dataclasses import replace

import requests

# Loaded by the function as well: it is part of the memory of the process.
import modelhaul.entrypoints.workers  # noqa: F401
from bench.servers import NAME, PATH
from bench.usage import measure_on_signal
from modelhaul import wiring
from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.files import Checkpoint, SourceFile
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.ports.multipart_uploads import MultipartUploads
from modelhaul.ports.object_store import ObjectStore
from modelhaul.transfer.engine import FileTransfer, Moved
from modelhaul.transfer.settings import StreamSettings


class _NoLease:
    """Implements `Lease` without a database."""

    def confirm(self) -> None:
        return

    def renew(self, *, busy: float = 0.0) -> None:
        return

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        return

    def discard_checkpoint(self) -> None:
        return


def transfer_file(
    file: SourceFile, commit: str, settings: StreamSettings, uploads: MultipartUploads, store: ObjectStore
) -> None:
    """Transfer a file. Raises AssertionError unless it was stored completely and its digest verified."""
    source = wiring.open_hub()
    model = ResolvedModel(Source.HUGGINGFACE, NAME, "main", commit)
    key = f"staging/task/{file.path}"
    outcome = FileTransfer(
        file=file,
        key=key,
        open_range=lambda start, end: source.open_range(model, file, start, end),
        uploads=uploads,
        lease=_NoLease(),
        remaining=lambda: math.inf,
        settings=settings,
    ).run()
    assert isinstance(outcome, Moved), outcome
    assert outcome.sha256 == file.digest.value
    assert store.find_object(key) == (file.size, f"{0:032x}")


def main() -> None:
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        # The client of the sources ignores certificates of the environment.
        requests.adapters.DEFAULT_CA_BUNDLE_PATH = bundle
    options = json.loads(sys.argv[1])
    file = SourceFile(PATH, options["size"], Digest(Algorithm.SHA256, options["sha256"]))
    transferrer = wiring.create_transferrer()
    wiring.create_runner()
    overrides = options["settings"]
    if "part_size" in overrides:
        part_size = overrides["part_size"]
        overrides["part_size"] = lambda _: part_size
    settings = replace(transferrer.settings, **overrides)
    measure_on_signal(lambda: transfer_file(file, options["commit"], settings, transferrer.uploads, transferrer.store))


if __name__ == "__main__":
    main()
