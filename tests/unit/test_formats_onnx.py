"""ONNX models of the onnx library, and handwritten messages that protobuf readers read differently or refuse."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.domain.findings import ContentReport, FileVerdict, FindingKind, Severity
from modelhaul.inspection.formats.onnx import inspect_onnx

FORMATS = Path(__file__).parents[1] / "checkpoints/formats"


def inspect(content: bytes) -> ContentReport:
    return inspect_onnx(lambda start, end: content[start:end], len(content))


def pack_number(value: int) -> bytes:
    packed = b""
    while value > 0x7F:
        packed += bytes([value & 0x7F | 0x80])
        value >>= 7
    return packed + bytes([value])


def pack(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return pack_number(number << 3) + pack_number(content)
    return pack_number(number << 3 | 2) + pack_number(len(content)) + content


def build_model(tensor: bytes = b"", more: bytes = b"") -> bytes:
    graph = pack(2, b"graph") + pack(5, pack(8, b"w") + tensor)
    return pack(1, 10) + pack(7, graph) + more


def build_external(location: bytes) -> bytes:
    return build_model(pack(13, pack(1, b"location") + pack(2, location)) + pack(14, 1))


def test_locations_in_unparsed_files_are_found() -> None:
    content = (FORMATS / "unsafe-external.onnx").read_bytes() + b"\xf8\x3f\x01"
    report = inspect(content)
    assert report.reason is not None
    assert report.verdict is FileVerdict.UNSAFE


def test_models_by_the_library_are_clean() -> None:
    assert inspect((FORMATS / "model.onnx").read_bytes()) == ContentReport("onnx")
    external = (FORMATS / "external.onnx").read_bytes()
    assert inspect(external) == ContentReport("onnx")
    report = inspect((FORMATS / "unsafe-external.onnx").read_bytes())
    assert report.verdict is FileVerdict.UNSAFE


@pytest.mark.parametrize("location", ["weights.bin", "a/b.data", "..a", "a..", "a/...", "model.onnx_data"])
def test_files_in_the_directory_are_clean(location: str) -> None:
    content = build_external(location.encode())
    assert inspect(content) == ContentReport("onnx")


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "..",
        "../a",
        "a/../../b",
        "a/..",
        "C:/a",
        "c:a",
        "\\\\host\\a",
        "..\\a",
        "a\\..\\b",
        "a\x00",
        "",
        "//a",
    ],
)
def test_files_outside_the_directory_are_unsafe(location: str) -> None:
    (finding,) = inspect(build_external(location.encode())).findings
    assert (finding.kind, finding.severity) == (FindingKind.ONNX_EXTERNAL_DATA, Severity.HIGH)
    assert finding.detail.isprintable()


def test_locations_are_found_in_every_tensor() -> None:
    entry = pack(13, pack(1, b"location") + pack(2, b"../a")) + pack(14, 1)
    attribute = pack(1, b"value") + pack(5, entry)
    node = pack(4, b"Constant") + pack(5, attribute)
    sparse = pack(22, pack(2, entry))
    subgraph = pack(6, pack(1, node))
    for place in (
        pack(7, pack(1, node)),
        pack(7, pack(1, pack(5, sparse))),
        pack(7, pack(1, pack(5, subgraph))),
        pack(7, pack(15, pack(1, entry))),
        pack(25, pack(7, node)),
        pack(25, pack(11, attribute)),
        pack(20, pack(2, pack(5, entry))),
    ):
        found = [finding.detail for finding in inspect(pack(1, 10) + place).findings]
        assert found == ["Tensors in '../a', outside the model's directory"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        pack(7, b""),
        b"\x80\x02cos\nsystem\n.",
        build_model(more=pack(99, b"unknown")),
        build_model(more=pack(7, b"")),
        build_model(more=pack(1, 11)),
        build_model(more=b"\x0b\x0c"),
        build_model(more=b"\x00"),
        build_model(more=b"\x12"),
        build_model(more=b"\x12\x05abc"),
        build_model(more=b"\x12\x83\x00abc"),
        build_model(more=b"\x28" + b"\xff" * 10 + b"\x01"),
        build_model(more=b"\x28" + b"\xff" * 9 + b"\x02"),
        build_model(more=b"\x2a\x01\x01"),
        build_model(pack(13, pack(1, b"basepath") + pack(2, b"/etc"))),
        build_model(pack(13, pack(1, b"location") + pack(2, b"\xff"))),
        build_model(b"\x22\x03abc"),
        build_model(b"\x3a\x01\x80"),
        build_model(b"\x4a\x7f"),
        pack(1, 10) + b"\x3a\x05" + pack(2, b"abcdefgh"),
        build_external(b"a") + b"x",
    ],
    ids=range(21),
)
def test_non_strict_messages_have_a_reason(content: bytes) -> None:
    report = inspect(content)
    assert report.reason is not None
    assert report.reason.isprintable()


def test_message_depth_is_limited() -> None:
    kind = b""
    for _ in range(200):
        kind = pack(4, pack(1, kind))
    report = inspect(pack(1, 10) + pack(7, pack(11, pack(2, kind))))
    assert report.reason == "File has more than 100 nested messages"


def test_tensors_are_not_read() -> None:
    head = pack(1, 10) + pack_number(7 << 3 | 2)
    size = 4 * 10**9
    raw = pack_number(9 << 3 | 2) + pack_number(size)
    tensor = pack_number(5 << 3 | 2) + pack_number(size + len(raw)) + raw
    head += pack_number(len(tensor) + size) + tensor
    reads = []

    def read(start: int, end: int) -> bytes:
        reads.append(end - start)
        return head[start:end].ljust(end - start, b"\x00")

    assert inspect_onnx(read, len(head) + size).reason is None
    assert sum(reads) < 2 * 1024 * 1024


@given(st.data())
def test_any_content_has_a_report(draws: st.DataObject) -> None:
    content = (FORMATS / "model.onnx").read_bytes()
    start = draws.draw(st.integers(0, len(content)))
    inspect(content[:start] + draws.draw(st.binary(max_size=4)) + content[start + draws.draw(st.integers(0, 4)) :])
    inspect(draws.draw(st.binary(max_size=100)))
