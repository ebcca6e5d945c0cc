"""Headers of arrays, compared with numpy: never clean if numpy unpickles, or reads another number of bytes."""

import io
import random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhaul.domain.findings import ContentReport, FileVerdict
from tests.differential.headers import find_disagreement, inspect, make_header, write_header
from tests.pickles import SYSTEM

OBJECTS = [
    *("'object'", "'object_'", "'O'", "'|O'", "'<O'", "'O8'", "'i4,O'", "'(2,)object'", "'(2,)O'", "'1O'", "'i4,O,'"),
    *("[('a', 'object')]", "[('a', '|O')]", "[('a', [('b', '|O')])]", "[('a', '<f4'), ('b', '|O', (2,))]"),
    *("('|O', (2,))", "[(('t', 'a'), '|O')]", "'\\x4f'", "'O' ''", "'T'"),
]
DTYPES = [
    *("?", "i1", ">i2", "<i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "g", "c8", "c16", "G", "U5", "S3", "V4"),
    *("M8[D]", "m8[25s]", "M8", "f4,i4", "U0", "S0"),
]
STRUCTURED = [
    [("a", "f4"), ("b", "i8", (3,))],
    [(("title", "a"), "f4"), ("b", [("c", "U3"), ("d", "u1", (2, 2))])],
    np.dtype([("a", "u1"), ("b", "f8")], align=True),
    [("ü", "f4")],
]


def save(array: npt.ArrayLike) -> bytes:
    body = io.BytesIO()
    np.save(body, array)
    return body.getvalue()


@pytest.mark.parametrize("descr", OBJECTS)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_arrays_of_objects_are_inspected(descr: str, version: tuple[int, int]) -> None:
    header = write_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': (2,), }}\n", version)
    assert find_disagreement(header) is None
    assert inspect(header + SYSTEM).verdict is FileVerdict.UNSAFE


@pytest.mark.parametrize("dtype", [*DTYPES, *STRUCTURED], ids=str)
@pytest.mark.parametrize("shape", [(), (2,), (0,), (2, 3)])
@pytest.mark.filterwarnings("ignore:Stored array in format:UserWarning")
def test_arrays_that_numpy_writes_are_clean(dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, dtype)
    assert inspect(save(array)) == ContentReport("npy", is_loadable=True, pickles=b"")
    assert inspect(save(np.asfortranarray(array))) == ContentReport("npy", is_loadable=True, pickles=b"")


def test_arrays_of_python_2_are_clean() -> None:
    header = write_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }     \n")
    assert inspect(header + bytes(24)) == ContentReport("npy", is_loadable=True, pickles=b"")
    assert find_disagreement(header) is None


@given(st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_clean_headers_are_read_by_numpy_without_unpickling(generator: random.Random) -> None:
    assert find_disagreement(make_header(generator)) is None


@pytest.mark.parametrize("seed", range(4))
def test_clean_random_headers_are_read_by_numpy_without_unpickling(seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(400):
        assert find_disagreement(make_header(generator)) is None


def test_parsing_time_of_headers_is_linear() -> None:
    for shape in ("9" * 60_000, "1, " * 20_000, "1L," * 20_000, "1L, " * 15_000 + "x", "'" * 60_000, "(" * 60_000):
        header = write_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}\n")
        assert inspect(header).verdict is not FileVerdict.CLEAN
