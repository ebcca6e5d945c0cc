"""Headers of numpy's `.npy` files, canonical and not, and the result of numpy's own parser."""

import io
import random
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib import _format_impl

from modelhaul.domain.findings import ContentReport, FileVerdict
from modelhaul.inspection.pickles.numpy_arrays import inspect_array
from tests.pickles import SYSTEM

_MAX_DATA = 1_000_000  # bytes
_KINDS = [*"?bBhiqfdegFcSUVOTMmapPn"]
_NAMES = [
    *("object", "object_", "O8", "|O", "<O", "O4", "str", "bytes", "void", "bool", "int", "float32", "i4,O", "(2,)O"),
    *("(2,)object", "i4,i4", "(2,)i4", "2i4", "<f4", "|b1", ">i8", "=u2", "<U5", "|S3", "<M8[ns]", "<m8[25s]", "|V8"),
    *("", " <f4", "<f4 ", "<f4\0", "f4\n", "{'a'}", "Obj", "datetime64", "f2", "f16", "c8", "longdouble", "i3", "U0"),
    *("S0", "V0", "<U-1", "|S999999999", "M8[D/3]", "i8,", ",O", "O,", "1O", "T16", "|T", "StringDType"),
]
_SHAPES = [
    *("()", "(2,)", "(0,)", "(2, 3)", "(3)", "[2]", "(-1,)", "(True,)", "(2.0,)", "(2L,)", "(0, -1)", "(1,)*2", "None"),
    *(f"({'1, ' * 70})", "(4294967296, 4294967296)", "(0, 4294967296, 4294967296)", "(9223372036854775808,)"),
]


@dataclass(frozen=True, slots=True)
class Reading:
    """numpy's result for a header. `size` is the size of the array in bytes, None if numpy refuses the header."""

    has_objects: bool = False
    size: int | None = None


def read_header(content: bytes) -> Reading:
    file = io.BytesIO(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(file)
            shape, _, dtype = _format_impl._read_array_header(file, version, max_header_size=2**64)  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - numpy raises many types
        return Reading()
    # The same count as in numpy's read_array.
    count = 1 if len(shape) == 0 else int(np.multiply.reduce(shape, dtype=np.int64))
    return Reading(dtype.hasobject, count * dtype.itemsize)


def write_header(text: str, version: tuple[int, int] = (1, 0), encoding: str = "latin-1") -> bytes:
    encoded = text.encode(encoding, "replace")
    length = struct.pack("<H" if version == (1, 0) else "<I", len(encoded))
    return b"\x93NUMPY" + bytes(version) + length + encoded


def make_header(generator: random.Random) -> bytes:
    descr = _make_descr(generator)
    text = (
        f"{{'descr': {descr}, 'fortran_order': {generator.choice(['False', 'True', 'False', '0', 'None'])}, "
        f"'shape': {generator.choice(_SHAPES)}, }}"
    )
    match generator.randrange(8):
        case 0:
            text = text.replace("'", '"')
        case 1:
            text = text.replace(", }", generator.choice(["}", ", 'x': 1}", ", 'descr': '|O'}", ", }#"]))
        case 2:
            at = generator.randrange(len(text))
            text = (
                text[:at]
                + generator.choice(["", "O", "'", "\\x4f", " ", "\n", "\0", "(", "\\", "L", "#"])
                + text[at + 1 :]
            )
    version = generator.choice([(1, 0), (1, 0), (2, 0), (3, 0), (4, 0)])
    return write_header(text + " " * generator.randrange(3) + "\n", version, generator.choice(["latin-1", "utf-8"]))


def _make_descr(generator: random.Random, depth: int = 0) -> str:
    choice = generator.randrange(10)
    if choice < 3 or depth > 3:
        return repr(generator.choice(_NAMES))
    if choice < 6:
        kind = generator.choice(_KINDS)
        return repr(
            generator.choice(["", "<", ">", "|", "="]) + kind + generator.choice(["", "", "1", "2", "4", "8", "16"])
        )
    if choice < 9:
        fields = [_make_field(generator, number, depth) for number in range(generator.randrange(4))]
        return "[" + "".join(f"{field}, " for field in fields) + "]"
    return f"({_make_descr(generator, depth + 1)}, {generator.choice(['2', '(2,)', '()', '{}'])})"


def _make_field(generator: random.Random, number: int, depth: int) -> str:
    name = generator.choice([f"'f{number}'", f"'f{number}'", "''", f"('title{number}', 'g{number}')", "1", "'a'"])
    shape = generator.choice(["", "", "", ", (2,)", ", (2, 3)", ", 2", ", ()", ", (0,)", ", (-1,)", ", (True,)"])
    return f"({name}, {_make_descr(generator, depth + 1)}{shape})"


def inspect(content: bytes) -> ContentReport:
    return inspect_array(lambda start, end: content[start:end], 0, len(content))


def find_disagreement(header: bytes) -> str | None:
    """Return a description of a disagreement with numpy about arrays with this header; None if there is none."""
    reading = read_header(header)
    for data in _list_data(reading):
        report = inspect(header + data)
        if report.verdict is FileVerdict.CLEAN and (reading.has_objects or reading.size != len(data)):
            return f"clean, and numpy reads {reading} behind {header!r}"
        if data is SYSTEM and reading.has_objects and report.verdict is not FileVerdict.UNSAFE:
            return f"{report}, and numpy unpickles what is behind {header!r}"
    return None


def _list_data(reading: Reading) -> Sequence[bytes]:
    if reading.size is None or not 0 <= reading.size <= _MAX_DATA:
        return [SYSTEM, b"", bytes(24)]
    return [SYSTEM, bytes(reading.size), bytes(reading.size + 1)]
