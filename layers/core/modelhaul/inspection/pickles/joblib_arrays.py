"""Arrays that joblib writes between the opcodes of a pickle, after the state of a NumpyArrayWrapper is set.

https://github.com/joblib/joblib/blob/1.5.2/joblib/numpy_pickle.py (NumpyArrayWrapper.read_array): one byte with
the length of the padding (1 to 16), the padding, and the array's bytes. No opcode has such a value, so other unpicklers
fail there. An array of objects is a separate pickle.
"""

import math
from collections.abc import Mapping
from typing import Final

from modelhaul.inspection.pickles.source import NotCanonicalError, Source
from modelhaul.inspection.pickles.values import Dtype, Import, Value

JOBLIB_ARRAY: Final = Import("joblib.numpy_pickle", "NumpyArrayWrapper")
_NDARRAY = Import("numpy", "ndarray")
_ALIGNMENT = 16  # bytes
_KEYS = {"subclass", "shape", "order", "dtype", "allow_mmap", "numpy_array_alignment_bytes"}
_NUMBERS = {
    "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "f16", "c8", "c16", "c32", "m8", "M8",
}  # fmt: skip
_OBJECTS = "O8"
_MAX_DIMENSIONS = 64
_MAX_BYTES = 2**62  # above, numpy's numbers overflow
_MAX_SHOWN = 80  # characters of a dtype or a shape in a message
_OBJECT_FLAGS = 63  # numpy's NPY_OBJECT_DTYPE_FLAGS
_TEXT_FLAGS = {"S": 0, "V": 0, "U": 8}  # NPY_NEEDS_PYAPI for U


class UnsupportedArrayError(Exception):
    """The length of the array's bytes is not known. The message gives the reason."""


def make_dtype(arguments: Value) -> Dtype:
    """Return the result of numpy.dtype('f8', False, True), the only form that numpy pickles."""
    match arguments:
        case (str(text), False, True):
            return Dtype(text)
    return Dtype("")


def set_dtype_state(dtype: Dtype, state: Value) -> None:
    """Apply `__setstate__` of a dtype without fields: (3, '<', None, None, None, size, alignment, flags[, unit]).

    A dtype whose state is set twice is unknown.
    https://github.com/numpy/numpy/blob/v2.3.0/numpy/_core/src/multiarray/descriptor.c (arraydescr_setstate)
    """
    dtype.item_size = None if dtype.has_state else _find_item_size(dtype.text, state)
    dtype.has_state = True


def _find_item_size(text: str, state: Value) -> int | None:
    match state:
        case (3, str(), None, None, None, -1, -1, 0) if text in _NUMBERS:
            return int(text[1:])
        case (4, str(), None, None, None, -1, -1, 0, _) if text in {"m8", "M8"}:
            return int(text[1:])
        case (3, "|", None, None, None, -1, -1, flags) if text == _OBJECTS and flags == _OBJECT_FLAGS:
            return int(text[1:])
        case (3, str(), None, None, None, int(size), int(), flags) if _TEXT_FLAGS.get(text[:1]) == flags and size >= 0:
            return size
    return None


def count_bytes(state: Mapping[str, Value]) -> int | None:
    """Return the size of the wrapped array in bytes; None for an array of objects. Raises UnsupportedArrayError."""
    dtype, shape = state.get("dtype"), state.get("shape")
    if set(state) != _KEYS or state["numpy_array_alignment_bytes"] != _ALIGNMENT:
        raise UnsupportedArrayError("Unsupported: array written by joblib before 1.2, or to a stream")
    if state["order"] not in ("C", "F") or not isinstance(state["allow_mmap"], bool):
        raise UnsupportedArrayError("Unsupported: joblib array with an invalid order or allow_mmap")
    is_ndarray = state["subclass"] == _NDARRAY
    if not is_ndarray or not isinstance(dtype, Dtype) or dtype.item_size is None or not isinstance(shape, tuple):
        raise _refuse_array(dtype, shape, state["subclass"])
    sizes = [size for size in shape if isinstance(size, int) and size >= 0]
    if len(sizes) != len(shape) or len(shape) > _MAX_DIMENSIONS:
        raise _refuse_array(dtype, shape, state["subclass"])
    if dtype.text == _OBJECTS:
        return None
    # Without zeros: numpy's product can overflow before it is multiplied by zero.
    if math.prod(size for size in sizes if size) * max(dtype.item_size, 1) > _MAX_BYTES:
        raise UnsupportedArrayError(
            f"Unsupported: joblib array of shape {_describe_shape(shape)} has more than {_MAX_BYTES:,} bytes"
        )
    return math.prod(sizes) * dtype.item_size


def _refuse_array(dtype: Value, shape: Value, subclass: Value) -> UnsupportedArrayError:
    dtype_name = ascii(dtype.text[:_MAX_SHOWN]) if isinstance(dtype, Dtype) else "unknown"
    class_name = f"{subclass.module}.{subclass.name}" if isinstance(subclass, Import) else "unknown"
    return UnsupportedArrayError(
        f"Unsupported: joblib array of dtype {dtype_name}, shape {_describe_shape(shape)} and class {class_name}"
    )


def _describe_shape(shape: Value) -> str:
    if not isinstance(shape, tuple):
        return "unknown"
    return f"({', '.join(str(size) if isinstance(size, int) else '?' for size in shape)})"[:_MAX_SHOWN]


def skip_array(source: Source, size: int) -> None:
    """Skip the padding of an array and its `size` bytes. Raises DeadStreamError, LimitError and NotCanonicalError."""
    padding = source.take_number(1)
    if not 0 < padding <= _ALIGNMENT or source.take(padding).strip(b"\xff"):
        raise NotCanonicalError("has a joblib array with padding that joblib does not write")
    source.skip(size)
