"""Strict validation of a safetensors file and its header.

https://github.com/huggingface/safetensors#format. The rules are those of the library, with four exceptions: the library
has other limits (a header may have 100 MB), accepts duplicate keys (the last tensor counts), accepts a list in place
of a tensor's object, and accepts further fields. Such files are refused here: no writer creates them, and readers read
them differently.
"""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Never, cast

from modelhaul.domain.findings import ContentReport
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.windows import ContentError, read_windows

# Bytes. Headers of the largest models have less than 5 MB. The names in a header of 32 MiB take 150 MB of memory.
MAX_HEADER = 32 * 1024 * 1024
_MAX_TENSOR = 64 * 1024  # bytes of one tensor's description
_MAX_METADATA = 8 * 1024 * 1024  # bytes; the metadata of trainers has up to 1 MiB
_MAX_METADATA_STRINGS = 400_000  # names and values
_LENGTH = 8  # bytes of the header's length
_LIMIT = 2**64  # numbers of the library are unsigned and have 64 bits
_MAX_NAME = 80  # characters of a name in a message
_FIELDS = {"dtype", "shape", "data_offsets"}
_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
}
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"(?:[^"\\]|\\.)*+"'
_EMPTY = re.compile(_SPACE + rb"\{" + _SPACE + rb"\}" + _SPACE)
_BEGIN = re.compile(_SPACE + rb"\{" + _SPACE)
# A value is an object without nested objects (a tensor, or the metadata), or null.
_MEMBER = re.compile(
    b'(%s)%s:%s(null|\\{[^{}"]*+(?:%s[^{}"]*+)*+\\})%s([,}])%s'
    % (_STRING, _SPACE, _SPACE, _STRING, _SPACE, _SPACE),
    re.DOTALL,
)  # fmt: skip


def inspect_safetensors(read: ReadRange, size: int) -> ContentReport:
    return ContentReport("safetensors", check_safetensors(read, size))


def check_safetensors(read: ReadRange, size: int) -> str | None:
    """Return the problem of the file in one line; None if the file is valid. Reads the header only."""
    try:
        header = _read_header(read, size)
        extents = sorted(_read_tensors(header))
    except ContentError as error:
        return str(error)
    data = size - _LENGTH - len(header)
    for (_, end), (begin, _) in pairwise([(0, 0), *extents, (data, data)]):
        if begin != end:
            return f"Gap or overlap at byte {min(begin, end):,} of the tensor data ({data:,} bytes)"
    return None


def _read_header(read: ReadRange, size: int) -> bytes:
    if size < _LENGTH:
        raise ContentError(f"File is too short for safetensors ({size} bytes)")
    length = int.from_bytes(read(0, _LENGTH), "little")
    if length > size - _LENGTH:
        raise ContentError(
            f"File is not in safetensors format: the header length is {length:,} bytes, but the file has {size:,} bytes"
        )
    if length > MAX_HEADER:
        raise ContentError(f"Header has {length:,} bytes; the limit is {MAX_HEADER:,}")
    return b"".join(read_windows(read, _LENGTH, _LENGTH + length))


def _read_tensors(header: bytes) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each tensor, in the order of the header."""
    names: set[str] = set()
    for key, value in _split_members(header):
        name = _parse(key)
        if not isinstance(name, str) or not _is_unicode(name):
            raise ContentError("Invalid safetensors header: a name is not valid Unicode")
        if name in names:
            raise ContentError(f"Duplicate tensor name {name[:_MAX_NAME]!a}")
        names.add(name)
        if name == "__metadata__":
            _check_metadata(value)
        else:
            yield _check_tensor(name[:_MAX_NAME], value)


def _split_members(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the JSON of each name and each value in the header's object."""
    begin = _BEGIN.match(header)
    if begin is None:
        raise ContentError("File is not in safetensors format: the header is not a JSON object")
    if _EMPTY.fullmatch(header):
        return
    position = begin.end()
    last = b","
    while last == b",":
        member = _MEMBER.match(header, position)
        if member is None:
            raise ContentError(f"Invalid safetensors header at byte {position:,}")
        yield member[1], member[2]
        position, last = member.end(), member[3]
    if position != len(header):
        raise ContentError(f"Invalid safetensors header at byte {position:,}")


def _check_metadata(content: bytes) -> None:
    if len(content) > _MAX_METADATA or content.count(b'"') > 2 * _MAX_METADATA_STRINGS:
        raise ContentError(f"Metadata has {len(content):,} bytes; the limit is {_MAX_METADATA:,}")
    metadata = _parse(content)
    if metadata is None:
        return
    for pair in cast("dict[str, object]", metadata).items():
        if not all(isinstance(text, str) and _is_unicode(text) for text in pair):
            raise ContentError("Invalid __metadata__: names and values must be valid Unicode strings")


def _check_tensor(name: str, content: bytes) -> tuple[int, int]:
    """Return the start and end of the tensor's bytes."""
    if len(content) > _MAX_TENSOR:
        raise ContentError(f"Description of tensor {name!a} has {len(content):,} bytes; the limit is {_MAX_TENSOR:,}")
    tensor = _parse(content)
    if not isinstance(tensor, dict) or set(tensor) != _FIELDS:
        raise ContentError(f"Tensor {name!a} must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
    bits = _BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise ContentError(f"Tensor {name!a} has the unknown dtype {_describe(dtype)}")
    if not _are_counts(shape):
        raise ContentError(f"Tensor {name!a} has the invalid shape {_describe(shape)}")
    if not _are_counts(offsets) or len(offsets) != 2:  # noqa: PLR2004 - start and end
        raise ContentError(f"Tensor {name!a} has the invalid data_offsets {_describe(offsets)}")
    begin, end = offsets
    if end - begin != _count_bytes(name, shape, bits):
        raise ContentError(f"Tensor {name!a} has {end - begin:,} bytes, which does not match its shape and dtype")
    return begin, end


def _count_bytes(name: str, shape: list[int], bits: int) -> int:
    """Return the size of a tensor. An overflow is an error even if a later dimension is 0, as in the library."""
    total = 1
    for factor in (*shape, bits):
        total *= factor
        if total >= _LIMIT:
            raise ContentError(f"Shape of tensor {name!a} overflows 64 bits")
    if total % 8:
        raise ContentError(f"Tensor {name!a} does not have a whole number of bytes")
    return total // 8


def _parse(content: bytes) -> object:
    try:
        parsed: object = json.loads(
            content.decode(),
            object_pairs_hook=_build_object,
            parse_int=_parse_count,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except (ValueError, RecursionError):
        raise ContentError("Invalid safetensors header: not valid JSON in UTF-8") from None
    return parsed


def _build_object(members: list[tuple[str, object]]) -> dict[str, object]:
    built = dict(members)
    if len(built) != len(members):
        raise ContentError("Invalid safetensors header: duplicate key in an object")
    return built


def _parse_count(digits: str) -> int:
    # The library reads "-0" as a floating point number.
    return -1 if digits.startswith("-") else int(digits)


def _refuse_number(text: str) -> Never:
    raise ContentError(f"Invalid safetensors header: {text[:_MAX_NAME]} is not an unsigned integer")


def _describe(value: object) -> str:
    if isinstance(value, list) and any(isinstance(item, list) for item in value):
        # `ascii` could exceed the recursion limit.
        return "(a nested list)"
    return ascii(value)[:_MAX_NAME]


def _are_counts(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < _LIMIT for value in values)


def _is_unicode(text: str) -> bool:
    """Return whether the text has no unpaired surrogate, which `json` accepts."""
    return _SURROGATE.search(text) is None
