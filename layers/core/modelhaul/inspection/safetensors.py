"""Whether a safetensors file is what its header says, and its header what the format says.

https://github.com/huggingface/safetensors#format
"""

from itertools import pairwise
from math import prod

from modelhaul.json_streams import JsonError, ReadRange, read_members

# Bytes. The format has 100 MB; the largest models' shards have less than 5, and a tensor of 50 takes 230 here.
MAX_HEADER = 32 * 1024 * 1024
_LENGTH = 8
_MOST_DIMENSIONS = 1_000
_LARGEST = 2**63
_SHOWN = 80  # characters of a name in what is said
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


class _FormatError(Exception):
    pass


def check_safetensors(read: ReadRange, size: int) -> str | None:
    """What is wrong with the file, in a line; None if it is sound. Two reads, and one for each 4 MiB of header."""
    try:
        places, begins = _read_header(read, size)
        if not places or places[0][0]:
            begin = places[0][0] if places else size - begins
            if begin:
                raise _FormatError(f"{begin:,} bytes before the first tensor belong to none")
        for (_, end), (begin, _) in pairwise(places):
            if begin != end:
                raise _FormatError(f"the tensors do not lie one behind the other at {min(begin, end):,}")
        if places and places[-1][1] != size - begins:
            raise _FormatError(f"the tensors end at {places[-1][1]:,} of {size - begins:,} bytes")
    except (_FormatError, JsonError) as error:
        return str(error)
    return None


def _read_header(read: ReadRange, size: int) -> tuple[list[tuple[int, int]], int]:
    """Where each tensor begins and ends, in order, and where in the file the first of their bytes is."""
    if size < _LENGTH:
        raise _FormatError("is too short to be safetensors")
    head = read(0, min(size, _LENGTH + 1))
    length = int.from_bytes(head[:_LENGTH], "little")
    begins = _LENGTH + length
    if begins > size:
        raise _FormatError(f"is no safetensors file: its header would have {length:,} bytes")
    if length > MAX_HEADER:
        raise _FormatError(f"has a header of {length:,} bytes; the limit is {MAX_HEADER:,}")
    if not head.endswith(b"{"):
        raise _FormatError("is no safetensors file: its header is not a JSON object")
    names: set[str] = set()
    places = []
    for name, value in read_members(read, _LENGTH, begins):
        if name in names:
            raise _FormatError(f"names {name[:_SHOWN]!r} twice")
        names.add(name)
        if name == "__metadata__":
            _check_metadata(value)
        else:
            places.append(_check_tensor(name, value))
    return sorted(places), begins


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _FormatError("its metadata are not texts")


def _check_tensor(name: str, tensor: object) -> tuple[int, int]:
    """Where its bytes begin and end."""
    shown = name[:_SHOWN]
    if not isinstance(tensor, dict) or set(tensor) != {"dtype", "shape", "data_offsets"}:
        raise _FormatError(f"the tensor {shown!r} is not described as the format says")
    bits = _BITS.get(tensor["dtype"]) if isinstance(tensor["dtype"], str) else None
    shape, offsets = tensor["shape"], tensor["data_offsets"]
    if bits is None:
        raise _FormatError(f"the tensor {shown!r} has no type of the format")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:  # noqa: PLR2004 - begin and end
        raise _FormatError(f"the tensor {shown!r} has a shape or a place that cannot be")
    needed = prod(shape) * bits
    begin, end = offsets
    if needed >= _LARGEST or needed % 8 or end - begin != needed // 8:
        raise _FormatError(f"the tensor {shown!r} has {end - begin:,} bytes, which is not what its shape takes")
    return begin, end


def _are_counts(values: object) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= _MOST_DIMENSIONS
        and all(type(value) is int and 0 <= value < _LARGEST for value in values)
    )
