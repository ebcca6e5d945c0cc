"""Progress in bytes: a bar on a terminal, a line now and then elsewhere, as in the log of a CI job."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from modelhaul_cli.output import Screen, format_duration, format_size

QUIET_SECONDS = 30.0
_STEPS = 10  # lines for a whole


@dataclass(frozen=True, slots=True)
class Position:
    """Where something stands. `stage` is one word, `count` what has been counted besides bytes (`3/16 files`); `total`
    0, `rate` (bytes per second) and `seconds_left` None while they are not known.
    """

    stage: str
    count: str = ""
    done: int = 0
    total: int = 0
    rate: float | None = None
    seconds_left: float | None = None

    @property
    def words(self) -> str:
        return f"{self.stage} {self.count}".rstrip()


class ByteCounter:
    """Counts what several threads move. `here` bytes of `total` were there before."""

    def __init__(self, total: int, here: int = 0) -> None:
        self.total = total
        self._here = here
        self._moved = 0
        self._started_at = time.monotonic()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Less than 0 for bytes that must be moved again."""
        with self._lock:
            self._moved += count

    def read_position(self, stage: str, count: str = "") -> Position:
        moved = self._moved
        rate = moved / max(time.monotonic() - self._started_at, 1.0)
        done = self._here + moved
        left = (self.total - done) / rate if rate > 0 else None
        return Position(stage, count, done, self.total, rate if rate > 0 else None, left)


class Display(Protocol):
    def update(self, position: Position) -> None: ...


@contextmanager
def open_display(screen: Screen) -> Iterator[Display]:
    if not screen.error_console.is_terminal:
        yield _Lines(screen)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), _PaceColumn())
    with Progress(*columns, console=screen.error_console) as progress:
        yield _Bar(progress)


def describe_pace(rate: float | None, seconds_left: float | None) -> str:
    """`75.0 MB/s, 0:45 min left`, or as much of it as is known."""
    words = [f"{format_size(int(rate))}/s"] if rate else []
    words += [f"{format_duration(seconds_left)} left"] if seconds_left else []
    return ", ".join(words)


class _PaceColumn(ProgressColumn):
    """What the API says, else what the bar itself has measured."""

    def render(self, task: Task) -> Text:
        rate = task.fields["rate"] or task.speed
        left = task.fields["seconds_left"]
        return Text(describe_pace(rate, task.time_remaining if left is None else left))


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar = progress.add_task("", total=None, visible=False, rate=None, seconds_left=None)

    def update(self, position: Position) -> None:
        self._progress.update(
            self._bar,
            visible=True,
            description=position.words,
            completed=position.done,
            total=position.total or None,
            rate=position.rate,
            seconds_left=position.seconds_left,
        )


class _Lines:
    """A line when the stage changes, at each tenth, and after half a minute if anything moved."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._last: tuple[str, int] | None = None
        self._text = ""
        self._printed_at = 0.0

    def update(self, position: Position) -> None:
        key = (position.stage, _STEPS * position.done // position.total if position.total else 0)
        text = self._describe(position)
        now = time.monotonic()
        if key == self._last and (text == self._text or now - self._printed_at < QUIET_SECONDS):
            return
        self._last, self._text, self._printed_at = key, text, now
        self._screen.say(text)

    def _describe(self, position: Position) -> str:
        words = [position.words]
        if position.total:
            words.append(f"{100 * position.done // position.total} %")
            words.append(f"{format_size(position.done)} of {format_size(position.total)}")
        if pace := describe_pace(position.rate, position.seconds_left):
            words.append(pace)
        return ", ".join(words)
