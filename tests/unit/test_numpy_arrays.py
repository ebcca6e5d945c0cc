"""numpy's files. `tests/differential/test_numpy_headers.py` compares their headers with numpy."""

import pickle
import struct

import pytest

from modelhaul.domain.findings import ContentReport, FileVerdict, FindingKind
from modelhaul.inspection.pickles.numpy_arrays import inspect_array
from tests.pickles import PLAIN, SYSTEM, CountedReads, build_array


def inspect(content: bytes) -> ContentReport:
    return inspect_array(lambda start, end: content[start:end], 0, len(content))


def build_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def test_numbers_are_clean_and_not_read() -> None:
    content = build_array("'<f4'", bytes(8))
    read = CountedReads(content)
    assert inspect_array(read, 0, len(content)) == ContentReport("npy", is_loadable=True, pickles=b"")
    assert sum(read.sizes) < 100


def test_arrays_of_plain_objects_are_clean() -> None:
    report = inspect(build_array("'|O'", PLAIN))
    assert (report.format, report.verdict, report.pickles) == ("npy", FileVerdict.CLEAN, PLAIN)


@pytest.mark.parametrize("descr", ["'|O'", "[('a', '<f4'), ('b', '|O')]"])
def test_imports_of_objects_are_findings(descr: str) -> None:
    report = inspect(build_array(descr, SYSTEM))
    assert [(finding.kind, finding.detail) for finding in report.findings] == [
        (FindingKind.PICKLE_IMPORT, "Pickle imports os.system")
    ]


@pytest.mark.parametrize(
    "descr",
    [
        "'object'",
        "'object_'",
        "'T'",
        "'i4,O'",
        "'(2,)object'",
        "[('a','object')]",
        "[('a', '<f4', ())]",
        "[('a', 'V0', (2,))]",
        "('<f4', 2)",
        "3",
    ],
)
@pytest.mark.parametrize("data", [SYSTEM, bytes(8)])
def test_dtypes_that_numpy_does_not_write_are_unsafe(descr: str, data: bytes) -> None:
    report = inspect(build_array(descr, data))
    assert report.verdict is FileVerdict.UNSAFE
    assert FindingKind.PICKLE_NOT_CANONICAL in {finding.kind for finding in report.findings}


SHAPE = "'fortran_order': False, 'shape': (2,), }\n"
UNPARSED = {
    "too few bytes": (build_array("'<f4'", bytes(7)), "7 bytes follow"),
    "too many bytes": (build_array("'<f4'", bytes(9)), "9 bytes follow"),
    "objects that are not a pickle": (build_array("'|O'", bytes(9)), "not a pickle"),
    "no Python": (build_header("{'descr': __x__}"), "cannot be parsed"),
    "a header that is cut off": (b"\x93NUMPY\x01\x00\xff\xff{}", "truncated"),
    "only the magic": (b"\x93NUMPY", "truncated"),
    "an unknown version": (b"\x93NUMPY\x04\x00" + bytes(100), "unknown version"),
    "another key": (build_header("{'descr': '<f4', 'x': 1, " + SHAPE), "cannot be parsed"),
    "a missing key": (build_header("{" + SHAPE), "cannot be parsed"),
    "an escape": (build_header("{'descr': '\\x4f', " + SHAPE), "does not write"),
    "a negative shape": (build_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }\n"), "shape"),
    "a shape of truth": (build_header("{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }\n"), "shape"),
    "a large shape": (
        build_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2**9,), }\n"),
        "cannot be parsed",
    ),
    "an overflow": (build_header(f"{{'descr': '<f4', 'fortran_order': True, 'shape': (0, {2**64}), }}\n"), "too large"),
    "a long header": (b"\x93NUMPY\x02\x00" + struct.pack("<I", 70_000) + b" " * 70_000, "limit"),
    "a header that is not text": (b"\x93NUMPY\x03\x00" + struct.pack("<I", 2) + b"\xff\xff", "not valid text"),
}


@pytest.mark.parametrize("name", UNPARSED)
def test_unparsed_arrays_have_a_reason(name: str) -> None:
    content, words = UNPARSED[name]
    report = inspect(content)
    assert (report.format, report.verdict, report.is_loadable) == ("npy", FileVerdict.UNSCANNED, True)
    assert words in (report.reason or "")


def test_objects_after_an_unparsed_header_are_inspected() -> None:
    assert inspect(build_header("{'descr': '\\x4f', " + SHAPE) + SYSTEM).verdict is FileVerdict.UNSAFE


def test_only_bytes_of_the_range_are_read() -> None:
    array = build_array("'|O'", pickle.dumps([1, 2]))
    content = SYSTEM + array + SYSTEM
    report = inspect_array(lambda s, e: content[s:e], len(SYSTEM), len(SYSTEM) + len(array))
    assert report.verdict is FileVerdict.CLEAN
