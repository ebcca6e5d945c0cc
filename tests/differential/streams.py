"""Streams of opcodes, canonical and not: whole, mutated, spliced, truncated, and composed of fragments."""

import collections
import datetime as dt
import io
import pickle
import pickletools
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

from tests.differential.attacks import make_attack
from tests.pickles import FORMS, assemble, build_legacy, build_state_dict

_NAMES = [("collections", "OrderedDict"), ("builtins", "list"), ("numpy", "dtype"), ("os", "system"), ("a.b", "c d")]
_NUMBERS = [b"0", b"1", b"01", b"00", b"-1", b"255", b"256", b"0x1f", b"1_0", b" 1", b"1 ", b"+1", b"1\0x", b"\0", b"",
            b"9" * 25, b"1L", b"L", b"1.5", b"inf", b"1e5", b"nan\0", b"\xb2"]  # fmt: skip
_TEXTS = [b"os", b"system", b"collections", b"OrderedDict", b"", b"a\0b", b"\xff", "ü".encode(), b"x" * 300, b"\\u12"]
_QUOTED = [b"'os'", b'"os"', b"'a\\x41'", b"'\\'", b"os", b"'", b"''", b"'\xff'", b"'a\0b'", b"'\\101'", b"'a'b'"]


class Words:
    """Fragments of streams: an opcode with a valid or nearly valid argument."""

    def __init__(self, generator: random.Random) -> None:
        self._random = generator
        pick = generator.choice
        self._makers: Sequence[Callable[[], bytes]] = [
            lambda: pick([b"(", b"N", b"}", b"]", b")", b"K\x01", b"\x88", b"\x89", b"\x8f", b"N\x94", b"]\x94"]),
            lambda: pick([b"0", b"1", b"2", b"a", b"b", b"d", b"e", b"l", b"o", b"s", b"t", b"u", b"R", b"Q", b"\x81"]),
            lambda: pick(
                [b"\x85", b"\x86", b"\x87", b"\x90", b"\x91", b"\x92", b"\x93", b"\x94", b"\x97", b"\x98", b"."]
            ),
            lambda: pick([b"I", b"L", b"F", b"g", b"p"]) + pick(_NUMBERS) + b"\n",
            lambda: pick([b"h", b"q"]) + bytes([generator.randrange(4)]),
            lambda: pick([b"j", b"r"]) + struct.pack("<I", generator.choice([0, 1, 2, 3, 256, 2**31, 2**32 - 1])),
            lambda: b"p%d\n" % generator.randrange(4),
            lambda: b"g%d\n" % generator.randrange(4),
            lambda: self._count(b"\x8c", 1, pick(_TEXTS)[:255]),
            lambda: self._count(b"X", 4, pick(_TEXTS)),
            lambda: self._count(b"\x8d", 8, pick(_TEXTS)),
            lambda: self._count(pick([b"U", b"C"]), 1, pick(_TEXTS)[:255]),
            lambda: self._count(pick([b"T", b"B"]), 4, pick(_TEXTS)),
            lambda: self._count(pick([b"\x8e", b"\x96"]), 8, pick(_TEXTS)),
            lambda: self._count(b"\x8a", 1, generator.randbytes(generator.randrange(4))),
            lambda: self._count(b"\x8b", 4, generator.randbytes(generator.randrange(4))),
            lambda: b"S" + pick(_QUOTED) + b"\n",
            lambda: b"V" + pick(_TEXTS) + b"\n",
            lambda: b"P" + pick(_TEXTS) + b"\n",
            lambda: pick([b"c", b"i"]) + "\n".join(pick(_NAMES)).encode() + pick([b"\n", b"\n", b"\n", b"", b"\0\n"]),
            self._import_by_stack,
            self._import_by_memo,
            lambda: b"\x80" + bytes([generator.randrange(7)]),
            lambda: b"\x95" + struct.pack("<Q", generator.randrange(40)),
            lambda: b"\x95" + struct.pack("<Q", pick([0, 1000, 2**63 - 1, 2**63, 2**64 - 1])),
            lambda: pick([b"J", b"M"]) + generator.randbytes(4)[: generator.choice([2, 4])],
            lambda: b"G" + generator.randbytes(8),
            lambda: pick([b"\x82\x01", b"\x83\x00\x00", b"\x84\x01\x00\x00\x00", b"\xff", b"\x99"]),
            lambda: assemble(*pick(_NAMES), form=pick(FORMS)),
        ]

    def pick(self) -> bytes:
        return self._random.choice(self._makers)()

    def _count(self, opcode: bytes, width: int, data: bytes) -> bytes:
        length = len(data)
        if not self._random.randrange(12):
            length += self._random.choice([-1, 1, 100, 2**31])
        return opcode + (length % (1 << 8 * width)).to_bytes(width, "little") + data

    def _import_by_stack(self) -> bytes:
        module, name = (text.encode() for text in self._random.choice(_NAMES))
        memoize = self._random.choice([b"", b"\x94"])
        return b"\x8c%c%b%b\x8c%c%b%b\x93" % (len(module), module, memoize, len(name), name, memoize)

    def _import_by_memo(self) -> bytes:
        return b"h%ch%c\x93" % (self._random.randrange(4), self._random.randrange(4))


def make_plain(generator: random.Random) -> bytes:
    """Return a pickle of any protocol from a pickler."""
    value = generator.choice(_VALUES)
    protocol = generator.randrange(6)
    body = io.BytesIO()
    pickler: Any = generator.choice([pickle.Pickler, pickle._Pickler])
    pickler(body, protocol).dump(value)
    return pickletools.optimize(body.getvalue()) if not generator.randrange(4) else body.getvalue()


def make_stream(generator: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return any stream. `seeds` are used as a basis in addition to pickles of plain values."""
    match generator.randrange(12):
        case 0 | 1:
            return _make_from_words(generator)
        case 8 | 9 | 10 | 11:
            return make_attack(generator)
        case 2:
            return _wrap_frames(generator, _make_from_words(generator))
        case 3:
            return _splice(generator, _pick_seed(generator, seeds), _pick_seed(generator, seeds))
        case 4:
            return _pick_seed(generator, seeds) + _make_from_words(generator)
        case _:
            return _mutate(generator, _pick_seed(generator, seeds))


def _pick_seed(generator: random.Random, seeds: Sequence[bytes]) -> bytes:
    return generator.choice(seeds) if seeds and generator.randrange(2) else make_plain(generator)


def _make_from_words(generator: random.Random) -> bytes:
    words = Words(generator)
    begins = generator.choice([b"", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x04", b"\x80\x05"])
    body = b"".join(words.pick() for _ in range(generator.randrange(1, 14)))
    return (
        begins
        + generator.choice([b"", b"N", b"NN", b"(", b"(N", b"]", b"}"])
        + body
        + generator.choice([b".", b".", b""])
    )


def _wrap_frames(generator: random.Random, stream: bytes) -> bytes:
    """Put parts of the stream into frames whose lengths are right or differ by a few bytes."""
    at = generator.randrange(len(stream) + 1)
    length = max(0, len(stream) - at + generator.choice([0, 0, 0, -1, -2, -3, 1, 2]))
    return stream[:at] + b"\x95" + struct.pack("<Q", length) + stream[at:] + generator.choice([b"", stream[:at]])


def _splice(generator: random.Random, first: bytes, second: bytes) -> bytes:
    return first[: generator.randrange(len(first) + 1)] + second[generator.randrange(len(second) + 1) :]


def _mutate(generator: random.Random, stream: bytes) -> bytes:
    mutated = bytearray(stream)
    words = Words(generator)
    for _ in range(generator.randrange(1, 5)):
        at = generator.randrange(len(mutated) + 1)
        match generator.randrange(7):
            case 0 if at < len(mutated):
                mutated[at] = generator.randrange(256)
            case 1 if at < len(mutated):
                mutated[at] ^= 1 << generator.randrange(8)
            case 2:
                del mutated[at : at + generator.randrange(1, 6)]
            case 3:
                mutated[at:at] = words.pick()
            case 4:
                mutated[at:at] = mutated[at : at + generator.randrange(1, 12)]
            case 5:
                _put_nul(generator, mutated)
            case 6 if not generator.randrange(3):
                del mutated[at:]
    return bytes(mutated)


def _put_nul(generator: random.Random, stream: bytearray) -> None:
    """Insert NUL or other bytes before the end of a line."""
    ends = [index for index, byte in enumerate(stream) if byte == ord("\n")]
    if ends:
        at = generator.choice(ends)
        stream[at:at] = generator.choice([b"\0", b"\0x", b" ", b"\r", b"_1"])


_RECURSIVE: list[Any] = [1]
_RECURSIVE.append({"a": _RECURSIVE, "b": (_RECURSIVE, 2)})
_VALUES: list[Any] = [
    *(None, True, 1, -1, 255, 65536, 2**31, -(2**31), 2**70, -(2**70), 2**3000, 1.5),
    *("", "text", "x" * 300, "ü\n\\\0", b"", b"bytes", b"x" * 300, bytearray(b"x" * 5)),
    *((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1, "a", b"b"], {}, {"a": 1}, {1, 2}, frozenset("ab")),
    *(collections.OrderedDict(a=1, b=(2, 3)), collections.Counter("abca"), collections.deque([1, 2])),
    *(collections.defaultdict(list, a=[1]), complex(1, 2), range(3), slice(1, 2, 3), dict, list, _RECURSIVE),
    *(dt.date(2020, 1, 1), len, [{"k": [None] * 20, "t": ("a", "a", "b")}] * 3, [b"y" * 70_000, "a"]),
]
SEEDS: list[bytes] = [
    build_state_dict(),
    build_legacy(build_state_dict(), storages=bytes(24)),
    build_legacy(assemble("os", "system")),
    *(assemble(module, name, form=form) for module, name in _NAMES for form in FORMS),
]


def list_array_seeds() -> list[bytes]:
    """Return pickles of numpy arrays, and joblib files."""
    import joblib  # type: ignore[import-untyped]  # noqa: PLC0415 - only the long run needs it
    import numpy as np  # noqa: PLC0415

    array, objects = np.arange(6.0).reshape(2, 3), np.array([1, "x", None], object)
    values = [
        array,
        array[:, :2],
        np.float64(1),
        np.dtype("f4"),
        np.array(["x"]),
        objects,
        {"a": array, "b": [array, objects]},
    ]
    found = [pickle.dumps(value, protocol) for value in values for protocol in (0, 2, 4, 5)]
    for value in values:
        for protocol in (2, 4, 5):
            body = io.BytesIO()
            joblib.dump(value, body, protocol=protocol)
            found.append(body.getvalue())
    return found
