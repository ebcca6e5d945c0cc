"""Progress in bytes: a progress bar on a terminal, occasional lines elsewhere, for example in a CI log."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from modelhaul_cli.output import Screen, format_duration, format_size
from modelhaul_cli.waiting import describe_next_attempt

LINE_INTERVAL = 30.0  # seconds
_PROGRESS_STEPS = 10  # lines from 0 % to 100 %


@dataclass(frozen=True, slots=True)
class ProgressState:
    """The state of a transfer. `stage` is one word, `count` is in another unit than bytes (`3/16 files`), `done` and
    `total` are bytes, `rate` is bytes per second. Unknown values are 0 (`total`) or None (`rate`, `seconds_left`).
    `waiting` says what a task waits for, and `next_attempt` until when (ISO 8601).
    """

    stage: str
    count: str = ""
    done: int = 0
    total: int = 0
    rate: float | None = None
    seconds_left: float | None = None
    waiting: str = ""
    next_attempt: str = ""

    @property
    def label(self) -> str:
        return f"{self.stage} {self.count}".rstrip()


class ByteCounter:
    """Thread-safe counter of transferred bytes. `completed` bytes of `total` were transferred by an earlier run."""

    def __init__(self, total: int, completed: int = 0) -> None:
        self.total = total
        self._completed = completed
        self._moved = 0
        self._started_at = time.monotonic()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Add bytes. `count` is negative for bytes that must be transferred again."""
        with self._lock:
            self._moved += count

    def read_state(self, stage: str, count: str = "") -> ProgressState:
        moved = self._moved
        rate = moved / max(time.monotonic() - self._started_at, 1.0)
        done = self._completed + moved
        left = (self.total - done) / rate if rate > 0 else None
        return ProgressState(stage, count, done, self.total, rate if rate > 0 else None, left)


class Display(Protocol):
    def update(self, state: ProgressState) -> None: ...


@contextmanager
def open_display(screen: Screen) -> Iterator[Display]:
    if not screen.error_console.is_terminal:
        yield _Lines(screen)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), _PaceColumn())
    with Progress(*columns, console=screen.error_console) as progress:
        yield _Bar(progress, screen)


def describe_pace(rate: float | None, seconds_left: float | None) -> str:
    """Return a text such as `75.0 MB/s, 45 s left`, without the parts that are unknown."""
    parts = [f"{format_size(int(rate))}/s"] if rate else []
    parts += [f"{format_duration(seconds_left)} left"] if seconds_left else []
    return ", ".join(parts)


class _PaceColumn(ProgressColumn):
    """Rate and time left as reported by the API, or else as measured by the progress bar. Or the next attempt."""

    def render(self, task: Task) -> Text:
        if task.fields["next_attempt"]:
            return Text(describe_next_attempt(task.fields["next_attempt"]))
        rate = task.fields["rate"] or task.speed
        left = task.fields["seconds_left"]
        return Text(describe_pace(rate, task.time_remaining if left is None else left))


class _Bar:
    """Shows a bar. What the task waits for is printed above it once, because it is too long for the line of the bar."""

    def __init__(self, progress: Progress, screen: Screen) -> None:
        self._progress = progress
        self._screen = screen
        self._waiting = ""
        self._bar = progress.add_task("", total=None, visible=False, rate=None, seconds_left=None, next_attempt="")

    def update(self, state: ProgressState) -> None:
        if state.waiting not in ("", self._waiting):
            self._screen.print_status(f"{state.label}, {state.waiting}")
        self._waiting = state.waiting
        self._progress.update(
            self._bar,
            visible=True,
            description=state.label,
            completed=state.done,
            total=state.total or None,
            rate=state.rate,
            seconds_left=state.seconds_left,
            next_attempt=state.next_attempt,
        )


class _Lines:
    """Prints a line when the stage changes, at each 10 %, when a wait begins or ends, and after LINE_INTERVAL if the
    text has changed.
    """

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._last: tuple[str, int, bool] | None = None
        self._text = ""
        self._printed_at = 0.0

    def update(self, state: ProgressState) -> None:
        step = _PROGRESS_STEPS * state.done // state.total if state.total else 0
        key = (state.stage, step, bool(state.waiting))
        text = self._describe(state)
        now = time.monotonic()
        if key == self._last and (text == self._text or now - self._printed_at < LINE_INTERVAL):
            return
        self._last, self._text, self._printed_at = key, text, now
        attempt = f", {describe_next_attempt(state.next_attempt)}" if state.next_attempt else ""
        self._screen.print_status(text + attempt)

    def _describe(self, state: ProgressState) -> str:
        parts = [state.label]
        if state.total:
            parts.append(f"{100 * state.done // state.total} %")
            parts.append(f"{format_size(state.done)} of {format_size(state.total)}")
        if pace := state.waiting or describe_pace(state.rate, state.seconds_left):
            parts.append(pace)
        return ", ".join(parts)
