"""What may be published: weights that are what their names say, and no pickle that runs anything.

Nothing is ever unpickled. Files are read where they are staged, by ranges, and only as much of them as it takes.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from modelhaul.errors import InvalidModelError, ObjectGoneError, RetriesExhaustedError, UnsafeModelError
from modelhaul.inspection.containers import HEAD, Content, inspect_pickle, is_other_name, is_pickle_name, recognize
from modelhaul.inspection.flags import flag_files
from modelhaul.inspection.pickles import PickleReport
from modelhaul.inspection.safetensors import check_safetensors
from modelhaul.json_streams import JsonError, check_object, find_names, list_shards
from modelhaul.model import FileRecord, GateReport, GateVerdict, PicklePolicy, ResolvedModel, SecondOpinion, Source
from modelhaul.ports import ObjectStore, PickleScanner
from modelhaul.required_files import MAX_INDEX_SIZE
from modelhaul.selection import WHOLE, Selection

logger = logging.getLogger(__name__)

_MOST_REASONS = 20
_LONGEST = 300  # characters of a reason
_MOST_MISSING = 1_000  # shards that are named in a flag
_INDEXES = (".safetensors.index.json", ".bin.index.json")
_PARSED = ("config.json", "tokenizer.json")
_MOST_SHOWN = 16 * 1024 * 1024  # bytes of a model's pickles that the other scanner is shown
_LONGEST_OPINION = 60.0  # seconds
_KEPT_SECONDS = 240.0  # of the function's time, for publishing
LARGEST_JSON = 128 * 1024 * 1024  # bytes; tokenizers have a few tens of millions
_SHOWN = 80  # characters of a shard's name
_AT_ONCE = 16
_MOST_UNKNOWN = 10_000  # files that are looked at though no name says that they are pickles


@dataclass(frozen=True, slots=True)
class Gate:
    """Inspects the verified files of a model in staging."""

    store: ObjectStore
    policy: PicklePolicy
    scanner: PickleScanner

    def inspect(
        self, model: ResolvedModel, records: Sequence[FileRecord], remaining: Callable[[], float]
    ) -> GateReport:
        """`records` are the model's own; `remaining()` the function's seconds left.

        Raises InvalidModelError for weights, indexes or JSON that are not what they should be, UnsafeModelError for a
        pickle that the policy blocks.
        """
        files = {record.file.path.removeprefix(model.root): record for record in records}
        self._check_formats(model, files)
        pickles, unread = self._scan_pickles(files)
        reasons = [f"{path}: {reason}" for path, report in pickles.items() for reason in report.reasons]
        self._refuse(reasons)
        opinion, more = self._ask_for_opinion(pickles, remaining)
        reasons += more
        self._refuse(reasons)
        scanned = [(path, files[path].sha256 or "") for path in pickles]
        flags = (
            *self._flag_incomplete(model, files),
            *(f"not-scanned: {what}" for what in unread),
            *flag_files(sorted(files), lambda path, wanted: self._find_names(files[path], wanted)),
        )
        if reasons:
            verdict = GateVerdict.UNSAFE
        else:
            verdict = GateVerdict.UNSCANNED if unread or self.policy is PicklePolicy.OFF else GateVerdict.CLEAN
        return GateReport(
            verdict,
            tuple(reason[:_LONGEST] for reason in reasons[:_MOST_REASONS]),
            tuple(flags),
            tuple(scanned),
            opinion,
        )

    def _refuse(self, reasons: Sequence[str]) -> None:
        if reasons and self.policy is PicklePolicy.BLOCK:
            raise UnsafeModelError(f"{'; '.join(reasons[:_MOST_REASONS])}. Loading the model could run code.")

    def _check_formats(self, model: ResolvedModel, files: dict[str, FileRecord]) -> None:
        for path, record in files.items():
            if path.endswith(".safetensors"):
                wrong = check_safetensors(self._open(record), record.file.size)
            elif path in _PARSED:
                wrong = self._check_json(record)
            elif path.endswith(_INDEXES) and model.source is not Source.HUGGINGFACE:
                wrong = self._check_index(path, record, files, shown=3, selection=model.selection)
            else:
                continue
            if wrong is not None:
                raise InvalidModelError(f"{path}: {wrong}")

    def _check_json(self, record: FileRecord) -> str | None:
        if record.file.size > LARGEST_JSON:
            return f"has {record.file.size:,} bytes, which is too much for JSON"
        try:
            check_object(self._open(record), record.file.size)
        except JsonError as error:
            return str(error)
        return None

    def _flag_incomplete(self, model: ResolvedModel, files: dict[str, FileRecord]) -> Iterator[str]:
        """Indexes whose shards are not all here: in a part of a model, where that was asked for, and on the Hub, where
        it is the publisher's own doing.
        """
        if model.selection.is_whole and model.source is not Source.HUGGINGFACE:
            return
        for path, record in files.items():
            if path.endswith(_INDEXES) and (wrong := self._check_index(path, record, files, shown=_MOST_MISSING)):
                yield f"incomplete: {path}: {wrong}"

    def _check_index(
        self, path: str, record: FileRecord, files: Collection[str], *, shown: int, selection: Selection = WHOLE
    ) -> str | None:
        """What is wrong with it, with the first `shown` missing shards; those that the selection leaves out are not
        missed.
        """
        if record.file.size > MAX_INDEX_SIZE:
            return f"has {record.file.size:,} bytes, which is too much for an index"
        directory = f"{PurePosixPath(path).parent}/".removeprefix("./")
        try:
            shards = list_shards(self._open(record), record.file.size)
        except JsonError as error:
            return str(error)
        missing = sorted(s for s in shards if directory + s not in files and selection.takes(directory + s))
        if not missing:
            return None
        return f"{len(missing):,} of its shards are missing: {', '.join(name[:_SHOWN] for name in missing[:shown])!r}"

    def _scan_pickles(self, files: dict[str, FileRecord]) -> tuple[dict[str, PickleReport], list[str]]:
        """By the paths of what was looked into; and what could not be."""
        reports: dict[str, PickleReport] = {}
        if self.policy is PicklePolicy.OFF:
            return reports, []
        contents, unread = self._recognize_files(files)
        shown = 0
        for path, record in files.items():
            if not record.file.size or not (is_pickle_name(path) or contents.get(path) is Content.PICKLE):
                continue
            report = inspect_pickle(self._open(record), record.file.size, is_numpy=path.lower().endswith(".npz"))
            if report is None:
                continue
            unread += [f"{path}: {name}" for name in report.unread]
            shown += len(report.content or b"")
            reports[path] = report if shown <= _MOST_SHOWN else replace(report, content=None)
        return reports, unread

    def _recognize_files(self, files: dict[str, FileRecord]) -> tuple[dict[str, Content], list[str]]:
        """What those files are whose names do not tell, by their paths; and what cannot be looked into. A read each."""
        unknown = [p for p, r in files.items() if r.file.size and not is_pickle_name(p) and not is_other_name(p)]

        def read_head(path: str) -> bytes:
            return self._open(files[path])(0, min(files[path].file.size, HEAD))

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="recognize") as pool:
            heads = zip(unknown, pool.map(read_head, unknown[:_MOST_UNKNOWN]), strict=False)
            contents = {path: recognize(head, files[path].file.size) for path, head in heads}
        unread = [f"{path}: cannot be looked into" for path, found in contents.items() if found is Content.UNREADABLE]
        if len(unknown) > _MOST_UNKNOWN:
            unread.insert(0, f"{len(unknown) - _MOST_UNKNOWN:,} of {len(unknown):,} files of unknown kinds")
        return contents, unread

    def _ask_for_opinion(
        self, reports: dict[str, PickleReport], remaining: Callable[[], float]
    ) -> tuple[SecondOpinion | None, list[str]]:
        """Another scanner's opinion on all of them, and what is malicious, with the path before it."""
        shown = {path: report.content for path, report in reports.items() if report.content is not None}
        seconds = min(_LONGEST_OPINION, remaining() - _KEPT_SECONDS)
        opinions = self.scanner.scan(list(shown.values()), seconds=seconds) if shown and seconds > 0 else []
        reasons = [f"{path}: {reason}" for path, o in zip(shown, opinions, strict=False) for reason in o.reasons]
        verdicts = {opinion.verdict for opinion in opinions}
        if SecondOpinion.MALICIOUS in verdicts:
            return SecondOpinion.MALICIOUS, reasons
        if SecondOpinion.UNVERIFIED in verdicts or len(opinions) < len(reports):
            return SecondOpinion.UNVERIFIED, []
        return (SecondOpinion.CLEAN if reports else None), []

    def _find_names(self, record: FileRecord, wanted: Collection[str]) -> Collection[str]:
        try:
            return find_names(self._open(record), record.file.size, wanted)
        except JsonError:
            return ()

    def _open(self, record: FileRecord) -> Callable[[int, int], bytes]:
        def read(start: int, end: int) -> bytes:
            if start >= end:
                return b""
            try:
                data = self.store.read(record.staging_key, start, end)
            except ObjectGoneError:
                raise describe_lost_file(record) from None
            if len(data) != min(end, record.file.size) - start:
                raise describe_lost_file(record)
            return data

        return read


def describe_lost_file(record: FileRecord) -> RetriesExhaustedError:
    return RetriesExhaustedError(
        f"{record.file.path}: the verified file was removed or changed before it could be published. Submit again."
    )
