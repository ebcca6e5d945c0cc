"""Journal of an archive upload, kept on disk so that a later run can resume an interrupted upload.

A JSON Lines file: first the API response with the presigned URLs, then the ETag of each uploaded part, and a response
with new URLs whenever they have expired. Lines are only appended, so that a crash can damage only the last line.
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

# A task waits three days for its upload.
_RETENTION = 4 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Archive:
    """A ZIP file at a point in time. A changed file is a different archive."""

    path: Path
    size: int
    modified: int
    """Nanoseconds."""
    model_name: str | None

    @classmethod
    def from_path(cls, path: Path, model_name: str | None) -> "Archive":
        status = path.stat()
        return cls(path.resolve(), status.st_size, status.st_mtime_ns, model_name)

    def has_changed(self) -> bool:
        return Archive.from_path(self.path, self.model_name) != self


class UploadJournal:
    """`ticket` is the API response that opened the upload, or None. `etags` maps uploaded parts to ETags."""

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

    @property
    def upload_until(self) -> datetime:
        """Until when the task waits for the upload. Earlier versions of the API do not say it."""
        until = self._ticket.get("upload_until") or self._ticket["expires_at"]
        return datetime.fromisoformat(until).astimezone(UTC)

    @property
    def missing(self) -> list[int]:
        """The numbers of the parts that are not uploaded; of a single PUT, 1."""
        parts = self.upload.get("parts", [{"number": 1}])
        return [part["number"] for part in parts if part["number"] not in self.etags]

    def start(self, ticket: dict[str, Any]) -> None:
        """Start a new upload. Replaces the previous content of the journal."""
        self.ticket, self.etags = ticket, {}
        self._path.unlink(missing_ok=True)
        self._append({"ticket": ticket})

    def renew(self, ticket: dict[str, Any]) -> None:
        """Replace the URLs by those of `ticket`. Parts that it does not have keep theirs, which are not needed."""
        upload = ticket["upload"]
        if "parts" in upload:
            renewed = {part["number"]: part for part in upload["parts"]}
            upload = {**upload, "parts": [renewed.get(part["number"], part) for part in self.upload["parts"]]}
        self.ticket = {**ticket, "upload": upload}
        self._append({"ticket": self.ticket})

    def add_part(self, number: int, etag: str) -> None:
        self.etags[number] = etag
        self._append({"number": number, "etag": etag})

    def discard(self) -> None:
        self.ticket, self.etags = None, {}
        self._path.unlink(missing_ok=True)

    @property
    def _ticket(self) -> dict[str, Any]:
        if self.ticket is None:
            raise RuntimeError("the upload has not started")
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
        # Anyone who can read the presigned URLs can upload with them: only the owner may read the file.
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(b"\n" if self._ends_mid_line() else b"")
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _ends_mid_line(self) -> bool:
        """Return whether the last line has no line break."""
        with self._path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"


@contextlib.contextmanager
def open_journal(api_url: str, archive: Archive) -> Iterator[UploadJournal]:
    """Open the journal of this archive's upload to this API. Raises ConflictError if another process has it open."""
    folder = user_state_path("modelhaul") / "uploads"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_expired(folder)
    identity = [api_url, os.fsencode(archive.path).hex(), archive.size, archive.modified, archive.model_name]
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    lock = filelock.FileLock(folder / f"{name}.lock", timeout=0)
    try:
        with lock:
            yield UploadJournal(folder / f"{name}.jsonl")
    except filelock.Timeout:
        raise ConflictError(
            "Upload already in progress",
            f"Another modelhaul process is uploading {archive.path}.",
            remedy="Wait until that process ends, or stop it.",
        ) from None


def _remove_expired(folder: Path) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _RETENTION:
                path.unlink()
