"""GGUF files of the gguf library, and handwritten ones. Files that llama.cpp refuses are refused."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.domain.findings import ContentReport, FileVerdict, FindingKind
from modelhaul.inspection.formats import gguf
from modelhaul.inspection.formats.gguf import inspect_gguf

FORMATS = Path(__file__).parents[1] / "checkpoints/formats"
KEY = "k"


def inspect(content: bytes) -> ContentReport:
    return inspect_gguf(lambda start, end: content[start:end], len(content))


def pack_text(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def pack_key(kind: int, value: bytes, name: str | bytes = KEY) -> bytes:
    return pack_text(name) + struct.pack("<I", kind) + value


def pack_tensor(name: str, shape: list[int], kind: int = 0, offset: int = 0) -> bytes:
    return pack_text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape) + struct.pack("<IQ", kind, offset)


def build(
    keys: list[bytes] | None = None, tensors: list[bytes] | None = None, data: bytes = b"", version: int = 3
) -> bytes:
    keys, tensors = keys or [], tensors or []
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys + tensors)
    return header + (bytes(-len(header) % 32) + data if tensors else b"")


@pytest.mark.parametrize("name", ["model.gguf", "vocabulary.gguf"])
def test_files_by_the_library_are_clean(name: str) -> None:
    report = inspect((FORMATS / name).read_bytes())
    assert report.verdict is FileVerdict.CLEAN
    assert [finding.kind for finding in report.findings] == [FindingKind.CHAT_TEMPLATE]


def test_templates_are_inspected() -> None:
    report = inspect((FORMATS / "unsafe-template.gguf").read_bytes())
    assert report.verdict is FileVerdict.UNSAFE
    named = pack_key(8, pack_text("{{ ''.__class__ }}"), "tokenizer.chat_template.tool_use")
    assert inspect(build([named])).verdict is FileVerdict.UNSAFE
    assert inspect(build([pack_key(8, pack_text("{{"), "tokenizer.chat_template")])).verdict is FileVerdict.UNSCANNED


@pytest.mark.parametrize(
    "content",
    [
        build(),
        build(version=2),
        build([pack_key(kind, bytes(size)) for kind, size in [(5, 4)]]),
        build([pack_key(9, struct.pack("<IQ", 8, 2) + pack_text("a") + pack_text(""))]),
        build([pack_key(9, struct.pack("<IQ", 6, 3) + bytes(12))]),
        build([], [pack_tensor("a", [2, 2])], bytes(16)),
        build([], [pack_tensor("a", [2, 2])], bytes(32)),
        build([], [pack_tensor("a", [])], bytes(4)),
        build([], [pack_tensor("a", [0, 5]), pack_tensor("b", [1])], bytes(4)),
        build([], [pack_tensor("a", [32], 8), pack_tensor("b", [1], 24, 64)], bytes(65)),
        build([pack_key(4, struct.pack("<I", 8), "general.alignment")], [pack_tensor("a", [1], 24)], b"x"),
    ],
    ids=range(11),
)
def test_files_that_llama_cpp_reads_are_clean(content: bytes) -> None:
    assert inspect(content).reason is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "ends within a value"),
        (b"GGML" + bytes(20), "not in GGUF format"),
        (build(version=1), "Unsupported: GGUF version 1"),
        (build(version=4), "Unsupported: GGUF version 4"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "the limits are"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40), "the limits are"),
        (build() + b"x", "but the file has 25 bytes"),
        (build([pack_key(5, bytes(4))] * 2), "duplicate key"),
        (build([pack_key(5, bytes(4), "")]), "Empty or duplicate key"),
        (build([pack_key(5, bytes(4), b"\xff")]), "not valid UTF-8"),
        (build([pack_key(13, bytes(4))]), "Unknown value type 13"),
        (build([pack_key(9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 4, 0))]), "Unknown value type 9"),
        (build([pack_key(9, struct.pack("<IQ", 4, 2**60))]), "Array has"),
        (build([pack_key(9, struct.pack("<IQ", 8, 1) + struct.pack("<Q", 2**64 - 1))]), "ends within a value"),
        (build([pack_key(8, struct.pack("<Q", 2**62))]), "ends within a value"),
        (build([pack_key(8, struct.pack("<Q", 2**62), "tokenizer.chat_template")]), "String before byte"),
        (build([pack_key(4, struct.pack("<I", 3), "general.alignment")]), "power of 2"),
        (build([pack_key(4, struct.pack("<I", 2**31), "general.alignment")]), "power of 2"),
        (build([pack_key(10, struct.pack("<Q", 32), "general.alignment")]), "power of 2"),
        (build([], [pack_tensor("a", [1])], bytes(3)), "Tensor data ends at"),
        (build([], [pack_tensor("a", [1])], bytes(5)), "Tensor data ends at"),
        (build([], [pack_tensor("a", [1])], bytes(33)), "Tensor data ends at"),
        (build([], [pack_tensor("a", [1], offset=32)], bytes(36)), "expected 0"),
        (build([], [pack_tensor("a", [1]), pack_tensor("b", [1])], bytes(36)), "expected 32"),
        (build([], [pack_tensor("a", [1]), pack_tensor("a", [1], offset=32)], bytes(36)), "Duplicate tensor"),
        (build([], [pack_tensor("a" * 64, [1])], bytes(4)), "has 64 bytes"),
        (build([], [pack_tensor("a", [1] * 5)], bytes(4)), "5 dimensions"),
        (build([], [pack_tensor("a", [33], 8)], bytes(34)), "not a multiple of 32"),
        (build([], [pack_tensor("a", [1], 4)], bytes(4)), "unknown type 4"),
        (build([], [pack_tensor("a", [2**62, 2**62])], bytes(4)), "overflows"),
    ],
)
def test_invalid_files_have_a_reason(content: bytes, words: str) -> None:
    report = inspect(content)
    assert report.reason is not None
    assert words in report.reason
    assert report.reason.isprintable()


def test_headers_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    content = build([pack_key(9, struct.pack("<IQ", 8, 1000) + pack_text("token") * 1000)])
    assert inspect(content).reason is None
    monkeypatch.setattr(gguf, "MAX_HEADER", 1000)
    assert inspect(content).reason is not None


@given(st.data())
def test_wrong_file_sizes_are_detected(draws: st.DataObject) -> None:
    content = (FORMATS / "model.gguf").read_bytes()
    cut = draws.draw(st.integers(0, len(content) - 33))
    assert inspect(content[:cut]).reason is not None
    assert inspect(content + bytes(draws.draw(st.integers(33, 100)))).reason is not None


@given(st.binary(max_size=200))
def test_any_content_has_a_report(content: bytes) -> None:
    inspect(content)
    inspect(b"GGUF\x03\x00\x00\x00" + content)
