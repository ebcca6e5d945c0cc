"""Pickles as real unpicklers read them: C's, Python's own, and joblib's.

A stream is never clean or "not a pickle" if one of them asked for an import that is not allowed.
`bench` runs a million streams; what was ever found is in `pickle_cases.json`.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhaul.inspection.pickles import opcodes
from tests.differential.judging import disagree, judge
from tests.differential.readers import RecordingUnpickler
from tests.differential.streams import SEEDS, make_plain, make_stream

CASES: dict[str, str] = json.loads(Path(__file__).with_name("pickle_cases.json").read_text())


@pytest.fixture(scope="module")
def unpickler() -> Iterator[RecordingUnpickler]:
    with RecordingUnpickler() as opened:
        yield opened


@pytest.fixture(params=[None, 1, 7])
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of the usual size, and so small that most arguments do not fit in one."""
    if request.param:
        for name in ("_FIRST_WINDOW", "_LAST_WINDOW", "_WINDOW_BEHIND_DATA"):
            monkeypatch.setattr(opcodes, name, request.param)


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("name", CASES)
def test_what_was_found_once_stays_found(unpickler: RecordingUnpickler, name: str) -> None:
    stream = bytes.fromhex(CASES[name])
    assert unpickler.ask(stream), "an unpickler asks for an import"
    assert judge(stream) == "unsafe"


@given(st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_no_unpickler_asks_for_what_we_do_not_see(unpickler: RecordingUnpickler, generator: random.Random) -> None:
    stream = make_stream(generator, SEEDS)
    verdict = judge(stream)
    assert not disagree(verdict, unpickler.ask(stream)), (verdict, stream.hex())


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("seed", range(4))
def test_no_unpickler_asks_for_what_we_do_not_see_in_random_streams(unpickler: RecordingUnpickler, seed: int) -> None:
    generator = random.Random(seed)
    seen: Counter[tuple[str, bool]] = Counter()
    for _ in range(400):
        stream = make_stream(generator, SEEDS)
        verdict, asked = judge(stream), unpickler.ask(stream)
        seen[verdict, bool(asked)] += 1
        assert not disagree(verdict, asked), (verdict, asked, stream.hex())
    assert seen["unsafe", True] > 20, "the streams get to imports"
    assert seen["clean", False] > 5


def test_pickles_as_they_are_written_are_clean_or_name_their_imports() -> None:
    generator = random.Random(0)
    verdicts = Counter(judge(make_plain(generator)) for _ in range(1000))
    assert verdicts.keys() == {"clean", "unsafe"}
    assert verdicts["clean"] > 900


def test_a_stream_that_ends_the_process_says_nothing(unpickler: RecordingUnpickler) -> None:
    # A memo of 2**60 places, and data of 1.5 GB twice.
    for stream in (b"Np1152921504606846976\n.", b"\x80\x04\x8e" + (3 * 2**30).to_bytes(8, "little")):
        unpickler.ask(stream)
    assert unpickler.ask(b"cos\nsystem\n.") == ["os system"]
