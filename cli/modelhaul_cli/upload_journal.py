"""What of an archive's upload is done: kept on disk, so that another run goes on where one was cut off.

A file of lines: the API's answer that says where the bytes go, then the ETag of each part that arrived. Lines are only
added, so that a crash costs at most the last.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
from platformdirs import user_state_path

from modelhaul_cli.errors import ConflictError

# Addresses hold for twelve hours.
_KEPT_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Archive:
    """A file as it was found: one that changed since is another one."""

    path: Path
    size: int
    modified: int
    """Nanoseconds."""
    model_name: str | None

    @classmethod
    def find(cls, path: Path, model_name: str | None) -> "Archive":
        status = path.stat()
        return cls(path.resolve(), status.st_size, status.st_mtime_ns, model_name)

    def has_changed(self) -> bool:
        return Archive.find(self.path, self.model_name) != self


class UploadJournal:
    """`ticket` is the API's answer, None before there is one; `etags` those of the parts that arrived."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.ticket: dict[str, Any] | None = None
        self.etags: dict[int, str] = {}
        with contextlib.suppress(FileNotFoundError):
            self._read(path.read_text())

    @property
    def task_id(self) -> str:
        return str(self._ticket["task_id"])

    @property
    def upload(self) -> dict[str, Any]:
        upload: dict[str, Any] = self._ticket["upload"]
        return upload

    @property
    def expires_at(self) -> datetime:
        return datetime.fromisoformat(self._ticket["expires_at"]).astimezone(UTC)

    def begin(self, ticket: dict[str, Any]) -> None:
        """Replaces what was there before."""
        self.ticket, self.etags = ticket, {}
        self._path.unlink(missing_ok=True)
        self._append({"ticket": ticket})

    def add_part(self, number: int, etag: str) -> None:
        self.etags[number] = etag
        self._append({"number": number, "etag": etag})

    def discard(self) -> None:
        self.ticket, self.etags = None, {}
        self._path.unlink(missing_ok=True)

    @property
    def _ticket(self) -> dict[str, Any]:
        if self.ticket is None:
            raise RuntimeError("the upload has not begun")
        return self.ticket

    def _read(self, text: str) -> None:
        for line in text.splitlines(keepends=True):
            try:
                entry = json.loads(line) if line.endswith("\n") else {}
            except ValueError:
                entry = {}
            if "ticket" in entry:
                self.ticket = entry["ticket"]
            elif "number" in entry:
                self.etags[int(entry["number"])] = str(entry["etag"])

    def _append(self, entry: dict[str, Any]) -> None:
        # The addresses in it let their reader write: for nobody else.
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(b"\n" if self._is_torn() else b"")
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _is_torn(self) -> bool:
        """Whether the last line is without its end."""
        with self._path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"


@contextlib.contextmanager
def open_journal(api_url: str, archive: Archive) -> Iterator[UploadJournal]:
    """The journal of this archive's upload to this API, for this process alone. Raises ConflictError."""
    folder = user_state_path("modelhaul") / "uploads"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_old(folder)
    identity = [api_url, os.fsencode(archive.path).hex(), archive.size, archive.modified, archive.model_name]
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    lock = filelock.FileLock(folder / f"{name}.lock", timeout=0)
    try:
        with lock:
            yield UploadJournal(folder / f"{name}.jsonl")
    except filelock.Timeout:
        raise ConflictError("This file is being sent already", f"Another modelhaul sends {archive.path}.") from None


def _remove_old(folder: Path) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                path.unlink()
