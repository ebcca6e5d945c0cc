"""Keras models: the configuration of their layers, which can name Python code, files and other models.

https://keras.io/api/saving: loading refuses Lambda layers in `.keras` by default (safe_mode), not in all HDF5 files.
"""

import json
import re
from collections.abc import Iterator

from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity, limit_findings
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.windows import ContentError, read_windows

_MAX_CONFIG = 4 * 1024 * 1024  # bytes that are parsed at once, to at most thirty times as many
_MAX_FINDINGS = 20
_SCANNED = 64 * 1024 * 1024  # bytes at each end of an HDF5 file
_OVERLAP = 1024  # bytes
_SHOWN = 80  # characters of a name in a finding
# The libraries that Keras loads layers from; `builtins` is what it writes for functions of its own.
_PACKAGES = {"builtins", "keras", "keras_cv", "keras_hub", "keras_nlp", "keras_tuner", "tensorflow", "tf_keras"}
# Where the functions are that layers use; others of Keras read and write files, or lift its restrictions.
_FUNCTIONS = re.compile(
    r"builtins|(?:keras|tf_keras|tensorflow\.keras|tensorflow\.python\.keras)(?:\.src)?\."
    r"(?:activations|backend|constraints|initializers|losses|metrics|ops|optimizers|regularizers)(?:\.\w+)*"
)
_LAMBDAS = {"Lambda", "__lambda__"}
_LOADERS = {
    "TorchModuleWrapper": "unpickles a torch module",
    "TFSMLayer": "loads a SavedModel from elsewhere",
}
_LAMBDA_TEXT = re.compile(rb'class_name\\?"\s*:\s*\\?"(Lambda|__lambda__|TorchModuleWrapper|TFSMLayer)\\?"')

_ESCAPED_TEXT = re.compile(rb'(?:class_name|module)\\?"\s*:\s*\\?"[\w.]{0,100}\\+u00')
_MODULE_TEXT = re.compile(rb'"module\\?"\s*:\s*\\?"([\w.]{1,100})\\?"')


def inspect_keras_config(content: bytes) -> tuple[Finding, ...]:
    """`config.json` of a `.keras` archive. Raises ContentError for what is not JSON, or more than 4 MiB."""
    return find_unsafe_layers(content, Severity.MEDIUM)


def find_unsafe_layers(content: bytes, severity: Severity) -> tuple[Finding, ...]:
    """KERAS_LAMBDA of that severity for byte code, KERAS_MODULE for objects outside Keras and layers that load files.

    `content` is the JSON of a model or a layer. Raises ContentError.
    """
    if len(content) > _MAX_CONFIG:
        raise ContentError(f"a Keras configuration of {len(content):,} bytes; the limit is {_MAX_CONFIG:,}")
    try:
        config = json.loads(content.decode())
    except (ValueError, RecursionError):
        raise ContentError("a Keras configuration that is not JSON") from None
    findings: dict[Finding, None] = {}
    for item in _walk(config):
        findings |= dict.fromkeys(_judge(item, severity))
    return limit_findings(findings, _MAX_FINDINGS)


def inspect_hdf5(read: ReadRange, size: int) -> ContentReport:
    """Never parsed to its end. KERAS_LAMBDA if the first or last 64 MiB name a layer that can run code."""
    # The file may begin with a block of the user's, before the magic number.
    names: dict[str, None] = {}
    for start, end in ((0, min(size, _SCANNED)), (max(_SCANNED, size - _SCANNED), size)):
        tail = b""
        for window in read_windows(read, start, end):
            names |= dict.fromkeys(match[1].decode() for match in _LAMBDA_TEXT.finditer(tail + window))
            names |= dict.fromkeys("with an escaped name" for _ in _ESCAPED_TEXT.finditer(tail + window))
            modules = {match[1].decode("ascii", "replace") for match in _MODULE_TEXT.finditer(tail + window)}
            names |= {f"of the module {name}": None for name in modules if name.split(".", 1)[0] not in _PACKAGES}
            tail = window[-_OVERLAP:]
    findings = [Finding(FindingKind.KERAS_LAMBDA, Severity.HIGH, f"layer {name} can run code") for name in names]
    other = Finding(FindingKind.KERAS, Severity.LOW, "not all layers were read")
    return ContentReport("hdf5", "HDF5 is not parsed", tuple(findings) or (other,))


def _walk(config: object) -> Iterator[dict[str, object]]:
    left = [config]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield value
            left += value.values()
        elif isinstance(value, list):
            left += value


def _judge(item: dict[str, object], severity: Severity) -> Iterator[Finding]:
    name, module = item.get("class_name"), item.get("module")
    config = item.get("config")
    if name in _LAMBDAS:
        yield Finding(FindingKind.KERAS_LAMBDA, severity, "a Lambda layer or function with Python byte code")
    if isinstance(name, str) and name in _LOADERS:
        yield Finding(FindingKind.KERAS_MODULE, Severity.HIGH, f"layer {name} {_LOADERS[name]}")
    if isinstance(module, str) and name is not None and not _is_known(name, module):
        detail = f"names {_shorten(config if name == 'function' else name)} of the module {_shorten(module)}"
        yield Finding(FindingKind.KERAS_MODULE, Severity.HIGH, detail)
    if isinstance(config, dict) and isinstance(config.get("vocabulary"), str):
        detail = f"reads a vocabulary from {_shorten(config['vocabulary'])}"
        yield Finding(FindingKind.KERAS_MODULE, Severity.HIGH, detail)


def _is_known(name: object, module: str) -> bool:
    if name == "function":
        return _FUNCTIONS.fullmatch(module) is not None
    return module.split(".", 1)[0] in _PACKAGES


def _shorten(text: object) -> str:
    return ascii(str(text)[:_SHOWN])
