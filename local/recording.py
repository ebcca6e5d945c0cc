"""Draw the output of `make run` on standard input as an SVG: `python -m local.recording docs/make-run.svg`.

Ports, IDs and keys are replaced by constants, and progress lines are omitted, so that the picture changes only if the
output of `make run` changes.
"""

import io
import re
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 120
TITLE = "make run"
_NUMBERED_PATTERNS = (
    (re.compile(r"(?<=127\.0\.0\.1:)\d+"), "800{}"),
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "0000000{}-…"),
    (re.compile(r"\b[0-9a-f]{40}\b"), "000000{}…"),
)
_REPLACED_PATTERNS = (
    (re.compile(r"(?<=bucket-)[0-9a-f]+"), "1"),
    (re.compile(r"(?<=x-api-key: )\w+|(?<=API_KEY=)\w+"), "KEY"),
)
_OBJECT = re.compile(r" *[\d,]+  (?:models|manifests)/")
_LISTED_OBJECT = re.compile(r".*(?:manifests/.*|\.safetensors)")
_OMITTED_PREFIXES = ("Installing ", "PENDING")


def record(output: str) -> str:
    """Return an SVG of the output of a run. Raises ValueError if the run failed or was interrupted."""
    if "Stopped." not in output or "DONE" not in output or "import failed" in output:
        raise ValueError("The run failed or was interrupted. The SVG file was not written.")
    console = Console(record=True, file=io.StringIO(), width=WIDTH, color_system="truecolor", legacy_windows=False)
    console.print(Text("$ make run", style="bold"))
    for line in shorten(stabilize(output)):
        style = "green" if line.startswith("DONE") else "dim" if line.startswith((" ", "…")) else ""
        console.print(Text(line, style=style), no_wrap=True, overflow="ellipsis")
    picture = console.export_svg(title=TITLE, unique_id="run")
    # Rich links to web fonts. The monospace font of the reader is sufficient.
    picture = re.sub(r"\s*(?:@font-face \{.*?\}|<!--.*?-->)", "", picture, flags=re.DOTALL).replace("Fira Code, ", "")
    return "\n".join(line.rstrip() for line in picture.splitlines()).strip() + "\n"


def stabilize(output: str) -> str:
    """Replace values that differ between runs by numbers in order of appearance, or by constants."""
    for pattern, stable in _NUMBERED_PATTERNS:
        output = number_matches(pattern, stable, output)
    for pattern, stable in _REPLACED_PATTERNS:
        output = pattern.sub(stable, output)
    return output


def number_matches(pattern: re.Pattern[str], stable: str, output: str) -> str:
    """Replace each match by `stable` with a number. Equal matches get equal numbers."""
    numbers: dict[str, int] = {}
    return pattern.sub(lambda match: stable.format(numbers.setdefault(match[0], len(numbers) + 1)), output)


def shorten(output: str) -> Iterator[str]:
    """Yield the lines without progress lines, and of the objects in the bucket only manifests and weights."""
    for are_objects, lines in groupby(output.splitlines(), lambda line: _OBJECT.match(line) is not None):
        kept = [line for line in lines if not line.startswith(_OMITTED_PREFIXES)]
        if not are_objects:
            yield from kept
            continue
        shown = [line for line in kept if _LISTED_OBJECT.fullmatch(line)]
        yield from shown
        yield f"{'…':>14}  {len(kept) - len(shown)} more files"


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
