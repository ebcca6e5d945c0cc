"""What is printed, and where: results to stdout, words about the way there to stderr."""

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.filesize import decimal

from modelhaul_cli.errors import CommandError


class Screen:
    """With `as_json` stdout gets JSON and nothing else."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.error_console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)

    def say(self, text: str) -> None:
        """Words for a person, about what goes on."""
        self.error_console.print(clean(text))

    def show(self, text: str) -> None:
        """A result for a person; nothing with `--json`."""
        if not self.as_json:
            self._console.print(clean(text))

    def show_table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Aligned columns, as wide as they are: a terminal wraps them, a pipe gets them whole."""
        cells = [[clean(cell) for cell in row] for row in (head, *rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.show("  ".join(padded).rstrip())

    def print_document(self, document: dict[str, Any]) -> None:
        """With `--json`: the one document of a command."""
        if self.as_json:
            self._write(json.dumps(document, indent=2, ensure_ascii=False))

    def print_event(self, event: dict[str, Any]) -> None:
        """With `--json`: one of several lines."""
        if self.as_json:
            self._write(json.dumps(event, ensure_ascii=False))

    def fail(self, error: CommandError) -> None:
        title = f"{error.title.rstrip('.')}."
        self.error_console.print(f"Error: {clean(title)}", style="bold red")
        for text in (error.detail, *_describe_parts(error), error.remedy):
            if text:
                self.say(text)
        document = error.to_document()
        if document is not None:
            self.print_event(document)

    def _write(self, text: str) -> None:
        self._console.out(text, highlight=False)


def _describe_parts(error: CommandError) -> list[str]:
    """What the problem details hold besides the words: fields, directories of an archive."""
    fields = [f"  {f.get('field')}: {f.get('message')}" for f in error.problem.get("fields", [])]
    told = [line for line in fields if line.partition(": ")[2] not in error.detail or len(fields) > 1]
    directories = error.problem.get("directories", [])
    return told + [f"  {d.get('name')}: lacks {', '.join(d.get('lacks', []))}" for d in directories]


def clean(text: str) -> str:
    """Without control characters, which a name from elsewhere could steer a terminal with; lines stay lines."""
    return "\n".join("".join(c if c.isprintable() else "\ufffd" for c in line) for line in text.split("\n"))


def format_size(size: int) -> str:
    """`1.2 GB`: of 1,000 each, as disks and S3's prices have them."""
    return decimal(size)


def format_duration(seconds: float) -> str:
    """`45 s`, `3:05 min`, `2:03:05 h`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02} h"
    return f"{minutes}:{rest:02} min" if minutes else f"{rest} s"
