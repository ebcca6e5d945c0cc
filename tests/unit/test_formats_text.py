import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.domain.findings import ContentReport
from modelhaul.inspection.formats.text import MAX_JSON, MAX_TEXT, inspect_json, inspect_text
from modelhaul.inspection.windows import WINDOW

EDGE = WINDOW - 1  # a multi-byte character that starts here extends over two windows


def read_text(content: bytes) -> ContentReport:
    return inspect_text(lambda start, end: content[start:end], len(content))


def read_json(content: bytes) -> ContentReport:
    return inspect_json(lambda start, end: content[start:end], len(content))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[PAD]\n[UNK]\nhello\r\n\tworld\x0c\x0b\n",
        "ü 漢字 😀 \u0085 \u200b\n".encode(),
        codecs.BOM_UTF8 + b"text",
        codecs.BOM_UTF16_LE + "Größe 😀".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "Größe".encode("utf-16-be"),
        b"a" * EDGE + "😀".encode() + b"b" * WINDOW,
    ],
    ids=range(7),
)
def test_text_is_clean(content: bytes) -> None:
    assert read_text(content) == ContentReport("text")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a\x00b", "File is not text: control character 0x00 after byte"),
        (b"\x80\x02cos\nsystem\n.", "File is not valid UTF-8 after byte"),
        (b"a\x1b[31m", "File is not text: control character 0x1b after byte"),
        ("Größe".encode("latin-1"), "File is not valid UTF-8 after byte"),
        (b"a" * WINDOW + b"\x07", "File is not text: control character 0x07 after byte"),
        ("😀".encode()[:-1], "File is not valid UTF-8 after byte"),
        (b"\xed\xa0\x80", "File is not valid UTF-8 after byte"),
        (b"\xc0\x80", "File is not valid UTF-8 after byte"),
        (codecs.BOM_UTF16_LE + b"\x00\xd8", "File is not valid UTF-16-LE after byte"),
        (codecs.BOM_UTF16_LE + b"a", "File is not valid UTF-16-LE after byte"),
        (codecs.BOM_UTF16_LE + b"a\x00\x00\x00", "File is not text: control character 0x00 after byte"),
    ],
)
def test_non_text_has_a_reason(content: bytes, reason: str) -> None:
    report = read_text(content)
    assert report.reason is not None
    assert report.reason.startswith(reason)


def test_large_files_are_not_read() -> None:
    def fail(start: int, end: int) -> bytes:
        raise AssertionError

    for report in (inspect_text(fail, MAX_TEXT + 1), inspect_json(fail, MAX_JSON + 1)):
        assert report.reason is not None
        assert "the limit is" in report.reason


@pytest.mark.parametrize(
    "content", [b"{}", b"[]", b'[{"a": [1, 2.5e3, null, "\\ud83d\\ude00"]}]', b'"a"', b" 3\n", b"NaN"]
)
def test_json_of_any_kind_is_clean(content: bytes) -> None:
    assert read_json(content) == ContentReport("json")


def test_large_json_is_clean() -> None:
    assert read_json(b"[" + b'{"a": "b", "c": [1, 2, 3]}, ' * 200_000 + b"null]") == ContentReport("json")


BROKEN = [b"", b"1", b"1}", b"{a: 1}", b"1] [2]", b"[" * 20_000, b'"\x00"]', b'"\xff"]', b"'a']"]


@pytest.mark.parametrize("content", [*BROKEN, b"1" * 4_301 + b"]"], ids=range(10))
def test_hostile_json_has_a_reason(content: bytes) -> None:
    assert read_json(b"[" + content).reason is not None


@pytest.mark.parametrize("content", BROKEN, ids=range(9))
def test_large_hostile_json_has_a_reason(content: bytes) -> None:
    padding = b'"' + b"x" * 3_000_000 + b'",'
    assert read_json(b"[" + padding + padding + content).reason is not None


@given(st.binary(max_size=200))
def test_text_is_what_python_decodes(content: bytes) -> None:
    is_clean = read_text(content).reason is None
    if is_clean and not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        assert "\x00" not in content.decode()
    read_json(content)
