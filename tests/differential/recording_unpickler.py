"""A program that reads pickles with real unpicklers and prints the imports that they request.

`find_class` returns only harmless objects. Input: the allowed imports as one line of JSON, then streams, each after its
length in four bytes. Output for each stream: one line of JSON with the requested imports that are not allowed, as
`module name`.
"""

import io
import json
import pickle
import resource
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

from joblib import numpy_pickle  # type: ignore[import-untyped]

MAX_MEMORY = 2 * 1024**3  # bytes of address space
MAX_SECONDS = 5  # per stream; the alarm terminates the program
MAX_PICKLES = 5  # one after another; torch's legacy files have other data after them
_JOBLIB = b"NumpyArrayWrapper"
_REAL = {"dtype", "ndarray", "_reconstruct", "scalar", "NumpyArrayWrapper"}


class NotAllowedError(Exception):
    """The requested import is not on the list."""


class Inert:
    """Replaces all allowed imports. It accepts any call and does nothing."""

    def __new__(cls, *_: object, **__: object) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Take any arguments."""

    def __setstate__(self, _: object) -> None:
        """Take any state."""

    def __setitem__(self, _: object, __: object) -> None:
        """Take any item."""

    def append(self, _: object) -> None:
        """Take any item."""

    extend = add = append


class Recorder:
    """`find_class` of an unpickler. With `goes_on`, allowed imports are an inert class, so that streams continue."""

    def __init__(self, allowed: frozenset[tuple[str, str]], *, goes_on: bool) -> None:
        self.allowed = allowed
        self.goes_on = goes_on
        self.asked: set[tuple[str, str]] = set()

    def find(self, module: str, name: str) -> object:
        if (module, name) not in self.allowed:
            self.asked.add((module, name))
            raise NotAllowedError
        return Inert if self.goes_on else object()

    def find_arrays(self, module: str, name: str) -> object:
        """Return numpy's own classes, from which joblib determines the length of an array."""
        found = self.find(module, name)
        if name in _REAL:
            __import__(module)
            found = getattr(sys.modules[module], name)
        return found


def make_unpickler(base: Any, recorder: Recorder, *, has_persistent: bool) -> Any:
    names: dict[str, Callable[..., object]] = {"find_class": lambda _, module, name: recorder.find(module, name)}
    if has_persistent:
        names["persistent_load"] = lambda _, __: Inert()
    return type("RecordingUnpickler", (base,), names)


def make_joblib_unpickler(recorder: Recorder) -> Callable[[BinaryIO], Any]:
    find = {"find_class": lambda _, module, name: recorder.find_arrays(module, name)}
    unpickler: Any = type("RecordingUnpickler", (numpy_pickle.NumpyUnpickler,), find)
    return lambda file: unpickler("", file, ensure_native_byte_order=False)


def load_all(open_unpickler: Callable[[BinaryIO], Any], file: BinaryIO) -> None:
    """Load pickles one after another, each with a new unpickler, like torch and `pickle.load`.

    With one for all, whose memo goes on, few files are read as they were written.
    """
    for _ in range(MAX_PICKLES):
        unpickler = open_unpickler(file)
        try:
            unpickler.load()
        except Exception:  # noqa: BLE001 - streams can raise any error
            return


class Readers:
    """All readers of a stream."""

    def __init__(self, allowed: frozenset[tuple[str, str]]) -> None:
        self._recorders = [Recorder(allowed, goes_on=goes_on) for goes_on in (False, True)]
        kinds = [(recorder, has_persistent) for recorder in self._recorders for has_persistent in (False, True)]
        self._c = [make_unpickler(pickle.Unpickler, r, has_persistent=persistent) for r, persistent in kinds]
        self._python = [make_unpickler(pickle._Unpickler, r, has_persistent=persistent) for r, persistent in kinds]
        self._joblib = make_joblib_unpickler(self._recorders[-1])

    def read(self, stream: bytes) -> set[tuple[str, str]]:
        """Return the requested imports that are not allowed."""
        for unpickler in self._c:
            load_all(unpickler, io.BytesIO(stream))
            # Encodings of torch and numpy for pickles of Python 2, and a file with `peek`.
            load_all(partial(unpickler, encoding="latin1"), io.BufferedReader(io.BytesIO(stream)))
            load_all(partial(unpickler, encoding="bytes"), io.BytesIO(stream))
        for unpickler in self._python:
            load_all(unpickler, io.BytesIO(stream))
        if _JOBLIB in stream:
            load_all(self._joblib, io.BytesIO(stream))
        asked = set().union(*(recorder.asked for recorder in self._recorders))
        for recorder in self._recorders:
            recorder.asked.clear()
        return asked


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    source, target = sys.stdin.buffer, sys.stdout.buffer
    readers = Readers(frozenset(map(tuple, json.loads(source.readline()))))
    while length := source.read(4):
        stream = source.read(int.from_bytes(length, "little"))
        signal.alarm(MAX_SECONDS)
        asked = readers.read(stream)
        signal.alarm(0)
        target.write(json.dumps([f"{module} {name}" for module, name in sorted(asked)]).encode() + b"\n")
        target.flush()


if __name__ == "__main__":
    main()
