"""Brings a model's files here: verified, several at once, each visible only when it is whole."""

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
from modelhaul_cli.errors import NotFoundError, UnavailableError, UsageError
from modelhaul_cli.http_session import translate_network_errors
from modelhaul_cli.output import Screen
from modelhaul_cli.parallel import run_parallel
from modelhaul_cli.progress import ByteCounter, open_display
from modelhaul_cli.retrying import open_attempts
from modelhaul_cli.store import CHUNK, ObjectStore, StoppedReadingError


@dataclass(frozen=True, slots=True)
class ModelFile:
    """As the manifest has it; `sha256` in hexadecimal."""

    path: str
    size: int
    sha256: str


def read_manifest(api: ApiClient, model_id: str, say: Callable[[str], None]) -> tuple[Json, Json]:
    """A model's record, without the manifest, and its manifest, wherever that has to come from."""
    record = api.read_model(model_id)
    manifest = record.pop("manifest", None)
    if manifest is None and record.get("manifest_url"):
        for attempt in open_attempts(say):
            with attempt:
                manifest = ObjectStore().read_json(record["manifest_url"])
    if not isinstance(manifest, dict):
        raise NotFoundError("The model has no manifest", f"{model_id} is {str(record.get('status', '')).lower()}.")
    return record, manifest


def select_files(manifest: Json, patterns: Sequence[str]) -> list[ModelFile]:
    """Those that are named, or match a pattern (`*` also matches `/`, as with --allow); all without patterns.

    Raises NotFoundError if one matches nothing, UsageError for a path that leads elsewhere.
    """
    files = [ModelFile(f["path"], f["size"], f["sha256"]) for f in manifest["files"]]
    for file in files:
        parts = PurePosixPath(file.path).parts
        if not parts or ".." in parts or parts[0] == "/" or "\\" in file.path or ":" in parts[0]:
            raise UsageError("The model has a file with an unsafe path", f"{file.path!r} is not written anywhere.")
    for pattern in patterns:
        if not any(_matches(file.path, pattern) for file in files):
            raise NotFoundError("The model has no such file", f"Nothing in it is called or matches {pattern!r}.")
    return [f for f in files if not patterns or any(_matches(f.path, pattern) for pattern in patterns)]


def _matches(path: str, pattern: str) -> bool:
    return path == pattern or fnmatchcase(path, pattern)


@dataclass(frozen=True, slots=True)
class Downloader:
    api: ApiClient
    store: ObjectStore
    screen: Screen
    workers: int

    def download(self, model_id: str, files: Sequence[ModelFile], folder: Path) -> dict[str, Any]:
        """How many files and bytes came (`fetched`, `bytes`), and how many were here already (`kept`).

        Raises CommandError; what is whole by then stays, what is not goes on at the next run.
        """
        folder.mkdir(parents=True, exist_ok=True)
        counter = ByteCounter(sum(file.size for file in files))
        came: list[ModelFile] = []
        checked = 0
        with open_display(self.screen) as display:

            def fetch(file: ModelFile, stopped: threading.Event) -> ModelFile | None:
                return file if self._fetch(model_id, file, folder, counter, stopped) else None

            def show() -> None:
                display.update(counter.read_position("downloading", f"{checked}/{len(files)} files"))

            with contextlib.closing(run_parallel(files, fetch, workers=self.workers, tick=show)) as results:
                for file in results:
                    checked += 1
                    came += [file] if file is not None else []
            show()
        return {"fetched": len(came), "kept": len(files) - len(came), "bytes": sum(file.size for file in came)}

    def _fetch(
        self, model_id: str, file: ModelFile, folder: Path, counter: ByteCounter, stopped: threading.Event
    ) -> bool:
        """False if it is here already."""
        target = folder / file.path
        if not target.parent.resolve().is_relative_to(folder.resolve()):
            raise UsageError("A link leads out of the folder", f"{target} would lie outside {folder}.")
        if is_whole(target, file):
            counter.add(file.size)
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        path = target.with_name(name_partial(target.name, file.sha256))
        for attempt in open_attempts(self.screen.say):
            with attempt, PartialFile(path, counter, stopped) as partial:
                self._complete(model_id, file, partial)
        path.replace(target)
        return True

    def _complete(self, model_id: str, file: ModelFile, partial: "PartialFile") -> None:
        """Adds what the partial file lacks, and verifies the whole."""
        if partial.size > file.size:
            partial.restart()
        if partial.size < file.size:
            url = self.api.locate_file(model_id, file.path)
            with self.store.open(url, partial.size) as answer, translate_network_errors("The store"):
                if answer.status_code != HTTPStatus.PARTIAL_CONTENT:
                    partial.restart()
                for chunk in answer.raw.stream(CHUNK, decode_content=False):
                    partial.add(chunk)
        if partial.size < file.size:
            raise UnavailableError("The store cannot be reached", f"It ended {file.path} early.")
        if partial.sha256 != file.sha256:
            partial.restart()
            raise UnavailableError("A file is not what the manifest says", f"The sha256 of {file.path} differs.")


def name_partial(name: str, sha256: str) -> str:
    """The name of the partial file for this content under this name: at most 102 bytes, of the 255 that most file
    systems allow. What is left of another content, or of a file of equal content, has another name.
    """
    digest = hashlib.sha256(f"{name}\n{sha256}".encode()).hexdigest()
    return f".{name.encode()[:60].decode(errors='ignore')}.{digest[:32]}.partial"


class PartialFile:
    """A file that grows, with its digest; what lies at `path` is gone on with. If it is left by an error, its bytes
    are taken out of the counter again.
    """

    def __init__(self, path: Path, counter: ByteCounter, stopped: threading.Event) -> None:
        self.size = 0
        self._counter = counter
        self._stopped = stopped
        self._digest = hashlib.sha256()
        self._file = path.open("ab+")
        self._file.seek(0)

    def __enter__(self) -> Self:
        while chunk := self._file.read(CHUNK):
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
            raise StoppedReadingError
        self._digest.update(chunk)
        self._counter.add(len(chunk))
        self.size += len(chunk)


def is_whole(path: Path, file: ModelFile) -> bool:
    """Whether the file is at `path` already."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
