"""Strict validation of a safetensors file and its header.

https://github.com/huggingface/safetensors#format, read as the library reads it, but for four things. It has other
limits: a header may have 100 MB. Of a name that is repeated it takes the last tensor; a tensor may be a list of its
fields, or have more of them. No writer makes those, and readers differ on them: they are refused here.
"""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Never, cast

from modelhaul.domain.findings import ContentReport
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.windows import ContentError, read_windows

# Bytes. The largest models' shards have less than 5 MB; the names of 32 MiB of tensors take 150 MB of memory.
MAX_HEADER = 32 * 1024 * 1024
_MAX_TENSOR = 64 * 1024  # bytes of one tensor's description
_MAX_METADATA = 8 * 1024 * 1024  # bytes; trainers' have up to one
_MAX_METADATA_STRINGS = 400_000  # names and values
_LENGTH = 8  # bytes of the header's length
_LIMIT = 2**64  # of a number: the library's are unsigned, of 64 bits
_SHOWN = 80  # characters of a name in a message
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
# A value is an object without objects in it, as tensors and metadata are, or null.
_MEMBER = re.compile(
    b'(%s)%s:%s(null|\\{[^{}"]*+(?:%s[^{}"]*+)*+\\})%s([,}])%s'
    % (_STRING, _SPACE, _SPACE, _STRING, _SPACE, _SPACE),
    re.DOTALL,
)  # fmt: skip


def inspect_safetensors(read: ReadRange, size: int) -> ContentReport:
    return ContentReport("safetensors", check_safetensors(read, size))


def check_safetensors(read: ReadRange, size: int) -> str | None:
    """What is wrong with the file, in a line; None if it is valid. Reads its header only."""
    try:
        header = _read_header(read, size)
        extents = sorted(_read_tensors(header))
    except ContentError as error:
        return str(error)
    data = size - _LENGTH - len(header)
    for (_, end), (begin, _) in pairwise([(0, 0), *extents, (data, data)]):
        if begin != end:
            return f"gap or overlap at byte {min(begin, end):,} of the {data:,} bytes of tensors"
    return None


def _read_header(read: ReadRange, size: int) -> bytes:
    if size < _LENGTH:
        raise ContentError(f"has {size} bytes, which is too short for safetensors")
    length = int.from_bytes(read(0, _LENGTH), "little")
    if length > size - _LENGTH:
        raise ContentError(f"is not a safetensors file: its header would have {length:,} bytes")
    if length > MAX_HEADER:
        raise ContentError(f"has a header of {length:,} bytes; the limit is {MAX_HEADER:,}")
    return b"".join(read_windows(read, _LENGTH, _LENGTH + length))


def _read_tensors(header: bytes) -> Iterator[tuple[int, int]]:
    """Where each tensor begins and ends, in the order of the header."""
    names: set[str] = set()
    for key, value in _split_members(header):
        name = _parse(key)
        if not isinstance(name, str) or not _is_unicode(name):
            raise ContentError("invalid safetensors header: a name is not valid Unicode")
        if name in names:
            raise ContentError(f"duplicate tensor name {name[:_SHOWN]!a}")
        names.add(name)
        if name == "__metadata__":
            _check_metadata(value)
        else:
            yield _check_tensor(name[:_SHOWN], value)


def _split_members(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """JSON of the name and of the value of each member of the one object that the header is."""
    begin = _BEGIN.match(header)
    if begin is None:
        raise ContentError("is not a safetensors file: its header is not a JSON object")
    if _EMPTY.fullmatch(header):
        return
    position = begin.end()
    last = b","
    while last == b",":
        member = _MEMBER.match(header, position)
        if member is None:
            raise ContentError(f"invalid safetensors header at byte {position:,}")
        yield member[1], member[2]
        position, last = member.end(), member[3]
    if position != len(header):
        raise ContentError(f"invalid safetensors header at byte {position:,}")


def _check_metadata(content: bytes) -> None:
    if len(content) > _MAX_METADATA or content.count(b'"') > 2 * _MAX_METADATA_STRINGS:
        raise ContentError(f"has metadata of {len(content):,} bytes; the limit is {_MAX_METADATA:,}")
    metadata = _parse(content)
    if metadata is None:
        return
    for pair in cast("dict[str, object]", metadata).items():
        if not all(isinstance(text, str) and _is_unicode(text) for text in pair):
            raise ContentError("invalid __metadata__: names and values must be strings in valid Unicode")


def _check_tensor(name: str, content: bytes) -> tuple[int, int]:
    """Where its bytes begin and end."""
    if len(content) > _MAX_TENSOR:
        raise ContentError(
            f"the description of tensor {name!a} has {len(content):,} bytes; the limit is {_MAX_TENSOR:,}"
        )
    tensor = _parse(content)
    if not isinstance(tensor, dict) or set(tensor) != _FIELDS:
        raise ContentError(f"tensor {name!a} must have dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
    bits = _BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise ContentError(f"tensor {name!a} has an unknown dtype")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:  # noqa: PLR2004 - begin and end
        raise ContentError(f"tensor {name!a} has an invalid shape or data_offsets")
    begin, end = offsets
    if end - begin != _count_bytes(name, shape, bits):
        raise ContentError(f"tensor {name!a} has {end - begin:,} bytes, which does not match its shape and dtype")
    return begin, end


def _count_bytes(name: str, shape: list[int], bits: int) -> int:
    """As the library multiplies: an overflow is an error, even where a later dimension is 0."""
    total = 1
    for factor in (*shape, bits):
        total *= factor
        if total >= _LIMIT:
            raise ContentError(f"the shape of tensor {name!a} overflows 64 bits")
    if total % 8:
        raise ContentError(f"tensor {name!a} does not have a whole number of bytes")
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
        raise ContentError("invalid safetensors header: not JSON in UTF-8") from None
    return parsed


def _build_object(members: list[tuple[str, object]]) -> dict[str, object]:
    built = dict(members)
    if len(built) != len(members):
        raise ContentError("invalid safetensors header: a name is repeated in an object")
    return built


def _parse_count(digits: str) -> int:
    # "-0" is a floating point number to the library.
    return -1 if digits.startswith("-") else int(digits)


def _refuse_number(text: str) -> Never:
    raise ContentError(f"invalid safetensors header: {text[:_SHOWN]} is not a count")


def _are_counts(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < _LIMIT for value in values)


def _is_unicode(text: str) -> bool:
    """Whether it has no half of a surrogate pair, which `json` takes."""
    return _SURROGATE.search(text) is None
