from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.domain.findings import ContentReport
from modelhaul.inspection.formats.sentencepiece import MAX_SIZE, inspect_sentencepiece
from tests.unit.test_formats_onnx import pack

FORMATS = Path(__file__).parents[1] / "checkpoints/formats"


def inspect(content: bytes) -> ContentReport:
    return inspect_sentencepiece(lambda start, end: content[start:end], len(content))


@pytest.mark.parametrize("name", ["sentencepiece-bpe.model", "sentencepiece-unigram.model"])
def test_models_by_the_library_are_clean(name: str) -> None:
    content = (FORMATS / name).read_bytes()
    assert inspect(content) == ContentReport("sentencepiece")
    for changed in (content + b"\x00", content + pack(9, 1), content[:-1], b"\x80\x02}." + content):
        assert inspect(changed).reason is not None


@pytest.mark.parametrize("content", [b"", b"\x0a\x00", b"text", b"\x80\x02cos\nsystem\n.", pack(2, b"")])
def test_other_content_has_a_reason(content: bytes) -> None:
    assert inspect(content).reason is not None


def test_large_files_are_not_read() -> None:
    assert inspect_sentencepiece(lambda start, end: b"", MAX_SIZE + 1).reason is not None


@given(st.binary(max_size=200))
def test_any_content_has_a_report(content: bytes) -> None:
    inspect(content)
