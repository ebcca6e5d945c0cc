"""joblib files, in which arrays lie between the opcodes of a pickle."""

import io
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pytest

from modelhaul.domain.findings import ContentReport, FileVerdict
from modelhaul.inspection.pickles.streams import inspect_pickles
from tests.pickles import SYSTEM, CountedReads

ARRAY = np.arange(6.0).reshape(2, 3)


def dump(value: object, protocol: int | None = None) -> bytes:
    body = io.BytesIO()
    joblib.dump(value, body, protocol=protocol)
    return body.getvalue()


def inspect(content: bytes) -> ContentReport:
    report = inspect_pickles(lambda start, end: content[start:end], 0, len(content))
    assert report is not None
    return report


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "dtype", ["?", "i1", ">i2", "i8", "u4", "f2", "f8", "g", "c8", "c16", "U5", "S3", "V4", "M8[D]", "m8[25s]"]
)
def test_arrays_of_numbers_and_texts_are_clean(dtype: str, protocol: int) -> None:
    array = np.zeros((2, 3), dtype)
    value = {"a": array, "b": [array, np.zeros(0, dtype), np.zeros((), dtype), 1], "c": (np.asfortranarray(array), "x")}
    report = inspect(dump(value, protocol))
    assert (report.format, report.verdict, report.reason) == ("joblib", FileVerdict.CLEAN, None)


def test_plain_values_in_joblib_files_are_clean() -> None:
    value = {"a": [1, 2.5, None], "scalar": np.float64(1), "dtype": np.dtype("f4")}
    assert inspect(dump(value)).verdict is FileVerdict.CLEAN


def test_arrays_are_not_read() -> None:
    content = dump({str(number): np.zeros(1_000_000) for number in range(4)})
    read = CountedReads(content)
    report = inspect_pickles(read, 0, len(content))
    assert report is not None
    assert report.verdict is FileVerdict.CLEAN
    assert len(report.pickles or b"") < 1_000
    assert sum(read.sizes) < 200_000


def test_import_after_an_array_is_found() -> None:
    content = dump({"a": ARRAY})
    report = inspect(content[:-2] + b"0" + SYSTEM[2:])
    assert [f.detail for f in report.findings if "imports" in f.detail] == ["Pickle imports os.system"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.array([1, "x", None], object), "arrays of objects"),
        (np.zeros(2, "f4,i4"), "joblib array of dtype"),
        (np.zeros(2, np.dtype("f8", metadata={"a": 1})), "joblib array of dtype"),
    ],
)
def test_unsupported_arrays_have_a_reason(value: Any, words: str) -> None:
    report = inspect(dump(value))
    assert report.verdict is FileVerdict.UNSCANNED
    assert words in (report.reason or "")


def test_imports_in_arrays_of_objects_are_findings() -> None:
    content = dump(np.array([len], object))
    report = inspect(content)
    assert report.verdict is FileVerdict.UNSAFE
    assert [finding.detail for finding in report.findings] == ["Pickle imports builtins.len"]


HONEST = dump(ARRAY)
FLAGS = b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"


@pytest.mark.parametrize(
    "content",
    [
        HONEST.replace(FLAGS, FLAGS.replace(b"K\x00", b"K\x3f")),
        HONEST.replace(FLAGS, FLAGS.replace(b"K\x00", b"K\x01")),
        HONEST.replace(b"\x8c\x02f8", b"\x8c\x02O8"),
        HONEST.replace(b"\x8c\x02f8", b"\x8c\x02f3"),
        HONEST.replace(b"\x89\x88\x87", b"\x89\x89\x87"),
        HONEST.replace(b"K\x02K\x03\x86", b"NK\x03\x86"),
        HONEST.replace(b"K\x02K\x03\x86", b"K\x02K\x04\x86"),
        HONEST.replace(b"K\x02K\x03\x86", b"K\x02K\x02\x86"),
        HONEST.replace(b"K\x10ub", b"K\x10u0N}b"),
        HONEST[: HONEST.index(b"K\x10ub") + 4],
        HONEST[:-1],
        HONEST.replace(b"\x8c\x0aallow_mmap", b"\x8c\x0aallow_nmap"),
        HONEST.replace(b"K\x10u", b"K\x08u"),
    ],
)
def test_modified_joblib_arrays_are_not_clean(content: bytes) -> None:
    assert content != HONEST
    assert inspect(content).verdict is not FileVerdict.CLEAN


@pytest.mark.parametrize("padding", [b"\x00", b"N", b"\x11" + b"\xff" * 17])
def test_invalid_padding_is_unsafe(padding: bytes) -> None:
    begins = HONEST.index(b"K\x10ub") + 4
    length = HONEST[begins]
    report = inspect(HONEST[:begins] + padding + HONEST[begins + 1 + length :])
    assert report.verdict is FileVerdict.UNSAFE
    assert "padding" in report.findings[0].detail
