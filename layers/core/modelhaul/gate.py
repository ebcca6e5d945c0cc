"""What may be published: weights that are what their names say, and no pickle that runs anything.

Nothing is ever unpickled. Files are read where they are staged, by ranges, and only as much of them as it takes.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from modelhaul.errors import InvalidModelError, ObjectGoneError, RetriesExhaustedError, UnsafeModelError
from modelhaul.flags import flag_files
from modelhaul.model import FileRecord, GateReport, GateVerdict, ResolvedModel, Source
from modelhaul.pickles import PickleVerdict, inspect_pickle, is_pickle_name
from modelhaul.ports import ObjectStore
from modelhaul.required_files import MAX_INDEX_SIZE
from modelhaul.safetensors import check_json_object, check_safetensors, check_shard_index
from modelhaul.selection import WHOLE, Selection

logger = logging.getLogger(__name__)

_MOST_KEPT = 100  # scanned files and flags in a model's record
_MOST_REASONS = 20
_LONGEST = 300  # characters of a flag or a reason
_INDEXES = (".safetensors.index.json", ".bin.index.json")
_PARSED = ("config.json", "tokenizer.json")
_LARGEST_JSON = 256 * 1024 * 1024  # bytes; tokenizers have a few tens of millions


class PicklePolicy(StrEnum):
    """What becomes of a model with a pickle that could run something when it is loaded."""

    BLOCK = "block"  # it fails, and is removed
    WARN = "warn"  # it is published, and its record says so
    OFF = "off"  # pickles are not looked into


@dataclass(frozen=True, slots=True)
class Gate:
    """Inspects the verified files of a model in staging."""

    store: ObjectStore
    policy: PicklePolicy

    def inspect(self, model: ResolvedModel, records: Sequence[FileRecord]) -> GateReport:
        """`records` are the model's own.

        Raises InvalidModelError for weights, indexes or JSON that are not what they should be, UnsafeModelError for a
        pickle that the policy blocks.
        """
        files = {record.file.path.removeprefix(model.root): record for record in records}
        self._check_formats(model, files)
        reasons, scanned = self._scan_pickles(files)
        if reasons and self.policy is PicklePolicy.BLOCK:
            raise UnsafeModelError(f"{'; '.join(reasons[:_MOST_REASONS])}. Loading the model could run code.")
        flags = (
            *self._flag_incomplete(model, files),
            *flag_files(sorted(files), lambda path: self._read_json(files[path])),
        )
        if self.policy is PicklePolicy.OFF:
            verdict = GateVerdict.UNSCANNED
        else:
            verdict = GateVerdict.UNSAFE if reasons else GateVerdict.CLEAN
        return GateReport(
            verdict,
            tuple(reason[:_LONGEST] for reason in reasons[:_MOST_REASONS]),
            tuple(flag[:_LONGEST] for flag in flags[:_MOST_KEPT]),
            tuple(scanned[:_MOST_KEPT]),
        )

    def _check_formats(self, model: ResolvedModel, files: dict[str, FileRecord]) -> None:
        for path, record in files.items():
            if path.endswith(".safetensors"):
                wrong = check_safetensors(self._open(record), record.file.size)
            elif path in _PARSED:
                wrong = self._check_json(record)
            elif path.endswith(_INDEXES) and model.source is not Source.HUGGINGFACE:
                wrong = self._check_index(path, record, files, model.selection)
            else:
                continue
            if wrong is not None:
                raise InvalidModelError(f"{path}: {wrong}")

    def _check_json(self, record: FileRecord) -> str | None:
        if record.file.size > _LARGEST_JSON:
            return f"has {record.file.size:,} bytes, which is too much for JSON"
        return check_json_object(self._open(record)(0, record.file.size))

    def _flag_incomplete(self, model: ResolvedModel, files: dict[str, FileRecord]) -> Iterator[str]:
        """Indexes whose shards are not all here, in a part of a model: that was asked for."""
        for path, record in files.items() if not model.selection.is_whole else ():
            if path.endswith(_INDEXES) and (wrong := self._check_index(path, record, files)) is not None:
                yield f"incomplete: {path}: {wrong}"

    def _check_index(
        self, path: str, record: FileRecord, files: Collection[str], selection: Selection = WHOLE
    ) -> str | None:
        """Shards that the selection leaves out are not missed."""
        if record.file.size > MAX_INDEX_SIZE:
            return f"has {record.file.size:,} bytes, which is too much for an index"
        directory = f"{PurePosixPath(path).parent}/".removeprefix("./")
        beside = {name.removeprefix(directory) for name in files if name.startswith(directory)}
        content = self._open(record)(0, record.file.size)
        return check_shard_index(content, beside, is_wanted=lambda shard: selection.takes(directory + shard))

    def _scan_pickles(self, files: dict[str, FileRecord]) -> tuple[list[str], list[tuple[str, str]]]:
        """(what is wrong, with the path before it; path and sha256 of what was looked into)."""
        reasons: list[str] = []
        scanned: list[tuple[str, str]] = []
        if self.policy is PicklePolicy.OFF:
            return reasons, scanned
        for path, record in files.items():
            if not is_pickle_name(path) or not record.file.size:
                continue
            report = inspect_pickle(self._open(record), record.file.size)
            if report is None:
                continue
            scanned.append((path, record.sha256 or ""))
            if report.verdict is not PickleVerdict.CLEAN:
                reasons += [f"{path}: {reason}" for reason in report.reasons]
        return reasons, scanned

    def _read_json(self, record: FileRecord) -> object | None:
        if record.file.size > MAX_INDEX_SIZE:
            return None
        try:
            parsed: object = json.loads(self._open(record)(0, record.file.size))
        except (ValueError, RecursionError):
            return None
        return parsed

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
