"""Raw weights and text pass only if no unpickler gets to an import of a module that can exist."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhaul.inspection.pickles.reach import Reach, find_reach
from tests.differential.readers import RecordingUnpickler
from tests.differential.streams import SEEDS, make_stream
from tests.pickles import FORMS, assemble

CASES: dict[str, str] = json.loads(Path(__file__).with_name("pickle_cases.json").read_text())
# Module and name; with more spaces they are ambiguous.
MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)* [^ ]*")


@pytest.fixture(scope="module")
def unpickler() -> Iterator[RecordingUnpickler]:
    with RecordingUnpickler() as opened:
        yield opened


def measure(stream: bytes) -> Reach:
    return find_reach(lambda start, end: stream[start:end], 0, len(stream))


def check(unpickler: RecordingUnpickler, stream: bytes) -> Reach:
    reach = measure(stream)
    asked = unpickler.ask(stream) if reach is Reach.NOTHING else None
    assert not [name for name in asked or () if MODULE.fullmatch(name)], stream.hex()
    return reach


@pytest.mark.parametrize("name", CASES)
def test_known_cases_are_reached(unpickler: RecordingUnpickler, name: str) -> None:
    check(unpickler, bytes.fromhex(CASES[name]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tail", [b"", b"garbage", b"\xff"])
def test_calls_are_reached(form: str, tail: bytes) -> None:
    pickled = assemble("os", "system", form=form)
    assert measure(pickled + tail) is Reach.CALL
    assert measure(pickled[:-1] + tail) is Reach.CALL


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"", Reach.NOTHING),
        (b"\xff\xff", Reach.NOTHING),
        (b"{}", Reach.NOTHING),
        (b"# Model\n", Reach.NOTHING),
        (b"copyright (c) 2020\nby nobody\n", Reach.NOTHING),
        (b"cantigravity\nfly\n\xff", Reach.IMPORT),
        (b"\x8c\x02os\x8c\x06system\x93\xff", Reach.IMPORT),
        (b"charlie\nbob\n", Reach.IMPORT),
        (b"cargparse\nNamespace\n(N(S'append'\ncos\nsystem\ndtbS'true'\na.\xff", Reach.CALL),
        (b"N.N." + assemble("os", "system") + b"\xff", Reach.CALL),
        (b"N.N.\xff" + assemble("os", "system"), Reach.NOTHING),
    ],
)
def test_reach_of_streams(unpickler: RecordingUnpickler, stream: bytes, expected: Reach) -> None:
    assert check(unpickler, stream) is expected


@given(st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_reach_nothing_means_no_import(unpickler: RecordingUnpickler, generator: random.Random) -> None:
    check(unpickler, make_stream(generator, SEEDS))


@pytest.mark.parametrize("seed", range(2))
def test_reach_nothing_means_no_import_in_random_bytes(unpickler: RecordingUnpickler, seed: int) -> None:
    generator = random.Random(seed)
    seen: Counter[Reach] = Counter()
    for _ in range(500):
        seen[check(unpickler, generator.randbytes(generator.choice((10, 100, 2000))))] += 1
        seen[check(unpickler, make_stream(generator, SEEDS))] += 1
    assert seen[Reach.NOTHING] > 400
    assert seen[Reach.CALL] > 20
