"""Verified files in staging, and the checks of their content."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from modelhaul.domain.errors import ModelhaulError, ObjectGoneError, RetriesExhaustedError
from modelhaul.domain.files import FileRecord
from modelhaul.domain.gate import FileCheck
from modelhaul.domain.json_streams import ReadRange
from modelhaul.domain.models import ModelRoots
from modelhaul.ports.content_checks import ContentChecker
from modelhaul.ports.object_store import ObjectStore


@dataclass(frozen=True, slots=True)
class StagedFileChecks:
    """Checks files of a task by the content that was verified. Each model has its own checker."""

    create_checker: Callable[[], ContentChecker]
    store: ObjectStore
    models: ModelRoots
    _checkers: dict[str, ContentChecker] = field(default_factory=dict)

    def check(self, record: FileRecord, content: memoryview | None = None) -> FileRecord:
        """Return the record with the result of the check. `content`: the whole file, if it is in memory.

        Raises RetriesExhaustedError if the file is no longer in staging.
        """
        read = read_staged(self.store, record) if content is None else _read_memory(content)
        root = self._find_root(record)
        checker = self._checkers.get(root) or self._checkers.setdefault(root, self.create_checker())
        return replace(record, check=checker.check(record.file.path.removeprefix(root), record.file.size, read))

    def add_opinions(self, records: Sequence[FileRecord], *, seconds: float) -> list[FileRecord]:
        """Return the checked records with the second scanner's opinions. The scan takes about `seconds` at most."""
        completed: dict[str, FileCheck] = {}
        started, left = time.monotonic(), seconds
        for root, checker in self._checkers.items():
            own = [r for r in records if r.check is not None and self._find_root(r) == root]
            checks = {r.file.path.removeprefix(root): r.check for r in own if r.check is not None}
            found = checker.add_opinions(checks, seconds=left)
            left = seconds - (time.monotonic() - started)
            completed |= {root + path: check for path, check in found.items()}
        return [replace(record, check=completed.get(record.file.path, record.check)) for record in records]

    def _find_root(self, record: FileRecord) -> str:
        return self.models.find_owner(record.file.path).resolved.root


def _read_memory(content: memoryview) -> ReadRange:
    return lambda start, end: bytes(content[start:end])


def read_staged(store: ObjectStore, record: FileRecord) -> ReadRange:
    """Return a function that reads bytes of the file in staging, from `start` to `end` (excluded).

    It raises RetriesExhaustedError if the file is no longer there, or was replaced.
    """
    return partial(_read_range, store, record)


def _read_range(store: ObjectStore, record: FileRecord, start: int, end: int) -> bytes:
    if start >= end:
        return b""
    try:
        data = store.read(record.staging_key, start, end, etag=record.etag)
    except ObjectGoneError:
        raise describe_lost_file(record) from None
    if len(data) != min(end, record.file.size) - start:
        raise describe_lost_file(record)
    return data


def describe_lost_file(record: FileRecord) -> ModelhaulError:
    """Return the error for a verified file that was deleted or replaced in staging."""
    return RetriesExhaustedError(
        f"The verified file {record.file.path} was removed or changed in staging before publication. Submit again."
    )
