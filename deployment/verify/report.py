"""Print results, and write them as JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deployment.verify.results import Outcome, Result

_COLORS = {Outcome.PASS: "green", Outcome.FAIL: "red", Outcome.SKIPPED: "yellow"}


def print_result(result: Result, console: Console) -> None:
    """Print a line for a check that has ended."""
    console.print(f"{result.outcome:<8}{result.name}", style=_COLORS[result.outcome], highlight=False, markup=False)


def print_table(results: Sequence[Result], console: Console) -> None:
    """Print a table of all results. Failures have the section that describes the check."""
    table = Table("Check", "Result", "Seconds", "Seen", title="Verification of the stack", title_justify="left")
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    table.columns[2].justify = "right"
    table.columns[3].overflow = "fold"
    for result in results:
        detail = f"{result.detail}\nSee {result.link}" if result.outcome is Outcome.FAIL else result.detail
        style = "" if result.outcome is Outcome.PASS else _COLORS[result.outcome]
        # Not markup: details contain text of responses.
        cells = (result.name, result.outcome, f"{result.seconds:.1f}", detail)
        table.add_row(*(Text(cell) for cell in cells), style=style)
    console.print(table)
    counts = Counter(result.outcome for result in results)
    console.print(", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome), highlight=False)


def write_json(results: Sequence[Result], path: Path) -> None:
    path.write_text(json.dumps([asdict(result) for result in results], indent=2, ensure_ascii=False) + "\n")
