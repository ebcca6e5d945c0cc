"""Whether files are what their names say: safetensors, shard indexes, JSON.

https://github.com/huggingface/safetensors#format
"""

import json
from collections.abc import Callable, Collection, Iterable
from itertools import pairwise
from math import prod
from typing import Any

type ReadRange = Callable[[int, int], bytes]
"""Bytes `start` to `end` (excluded) of a file."""

MAX_HEADER = 100_000_000  # bytes, as in the format's own reader
_LENGTH = 8
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
    """What is wrong with the file, in a line; None if it is sound. At most two reads."""
    try:
        header, begins = _read_header(read, size)
        _check_metadata(header.pop("__metadata__", {}))
        places = sorted(_check_tensor(name, tensor) for name, tensor in header.items())
        if not places or places[0][0]:
            begin = places[0][0] if places else size - begins
            if begin:
                raise _FormatError(f"{begin:,} bytes before the first tensor belong to none")
        for (_, end), (begin, _) in pairwise(places):
            if begin != end:
                raise _FormatError(f"the tensors do not lie one behind the other at {min(begin, end):,}")
        if places and places[-1][1] != size - begins:
            raise _FormatError(f"the tensors end at {places[-1][1]:,} of {size - begins:,} bytes")
    except _FormatError as error:
        return str(error)
    return None


def check_shard_index(
    content: bytes, paths: Collection[str], *, is_wanted: Callable[[str], bool] = lambda _: True
) -> str | None:
    """What is wrong with a `*.index.json`, whose shards must be among `paths` if they are wanted; None if nothing."""
    try:
        index = _parse_object(content)
        weight_map = index.get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
            raise _FormatError("has no weight_map of names")
    except _FormatError as error:
        return str(error)
    missing = sorted(filter(is_wanted, set(weight_map.values()) - set(paths)))
    if missing:
        return f"{len(missing):,} of its shards are missing: {', '.join(name[:_SHOWN] for name in missing[:3])!r}"
    return None


def check_json_object(content: bytes) -> str | None:
    """What keeps it from being read as one JSON object; None if nothing does."""
    try:
        _parse_object(content, unique=False)
    except _FormatError as error:
        return str(error)
    return None


def _read_header(read: ReadRange, size: int) -> tuple[dict[str, Any], int]:
    """The header, and where the tensors begin."""
    if size < _LENGTH:
        raise _FormatError("is too short to be safetensors")
    length = int.from_bytes(read(0, _LENGTH), "little")
    begins = _LENGTH + length
    if length > MAX_HEADER or begins > size:
        raise _FormatError(f"is no safetensors file: its header would have {length:,} bytes")
    content = read(_LENGTH, begins)
    if not content.startswith(b"{"):
        raise _FormatError("is no safetensors file: its header is not a JSON object")
    return _parse_object(content), begins


def _parse_object(content: bytes, *, unique: bool = True) -> dict[str, Any]:
    try:
        parsed = json.loads(content.decode(), object_pairs_hook=_build_unique if unique else None)
    except (ValueError, RecursionError, MemoryError):
        raise _FormatError("is not JSON that can be read") from None
    if not isinstance(parsed, dict):
        raise _FormatError("is not a JSON object")
    return parsed


def _build_unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for key, value in pairs:
        if key in built:
            raise _FormatError(f"names {key[:_SHOWN]!r} twice")
        built[key] = value
    return built


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
    return isinstance(values, list) and all(type(value) is int and 0 <= value < _LARGEST for value in values)
