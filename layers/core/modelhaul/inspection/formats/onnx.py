"""ONNX models: their structure is read, tensors are not. Custom operators need a library that the model does not bring.

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
_SHOWN = 200  # characters of a location in a finding
_KEY, _VALUE = "StringStringEntryProto.key", "StringStringEntryProto.value"
_VERSION = "ModelProto.ir_version"
_EXTERNAL = "TensorProto.external_data"
_EXTERNAL_KEYS = {b"location", b"offset", b"length", b"checksum"}
# What leads out of the model's folder on any system: absolute names, drives, backslashes, `..`; control characters.
_OUTSIDE = re.compile(r"/|[A-Za-z]:|.*\\|(?:.*/)?\.\.(?:/|\Z)|.*[\x00-\x1f]|\Z", re.DOTALL)


def inspect_onnx(read: ReadRange, size: int) -> ContentReport:
    """ONNX_EXTERNAL_DATA for tensors in files outside the folder of the model."""
    locations: dict[str, None] = {}
    reason = None
    try:
        _collect_locations(read, size, locations)
    except ContentError as error:
        reason = str(error)
    outside = [location[:_SHOWN] for location in locations if _OUTSIDE.match(location)]
    details = [f"tensors in {location!a}, outside the model's folder" for location in outside[:_MAX_FINDINGS]]
    return ContentReport("onnx", reason, list_findings(FindingKind.ONNX_EXTERNAL_DATA, Severity.HIGH, details))


def _collect_locations(read: ReadRange, size: int, locations: dict[str, None]) -> None:
    """Add the files with external tensors, relative to the folder of the model. Raises ContentError."""
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
            raise ContentError(f"tensors in more than {_MAX_LOCATIONS:,} files")
    if not has_version:
        raise ContentError("is not an ONNX model: it has no IR version")


def _read_location(entry: dict[str, bytes]) -> str | None:
    """The file that an entry of a tensor's external data names; None for its other entries."""
    key = entry.get(_KEY, b"")
    if key not in _EXTERNAL_KEYS:
        raise ContentError(f"unknown entry {key[:_SHOWN]!r} of external data")
    if key != b"location":
        return None
    try:
        return entry.get(_VALUE, b"").decode()
    except UnicodeDecodeError:
        raise ContentError("the location of external data is not UTF-8") from None
