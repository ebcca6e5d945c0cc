import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.domain.findings import FileVerdict
from modelhaul.inspection.formats.safetensors import check_safetensors, inspect_safetensors
from tests.weights import wrap_weights

TENSORS: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [0, 7], "data_offsets": [24, 24]},
    "c": {"dtype": "F4", "shape": [4], "data_offsets": [24, 26]},
    "d": {"dtype": "I64", "shape": [], "data_offsets": [26, 34]},
}
SIZE = 34


def build(tensors: Any, data: bytes = bytes(SIZE)) -> bytes:
    header = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()  # surrogates as escapes
    return struct.pack("<Q", len(header)) + header + data


def check(content: bytes) -> str | None:
    return check_safetensors(lambda start, end: content[start:end], len(content))


def change(name: str, **fields: Any) -> dict[str, Any]:
    return TENSORS | {name: TENSORS[name] | fields}


def test_valid_files_are_accepted() -> None:
    assert check(build(TENSORS)) is None
    assert check(build({}, b"")) is None
    assert check(build({"__metadata__": {}}, b"")) is None
    assert check(build(json.dumps(TENSORS).encode() + b"   ")) is None
    assert check(build(dict(reversed(TENSORS.items())))) is None
    assert check(build(b"\n\t {} \r\n", b"")) is None
    assert check(build({"__metadata__": None}, b"")) is None
    assert check(build({'\U0001f600 {"}': TENSORS["a"]}, bytes(24))) is None
    assert check(build({"a": {"dtype": "U8", "shape": [0, 2**64 - 1], "data_offsets": [0, 0]}}, b"")) is None


def test_report_covers_the_whole_file() -> None:
    content = build(TENSORS)
    assert inspect_safetensors(lambda start, end: content[start:end], len(content)).verdict is FileVerdict.CLEAN
    report = inspect_safetensors(lambda start, end: content[start:end], len(content) - 1)
    assert report.format == "safetensors"
    assert report.verdict is FileVerdict.UNSCANNED


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        bytes(8),
        struct.pack("<Q", 100) + b"{}",
        struct.pack("<Q", 100_000_001) + bytes(100),
        struct.pack("<Q", 2**63) + b"{}",
        build(b"[]", b""),
        build(b"\xef\xbb\xbf{}", b""),
        build(b"{}{}", b""),
        build(b"{},", b""),
        build(b"{,}", b""),
        build(b"null", b""),
        build(b"{", b""),
        build(b'{"a": 1}', b""),
        build(b"\xff{}", b""),
        build(b"{" * 100_000, b""),
        build(b'{"a": {"dtype": "U8", "dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}', b""),
        build(b'{"__metadata__": {}, "__metadata__": {}}', b""),
        build({"__metadata__": {"a": 1}}, b""),
        build({"__metadata__": []}, b""),
        build({"__metadata__": {"a": None}}, b""),
        build({"__metadata__": {"\ud800": "a"}}, b""),
        build({"__metadata__": {"a": "\udfff"}}, b""),
        build(b'{"__metadata__": null, "__metadata__": null}', b""),
        build({"\ud800": TENSORS["a"]}, bytes(24)),
        build(b'{"\\ud800": %s}' % json.dumps(TENSORS["a"]).encode(), bytes(24)),
        build(b'{"a\x01": %s}' % json.dumps(TENSORS["a"]).encode(), bytes(24)),
        build(b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [-0, 1]}}', b"x"),
        build(b'{"a": {"dtype": "U8", "shape": [1e0], "data_offsets": [0, 1]}}', b"x"),
        build(b'{"a": {"dtype": "U8", "shape": [%s], "data_offsets": [0, 1]}}' % (b"1" * 5_000), b"x"),
        build(b'{"a": {"dtype": "U8", "shape": [NaN], "data_offsets": [0, 1]}}', b"x"),
        build(
            b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "a": {"dtype": "U8", "shape": [0], '
            b'"data_offsets": [1, 1]}}',
            b"x",
        ),
        build(change("a", shape=[2**63, 8, 0], data_offsets=[0, 0])),
        build({"a": {"dtype": "U8", "shape": [0] * 40_000, "data_offsets": [0, 0]}}, b""),
        build({"__metadata__": {"a": "x" * 9_000_000}}, b""),
        build({}, b"x"),
        build(TENSORS, bytes(SIZE + 1)),
        build(TENSORS, bytes(SIZE - 1)),
        build(change("a", dtype="F31")),
        build(change("a", dtype=["F32"])),
        build(change("a", shape=[2, 2])),
        build(change("a", shape=[-2, -3])),
        build(change("a", shape=[2.0, 3])),
        build(change("a", shape=[True, 6])),
        build(change("a", shape=[2**40, 2**40])),
        build(change("a", shape="23")),
        build(change("a", data_offsets=[0])),
        build(change("a", data_offsets=[24, 0])),
        build(change("a", data_offsets=[0, 24, 0])),
        build(change("a", data_offsets=[1, 25])),
        build(change("d", data_offsets=[25, 33])),
        build(change("d", data_offsets=[0, 8])),
        build(change("c", shape=[3])),
        build(change("a", more=1)),
        build({"a": ["U8", [1], [0, 1]]}, b"x"),
        build({name: tensor for name, tensor in TENSORS.items() if name != "a"}),
    ],
)
def test_invalid_files_have_a_reason(content: bytes) -> None:
    wrong = check(content)
    assert wrong
    assert wrong.isprintable()
    assert len(wrong) < 200


@given(st.binary(max_size=200))
def test_any_content_has_a_report(content: bytes) -> None:
    check(content)
    check(struct.pack("<Q", len(content)) + content)


@given(st.binary(max_size=1000))
def test_any_bytes_can_be_a_tensor(data: bytes) -> None:
    assert check(wrap_weights(data)) is None


@given(st.data())
def test_wrong_file_sizes_are_detected(data: st.DataObject) -> None:
    content = build(TENSORS)
    cut = data.draw(st.integers(0, len(content) - 1))
    assert check(content[:cut])
    assert check(content + bytes(data.draw(st.integers(1, 50))))
