"""Draw the output of `make run` on standard input as an SVG: `python -m local.recording docs/make-run.svg`.

Ports, IDs and keys are replaced by constants, and progress lines and most commands are omitted, so that the picture
changes only if the output of `make run` changes.
"""

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 80
TITLE = "make run"
_NUMBERED_PATTERNS = (
    (re.compile(r"(?<=127\.0\.0\.1:)\d+"), "800{}"),
    (re.compile(r"(?<=/)[0-9a-f]{7}(?=…/)"), "000000{}"),
)
_REPLACED_PATTERNS = (
    (re.compile(r"(?<=bucket-)[0-9a-f]+"), "1"),
    (re.compile(r"(?<=API_KEY=)\w+"), "KEY"),
    (re.compile(r"^Use the API\..*(?=^Stopping)", re.DOTALL | re.MULTILINE), "…\n"),
    (re.compile(r"^(?:Installing|PENDING) .*\n", re.MULTILINE), ""),
)


def record(output: str) -> str:
    """Return an SVG of the output of a run. Raises ValueError if the run failed or was interrupted."""
    if "Stopped." not in output or "DONE" not in output or "import failed" in output:
        raise ValueError("The run failed or was interrupted. The SVG file was not written.")
    console = Console(record=True, file=io.StringIO(), width=WIDTH, color_system="truecolor", legacy_windows=False)
    console.print(Text("$ make run", style="bold"))
    for line in stabilize(output).splitlines():
        style = "green" if line.startswith("DONE") else "dim" if line.startswith((" ", "…")) else ""
        console.print(Text(line, style=style), no_wrap=True, overflow="ellipsis")
    picture = console.export_svg(title=TITLE, unique_id="run")
    # Rich links to web fonts. The monospace font of the reader is sufficient.
    picture = re.sub(r"\s*(?:@font-face \{.*?\}|<!--.*?-->)", "", picture, flags=re.DOTALL).replace("Fira Code, ", "")
    return "\n".join(line.rstrip() for line in picture.splitlines()).strip() + "\n"


def stabilize(output: str) -> str:
    """Replace values that differ between runs by numbers in order of appearance, or by constants. Omit lines."""
    for pattern, stable in _NUMBERED_PATTERNS:
        output = number_matches(pattern, stable, output)
    for pattern, stable in _REPLACED_PATTERNS:
        output = pattern.sub(stable, output)
    return output


def number_matches(pattern: re.Pattern[str], stable: str, output: str) -> str:
    """Replace each match by `stable` with a number. Equal matches get equal numbers."""
    numbers: dict[str, int] = {}
    return pattern.sub(lambda match: stable.format(numbers.setdefault(match[0], len(numbers) + 1)), output)


def main() -> int:
    try:
        picture = record(sys.stdin.read())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    Path(sys.argv[1]).write_text(picture, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
