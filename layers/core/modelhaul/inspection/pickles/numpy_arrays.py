"""numpy's `.npy` files: a header in Python syntax, then the array's bytes, or a pickle for an array of objects.

Headers are read as numpy reads them. Dtypes are accepted only in the form that numpy writes: numpy reads many other
forms, including other names of the object dtype. https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import ast
import math
import re
from dataclasses import dataclass, replace
from typing import Final

from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.pickles.source import Budget
from modelhaul.inspection.pickles.streams import inspect_pickles

MAGIC: Final = b"\x93NUMPY"
_VERSIONS = {b"\x01\x00": (2, "latin-1"), b"\x02\x00": (4, "latin-1"), b"\x03\x00": (4, "utf-8")}
"""By version: the size of the header's length in bytes, and the header's encoding."""
_HEAD = 12  # bytes before the header, at most
_MAX_HEADER = 64 * 1024  # bytes; numpy itself refuses more than 10,000 characters, unless it may unpickle
_MAX_FIELDS = 1_000
_MAX_DEPTH = 8  # of nested fields
_MAX_DIMENSIONS = 64
_MAX_ELEMENTS = 2**48  # numpy's own product overflows above 2**63
_MAX_DETAIL = 100  # characters of a dtype in a finding
_KEYS = {"descr", "fortran_order", "shape"}
_DTYPE = re.compile(
    r"[<>|=]?(?:(?P<number>\?|b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32))|(?P<text>[SUV])(?P<length>0|[1-9][0-9]{0,8})"
    r"|[mM]8(?:\[(?:[1-9][0-9]{0,8})?(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)
_OBJECT = re.compile(r"\|?O8?")
_TEXT_BYTES = {"S": 1, "U": 4, "V": 1}  # of a character
_TIME_BYTES = 8
# Python 2 wrote some lengths with the suffix L, which numpy removes.
_PYTHON_2 = re.compile(
    r"(\{'descr': '[^'\\]*', 'fortran_order': (?:True|False), 'shape': \()((?:[0-9]+L?, ?)*+(?:[0-9]+L?)?+)(\), \} *\n)"
)

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_WARNED = re.compile(r"[0-9][A-Za-z_]")  # Python warns about a letter that follows a number


class _HeaderError(Exception):
    """The header cannot be parsed. The message is the reason of the report."""


class _ObjectsError(Exception):
    """The dtype contains objects."""


class _NotCanonicalError(Exception):
    """numpy may accept this dtype, but does not write it. The message is the dtype."""


def inspect_array(read: ReadRange, start: int, end: int, budget: Budget | None = None) -> ContentReport:
    """Inspect a `.npy` file in bytes `start` to `end` (excluded). Raises what `read` raises."""
    report = ContentReport(format="npy", is_loadable=True)
    head = read(start, min(start + _HEAD, end))
    width, encoding = _VERSIONS.get(head[6:8], (0, ""))
    header_start = start + len(MAGIC) + 2 + width
    data_start = header_start + int.from_bytes(head[8 : 8 + width], "little")
    if not width or not head.startswith(MAGIC) or data_start > end:
        return replace(report, reason="numpy header is truncated or has an unknown version")
    try:
        header = _read_header(read, header_start, data_start, encoding)
        expected = header.elements * find_item_size(header.descr)
    except _ObjectsError:
        return _inspect_objects(read, data_start, end, budget)
    except _HeaderError as error:
        # numpy may still accept the header, and unpickle the bytes after it.
        return replace(_inspect_objects(read, data_start, end, budget), reason=str(error))
    except _NotCanonicalError as error:
        detail = f"Array dtype is in a form that numpy does not write: {str(error)[:_MAX_DETAIL]}"
        objects = _inspect_objects(read, data_start, end, budget)
        finding = Finding(FindingKind.PICKLE_NOT_CANONICAL, Severity.HIGH, detail)
        return replace(objects, findings=(*objects.findings, finding))
    if expected != end - data_start:
        reason = f"{end - data_start:,} bytes follow the header, but the array has {expected:,} bytes"
        return replace(report, reason=reason)
    return replace(report, pickles=b"")


def _inspect_objects(read: ReadRange, data_start: int, end: int, budget: Budget | None) -> ContentReport:
    report = inspect_pickles(read, data_start, end, budget=budget)
    if report is None:
        return ContentReport(format="npy", reason="Objects of the array are not a pickle", is_loadable=True)
    return replace(report, format="npy")


@dataclass(frozen=True, slots=True)
class _Header:
    descr: object
    elements: int


def _read_header(read: ReadRange, start: int, end: int, encoding: str) -> _Header:
    """Parse bytes `start` to `end` (excluded). Raises _HeaderError."""
    if end - start > _MAX_HEADER:
        raise _HeaderError(f"numpy header has {end - start:,} bytes; the limit is {_MAX_HEADER:,}")
    try:
        text = read(start, end).decode(encoding)
    except UnicodeDecodeError:
        raise _HeaderError("numpy header is not valid text") from None
    return _parse_header(text, may_be_python_2=encoding == "latin-1")


def _parse_header(text: str, *, may_be_python_2: bool) -> _Header:
    """Parse the text of a header. Raises _HeaderError."""
    found = _PYTHON_2.fullmatch(text) if may_be_python_2 else None
    literal = "".join((found[1], found[2].replace("L", ""), found[3])) if found else text
    if "\\" in literal or _WARNED.search(_QUOTED.sub("", literal)):
        raise _HeaderError("numpy header has escapes or numbers that numpy does not write")
    try:
        header = ast.literal_eval(literal)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.keys() != _KEYS or not isinstance(header["fortran_order"], bool):
        raise _HeaderError("numpy header cannot be parsed")
    return _Header(header["descr"], _count_elements(header["shape"]))


def _count_elements(shape: object) -> int:
    """Return the number of elements. Raises _HeaderError."""
    dimensions: tuple[object, ...] | None = shape if isinstance(shape, tuple) else None
    sizes = [size for size in dimensions or () if type(size) is int and size >= 0]
    if dimensions is None or len(sizes) != len(dimensions) or len(sizes) > _MAX_DIMENSIONS:
        raise _HeaderError("numpy header has an invalid shape")
    # Without zeros: numpy's product can overflow before it is multiplied by zero.
    if math.prod(size for size in sizes if size) > _MAX_ELEMENTS:
        raise _HeaderError("Shape in the numpy header is too large")
    return math.prod(sizes)


def find_item_size(descr: object, depth: int = 0) -> int:
    """Return the size of one element in bytes. Raises _ObjectsError and _NotCanonicalError."""
    if isinstance(descr, str):
        return _find_plain_size(descr)
    if not isinstance(descr, list) or depth > _MAX_DEPTH or len(descr) > _MAX_FIELDS:
        raise _NotCanonicalError(repr(descr))
    return sum(_find_field_size(field, depth + 1) for field in descr)


def _find_plain_size(descr: str) -> int:
    if _OBJECT.fullmatch(descr):
        raise _ObjectsError
    found = _DTYPE.fullmatch(descr)
    if found is None:
        raise _NotCanonicalError(repr(descr))
    if found["text"]:
        return _TEXT_BYTES[found["text"]] * int(found["length"])
    if found["number"]:
        return int(found["number"][1:] or 1)
    return _TIME_BYTES


def _find_field_size(field: object, depth: int) -> int:
    match field:
        case (str() | (str(), str()), descr):
            return find_item_size(descr, depth)
        case (str() | (str(), str()), descr, (int(), *_) as shape) if isinstance(shape, tuple):
            return _find_subarray_size(descr, shape, depth)
    raise _NotCanonicalError(repr(field))


def _find_subarray_size(descr: object, shape: tuple[object, ...], depth: int) -> int:
    size = find_item_size(descr, depth)
    try:
        elements = _count_elements(shape)
    except _HeaderError:
        raise _NotCanonicalError(repr(shape)) from None
    if not size:
        # numpy has no such subarrays.
        raise _NotCanonicalError(repr(descr))
    return size * elements
