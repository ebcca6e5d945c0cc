from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.domain.findings import ContentReport
from modelhaul.inspection.formats import msgpack_files
from modelhaul.inspection.formats.msgpack_files import inspect_msgpack

FORMATS = Path(__file__).parents[1] / "checkpoints/formats"


def inspect(content: bytes) -> ContentReport:
    return inspect_msgpack(lambda start, end: content[start:end], len(content))


def test_flax_weights_are_clean() -> None:
    content = (FORMATS / "flax_model.msgpack").read_bytes()
    assert inspect(content) == ContentReport("msgpack")
    for cut in range(len(content)):
        assert inspect(content[:cut]).reason is not None
    assert inspect(content + b"\xc0").reason == "1 bytes follow the map"


@pytest.mark.parametrize(
    "value",
    [
        b"\x00", b"\xff", b"\xc0", b"\xc2", b"\xc3", b"\xa1a", b"\xd9\x01a", b"\xda\x00\x01a", b"\xdb\x00\x00\x00\x01a",
        b"\xc4\x01a", b"\xc5\x00\x01a", b"\xc6\x00\x00\x00\x01a", b"\xca1234", b"\xcb12345678", b"\xcc1", b"\xcd12",
        b"\xce1234", b"\xcf12345678", b"\xd01", b"\xd112", b"\xd21234", b"\xd312345678", b"\xd4\x01a", b"\xd5\x02ab",
        b"\xd6\x03abcd", b"\xd7\x01abcdefgh", b"\xd8\x01abcdefghijklmnop", b"\xc7\x01\x01a", b"\xc8\x00\x01\x01a",
        b"\xc9\x00\x00\x00\x01\x01a", b"\x90", b"\x91\xc0", b"\xdc\x00\x01\xc0", b"\xdd\x00\x00\x00\x01\xc0", b"\x80",
        b"\x81\xa1a\xc0", b"\xde\x00\x01\xa1a\xc0", b"\xdf\x00\x00\x00\x01\xa1a\xc0",
    ],
)  # fmt: skip
def test_each_type_of_value(value: bytes) -> None:
    assert inspect(b"\x81\xa1a" + value) == ContentReport("msgpack")
    assert inspect(b"\x82\xa1a" + value + b"\xa1b" + value) == ContentReport("msgpack")
    assert inspect(b"\x81\xa1a" + value[:-1] if len(value) > 1 else b"\x81\xa1a").reason is not None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b"\x90",
        b"\x92\xa1a\xc0",
        b"\x81\xa1a\xc1",
        b"\x81\xa1a\xd4\x04a",
        b"\x81\xa1a\xd4\xffa",
        b"\x81\xa1a\xc6\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1a" + b"\x91" * 10_000,
        b"\x80\x04\x95",
        b"text",
        (FORMATS / "unsafe-extension.msgpack").read_bytes(),
    ],
)
def test_other_content_has_a_reason(content: bytes) -> None:
    report = inspect(content)
    assert report.reason is not None
    assert report.reason.isprintable()


def test_values_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msgpack_files, "_MAX_VALUES", 1_000)
    assert inspect(b"\xde\x04\x00" + b"\x00" * 2048).reason == "File has more than 1,000 values"


@given(st.binary(max_size=200))
def test_any_content_has_a_report(content: bytes) -> None:
    inspect(content)
    inspect(b"\x81\xa1a" + content)
