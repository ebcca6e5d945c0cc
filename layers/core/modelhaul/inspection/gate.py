"""Decides whether a model may be published, by the stored checks of its files and by what concerns several files.

Files without a report, and files that are unpickled only because another file names them, are inspected here. Nothing
is ever loaded or run. Files are read by ranges where they are staged, and only as far as necessary.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import batched

from modelhaul.domain.files import FileRecord
from modelhaul.domain.findings import ContentReport
from modelhaul.domain.gate import FileCheck, GateReport, GateVerdict, PicklePolicy
from modelhaul.domain.json_streams import ReadRange
from modelhaul.domain.models import ResolvedModel
from modelhaul.inspection.conclusions import conclude
from modelhaul.inspection.loaders import is_unpickled
from modelhaul.inspection.name_checks import check_name, check_names, check_weights, flag_incomplete
from modelhaul.inspection.notes import InspectionNotes, load_notes, save_notes
from modelhaul.inspection.opened import HEAD, OpenedFile
from modelhaul.inspection.recognize import inspect_file
from modelhaul.inspection.second_scans import SecondScans
from modelhaul.ports.clock import Clock
from modelhaul.ports.object_store import ObjectStore
from modelhaul.ports.pickle_scanner import PickleScanner
from modelhaul.transfer.staged import read_staged

_CONCURRENCY = 16  # reads of the first bytes of files
_BATCH_SIZE = 256  # files whose first bytes are in memory at the same time
_STOP_BEFORE = 150.0  # seconds kept at the end: more than the inspection of any file takes
_SAVE_INTERVAL = 60.0  # seconds
_PUBLISHING_SECONDS = 90.0  # of the function's time, reserved for publishing; the second scanner must not use them


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
        return GateSession(self, task_id, remaining, on_save, notes)


@dataclass(slots=True)
class GateSession:
    """One function's part of the inspection of a task's models."""

    gate: Gate
    task_id: str
    remaining: Callable[[], float]
    on_save: Callable[[], None]
    notes: InspectionNotes
    _scans: SecondScans = field(init=False)
    _saved_at: float = field(init=False)
    _inspected: int = 0

    def __post_init__(self) -> None:
        self._scans = SecondScans(self.gate.scanner)
        self._saved_at = self.gate.clock()

    def inspect(self, model: ResolvedModel, records: Sequence[FileRecord]) -> GateReport:
        """Inspect a model. `records` are the records of its files.

        Raises InvalidModelError for weights, indexes or JSON files that do not have the format of their names,
        UnsafeModelError for findings that the policy blocks, and OutOfTimeError.
        """
        files = {record.file.path.removeprefix(model.root): record for record in records}
        checks = self._find_checks(files)
        named_by = check_names(model, files, checks, self._open)
        check_weights(files, checks, named_by)
        incomplete = flag_incomplete(model, files, self._open)
        if self.gate.policy is PicklePolicy.OFF:
            return GateReport(GateVerdict.UNSCANNED, flags=tuple(incomplete))
        results = self._inspect_files(files, checks, named_by)
        digests = {path: record.sha256 or "" for path, record in files.items()}
        return conclude(results.reports, digests, named_by, results.opinions, self.gate.policy, incomplete)

    @property
    def has_inspected(self) -> bool:
        """Whether this function has inspected a file."""
        return self._inspected > 0

    def save(self) -> None:
        """Save the reports, merged with those that another function has saved in the meantime."""
        self._run_scans()
        self.notes.merge(load_notes(self.gate.store, self.task_id))
        save_notes(self.gate.store, self.task_id, self.notes)
        self._saved_at = self.gate.clock()
        self.on_save()

    def _find_checks(self, files: Mapping[str, FileRecord]) -> dict[str, FileCheck]:
        """Return the check of each file, by its path. A file without a stored check is checked here."""
        missing = [path for path, record in files.items() if record.check is None]
        found = {file.path: check_name(file) for file in self._open_files(files, missing)}
        return {path: record.check or found[path] for path, record in files.items()}

    def _inspect_files(
        self, files: Mapping[str, FileRecord], checks: Mapping[str, FileCheck], named_by: Collection[str]
    ) -> InspectionNotes:
        """Return the report and the opinion of each file, by its path. Raises OutOfTimeError."""
        self._scans = SecondScans(self.gate.scanner)
        stored = {path: _find_report(path, check, named_by) for path, check in checks.items()}
        pending = [p for p, record in files.items() if not stored[p] and record.file.path not in self.notes.reports]
        for file in self._open_files(files, pending, named_by):
            self._check_time()
            report, path = inspect_file(file), files[file.path].file.path
            self.notes.add(path, report, self._scans.add(path, report))
            self._inspected += 1
        self._run_scans()
        results = InspectionNotes()
        for path, record in files.items():
            known, noted = stored[path], record.file.path
            if known is not None:
                results.add(path, known, checks[path].opinion)
            else:
                results.add(path, self.notes.reports[noted], self.notes.opinions.get(noted))
        return results

    def _open_files(
        self, files: Mapping[str, FileRecord], paths: Sequence[str], named_by: Collection[str] = ()
    ) -> Iterator[OpenedFile]:
        """Yield each of these files with its first bytes."""

        def open_file(path: str) -> OpenedFile:
            size, read = files[path].file.size, self._open(files[path])
            return OpenedFile(path, size, read(0, min(size, HEAD)), read, path in named_by or is_unpickled(path))

        with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="inspect") as pool:
            for batch in batched(paths, _BATCH_SIZE, strict=False):
                yield from pool.map(open_file, batch)

    def _run_scans(self) -> None:
        seconds = self.remaining() - _PUBLISHING_SECONDS
        self.notes.opinions |= self._scans.run(self.notes.reports, seconds=seconds)

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
        return read_staged(self.gate.store, record)


def _find_report(path: str, check: FileCheck, named_by: Collection[str]) -> ContentReport | None:
    """Return the stored report, or None if the file was not inspected, or not in the role that `named_by` gives it."""
    return check.report if path not in named_by or is_unpickled(path) else None
