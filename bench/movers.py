"""Processes that transfer one file, measured."""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bench.loopback import BUILT, COMMIT, Loopback, build_program, make_certificates
from bench.processor_share import limit_processor
from bench.servers import NAME, PATH, PYTHONPATH
from bench.usage import Usage

MODELHAUL = "Modelhaul"
FLOOR = "C: read, sha256, write"
NAIVE = "requests → upload_fileobj"
VERIFIED = "requests → sha256 → upload_fileobj"
DISK = "snapshot_download, upload_file"
_PLAIN_WAYS = {NAIVE: "unverified", VERIFIED: "verified", DISK: "disk"}


@dataclass(slots=True)
class Mover:
    """A process that has loaded its modules and waits for the start signal."""

    process: subprocess.Popen[str]
    folder: Path
    errors: IO[str]

    def signal_start(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> Usage:
        """Return the usage. Raises RuntimeError with the output of the process if the transfer failed."""
        assert self.process.stdout is not None
        printed = self.process.stdout.read()
        if self.process.wait():
            self.errors.seek(0)
            raise RuntimeError(f"the transfer failed:\n{self.errors.read()}")
        return Usage(**json.loads(printed))

    def list_files(self) -> list[str]:
        """Return the files in its temporary, home and current folder, which is one folder and was empty."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))


@contextmanager
def start_mover(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Mover]:
    BUILT.mkdir(parents=True, exist_ok=True)
    with (
        # On a disk: /tmp may be in memory.
        tempfile.TemporaryDirectory(dir=BUILT) as folder,
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command,
            env={**environment, "HOME": folder, "TMPDIR": folder},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        mover = Mover(process, Path(folder), errors)
        assert process.stdout is not None
        try:
            if process.stdout.readline() != "ready\n":
                mover.finish()
            yield mover
        finally:
            process.kill()


@contextmanager
def start_way(
    way: str,
    size: int,
    sha256: str,
    source: Loopback,
    store: Loopback,
    settings: Mapping[str, int] | None = None,
    shared: Mapping[str, int] | None = None,
) -> Iterator[Mover]:
    """Start a transfer from `source` to `store` by one of the methods above. `settings` override StreamSettings.
    `shared`: the options of bench.measured_transfer for one of several processes.

    Raises ProgramMissingError.
    """
    authority = str(make_certificates()[0])
    if way == FLOOR:
        path = f"/{NAME}/resolve/{COMMIT}/{PATH}"
        program = str(build_program("floor"))
        command = [program, authority, str(source.port), path, str(store.port), str(size), sha256]
    elif way == MODELHAUL:
        command = build_modelhaul_command(COMMIT, sha256, size, settings or {}, shared or {})
    else:
        arguments = [_PLAIN_WAYS[way], source.url, COMMIT]
        command = [sys.executable, "-m", "bench.plain_transfers", *arguments]
    environment = build_environment(source.url, store.url)
    environment |= dict.fromkeys(("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), authority)
    with start_mover(command, environment) as mover:
        yield mover


def move(mover: Mover, *, share: float | None = None) -> Usage:
    """Run the transfer and return its usage. `share` limits the process to this share of one processor."""
    stop = threading.Event()
    limiter = threading.Thread(target=limit_processor, args=(mover.process, share or 1, stop))
    if share is not None:
        limiter.start()
    try:
        mover.signal_start()
        return mover.finish()
    finally:
        stop.set()
        if share is not None:
            limiter.join()


def build_modelhaul_command(
    commit: str, sha256: str, size: int, settings: Mapping[str, int], shared: Mapping[str, int]
) -> list[str]:
    options = {**shared, "commit": commit, "sha256": sha256, "size": size, "settings": settings}
    return [sys.executable, "-m", "bench.measured_transfer", json.dumps(options)]


def build_environment(hub: str, store: str) -> dict[str, str]:
    """Return the environment of a function, as `modelhaul.wiring` reads it."""
    return {
        "PYTHONPATH": PYTHONPATH,
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL": store,
        "TASKS_TABLE": "tasks",
        "MODELS_TABLE": "models",
        "FILES_TABLE": "files",
        "CONTENT_TABLE": "content",
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
