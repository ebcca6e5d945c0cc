"""A shell in a terminal of 80 columns and 24 lines, and what its user sees."""

import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyte

COLUMNS, ROWS = 80, 24
PROMPT = "$ "
# An escape sequence with the exit status of the last command, which terminals do not show.
_PROMPT_COMMAND = r"printf '\033]133;D;%s\007' $?"
_PROMPT_SHOWN = re.compile(rb"\x1b\]133;D;(\d+)\x07" + re.escape(PROMPT.encode()))
# Programs see a terminal of COLUMNS and ROWS. The emulated screen is wider, so that a line that does not fit is not
# wrapped, and so high that nothing scrolls off it.
_SCREEN_COLUMNS, _SCREEN_ROWS = 500, 20_000


@dataclass(frozen=True)
class Execution:
    """A command as it was typed, its exit status (None while it runs), and the lines that it left on the screen.
    `duration` and `longest_pause` (the longest time without output) are in seconds.
    """

    command: str
    status: int | None
    lines: list[str]
    duration: float
    longest_pause: float

    @property
    def output(self) -> str:
        return "\n".join(self.lines)


class Terminal:
    """Interactive bash without configuration files. Close it after use."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._controller, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (ROWS, COLUMNS))
        # The process that opens the terminal becomes its controlling process, so that Ctrl-C interrupts the command.
        start = 'exec bash --noprofile --norc --noediting -i <>"$0" >&0 2>&0'
        self._shell = subprocess.Popen(
            ["sh", "-c", start, os.ttyname(terminal)],
            cwd=folder,
            env={
                **environment,
                "TERM": "xterm-256color",
                "PS1": PROMPT,
                "PS2": "",
                "PROMPT_COMMAND": _PROMPT_COMMAND,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._terminal = terminal
        self._screen = pyte.Screen(_SCREEN_COLUMNS, _SCREEN_ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._received = b""
        self._first_line = 0
        self._command = ""
        self._started_at = self._last_output_at = time.monotonic()
        self._longest_pause = 0.0
        self._wait_for_prompt(timeout=30)

    def close(self) -> None:
        """Hang up, as a terminal window does when it is closed."""
        os.close(self._terminal)
        os.close(self._controller)
        self._shell.wait()

    def run(self, command: str, *, timeout: float) -> Execution:
        """Type a command, and wait until it ends. Raises AssertionError after `timeout` seconds."""
        self.type(command)
        return self.wait_for_end(timeout=timeout)

    def type(self, command: str) -> None:
        """Type a command, which may have several lines, and Enter."""
        self._received = b""
        self._first_line = self._screen.cursor.y
        self._command = command
        self._started_at = self._last_output_at = time.monotonic()
        self._longest_pause = 0.0
        self._send(f"{command}\n")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._send("\x03")

    def wait_for_end(self, *, timeout: float) -> Execution:
        status = self._wait_for_prompt(timeout)
        *lines, last = self._read_output()
        # If the output does not end with a line break, its last line ends with the prompt.
        return self._describe(status, lines if last == PROMPT.rstrip() else [*lines, last])

    def wait_for(self, text: str, *, timeout: float) -> Execution:
        """Wait until a line that starts with `text` is on the screen. The command goes on.

        Raises AssertionError if the command ends first, and after `timeout` seconds.
        """

        def is_shown() -> bool:
            lines = self._read_output()
            assert not _PROMPT_SHOWN.search(self._received), lines
            return any(line.startswith(text) for line in lines)

        self._read_until(is_shown, timeout)
        return self._describe(None, self._read_output())

    def _read_output(self) -> list[str]:
        """Return the lines below the last command, without trailing spaces."""
        first = self._first_line + self._command.count("\n") + 1
        rows = (self._screen.buffer[row] for row in range(first, self._screen.cursor.y + 1))
        return ["".join(row[column].data for column in range(max(row, default=-1) + 1)).rstrip() for row in rows]

    def _describe(self, status: int | None, lines: list[str]) -> Execution:
        return Execution(self._command, status, lines, time.monotonic() - self._started_at, self._longest_pause)

    def _wait_for_prompt(self, timeout: float) -> int:
        """Return the exit status of the last command."""
        self._read_until(lambda: _PROMPT_SHOWN.search(self._received) is not None, timeout)
        return int(_PROMPT_SHOWN.findall(self._received)[0])

    def _send(self, text: str) -> None:
        os.write(self._controller, text.encode())

    def _read_until(self, is_reached: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not is_reached():
            left = deadline - time.monotonic()
            assert left > 0, f"no end after {timeout} s: {self._read_output()}"
            if select.select([self._controller], [], [], left)[0]:
                received = os.read(self._controller, 65536)
                now = time.monotonic()
                self._longest_pause = max(self._longest_pause, now - self._last_output_at)
                self._last_output_at = now
                self._received += received
                self._stream.feed(received)
