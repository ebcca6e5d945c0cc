"""Decides whether a model may be published, by the content of each of its files.

Nothing is ever loaded or run. Files are read by ranges where they are staged, and only as far as necessary.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import batched

from modelhaul.domain.errors import ModelhaulError, ObjectGoneError, RetriesExhaustedError
from modelhaul.domain.files import FileRecord
from modelhaul.domain.findings import ContentReport, FileVerdict
from modelhaul.domain.gate import GateReport, GateVerdict, PicklePolicy
from modelhaul.domain.json_streams import ReadRange
from modelhaul.domain.models import ResolvedModel
from modelhaul.inspection.conclusions import conclude
from modelhaul.inspection.loaders import is_unpickled
from modelhaul.inspection.name_checks import check_names, check_weights, flag_incomplete, must_be_weights
from modelhaul.inspection.notes import InspectionNotes, load_notes, save_notes
from modelhaul.inspection.opened import HEAD, OpenedFile
from modelhaul.inspection.recognize import inspect_file
from modelhaul.inspection.second_scans import SecondScans
from modelhaul.ports.clock import Clock
from modelhaul.ports.object_store import ObjectStore
from modelhaul.ports.pickle_scanner import PickleScanner

_CONCURRENCY = 16  # reads of the first bytes of files
_BATCH_SIZE = 256  # files whose first bytes are in memory at the same time
_STOP_BEFORE = 150.0  # seconds kept at the end: more than the inspection of any file takes
_SAVE_INTERVAL = 60.0  # seconds


class OutOfTimeError(Exception):
    """The function has no time left. The reports so far are saved, and another function continues."""


@dataclass(slots=True)
class Gate:
    """Inspects the verified files of the models of one task in staging."""

    store: ObjectStore
    policy: PicklePolicy
    scanner: PickleScanner
    clock: Clock

    def open_session(
        self, task_id: str, remaining: Callable[[], float], *, on_save: Callable[[], None], resume: bool
    ) -> "GateSession":
        """Open a session. `remaining()` returns the function's seconds left; `on_save()` is called once a minute.

        `resume`: an earlier function may have inspected some of the files.
        """
        notes = load_notes(self.store, task_id) if resume else InspectionNotes()
        return GateSession(self, task_id, remaining, on_save, notes, is_resumed=bool(notes.reports))


@dataclass(slots=True)
class GateSession:
    """One function's part of the inspection of a task's models."""

    gate: Gate
    task_id: str
    remaining: Callable[[], float]
    on_save: Callable[[], None]
    notes: InspectionNotes
    is_resumed: bool = False
    _scans: SecondScans = field(init=False)
    _started_at: float = field(init=False)
    _saved_at: float = field(init=False)
    _inspected: int = 0

    def __post_init__(self) -> None:
        self._scans = SecondScans(self.gate.scanner, self.notes)
        self._started_at = self._saved_at = self.gate.clock()

    def inspect(self, model: ResolvedModel, records: Sequence[FileRecord]) -> GateReport:
        """Inspect a model. `records` are the records of its files.

        Raises InvalidModelError for weights, indexes or JSON files that do not have the format of their names,
        UnsafeModelError for findings that the policy blocks, and OutOfTimeError.
        """
        files = {record.file.path.removeprefix(model.root): record for record in records}
        named_by = check_names(model, files, self._open)
        if self.gate.policy is PicklePolicy.OFF:
            weights = [path for path in files if must_be_weights(path, files, named_by)]
            for path, head in self._read_heads(files, weights):
                check_weights(path, files, named_by, head)
            return GateReport(GateVerdict.UNSCANNED, flags=tuple(flag_incomplete(model, files, self._open)))
        reports = self._inspect_files(files, named_by)
        return conclude(
            reports,
            {path: record.sha256 or "" for path, record in files.items()},
            named_by,
            {path: self.notes.opinions.get(record.file.path) for path, record in files.items()},
            self.gate.policy,
            flag_incomplete(model, files, self._open),
        )

    @property
    def is_long(self) -> bool:
        """Whether the inspection has taken so long that its reports should be saved."""
        return self.is_resumed or self.gate.clock() - self._started_at > _SAVE_INTERVAL

    @property
    def has_inspected(self) -> bool:
        """Whether this function has inspected a file."""
        return self._inspected > 0

    def save(self) -> None:
        """Save the reports, merged with those that another function has saved in the meantime."""
        self._scans.run(self.remaining())
        self.notes.merge(load_notes(self.gate.store, self.task_id))
        save_notes(self.gate.store, self.task_id, self.notes)
        self._saved_at = self.gate.clock()
        self.on_save()

    def _inspect_files(self, files: Mapping[str, FileRecord], named_by: Mapping[str, str]) -> dict[str, ContentReport]:
        """Return the report of each file, by its path.

        Raises InvalidModelError for a placeholder in place of weights, and OutOfTimeError.
        """
        self._scans.begin_model()
        pending = [path for path, record in files.items() if record.file.path not in self.notes.reports]
        for path, head in self._read_heads(files, pending):
            self._check_time()
            check_weights(path, files, named_by, head)
            self._inspect_file(path, files[path], head, is_named=path in named_by)
        self._scans.run(self.remaining())
        return {path: self.notes.reports[record.file.path] for path, record in files.items()}

    def _read_heads(self, files: Mapping[str, FileRecord], paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield each path with the first bytes of its file."""
        with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="inspect") as pool:
            for batch in batched(paths, _BATCH_SIZE, strict=False):
                heads = pool.map(lambda path: self._open(files[path])(0, min(files[path].file.size, HEAD)), batch)
                yield from zip(batch, heads, strict=True)

    def _inspect_file(self, path: str, record: FileRecord, head: bytes, *, is_named: bool) -> None:
        file = OpenedFile(path, record.file.size, head, self._open(record), is_named or is_unpickled(path))
        report = inspect_file(file)
        if report.is_loadable and report.verdict is not FileVerdict.UNSAFE:
            self._scans.add(record.file.path, report.pickles)
        self.notes.add(record.file.path, report)
        self._inspected += 1

    def _check_time(self) -> None:
        """Save once a minute. Raise OutOfTimeError if little time is left and this function has inspected a file.

        Each function inspects at least one file, so that the inspection always makes progress.
        """
        if self._inspected and self.remaining() < _STOP_BEFORE:
            self.save()
            raise OutOfTimeError
        if self.gate.clock() - self._saved_at > _SAVE_INTERVAL:
            self.save()

    def _open(self, record: FileRecord) -> ReadRange:
        return partial(_read_staged, self.gate.store, record)


def _read_staged(store: ObjectStore, record: FileRecord, start: int, end: int) -> bytes:
    if start >= end:
        return b""
    try:
        data = store.read(record.staging_key, start, end)
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
