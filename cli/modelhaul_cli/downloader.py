"""Download the files of a model concurrently. A file gets its name only when it is complete and verified."""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any, Self

from modelhaul_cli.client import ApiClient, Json
from modelhaul_cli.concurrency import run_concurrently
from modelhaul_cli.errors import NotFoundError, UnavailableError, UsageError
from modelhaul_cli.http_session import translate_network_errors
from modelhaul_cli.output import Screen
from modelhaul_cli.progress import ByteCounter, open_display
from modelhaul_cli.retries import Outage, iterate_attempts
from modelhaul_cli.store import CHUNK_SIZE, ObjectStore, TransferCancelledError


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of the manifest. `sha256` is hexadecimal."""

    path: str
    size: int
    sha256: str


def read_manifest(api: ApiClient, model_id: str, report: Callable[[str], None]) -> tuple[Json, Json]:
    """Return the record of a model, without the manifest, and the manifest, which is downloaded if the record only has
    its URL.
    """
    record = api.read_model(model_id)
    manifest = record.pop("manifest", None)
    if manifest is None and record.get("manifest_url"):
        for attempt in iterate_attempts(report):
            with attempt:
                manifest = ObjectStore().read_json(record["manifest_url"])
    if not isinstance(manifest, dict):
        raise NotFoundError(
            "The model has no manifest",
            f"The status of {model_id} is {record.get('status')}.",
            remedy="Only READY models can be shown and downloaded. Run `modelhaul ls` to list them.",
        )
    return record, manifest


def select_files(manifest: Json, patterns: Sequence[str]) -> list[ModelFile]:
    """Return the files whose path equals or matches a pattern, or all files without patterns. As with --allow, `*` also
    matches `/`.

    Raises NotFoundError if a pattern matches no file, UsageError if a path leads outside the destination.
    """
    files = [ModelFile(f["path"], f["size"], f["sha256"]) for f in manifest["files"]]
    for file in files:
        parts = PurePosixPath(file.path).parts
        if not parts or ".." in parts or parts[0] == "/" or "\\" in file.path or ":" in parts[0]:
            raise UsageError("Unsafe file path in the manifest", f"{file.path!r} was rejected. Nothing was downloaded.")
    for pattern in patterns:
        if not any(_matches(file.path, pattern) for file in files):
            raise NotFoundError(
                "File not found in the model",
                f"No file matches {pattern!r}.",
                remedy="Run `modelhaul show MODEL_ID` to list the files.",
            )
    return [f for f in files if not patterns or any(_matches(f.path, pattern) for pattern in patterns)]


def _matches(path: str, pattern: str) -> bool:
    return path == pattern or fnmatchcase(path, pattern)


@dataclass(frozen=True, slots=True)
class Downloader:
    api: ApiClient
    store: ObjectStore
    screen: Screen
    concurrency: int

    def download(self, model_id: str, files: Sequence[ModelFile], folder: Path) -> dict[str, Any]:
        """Download files. Returns the number of downloaded files (`fetched`) and bytes (`bytes`), and of files that
        were already up to date (`kept`).

        Raises CommandError. Complete files are kept, and the next run resumes partial files.
        """
        folder.mkdir(parents=True, exist_ok=True)
        counter = ByteCounter(sum(file.size for file in files))
        fetched: list[ModelFile] = []
        completed = 0
        with open_display(self.screen) as display:

            def fetch(file: ModelFile, stopped: threading.Event) -> ModelFile | None:
                return file if self._fetch(model_id, file, folder, counter, stopped) else None

            def show() -> None:
                display.update(counter.read_state("downloading", f"{completed}/{len(files)} files"))

            with contextlib.closing(
                run_concurrently(files, fetch, concurrency=self.concurrency, on_poll=show)
            ) as results:
                for file in results:
                    completed += 1
                    fetched += [file] if file is not None else []
            show()
        return {"fetched": len(fetched), "kept": len(files) - len(fetched), "bytes": sum(file.size for file in fetched)}

    def _fetch(
        self, model_id: str, file: ModelFile, folder: Path, counter: ByteCounter, stopped: threading.Event
    ) -> bool:
        """Download a file. Returns False if it is already up to date."""
        target = folder / file.path
        if not target.parent.resolve().is_relative_to(folder.resolve()):
            raise UsageError("Symbolic link leads outside the destination", f"{target} is not inside {folder}.")
        if is_complete(target, file):
            counter.add(file.size)
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        path = target.with_name(build_partial_name(target.name, file.sha256))
        outage = Outage()
        for attempt in iterate_attempts(self.screen.print_status, outage=outage):
            with attempt, PartialFile(path, counter, stopped) as partial:
                self._complete(model_id, file, partial, outage)
        path.replace(target)
        return True

    def _complete(self, model_id: str, file: ModelFile, partial: "PartialFile", outage: Outage) -> None:
        """Download the missing bytes of the partial file, then verify the complete content."""
        outage.note_activity()  # reading the partial file may have taken minutes
        if partial.size > file.size:
            partial.restart()
        if partial.size < file.size:
            url = self.api.find_file_url(model_id, file.path)
            with self.store.open(url, partial.size) as response, translate_network_errors("S3"):
                if response.status_code != HTTPStatus.PARTIAL_CONTENT:
                    partial.restart()
                for chunk in response.raw.stream(CHUNK_SIZE, decode_content=False):
                    partial.add(chunk)
                    outage.note_response()
        if partial.size < file.size:
            raise UnavailableError(
                "Incomplete download", f"The download of {file.path} ended after {partial.size} of {file.size} bytes."
            )
        if partial.sha256 != file.sha256:
            partial.restart()
            raise UnavailableError("Checksum mismatch", f"The SHA-256 of {file.path} does not match the manifest.")


def build_partial_name(name: str, sha256: str) -> str:
    """Return the name of the partial file for a file name and content. It is unique for each name and content.

    It has at most 102 bytes; most file systems allow 255.
    """
    digest = hashlib.sha256(f"{name}\n{sha256}".encode()).hexdigest()
    return f".{name.encode()[:60].decode(errors='ignore')}.{digest[:32]}.partial"


class PartialFile:
    """An append-only file and its digest. Existing content at `path` is kept and extended. If the context exits with an
    error, its bytes are subtracted from the counter.
    """

    def __init__(self, path: Path, counter: ByteCounter, stopped: threading.Event) -> None:
        self.size = 0
        self._counter = counter
        self._stopped = stopped
        self._digest = hashlib.sha256()
        self._file = path.open("ab+")
        self._file.seek(0)

    def __enter__(self) -> Self:
        while chunk := self._file.read(CHUNK_SIZE):
            self._count(chunk)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._file.close()
        if error is not None:
            self._counter.add(-self.size)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def add(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._count(chunk)

    def restart(self) -> None:
        self._file.truncate(0)
        self._digest = hashlib.sha256()
        self._counter.add(-self.size)
        self.size = 0

    def _count(self, chunk: bytes) -> None:
        if self._stopped.is_set():
            raise TransferCancelledError
        self._digest.update(chunk)
        self._counter.add(len(chunk))
        self.size += len(chunk)


def is_complete(path: Path, file: ModelFile) -> bool:
    """Return whether `path` already has the complete, unmodified content of the file."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
