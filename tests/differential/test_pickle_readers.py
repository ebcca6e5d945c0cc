"""Pickles, compared with the unpicklers of C, Python and joblib.

A stream is never clean or "not a pickle" if an unpickler requested an import that is not allowed.
`bench` runs a million streams. `pickle_cases.json` has all cases that were ever found.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhaul.inspection.pickles import source
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
    """Windows of the usual size, and windows that are smaller than most arguments."""
    if request.param:
        for name in ("_FIRST_WINDOW", "_LAST_WINDOW", "_WINDOW_AFTER_SKIP"):
            monkeypatch.setattr(source, name, request.param)


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("name", CASES)
def test_known_cases_are_unsafe(unpickler: RecordingUnpickler, name: str) -> None:
    stream = bytes.fromhex(CASES[name])
    assert unpickler.ask(stream), "an unpickler asks for an import"
    assert judge(stream) == "unsafe"


@given(st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_unpicklers_request_only_reported_imports(unpickler: RecordingUnpickler, generator: random.Random) -> None:
    stream = make_stream(generator, SEEDS)
    verdict = judge(stream)
    assert not disagree(verdict, unpickler.ask(stream)), (verdict, stream.hex())


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("seed", range(4))
def test_unpicklers_request_only_reported_imports_of_random_streams(unpickler: RecordingUnpickler, seed: int) -> None:
    generator = random.Random(seed)
    seen: Counter[tuple[str, bool]] = Counter()
    for _ in range(400):
        stream = make_stream(generator, SEEDS)
        verdict, asked = judge(stream), unpickler.ask(stream)
        seen[verdict, bool(asked)] += 1
        assert not disagree(verdict, asked), (verdict, asked, stream.hex())
    assert seen["unsafe", True] > 20, "the streams get to imports"
    assert seen["clean", False] > 5


def test_ordinary_pickles_are_clean_or_have_import_findings() -> None:
    generator = random.Random(0)
    verdicts = Counter(judge(make_plain(generator)) for _ in range(1000))
    assert verdicts.keys() == {"clean", "unsafe"}
    assert verdicts["clean"] > 900


def test_stream_that_ends_the_process_has_no_result(unpickler: RecordingUnpickler) -> None:
    # A memo index of 2**60, and a declared length of 3 GiB.
    for stream in (b"Np1152921504606846976\n.", b"\x80\x04\x8e" + (3 * 2**30).to_bytes(8, "little")):
        unpickler.ask(stream)
    assert unpickler.ask(b"cos\nsystem\n.") == ["os system"]
