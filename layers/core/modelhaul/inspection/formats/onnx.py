"""ONNX models: the structure is parsed, tensors are skipped. Custom operators require a library outside the model.

https://github.com/onnx/onnx/blob/main/docs/ExternalData.md
"""

import re

from modelhaul.domain.findings import ContentReport, FindingKind, Severity, list_findings
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.formats.onnx_schema import ONNX
from modelhaul.inspection.formats.protobuf import read_message
from modelhaul.inspection.windows import ContentError, Cursor

_MAX_LOCATIONS = 10_000  # different files
_MAX_FINDINGS = 20
_MAX_LOCATION = 200  # characters of a location in a finding
_KEY, _VALUE = "StringStringEntryProto.key", "StringStringEntryProto.value"
_VERSION = "ModelProto.ir_version"
_EXTERNAL = "TensorProto.external_data"
_EXTERNAL_KEYS = {b"location", b"offset", b"length", b"checksum"}
# Paths that lead out of the model's directory on any system: absolute paths, drives, backslashes, `..`. Also control
# characters, and the empty path.
_OUTSIDE = re.compile(r"/|[A-Za-z]:|.*\\|(?:.*/)?\.\.(?:/|\Z)|.*[\x00-\x1f]|\Z", re.DOTALL)


def inspect_onnx(read: ReadRange, size: int) -> ContentReport:
    """Inspect a model. ONNX_EXTERNAL_DATA are tensors in files outside the model's directory."""
    locations: dict[str, None] = {}
    reason = None
    try:
        _collect_locations(read, size, locations)
    except ContentError as error:
        reason = str(error)
    outside = [location[:_MAX_LOCATION] for location in locations if _OUTSIDE.match(location)]
    details = [f"Tensors in {location!a}, outside the model's directory" for location in outside[:_MAX_FINDINGS]]
    return ContentReport("onnx", reason, list_findings(FindingKind.ONNX_EXTERNAL_DATA, Severity.HIGH, details))


def _collect_locations(read: ReadRange, size: int, locations: dict[str, None]) -> None:
    """Add the files with external tensors, relative to the model's directory. Raises ContentError."""
    entry: dict[str, bytes] = {}
    has_version = False
    for place, value in read_message(Cursor(read, 0, size), ONNX, "ModelProto", {_KEY, _VALUE, _VERSION}):
        has_version |= place == _VERSION
        if isinstance(value, bytes):
            entry[place] = value
        elif value is None:
            if place == _EXTERNAL and (location := _read_location(entry)) is not None:
                locations[location] = None
            entry.clear()
        if len(locations) > _MAX_LOCATIONS:
            raise ContentError(f"Tensors are stored in more than {_MAX_LOCATIONS:,} external files")
    if not has_version:
        raise ContentError("File is not an ONNX model: ir_version is missing")


def _read_location(entry: dict[str, bytes]) -> str | None:
    """Return the file that an entry of a tensor's external data names; None for other entries."""
    key = entry.get(_KEY, b"")
    if key not in _EXTERNAL_KEYS:
        raise ContentError(f"Unknown entry {key[:_MAX_LOCATION]!r} in external_data")
    if key != b"location":
        return None
    try:
        return entry.get(_VALUE, b"").decode()
    except UnicodeDecodeError:
        raise ContentError("Location of external data is not valid UTF-8") from None
