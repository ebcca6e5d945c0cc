"""Inspection of pickles by their opcodes. Nothing is ever unpickled.

Default-deny: a pickle is clean if all of its imports are on the allow-list (what rebuilds tensors, arrays and plain
containers), its opcodes are as picklers write them, and every byte of the file is accounted for.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity, list_findings
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.pickles.joblib_arrays import UnparsedError
from modelhaul.inspection.pickles.machine import JOBLIB_ARRAY, MAGIC, AllowedImports, PickleMachine, Storage
from modelhaul.inspection.pickles.opcodes import Budget, DeadStreamError, LimitError, NotCanonicalError, Note, Source

MAX_KEPT: Final = 4 * 1024 * 1024  # bytes of a file's pickles, for the second scanner
_MAX_PICKLES = 1_000  # in a file
_MAX_FINDINGS = 20  # of each kind
_MAX_DETAIL = 200  # characters
_LEGACY_PICKLES = 5  # of torch's old files: magic number, protocol, system, the object, the keys of its storages
_LEGACY_PROTOCOL = 1001
_LEGACY_OBJECT = 3  # its place
_LENGTH_BYTES = 8  # before each storage

_CONTAINERS = {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "range", "set"}
_CONTAINERS |= {"slice", "str", "tuple"}
_STORAGES = {
    f"{kind}Storage"
    for kind in (
        "BFloat16", "Bool", "Byte", "Char", "ComplexDouble", "ComplexFloat", "Double", "Float", "Half", "Int", "Long",
        "QInt32", "QInt8", "QUInt2x4", "QUInt4x2", "QUInt8", "Short", "Typed", "Untyped",
        "Float8_e4m3fn", "Float8_e4m3fnuz", "Float8_e5m2", "Float8_e5m2fnuz", "UInt16", "UInt32", "UInt64",
    )
}  # fmt: skip
_TENSORS = {
    f"{kind}Tensor"
    for kind in ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
}  # fmt: skip
_DTYPES = {
    "bfloat16", "bits16", "bits1x8", "bits2x4", "bits4x2", "bits8", "bool", "complex128", "complex32", "complex64",
    "double", "float", "float16", "float32", "float4_e2m1fn_x2", "float64", "float8_e4m3fn", "float8_e4m3fnuz",
    "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "half", "int", "int16", "int32", "int64", "int8", "long",
    "qint32", "qint8", "quint2x4", "quint4x2", "quint8", "short", "uint16", "uint32", "uint64", "uint8",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)),
}  # fmt: skip
_QUANTIZATIONS = {
    "per_channel_affine", "per_channel_affine_float_qparams", "per_channel_symmetric", "per_tensor_affine",
    "per_tensor_symmetric",
}  # fmt: skip
_REBUILDERS = {
    "_rebuild_device_tensor_from_cpu_tensor", "_rebuild_device_tensor_from_numpy",
    "_rebuild_meta_tensor_no_storage", "_rebuild_nested_tensor", "_rebuild_parameter",
    "_rebuild_parameter_with_state", "_rebuild_qtensor", "_rebuild_sparse_csr_tensor", "_rebuild_sparse_tensor",
    "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_wrapper_subclass",
}  # fmt: skip
ALLOWED: Final[dict[str, set[str]]] = {
    "builtins": _CONTAINERS,
    "__builtin__": _CONTAINERS | {"long", "unicode", "xrange"},
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "_codecs": {"encode"},  # how protocol 2 writes bytes: encode(text, "latin1")
    "torch": _STORAGES | _TENSORS | _DTYPES | _QUANTIZATIONS | {"Size", "Tensor", "device"},
    "torch.storage": {"TypedStorage", "UntypedStorage", "_TypedStorage", "_UntypedStorage"},
    "torch.cuda": _STORAGES | _TENSORS,
    "torch.sparse": _TENSORS,
    "torch.cuda.sparse": _TENSORS,
    "torch._utils": _REBUILDERS,
    "torch._tensor": {"_rebuild_from_type_v2"},
    "torch.nn.parameter": {"Buffer", "Parameter"},
    "torch.serialization": {"_get_layout"},
    "torch.torch_version": {"TorchVersion"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
    "numpy": {"dtype", "ndarray"},
    JOBLIB_ARRAY.module: {JOBLIB_ARRAY.name},  # whose arrays the machine reads
}
"""What torch's own `weights_only` loader allows, and what numpy and plain containers need."""

_ALLOWED_IMPORTS = AllowedImports(ALLOWED)
_WITH_TORCHSCRIPT = AllowedImports(ALLOWED, ignored=("__torch__", "torch.jit._pickle"))

_ELEMENT_BYTES = {
    "BFloat16": 2, "Bool": 1, "Byte": 1, "Char": 1, "ComplexDouble": 16, "ComplexFloat": 8, "Double": 8, "Float": 4,
    "Half": 2, "Int": 4, "Long": 8, "QInt32": 4, "QInt8": 1, "QUInt2x4": 1, "QUInt4x2": 1, "QUInt8": 1, "Short": 2,
    "Untyped": 1, "Float8_e4m3fn": 1, "Float8_e4m3fnuz": 1, "Float8_e5m2": 1, "Float8_e5m2fnuz": 1, "UInt16": 2,
    "UInt32": 4, "UInt64": 8,
}  # fmt: skip
"""Of torch's storage classes, without "Storage"."""

_MODULE = "a whole module, not a state_dict"
_EXPLANATIONS = {
    "sklearn.": "a scikit-learn model: skops stores it without pickle",
    "xgboost.": "an XGBoost model: save_model stores it without pickle",
    "lightgbm.": "a LightGBM model: save_model stores it without pickle",
    "catboost.": "a CatBoost model: save_model stores it without pickle",
    "torch.nn.modules.": _MODULE,
    "ultralytics.": _MODULE,
    "models.": _MODULE,
    "__main__.": _MODULE,
    "transformers.training_args.": "options of a training, which inference does not need",
    "joblib.numpy_pickle_compat.": "an array as joblib before 0.10 wrote it",
}
"""For imports that are common in model files, by the beginning of their module."""


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
            self.reasons.append("joblib and other unpicklers read its arrays of objects differently")
        if machine.has_odd_persistent_ids:
            self.reasons.append("its persistent IDs do not have the form that torch writes")


def inspect_pickles(
    read: ReadRange, start: int, end: int, *, budget: Budget | None = None, is_torchscript: bool = False
) -> ContentReport | None:
    """Inspect bytes `start` to `end` (excluded): one or more pickles, one after another.

    None if the content is not a pickle: every unpickler fails before it imports anything. With `is_torchscript`,
    imports of the program and of the functions that tag its types are not reported. `budget` is what may be read,
    shared with the other pickles of a file. Raises what `read` raises.
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
            outcome.reasons.append(f"bytes {machine.begins:,} to {source.end:,} are not a pickle")
            return number > 0
        outcome.add(machine)
        if value is None:
            return True
        values.append(value)
        if number == _LEGACY_OBJECT:
            storages = machine.storages
        if number == _LEGACY_PICKLES - 1 and values[0] == MAGIC and machine.read_int(values[1]) == _LEGACY_PROTOCOL:
            outcome.is_legacy = True
            outcome.reasons += _check_storages(source, storages)
            return True
        if source.position == source.end:
            return True
    outcome.reasons.append(f"there are more than {_MAX_PICKLES:,} pickles")
    return True


def _run(machine: PickleMachine, outcome: _Outcome) -> int | None:
    """Return the pickle's value; None if it ends early. Raises DeadStreamError if it ends before any import."""
    try:
        return machine.run()
    except DeadStreamError:
        if not machine.has_reached_import:
            raise
        outcome.reasons.append(f"the pickle is damaged or truncated at byte {machine.source.position:,}")
    except NotCanonicalError as error:
        machine.source.note(str(error))
    except LimitError:
        outcome.reasons.append(f"the pickle is too large to be parsed past byte {machine.source.position:,}")
    except UnparsedError as error:
        outcome.reasons.append(str(error))
    return None


def _check_storages(source: Source, storages: dict[str, Storage]) -> Iterator[str]:
    """Yield why the bytes after the pickles are not the storages of torch's legacy format: a length and elements each.

    https://github.com/pytorch/pytorch/blob/v2.8.0/torch/serialization.py (_legacy_save)
    """
    expected = 0
    for storage in storages.values():
        size = _ELEMENT_BYTES.get(storage.kind.removesuffix("Storage"))
        if size is None or storage.elements < 0:
            yield f"the size of torch.{storage.kind} is not known"
            return
        expected += _LENGTH_BYTES + storage.elements * size
    found = source.end - source.position
    if found != expected:
        yield f"{found:,} bytes follow the pickles, but the storages take {expected:,}"


def _report(source: Source, outcome: _Outcome) -> ContentReport:
    size = sum(end - start for start, end in outcome.spans)
    contents = (source.read_back(start, end) for start, end in outcome.spans if start < end)
    return ContentReport(
        format="torch-legacy" if outcome.is_legacy else "joblib" if outcome.has_joblib_arrays else "pickle",
        reason="; ".join(dict.fromkeys(outcome.reasons)) or None,
        findings=(
            *_list(FindingKind.PICKLE_IMPORT, map(_describe_import, outcome.imports)),
            *_list(FindingKind.PICKLE_NOT_CANONICAL, map(str, outcome.notes)),
        ),
        is_loadable=True,
        pickles=b"".join(contents) if size <= MAX_KEPT else None,
    )


def _describe_import(names: tuple[str, str]) -> str:
    module, name = names
    found = [text for beginning, text in _EXPLANATIONS.items() if f"{module}.".startswith(beginning)]
    return f"imports {module}.{name}" + "".join(f" ({text})" for text in found[:1])


def _list(kind: FindingKind, details: Iterable[str]) -> tuple[Finding, ...]:
    shown = ["".join(c if c.isprintable() else "?" for c in detail)[:_MAX_DETAIL] for detail in details]
    return list_findings(kind, Severity.HIGH, list(dict.fromkeys(shown))[:_MAX_FINDINGS])
