"""Decides whether a model may be published, by the content of each of its files.

Nothing is ever loaded or run. Files are read by ranges where they are staged, and only as much of them as it takes.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import batched
from pathlib import PurePosixPath

from modelhaul.domain.errors import (
    InvalidModelError,
    ModelhaulError,
    ObjectGoneError,
    RetriesExhaustedError,
    UnsafeModelError,
)
from modelhaul.domain.files import FileRecord
from modelhaul.domain.findings import ContentReport, FileInspection, FileVerdict, Severity
from modelhaul.domain.gate import GateReport, GateVerdict, PickleOpinion, PicklePolicy, SecondOpinion
from modelhaul.domain.json_streams import JsonError, check_object, list_shards, read_texts
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.required_files import MAX_INDEX_SIZE
from modelhaul.domain.selection import WHOLE, Selection
from modelhaul.inspection.formats.safetensors import check_safetensors
from modelhaul.inspection.formats.text import MAX_JSON
from modelhaul.inspection.loaders import (
    find_named_files,
    is_training_state,
    is_unpickled,
    is_weight_name,
    names_files,
    runs_when_loaded,
)
from modelhaul.inspection.notes import InspectionNotes, load_notes, save_notes
from modelhaul.inspection.opened import HEAD, OpenedFile
from modelhaul.inspection.placeholders import find_placeholder
from modelhaul.inspection.recognize import inspect_file
from modelhaul.ports.clock import Clock
from modelhaul.ports.object_store import ObjectStore
from modelhaul.ports.pickle_scanner import PickleScanner

logger = logging.getLogger(__name__)

_MAX_REASONS = 20
_MAX_REASON = 300  # characters
_MAX_MISSING = 1_000  # shards that are named in a flag
_INDEXES = (".safetensors.index.json", ".bin.index.json")
_PARSED = ("config.json", "tokenizer.json")
_MAX_SHOWN = 16 * 1024 * 1024  # bytes of a model's pickles that the second scanner sees
_OPINION_SECONDS = 60.0
_PUBLISHING_SECONDS = 90.0  # of the function's time that the second scanner leaves
_SHOWN = 80  # characters of a shard's name
_CONCURRENCY = 16  # reads of the first bytes of files
_BATCH = 256  # files whose first bytes are in memory at the most
_STOP_BEFORE = 150.0  # seconds kept at the end: more than any one file takes
_SAVE_EVERY = 60.0  # seconds


class OutOfTimeError(Exception):
    """The function's time is up. What was inspected is saved; another function continues."""


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
        """`remaining()` are the function's seconds left; `on_save()` is called about once a minute.

        `resume`: an earlier function may have inspected some of the files.
        """
        notes = load_notes(self.store, task_id) if resume else InspectionNotes()
        return GateSession(self, task_id, remaining, on_save, notes, is_resumed=bool(notes.reports))


@dataclass(slots=True)
class GateSession:
    """One function's part in the inspection of a task's models."""

    gate: Gate
    task_id: str
    remaining: Callable[[], float]
    on_save: Callable[[], None]
    notes: InspectionNotes
    _shown: int = 0
    _pending: dict[str, bytes] = field(default_factory=dict)
    is_resumed: bool = False
    _began_at: float = field(init=False)
    _saved_at: float = field(init=False)
    _inspected: int = 0

    def __post_init__(self) -> None:
        self._began_at = self._saved_at = self.gate.clock()

    def inspect(self, model: ResolvedModel, records: Sequence[FileRecord]) -> GateReport:
        """`records` are the model's own.

        Raises InvalidModelError for weights, indexes or JSON that are not what their names say, UnsafeModelError for
        what the policy blocks, OutOfTimeError.
        """
        files = {record.file.path.removeprefix(model.root): record for record in records}
        roles = self._check_names(model, files)
        if self.gate.policy is PicklePolicy.OFF:
            for path, head in self._read_heads(files, [path for path in files if _must_be_weights(path, files, roles)]):
                _refuse_placeholder(path, head, files[path].file.size)
            flags = (*_flag_incomplete(model, files, self._open),)
            return GateReport(GateVerdict.UNSCANNED, flags=flags)
        reports = self._inspect_files(files, roles)
        return self._conclude(model, files, roles, reports)

    @property
    def is_long(self) -> bool:
        """Whether the inspection took so long that its reports are worth saving."""
        return self.is_resumed or self.gate.clock() - self._began_at > _SAVE_EVERY

    @property
    def has_inspected(self) -> bool:
        """Whether this function has inspected a file."""
        return self._inspected > 0

    def save(self) -> None:
        """Saves what is known, with what another function has saved meanwhile."""
        self._ask_for_opinions()
        self.notes.merge(load_notes(self.gate.store, self.task_id))
        save_notes(self.gate.store, self.task_id, self.notes)
        self._saved_at = self.gate.clock()
        self.on_save()

    def _check_names(self, model: ResolvedModel, files: dict[str, FileRecord]) -> dict[str, str]:
        """Checks files against the formats of their names. Returns the files that other files name, each with the first
        file that names it.

        Raises InvalidModelError.
        """
        for path, record in files.items():
            wrong = self._find_wrong_content(model, path, record, files)
            if wrong is not None:
                raise InvalidModelError(f"{path}: {wrong}")
        roles: dict[str, str] = {}
        for named, by in find_named_files(files, lambda path: self._list_names(path, files[path])):
            roles.setdefault(named, by)
        return roles

    def _find_wrong_content(
        self, model: ResolvedModel, path: str, record: FileRecord, files: dict[str, FileRecord]
    ) -> str | None:
        read = self._open(record)
        if path.endswith(".safetensors"):
            return find_placeholder(read(0, min(record.file.size, HEAD)), record.file.size) or check_safetensors(
                read, record.file.size
            )
        if path in _PARSED:
            return _check_json(read, record.file.size)
        if names_files(path) and record.file.size > MAX_INDEX_SIZE:
            return f"an index of {record.file.size:,} bytes; the limit is {MAX_INDEX_SIZE:,}"
        if path.endswith(_INDEXES) and model.source is not Source.HUGGINGFACE:
            return _check_index(path, record, files, read, shown=3, selection=model.selection)
        return None

    def _list_names(self, path: str, record: FileRecord) -> Iterator[str]:
        try:
            yield from read_texts(self._open(record), record.file.size)
        except JsonError as error:
            raise InvalidModelError(f"{path}: {error}, so the files that it names are not known") from None

    def _inspect_files(self, files: dict[str, FileRecord], roles: Mapping[str, str]) -> dict[str, ContentReport]:
        """The report of each file, by its path.

        Raises InvalidModelError for a placeholder in place of weights, OutOfTimeError.
        """
        self._shown = 0
        left = [path for path, record in files.items() if record.file.path not in self.notes.reports]
        for path, head in self._read_heads(files, left):
            self._stop_in_time()
            if _must_be_weights(path, files, roles):
                _refuse_placeholder(path, head, files[path].file.size)
            self._inspect_one(path, files[path], head, is_named=path in roles)
        self._ask_for_opinions()
        return {path: self.notes.reports[record.file.path] for path, record in files.items()}

    def _read_heads(self, files: dict[str, FileRecord], paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Each path with the first bytes of its file."""
        with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="inspect") as pool:
            for batch in batched(paths, _BATCH, strict=False):
                heads = pool.map(lambda path: self._open(files[path])(0, min(files[path].file.size, HEAD)), batch)
                yield from zip(batch, heads, strict=True)

    def _inspect_one(self, path: str, record: FileRecord, head: bytes, *, is_named: bool) -> None:
        unpickled = is_named or is_unpickled(path)
        opened = OpenedFile(path, record.file.size, head, self._open(record), unpickled)
        report = inspect_file(opened)
        if report.is_loadable and report.verdict is not FileVerdict.UNSAFE:
            self._show(record.file.path, report.pickles)
        self.notes.add(record.file.path, report)
        self._inspected += 1

    def _stop_in_time(self) -> None:
        """Raises OutOfTimeError, but not before one file was inspected, so that every function moves on."""
        if self._inspected and self.remaining() < _STOP_BEFORE:
            self.save()
            raise OutOfTimeError
        if self.gate.clock() - self._saved_at > _SAVE_EVERY:
            self.save()

    def _show(self, path: str, pickles: bytes | None) -> None:
        """Keeps pickles for the second scanner."""
        self._shown += len(pickles or b"")
        if pickles is None or self._shown > _MAX_SHOWN:
            self.notes.opinions[path] = PickleOpinion(SecondOpinion.UNVERIFIED)
        elif pickles:
            self._pending[path] = pickles

    def _ask_for_opinions(self) -> None:
        pending, self._pending = self._pending, {}
        seconds = min(_OPINION_SECONDS, self.remaining() - _PUBLISHING_SECONDS)
        opinions = self.gate.scanner.scan(list(pending.values()), seconds=seconds) if pending and seconds > 0 else []
        self.notes.opinions |= dict.fromkeys(pending, PickleOpinion(SecondOpinion.UNVERIFIED))
        self.notes.opinions |= dict(zip(pending, opinions, strict=False))

    def _conclude(
        self,
        model: ResolvedModel,
        files: dict[str, FileRecord],
        roles: Mapping[str, str],
        reports: dict[str, ContentReport],
    ) -> GateReport:
        """Raises UnsafeModelError."""
        opinions = {path: self.notes.opinions.get(record.file.path) for path, record in files.items()}
        refused: dict[str, list[str]] = {}
        for path, report in reports.items():
            reasons = _list_reasons(path, report, roles.get(path), opinions[path], self.gate.policy)
            if reasons:
                refused[path] = reasons
        left_out: dict[str, str] = {}
        if self.gate.policy is PicklePolicy.BLOCK:
            left_out = {p: r[0] for p, r in refused.items() if is_training_state(p) and p not in roles}
            _refuse([f"{path}: {why}" for path, whys in refused.items() if path not in left_out for why in whys])
        kept = {path: report for path, report in reports.items() if path not in left_out}
        lines = [f"{path}: {why}" for path, whys in refused.items() if path in kept for why in whys]
        flags = (
            *_flag_incomplete(model, files, self._open),
            *(f"left-out: {path}: {reason}" for path, reason in sorted(left_out.items())),
            *_flag_files(kept),
        )
        return GateReport(
            verdict=_judge(lines, kept.values()),
            reasons=tuple(line[:_MAX_REASON] for line in lines[:_MAX_REASONS]),
            flags=flags,
            scanned=tuple((path, files[path].sha256 or "") for path, r in kept.items() if r.is_loadable),
            second_opinion=_sum_up([opinions[path] for path in kept]),
            files=tuple(_record(path, files[path].sha256 or "", report) for path, report in kept.items()),
            left_out=tuple(sorted(left_out)),
        )

    def _open(self, record: FileRecord) -> Callable[[int, int], bytes]:
        return partial(_read_staged, self.gate.store, record)


def _must_be_weights(path: str, files: Mapping[str, FileRecord], roles: Collection[str]) -> bool:
    if not files[path].file.size and path.endswith(".bin") and f"{path.removesuffix('.bin')}.xml" in files:
        # OpenVINO writes an empty file beside a model without weights.
        return False
    return path in roles or (is_weight_name(path) and not is_training_state(path))


def _refuse_placeholder(path: str, head: bytes, size: int) -> None:
    """Raises InvalidModelError."""
    placeholder = find_placeholder(head, size)
    if placeholder is not None:
        raise InvalidModelError(f"{path}: {placeholder}")


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
    return RetriesExhaustedError(
        f"{record.file.path}: the verified file was removed or changed before it could be published. Submit again."
    )


def _check_json(read: Callable[[int, int], bytes], size: int) -> str | None:
    if size > MAX_JSON:
        return f"JSON of {size:,} bytes; the limit is {MAX_JSON:,}"
    try:
        check_object(read, size)
    except JsonError as error:
        return str(error)
    return None


def _check_index(
    path: str,
    record: FileRecord,
    files: Collection[str],
    read: Callable[[int, int], bytes],
    *,
    shown: int,
    selection: Selection = WHOLE,
) -> str | None:
    """What is wrong with an index, with the first `shown` missing shards that the selection does not leave out."""
    directory = f"{PurePosixPath(path).parent}/".removeprefix("./")
    try:
        shards = list_shards(read, record.file.size)
    except JsonError as error:
        return str(error)
    missing = sorted(s for s in shards if directory + s not in files and selection.takes(directory + s))
    if not missing:
        return None
    return f"{len(missing):,} of its shards are missing: {', '.join(name[:_SHOWN] for name in missing[:shown])!r}"


def _flag_incomplete(
    model: ResolvedModel,
    files: dict[str, FileRecord],
    open_record: Callable[[FileRecord], Callable[[int, int], bytes]],
) -> Iterator[str]:
    """Indexes with missing shards: in a part of a model, where that was asked for, and on the Hub, where the publisher
    left them out.
    """
    if model.selection.is_whole and model.source is not Source.HUGGINGFACE:
        return
    for path, record in files.items():
        if path.endswith(_INDEXES):
            wrong = _check_index(path, record, files, open_record(record), shown=_MAX_MISSING)
            if wrong is not None:
                yield f"incomplete: {path}: {wrong}"


def _list_reasons(
    path: str, report: ContentReport, named_by: str | None, opinion: PickleOpinion | None, policy: PicklePolicy
) -> list[str]:
    """Why loading the file could run code."""
    reasons = [finding.detail for finding in report.findings if finding.severity is Severity.HIGH]
    runs = named_by is not None or is_unpickled(path) or runs_when_loaded(path)
    is_read = report.is_unread or (report.reason is not None and runs)
    if not reasons and is_read and policy is PicklePolicy.BLOCK:
        role = f"; {named_by} names it, so a loader may unpickle it" if named_by is not None else ""
        reasons.append(f"{report.reason}{role}")
    if opinion is not None and opinion.verdict is SecondOpinion.MALICIOUS:
        reasons += opinion.reasons
    return reasons


def _refuse(reasons: Sequence[str]) -> None:
    if reasons:
        shown = "; ".join(reason[:_MAX_REASON] for reason in reasons[:_MAX_REASONS])
        raise UnsafeModelError(f"{shown}. Loading the model could run code.")


def _judge(lines: Sequence[str], reports: Collection[ContentReport]) -> GateVerdict:
    if lines:
        return GateVerdict.UNSAFE
    is_clean = all(report.verdict is FileVerdict.CLEAN for report in reports)
    return GateVerdict.CLEAN if is_clean else GateVerdict.UNSCANNED


def _flag_files(reports: Mapping[str, ContentReport]) -> Iterator[str]:
    """`kind: path` for each finding that is no reason to refuse, `not-scanned: path: reason` for the others."""
    for path, report in sorted(reports.items()):
        kinds = dict.fromkeys(f.kind for f in report.findings if f.severity is not Severity.HIGH)
        yield from (f"{kind}: {path}" for kind in kinds)
        if report.reason is not None:
            yield f"not-scanned: {path}: {report.reason}"


def _sum_up(opinions: Collection[PickleOpinion | None]) -> SecondOpinion | None:
    verdicts = {opinion.verdict for opinion in opinions if opinion is not None}
    order = (SecondOpinion.MALICIOUS, SecondOpinion.UNVERIFIED, SecondOpinion.CLEAN)
    return next((verdict for verdict in order if verdict in verdicts), None)


def _record(path: str, sha256: str, report: ContentReport) -> FileInspection:
    return FileInspection(path, sha256, report.format, report.verdict, report.reason, report.findings)
