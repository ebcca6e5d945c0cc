"""Validation of safetensors files, compared with the library.

Files that the library refuses must be refused. Files that it reads must be accepted, with the exceptions that
formats/safetensors.py lists.
"""

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from modelhaul.inspection.formats.safetensors import check_safetensors

DTYPES = ("BOOL", "F4", "F6_E2M3", "U8", "I16", "BF16", "F32", "C64", "I64", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "X")
BITS = {"F4": 4, "F6_E2M3": 6, "BOOL": 8, "U8": 8, "I16": 16, "BF16": 16, "F32": 32, "C64": 64, "I64": 64}
TOKENS = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"\\udc00", b"\\ud83d\\ude00",
    b"\\n", b" ", b"\n", b"\t", b"\x00", b"\xff", b"\xc3\xa9", b"\xef\xbb\xbf", b"0", b"1", b"8", b"-0", b"-1",
    b"1.0", b"1e0", b"00", b"18446744073709551615", b"18446744073709551616", b"9223372036854775808", b"null", b"true",
    b"NaN", b"Infinity", b"dtype", b"shape", b"data_offsets", b"__metadata__", b'"a":', b'"a"', b'"U8"', b"{}",
    b"[0,1]", b"[0,0]", b"/**/",
)  # fmt: skip


def is_accepted(content: bytes) -> bool:
    return check_safetensors(lambda start, end: content[start:end], len(content)) is None


def is_read(content: bytes) -> bool:
    try:
        deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError:
        return False
    return True


def is_listed(header: bytes) -> bool:
    """Return whether a header that the library reads is one of the documented exceptions of formats/safetensors.py."""
    repeated = False

    def build(members: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        repeated |= len(dict(members)) != len(members)
        return dict(members)

    parsed = json.loads(header, object_pairs_hook=build)
    tensors = [value for name, value in parsed.items() if name != "__metadata__"]
    return repeated or any(
        not isinstance(tensor, dict)
        or set(tensor) != {"dtype", "shape", "data_offsets"}
        or not isinstance(tensor["dtype"], str)
        for tensor in tensors
    )


def compare(header: bytes, data: bytes) -> bool:
    """Return whether the library reads the file. Both must agree."""
    content = struct.pack("<Q", len(header)) + header + data
    read, accepted = is_read(content), is_accepted(content)
    assert read or not accepted
    assert accepted or not read or is_listed(header)
    return read


@st.composite
def build_file(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Return a valid or nearly valid header, and the number of data bytes that it declares."""
    members: dict[str, Any] = {}
    position = 0
    for name in draw(st.lists(st.text(max_size=3), max_size=4, unique=True)):
        dtype = draw(st.sampled_from(DTYPES))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        elements = 1
        for dimension in shape:
            elements *= dimension
        end = position + elements * BITS.get(dtype, 8) // 8
        members[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    if draw(st.booleans()):
        members["__metadata__"] = draw(st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3)))
    names = draw(st.permutations(list(members)))
    header = json.dumps({name: members[name] for name in names}, ensure_ascii=draw(st.booleans()))
    return header.encode("utf-8", "surrogatepass"), bytes(position)


@pytest.mark.slow
@given(build_file())
@settings(max_examples=300)
def test_nearly_valid_headers(file: tuple[bytes, bytes]) -> None:
    compare(*file)


@pytest.mark.slow
@given(build_file(), st.data())
@settings(max_examples=1_000)
def test_headers_with_insertions_and_deletions(file: tuple[bytes, bytes], draws: st.DataObject) -> None:
    header, data = file
    for _ in range(draws.draw(st.integers(1, 3))):
        start = draws.draw(st.integers(0, len(header)))
        end = min(len(header), start + draws.draw(st.integers(0, 3)))
        piece = draws.draw(st.sampled_from((b"", *TOKENS)))
        header = header[:start] + piece + header[end:]
    compare(header, data + bytes(draws.draw(st.sampled_from((0, 0, 0, 1)))))


VALUE = st.recursive(
    st.sampled_from(TOKENS) | st.integers(-1, 2**65).map(lambda number: str(number).encode()),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: b"[" + b",".join(items) + b"]")
        | st.lists(st.tuples(st.sampled_from(TOKENS), inner), max_size=3).map(
            lambda pairs: b"{" + b",".join(b'"%s":%s' % pair for pair in pairs) + b"}"
        )
    ),
    max_leaves=5,
)


@pytest.mark.slow
@given(st.sampled_from(("dtype", "shape", "data_offsets", "more", "__metadata__")), VALUE)
@settings(max_examples=700)
def test_values_of_any_kind(name: str, value: bytes) -> None:
    tensor = {"dtype": b'"U8"', "shape": b"[0]", "data_offsets": b"[0,0]"}
    if name == "__metadata__":
        compare(b'{"__metadata__":%s}' % value, b"")
        return
    members = b",".join(b'"%s":%s' % (key.encode(), text) for key, text in (tensor | {name: value}).items())
    compare(b'{"a":{%s}}' % members, b"")


def test_library_reads_written_files() -> None:
    assert compare(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}   ', b"x")
    assert compare(b'\n{"__metadata__":null}', b"")
    assert not compare(b'{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x")
    for dtype in DTYPES:
        bits = BITS.get(dtype, 8)
        assert compare(
            b'{"a":{"dtype":"%s","shape":[4],"data_offsets":[0,%d]}}' % (dtype.encode(), bits // 2), bytes(bits // 2)
        ) is (dtype != "X")
