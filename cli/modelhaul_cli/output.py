"""Output: results go to stdout, status and error messages to stderr."""

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.filesize import decimal

from modelhaul_cli.errors import CommandError

_GAP = "  "  # between columns


class Screen:
    """Terminal output of a command. With `as_json`, stdout contains only JSON."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.error_console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)

    def print_status(self, text: str) -> None:
        """Print a status message to stderr."""
        self.error_console.print(sanitize(text))

    def print_result(self, text: str) -> None:
        """Print a human-readable result to stdout. No-op with `--json`."""
        if not self.as_json:
            self._console.print(sanitize(text))

    def print_table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        for line in self.format_table(head, rows):
            self.print_result(line)

    def format_table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
        """Return lines with aligned columns. On a terminal, a last cell that does not fit continues on lines of its
        own, and words are not broken. A pipe receives complete lines.
        """
        cells = [[sanitize(cell) for cell in row] for row in (head, *rows)]
        widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
        widths[-1] = 0
        left = self._console.width - sum(widths) - len(_GAP) * len(widths[1:]) if self._console.is_terminal else None
        lines = []
        for row in cells:
            last = row[-1]
            folded = left is not None and cell_len(last) > left
            shown = [*row[:-1], "" if folded else last]
            padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(shown, widths, strict=True))
            lines.append(_GAP.join(padded).rstrip())
            if folded:
                lines += textwrap.wrap(
                    last,
                    self._console.width,
                    initial_indent=_GAP,
                    subsequent_indent=_GAP,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
        return lines

    def print_document(self, document: dict[str, Any]) -> None:
        """Print the only document of a command. No-op without `--json`."""
        if self.as_json:
            self._write(json.dumps(document, indent=2, ensure_ascii=False))

    def print_event(self, event: dict[str, Any]) -> None:
        """Print one of several JSON lines. No-op without `--json`."""
        if self.as_json:
            self._write(json.dumps(event, ensure_ascii=False))

    def print_error(self, error: CommandError) -> None:
        title = f"{error.title.rstrip('.')}."
        self.error_console.print(f"Error: {sanitize(title)}", style="bold red")
        for text in (error.detail, *_describe_problem_details(error), error.remedy):
            if text:
                self.print_status(text)
        document = error.to_document()
        if document is not None:
            self.print_event(document)

    def _write(self, text: str) -> None:
        self._console.out(text, highlight=False)


def _describe_problem_details(error: CommandError) -> list[str]:
    """Return lines for the structured members of the problem details: fields, and directories of an archive."""
    fields = [f"  {f.get('field')}: {f.get('message')}" for f in error.problem.get("fields", [])]
    shown = [line for line in fields if line.partition(": ")[2] not in error.detail]
    directories = error.problem.get("directories", [])
    return shown + [f"  {d.get('name')}: missing {', '.join(d.get('lacks', []))}" for d in directories]


def sanitize(text: str) -> str:
    """Replace control characters, so that an untrusted name cannot control the terminal. Line breaks are kept."""
    return "\n".join("".join(c if c.isprintable() else "\ufffd" for c in line) for line in text.split("\n"))


def format_size(size: int) -> str:
    """Return a size in decimal units, such as `1.2 GB`, as S3 prices use them."""
    return decimal(size)


def format_duration(seconds: float) -> str:
    """Return a duration such as `45 s`, `3:05 min` or `2:03:05 h`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02} h"
    return f"{minutes}:{rest:02} min" if minutes else f"{rest} s"
