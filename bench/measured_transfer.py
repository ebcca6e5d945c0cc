"""Transfer one file as transfer_files does, in a separate process, and print the usage as JSON.

python -m bench.measured_transfer OPTIONS, where OPTIONS is JSON: commit, sha256, size, settings (overrides of
StreamSettings; part_size is a number), and for a file that several processes transfer: segments (the port of
`serve_segments`), leads (whether this process leads the transfer). The environment is that of the function, as
`modelhaul.wiring` reads it.
"""

import json
import math
import os
import sys
import time
import uuid
from dataclasses import replace

import requests

# Loaded by the function as well: it is part of the memory of the process.
import modelhaul.entrypoints.workers  # noqa: F401
from bench.servers import NAME, PATH
from bench.shared_segments import connect_segments
from bench.usage import measure_on_signal
from modelhaul import wiring
from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.files import SourceFile
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.segments import UploadKey
from modelhaul.ports.segments import SegmentRepository
from modelhaul.transfer.engine import FileTransfer, Left, Moved
from modelhaul.transfer.segments import SegmentClaims
from modelhaul.transfer.settings import StreamSettings
from tests.fakes.segments import InMemorySegmentRepository
from tests.fakes.tables import InMemoryTables


class _NoLease:
    """Implements `Lease` without a database."""

    def confirm(self) -> None:
        return

    def renew(self, *, busy: float = 0.0) -> None:
        return

    def record_offset(self, offset: int) -> None:
        return


def transfer_file(
    file: SourceFile, commit: str, settings: StreamSettings, segments: SegmentRepository, *, leads: bool
) -> None:
    """Transfer a file, or join its transfer. Raises AssertionError unless it was stored completely and its digest
    verified.
    """
    source, uploads = wiring.open_hub(), wiring.create_uploads()
    model = ResolvedModel(Source.HUGGINGFACE, NAME, "main", commit)
    key = f"staging/task/{file.path}"
    outcome = FileTransfer(
        file=file,
        key=key,
        open_range=lambda start, end: source.open_range(model, file, start, end),
        uploads=uploads,
        claims=SegmentClaims(
            repository=segments, key=UploadKey("task#plan", 0, 0), owner=str(uuid.uuid4()), clock=time.time
        ),
        lease=_NoLease() if leads else None,
        remaining=lambda: math.inf,
        settings=settings,
    ).run()
    if not leads:
        assert isinstance(outcome, Left), outcome
        return
    assert isinstance(outcome, Moved), outcome
    assert outcome.sha256 == file.digest.value
    assert wiring.create_store().find_object(key) == (file.size, f"{0:032x}")


def main() -> None:
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        # The client of the sources ignores certificates of the environment.
        requests.adapters.DEFAULT_CA_BUNDLE_PATH = bundle
    options = json.loads(sys.argv[1])
    file = SourceFile(PATH, options["size"], Digest(Algorithm.SHA256, options["sha256"]))
    wiring.create_uploads()
    overrides = options["settings"]
    if "part_size" in overrides:
        part_size = overrides["part_size"]
        overrides["part_size"] = lambda _: part_size
    settings = replace(StreamSettings(), **overrides)
    port = options.get("segments")
    segments = connect_segments(port) if port is not None else InMemorySegmentRepository(InMemoryTables())
    leads = options.get("leads", True)
    measure_on_signal(lambda: transfer_file(file, options["commit"], settings, segments, leads=leads))


if __name__ == "__main__":
    main()
