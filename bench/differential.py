"""A million streams of opcodes, read by us and by real unpicklers; and headers of arrays, read by us and by numpy."""

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.report import Run
from modelhaul.inspection.pickles import opcodes
from tests.differential.headers import find_disagreement, make_header
from tests.differential.judging import disagree, judge
from tests.differential.readers import RecordingUnpickler
from tests.differential.streams import SEEDS, list_array_seeds, make_stream

_SEED = 2026
_STREAMS = 1_000_000
_HEADERS = 200_000
_BATCH = 50  # streams that are read at once, with windows of one size
_ANSWERS = ("asked", "quiet", "died")
_TEXT = """\
## Pickles and arrays against their real readers

{streams:,} streams: pickles of all protocols, of torch, numpy and joblib, mutated, spliced, cut off and in frames, and
sequences of opcodes. They are read by C's unpickler (from three kinds of files, with and without persistent IDs), by
Python's own and by joblib's. *Asked*: one of them asked for an import that is not allowed. *Died*: the stream ended the
process, which says nothing.

| Our verdict | Asked | Did not ask | Died |
|---|--:|--:|--:|
{rows}

Clean or not a pickle, and asked: {disagreements}. Of {headers:,} headers of `.npy` files, clean where numpy unpickles
or reads another number of bytes: {header_disagreements}. Seed {seed}, {seconds:,.0f} s."""
_WINDOWS = (None, 1, 9)  # bytes of a window; None for the usual ones


@dataclass
class Counts:
    """Of streams, by our verdict and by whether an unpickler asked for an import that is not allowed."""

    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)


def describe_differential(run: Run) -> str:
    started = time.monotonic()
    pickles = compare_pickles(run.scale_count(_STREAMS))
    headers = compare_headers(run.scale_count(_HEADERS))
    rows = [
        f"| {verdict} | " + " | ".join(f"{pickles.seen[verdict, answer]:,}" for answer in _ANSWERS) + " |"
        for verdict in ("clean", "unscanned", "unsafe", "none")
    ]
    return _TEXT.format(
        streams=sum(pickles.seen.values()),
        rows="\n".join(rows),
        disagreements=len(pickles.disagreements),
        headers=headers.seen["header", ""],
        header_disagreements=len(headers.disagreements),
        seed=_SEED,
        seconds=time.monotonic() - started,
    )


def compare_pickles(count: int, seed: int = _SEED) -> Counts:
    counts = Counts()
    generator = random.Random(seed)
    seeds = [*SEEDS, *list_array_seeds()]
    with RecordingUnpickler() as unpickler:
        for number in range(0, count, _BATCH):
            streams = [make_stream(generator, seeds) for _ in range(min(_BATCH, count - number))]
            with _use_windows(_WINDOWS[number // _BATCH % len(_WINDOWS)]):
                verdicts = [judge(stream) for stream in streams]
            for stream, verdict, asked in zip(streams, verdicts, unpickler.ask_all(streams), strict=True):
                counts.seen[verdict, "died" if asked is None else "asked" if asked else "quiet"] += 1
                if disagree(verdict, asked):
                    _add(counts, f"{verdict}, {asked}: {stream.hex()}")
    return counts


def compare_headers(count: int, seed: int = _SEED) -> Counts:
    counts = Counts()
    generator = random.Random(seed)
    for _ in range(count):
        if found := find_disagreement(make_header(generator)):
            _add(counts, found)
    counts.seen["header", ""] = count
    return counts


def _add(counts: Counts, disagreement: str) -> None:
    counts.disagreements.append(disagreement)
    print(disagreement, file=sys.stderr, flush=True)


@contextmanager
def _use_windows(size: int | None) -> Iterator[None]:
    usual = opcodes._FIRST_WINDOW, opcodes._LAST_WINDOW, opcodes._WINDOW_BEHIND_DATA
    if size:
        opcodes._FIRST_WINDOW = opcodes._LAST_WINDOW = opcodes._WINDOW_BEHIND_DATA = size
    try:
        yield
    finally:
        opcodes._FIRST_WINDOW, opcodes._LAST_WINDOW, opcodes._WINDOW_BEHIND_DATA = usual
