"""GGUF, as llama.cpp reads it: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and its gguf.cpp.

The header is read to its end. The tensors are not read, but each must begin where the previous one ends.
"""

from math import prod

from modelhaul.domain.findings import ContentReport, Finding, limit_findings
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.formats.templates import MAX_TEMPLATE, inspect_template
from modelhaul.inspection.windows import ContentError, Cursor

MAX_HEADER = 64 * 1024 * 1024  # bytes; vocabularies of 260,000 tokens take 15 MB
_MAX_FINDINGS = 20
_MAX_KEYS = 65_536
_MAX_TENSORS = 262_144
_MAX_ITEMS = 16_777_216  # of an array
_MAX_KEY = 65_535  # bytes
_MAX_NAME = 63  # bytes, of a tensor
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 65_536  # bytes
_LIMIT = 2**63  # of a tensor's bytes
_MAGIC = b"GGUF"
_VERSIONS = {2, 3}
_ALIGNMENT_KEY = "general.alignment"
_DEFAULT_ALIGNMENT = 32  # bytes
_TEMPLATE_KEY = "tokenizer.chat_template"

_UINT32, _STRING, _ARRAY = 4, 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value, by its type: integers, floating point numbers and bool."""

_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74),
    18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip
"""Elements and bytes of a block, by ggml's type of a tensor."""


def inspect_gguf(read: ReadRange, size: int) -> ContentReport:
    templates: list[str] = []
    try:
        cursor = Cursor(read, 0, min(size, MAX_HEADER))
        tensors, keys = _read_counts(cursor)
        alignment = _read_metadata(cursor, keys, templates)
        ends = _read_tensors(cursor, tensors, alignment)
        _check_end(cursor.position, ends, size, alignment)
    except ContentError as error:
        return ContentReport("gguf", str(error), _inspect_templates(templates)[1])
    reason, findings = _inspect_templates(templates)
    return ContentReport("gguf", reason, findings)


def _inspect_templates(templates: list[str]) -> tuple[str | None, tuple[Finding, ...]]:
    """Return the reason for which a template was not parsed, and the findings of all templates."""
    findings: dict[Finding, None] = {}
    reason = None
    for source in templates:
        try:
            findings |= dict.fromkeys(inspect_template(source))
        except ContentError as error:
            reason = reason or str(error)
    return reason, limit_findings(findings, _MAX_FINDINGS)


def _read_counts(cursor: Cursor) -> tuple[int, int]:
    """Return the numbers of tensors and of keys."""
    if cursor.take(4) != _MAGIC:
        raise ContentError("File is not in GGUF format")
    version = _take_number(cursor, 4)
    if version not in _VERSIONS:
        raise ContentError(f"Unsupported: GGUF version {version}, or big-endian; versions 2 and 3 are supported")
    tensors, keys = _take_number(cursor, 8), _take_number(cursor, 8)
    if tensors > _MAX_TENSORS or keys > _MAX_KEYS:
        raise ContentError(
            f"File has {tensors:,} tensors and {keys:,} keys; the limits are {_MAX_TENSORS:,} and {_MAX_KEYS:,}"
        )
    return tensors, keys


def _read_metadata(cursor: Cursor, count: int, templates: list[str]) -> int:
    """Append the chat templates to `templates`, and return the alignment."""
    alignment = _DEFAULT_ALIGNMENT
    keys: set[str] = set()
    for _ in range(count):
        key = _take_text(cursor, _MAX_KEY)
        if not key or key in keys:
            raise ContentError(f"Empty or duplicate key {key[:80]!a}")
        keys.add(key)
        kind = _take_number(cursor, 4)
        if key == _ALIGNMENT_KEY:
            alignment = _take_alignment(cursor, kind)
        elif key.startswith(_TEMPLATE_KEY) and kind == _STRING:
            templates.append(_take_text(cursor, MAX_TEMPLATE))
        elif kind == _ARRAY:
            _skip_array(cursor)
        else:
            _skip_values(cursor, kind, 1)
    return alignment


def _take_alignment(cursor: Cursor, kind: int) -> int:
    alignment = _take_number(cursor, 4) if kind == _UINT32 else 0
    if alignment.bit_count() != 1 or alignment > _MAX_ALIGNMENT:
        raise ContentError(f"general.alignment must be a power of 2 up to {_MAX_ALIGNMENT:,}")
    return alignment


def _skip_array(cursor: Cursor) -> None:
    kind, count = _take_number(cursor, 4), _take_number(cursor, 8)
    if count > _MAX_ITEMS:
        raise ContentError(f"Array has {count:,} values; the limit is {_MAX_ITEMS:,}")
    _skip_values(cursor, kind, count)


def _skip_values(cursor: Cursor, kind: int, count: int) -> None:
    if kind == _STRING:
        for _ in range(count):
            cursor.skip(_take_number(cursor, 8))
    elif kind in _SIZES:
        cursor.skip(_SIZES[kind] * count)
    else:
        # llama.cpp does not read arrays of arrays either.
        raise ContentError(f"Unknown value type {kind} before byte {cursor.position:,}")


def _read_tensors(cursor: Cursor, count: int, alignment: int) -> tuple[int, int]:
    """Return the end of the last tensor, without and with padding, relative to the start of the first tensor."""
    names: set[str] = set()
    end = padded = 0
    for _ in range(count):
        name = _take_text(cursor, _MAX_NAME)
        if name in names:
            raise ContentError(f"Duplicate tensor name {name!a}")
        names.add(name)
        length = _take_length(cursor, name)
        offset = _take_number(cursor, 8)
        if offset != padded:
            raise ContentError(f"Tensor {name!a} has offset {offset:,}; expected {padded:,}")
        end = offset + length
        padded = -(-end // alignment) * alignment
    return end, padded


def _take_length(cursor: Cursor, name: str) -> int:
    """Return the length of a tensor in bytes, from its dimensions and type."""
    dimensions = _take_number(cursor, 4)
    if dimensions > _MAX_DIMENSIONS:
        raise ContentError(f"Tensor {name!a} has {dimensions:,} dimensions; the limit is {_MAX_DIMENSIONS}")
    shape = [_take_number(cursor, 8) for _ in range(dimensions)]
    kind = _take_number(cursor, 4)
    if kind not in _BLOCKS:
        raise ContentError(f"Tensor {name!a} has the unknown type {kind}")
    elements, length = _BLOCKS[kind]
    if (shape[0] if shape else 1) % elements:
        raise ContentError(
            f"Tensor {name!a} has rows of {shape[0] if shape else 1:,} elements, which is not a multiple of {elements}"
        )
    total = prod(shape) // elements * length
    if max(shape, default=0) >= _LIMIT or total >= _LIMIT:
        raise ContentError(f"Shape of tensor {name!a} overflows 64 bits")
    return total


def _check_end(header: int, ends: tuple[int, int], size: int, alignment: int) -> None:
    """Check that the tensors end where the file ends. `header` is the size of the header in bytes.

    A file without tensors has no padding.
    """
    if ends == (0, 0) and size == header:
        return
    begin = -(-header // alignment) * alignment
    if size not in {begin + end for end in ends}:
        raise ContentError(f"Tensor data ends at byte {begin + ends[0]:,}, but the file has {size:,} bytes")


def _take_number(cursor: Cursor, length: int) -> int:
    return int.from_bytes(cursor.take(length), "little")


def _take_text(cursor: Cursor, limit: int) -> str:
    length = _take_number(cursor, 8)
    if length > limit:
        raise ContentError(f"String before byte {cursor.position:,} has {length:,} bytes; the limit is {limit:,}")
    try:
        return cursor.take(length).decode()
    except UnicodeDecodeError:
        raise ContentError(f"String is not valid UTF-8 before byte {cursor.position:,}") from None
