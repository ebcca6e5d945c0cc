"""A million pickle streams, compared with real unpicklers, and array headers, compared with numpy."""

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.report import Run
from modelhaul.inspection.pickles import source
from tests.differential.headers import find_disagreement, make_header
from tests.differential.judging import disagree, judge
from tests.differential.readers import RecordingUnpickler
from tests.differential.streams import SEEDS, list_array_seeds, make_stream

_SEED = 2026
_STREAMS = 1_000_000
_HEADERS = 200_000
_BATCH_SIZE = 50  # streams that are read with the same window size
_RESULTS = ("disallowed", "allowed", "crash")
_TEXT = """\
## Comparison of pickle and array inspection with real readers

{streams:,} streams are inspected and unpickled: pickles of all protocols, of torch, numpy and joblib, which are
mutated, spliced, truncated or split into frames, and sequences of opcodes. The unpicklers are those of C (with three
kinds of files, with and without persistent IDs), Python and joblib. *Disallowed import*: at least one unpickler tried a
disallowed import. *Crash*: the stream crashed the process, and the result is unknown.

| Our verdict | Disallowed import | No disallowed import | Crash |
|---|--:|--:|--:|
{rows}

Streams with a disallowed import that are clean or not a pickle in our view: {disagreements}. Headers of `.npy` files
that are clean in our view, but that numpy unpickles or reads with another size: {header_disagreements} of {headers:,}.
The seed is {seed}, and the comparison took {seconds:,.0f} s."""
_WINDOWS = (None, 1, 9)  # bytes of a window; None for the default sizes


@dataclass
class Counts:
    """Streams by our verdict and by whether an unpickler tried a disallowed import."""

    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)


def describe_differential(run: Run) -> str:
    started = time.monotonic()
    pickles = compare_pickles(run.scale_count(_STREAMS))
    headers = compare_headers(run.scale_count(_HEADERS))
    rows = [
        f"| {verdict} | " + " | ".join(f"{pickles.seen[verdict, result]:,}" for result in _RESULTS) + " |"
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
        for number in range(0, count, _BATCH_SIZE):
            streams = [make_stream(generator, seeds) for _ in range(min(_BATCH_SIZE, count - number))]
            with _use_windows(_WINDOWS[number // _BATCH_SIZE % len(_WINDOWS)]):
                verdicts = [judge(stream) for stream in streams]
            for stream, verdict, imports in zip(streams, verdicts, unpickler.ask_all(streams), strict=True):
                counts.seen[verdict, _classify(imports)] += 1
                if disagree(verdict, imports):
                    _add(counts, f"{verdict}, {imports}: {stream.hex()}")
    return counts


def _classify(imports: list[str] | None) -> str:
    """Return the result for the disallowed imports of a stream. None is a crash."""
    if imports is None:
        return "crash"
    return "disallowed" if imports else "allowed"


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
    default = source._FIRST_WINDOW, source._LAST_WINDOW, source._WINDOW_AFTER_SKIP
    if size:
        source._FIRST_WINDOW = source._LAST_WINDOW = source._WINDOW_AFTER_SKIP = size
    try:
        yield
    finally:
        source._FIRST_WINDOW, source._LAST_WINDOW, source._WINDOW_AFTER_SKIP = default
