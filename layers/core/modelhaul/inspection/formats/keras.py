"""Keras models: the configuration of the layers, which can refer to Python code, files and other models.

https://keras.io/api/saving: by default (safe_mode), Lambda layers are refused in `.keras` files, but not in all HDF5
files.
"""

import json
import re
from collections.abc import Iterator

from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity, limit_findings
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.windows import ContentError, read_windows

_MAX_CONFIG = 4 * 1024 * 1024  # bytes that are parsed at once, into objects of at most thirty times as many
_MAX_FINDINGS = 20
_SCANNED = 64 * 1024 * 1024  # bytes at each end of an HDF5 file
_OVERLAP = 1024  # bytes
_MAX_NAME = 80  # characters of a name in a finding
# The libraries from which Keras loads layers. Keras writes `builtins` for its own functions.
_PACKAGES = {"builtins", "keras", "keras_cv", "keras_hub", "keras_nlp", "keras_tuner", "tensorflow", "tf_keras"}
# The modules of functions that layers use. Other functions of Keras read and write files, or disable safe_mode.
_FUNCTIONS = re.compile(
    r"builtins|(?:keras|tf_keras|tensorflow\.keras|tensorflow\.python\.keras)(?:\.src)?\."
    r"(?:activations|backend|constraints|initializers|losses|metrics|ops|optimizers|regularizers)(?:\.\w+)*"
)
_LAMBDAS = {"Lambda", "__lambda__"}
_LOADERS = {
    "TorchModuleWrapper": "unpickles a torch module",
    "TFSMLayer": "loads a SavedModel from another path",
}
_LAMBDA_TEXT = re.compile(rb'class_name\\?"\s*:\s*\\?"(Lambda|__lambda__|TorchModuleWrapper|TFSMLayer)\\?"')

_ESCAPED_TEXT = re.compile(rb'(?:class_name|module)\\?"\s*:\s*\\?"[\w.]{0,100}\\+u00')
_MODULE_TEXT = re.compile(rb'"module\\?"\s*:\s*\\?"([\w.]{1,100})\\?"')


def inspect_keras_config(content: bytes) -> tuple[Finding, ...]:
    """Inspect `config.json` of a `.keras` archive. Raises ContentError if it is not JSON, or has more than 4 MiB."""
    return find_unsafe_layers(content, Severity.MEDIUM)


def find_unsafe_layers(content: bytes, severity: Severity) -> tuple[Finding, ...]:
    """Return a KERAS_LAMBDA finding of `severity` for each layer with bytecode.

    Also return a KERAS_MODULE finding for each layer that loads files or modules. At most 20 findings are returned.
    `content` is the JSON of a model or a layer. Raises ContentError.
    """
    if len(content) > _MAX_CONFIG:
        raise ContentError(f"Keras configuration has {len(content):,} bytes; the limit is {_MAX_CONFIG:,}")
    try:
        config = json.loads(content.decode())
    except (ValueError, RecursionError):
        raise ContentError("Keras configuration is not valid JSON") from None
    findings: dict[Finding, None] = {}
    for item in _walk(config):
        findings |= dict.fromkeys(_check_object(item, severity))
    return limit_findings(findings, _MAX_FINDINGS)


def inspect_hdf5(read: ReadRange, size: int) -> ContentReport:
    """Search the first and last 64 MiB for layers that can run code, as KERAS_LAMBDA. HDF5 is not parsed."""
    # A user block may precede the magic number of the file.
    names: dict[str, None] = {}
    for start, end in ((0, min(size, _SCANNED)), (max(_SCANNED, size - _SCANNED), size)):
        tail = b""
        for window in read_windows(read, start, end):
            names |= dict.fromkeys(f"Layer {match[1].decode()}" for match in _LAMBDA_TEXT.finditer(tail + window))
            names |= dict.fromkeys("Layer whose name has JSON escapes" for _ in _ESCAPED_TEXT.finditer(tail + window))
            modules = {match[1].decode("ascii", "replace") for match in _MODULE_TEXT.finditer(tail + window)}
            unknown = (name for name in modules if name.split(".", 1)[0] not in _PACKAGES)
            names |= dict.fromkeys(f"Layer from the module {name}" for name in unknown)
            tail = window[-_OVERLAP:]
    findings = [Finding(FindingKind.KERAS_LAMBDA, Severity.HIGH, f"{name} can run code") for name in names]
    other = Finding(FindingKind.KERAS, Severity.LOW, "Not all layers were inspected")
    return ContentReport("hdf5", "Unsupported: HDF5", tuple(findings) or (other,))


def _walk(config: object) -> Iterator[dict[str, object]]:
    left = [config]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield value
            left += value.values()
        elif isinstance(value, list):
            left += value


def _check_object(item: dict[str, object], severity: Severity) -> Iterator[Finding]:
    name, module = item.get("class_name"), item.get("module")
    config = item.get("config")
    if name in _LAMBDAS:
        yield Finding(FindingKind.KERAS_LAMBDA, severity, "Lambda layer or function with Python bytecode")
    if isinstance(name, str) and name in _LOADERS:
        yield Finding(FindingKind.KERAS_MODULE, Severity.HIGH, f"Layer {name} {_LOADERS[name]}")
    if isinstance(module, str) and name is not None and not _is_known(name, module):
        used = str(config if name == "function" else name)
        detail = f"Layer uses {f'{module[:_MAX_NAME]}.{used[:_MAX_NAME]}'!a}"
        yield Finding(FindingKind.KERAS_MODULE, Severity.HIGH, detail)
    if isinstance(config, dict) and isinstance(config.get("vocabulary"), str):
        detail = f"Layer reads a vocabulary from {_shorten(config['vocabulary'])}"
        yield Finding(FindingKind.KERAS_MODULE, Severity.HIGH, detail)


def _is_known(name: object, module: str) -> bool:
    if name == "function":
        return _FUNCTIONS.fullmatch(module) is not None
    return module.split(".", 1)[0] in _PACKAGES


def _shorten(text: object) -> str:
    return ascii(str(text)[:_MAX_NAME])
