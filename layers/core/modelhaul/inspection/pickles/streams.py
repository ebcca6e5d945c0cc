"""Inspection of pickles by their opcodes. Nothing is ever unpickled.

Default-deny: a pickle is clean if all of its imports are on the allow-list (functions that rebuild tensors, arrays and
plain containers), its opcodes are as picklers write them, and every byte of the file is accounted for.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity, list_findings
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.pickles.allowed_imports import ALLOWED
from modelhaul.inspection.pickles.interpreter import run_pickle
from modelhaul.inspection.pickles.joblib_arrays import UnsupportedArrayError
from modelhaul.inspection.pickles.machine import AllowedImports, PickleMachine, Storage
from modelhaul.inspection.pickles.source import Budget, DeadStreamError, LimitError, NotCanonicalError, Note, Source
from modelhaul.inspection.pickles.values import MAGIC, read_int

MAX_KEPT: Final = 4 * 1024 * 1024  # bytes of a file's pickles, for the second scanner
_MAX_PICKLES = 1_000  # in a file
_MAX_FINDINGS = 20  # of each kind
_MAX_DETAIL = 200  # characters
_LEGACY_PICKLES = 5  # in torch's legacy files: magic number, protocol, system, the object, the keys of its storages
_LEGACY_PROTOCOL = 1001
_LEGACY_OBJECT = 3  # index of the object
_LENGTH_BYTES = 8  # before each storage

_ALLOWED_IMPORTS = AllowedImports(ALLOWED)
_WITH_TORCHSCRIPT = AllowedImports(ALLOWED, ignored=("__torch__", "torch.jit._pickle"))

_ELEMENT_BYTES = {
    "BFloat16": 2, "Bool": 1, "Byte": 1, "Char": 1, "ComplexDouble": 16, "ComplexFloat": 8, "Double": 8, "Float": 4,
    "Half": 2, "Int": 4, "Long": 8, "QInt32": 4, "QInt8": 1, "QUInt2x4": 1, "QUInt4x2": 1, "QUInt8": 1, "Short": 2,
    "Untyped": 1, "Float8_e4m3fn": 1, "Float8_e4m3fnuz": 1, "Float8_e5m2": 1, "Float8_e5m2fnuz": 1, "UInt16": 2,
    "UInt32": 4, "UInt64": 8,
}  # fmt: skip
"""By torch's storage class, without "Storage"."""

_MODULE = "whole module instead of a state_dict"
_EXPLANATIONS = {
    "sklearn.": "scikit-learn model; skops stores it without pickle",
    "xgboost.": "XGBoost model; save_model stores it without pickle",
    "lightgbm.": "LightGBM model; save_model stores it without pickle",
    "catboost.": "CatBoost model; save_model stores it without pickle",
    "torch.nn.modules.": _MODULE,
    "ultralytics.": _MODULE,
    "models.": _MODULE,
    "__main__.": _MODULE,
    "transformers.training_args.": "training options, which inference does not need",
    "joblib.numpy_pickle_compat.": "array written by joblib before 0.10",
}
"""Explanations of imports that are common in model files, by the beginning of their module."""


@dataclass(slots=True)
class _Outcome:
    """The results of all pickles in a file."""

    imports: dict[tuple[str, str], None] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    has_joblib_arrays: bool = False
    is_legacy: bool = False

    def add(self, machine: PickleMachine) -> None:
        machine.end_span()
        if len(self.imports) < _MAX_FINDINGS:
            self.imports |= machine.imports
        self.notes += machine.source.notes
        self.spans += machine.spans
        self.has_joblib_arrays |= machine.has_joblib_arrays
        if machine.has_joblib_objects:
            self.reasons.append("Contains joblib arrays of objects, which different loaders read differently")
        if machine.has_unknown_persistent_ids:
            self.reasons.append("Persistent IDs do not have the form that torch writes")


def inspect_pickles(
    read: ReadRange, start: int, end: int, *, budget: Budget | None = None, is_torchscript: bool = False
) -> ContentReport | None:
    """Inspect bytes `start` to `end` (excluded): one or more pickles, one after another.

    Return None if the content is not a pickle: every unpickler fails before it imports anything. With `is_torchscript`,
    imports of the program and of the functions that tag its types are not reported. `budget` limits the
    opcodes and bytes that are read, for all pickles of a file. Raises what `read` raises.
    """
    source = Source(read, start, end, budget)
    outcome = _Outcome()
    is_pickle = _run_all(source, _WITH_TORCHSCRIPT if is_torchscript else _ALLOWED_IMPORTS, outcome)
    return _report(source, outcome) if is_pickle else None


def _run_all(source: Source, allowed: AllowedImports, outcome: _Outcome) -> bool:
    """Return False if the content is not a pickle."""
    values: list[int] = []
    storages: dict[str, Storage] = {}
    for number in range(_MAX_PICKLES):
        machine = PickleMachine(source, allowed, is_first=not number)
        source.notes.clear()
        try:
            value = _run(machine, outcome)
        except DeadStreamError:
            outcome.reasons.append(f"Bytes {machine.start:,} to {source.end:,} are not a pickle")
            return number > 0
        outcome.add(machine)
        if value is None:
            return True
        values.append(value)
        if number == _LEGACY_OBJECT:
            storages = machine.storages
        if number == _LEGACY_PICKLES - 1 and values[0] == MAGIC and read_int(values[1]) == _LEGACY_PROTOCOL:
            outcome.is_legacy = True
            outcome.reasons += _check_storages(source, storages)
            return True
        if source.position == source.end:
            return True
    outcome.reasons.append(f"File contains more than {_MAX_PICKLES:,} pickles")
    return True


def _run(machine: PickleMachine, outcome: _Outcome) -> int | None:
    """Return the value of a pickle; None if it ends early. Raises DeadStreamError if it ends before any import."""
    try:
        return run_pickle(machine)
    except DeadStreamError:
        if not machine.has_reached_import:
            raise
        outcome.reasons.append(f"Pickle is damaged or truncated at byte {machine.source.position:,}")
    except NotCanonicalError as error:
        machine.source.note(str(error))
    except LimitError:
        outcome.reasons.append(f"Pickle is too large to inspect after byte {machine.source.position:,}")
    except UnsupportedArrayError as error:
        outcome.reasons.append(str(error))
    return None


def _check_storages(source: Source, storages: dict[str, Storage]) -> Iterator[str]:
    """Yield why the bytes after the pickles are not the storages of torch's legacy format, each a length and elements.

    https://github.com/pytorch/pytorch/blob/v2.8.0/torch/serialization.py (_legacy_save)
    """
    expected = 0
    for storage in storages.values():
        size = _ELEMENT_BYTES.get(storage.kind.removesuffix("Storage"))
        if size is None or storage.elements < 0:
            yield f"Unknown element size of torch.{storage.kind}"
            return
        expected += _LENGTH_BYTES + storage.elements * size
    found = source.end - source.position
    if found != expected:
        yield f"{found:,} bytes follow the pickles, but the storages have {expected:,} bytes"


def _report(source: Source, outcome: _Outcome) -> ContentReport:
    size = sum(end - start for start, end in outcome.spans)
    pickles = (source.read_back(start, end) for start, end in outcome.spans if start < end)
    return ContentReport(
        format="torch-legacy" if outcome.is_legacy else "joblib" if outcome.has_joblib_arrays else "pickle",
        reason="; ".join(dict.fromkeys(outcome.reasons)) or None,
        findings=(
            *_list_findings(FindingKind.PICKLE_IMPORT, map(_describe_import, outcome.imports)),
            *_list_findings(FindingKind.PICKLE_NOT_CANONICAL, map(str, outcome.notes)),
        ),
        is_loadable=True,
        pickles=b"".join(pickles) if size <= MAX_KEPT else None,
    )


def _describe_import(names: tuple[str, str]) -> str:
    module, name = names
    explanation = next((text for prefix, text in _EXPLANATIONS.items() if f"{module}.".startswith(prefix)), None)
    return f"Pickle imports {module}.{name}" + (f" ({explanation})" if explanation is not None else "")


def _list_findings(kind: FindingKind, details: Iterable[str]) -> tuple[Finding, ...]:
    shown = ["".join(c if c.isprintable() else "?" for c in detail)[:_MAX_DETAIL] for detail in details]
    return list_findings(kind, Severity.HIGH, list(dict.fromkeys(shown))[:_MAX_FINDINGS])
