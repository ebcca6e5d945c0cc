"""Run all benchmarks or the given parts, and write their sections of docs/benchmarks.md.

With a scale other than 1, for tests of a part, the report is written to .local/benchmarks.
"""

import argparse
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from bench.archives import describe_archives
from bench.cold_start import describe_cold_starts
from bench.data_path import describe_data_path, describe_function
from bench.differential import describe_differential
from bench.hub_reads import describe_hub_reads
from bench.latency import describe_latency
from bench.loopback import BUILT, ProgramMissingError
from bench.parallel import describe_connections, describe_functions, describe_shared_file
from bench.report import MB, MIB, Run
from bench.repositories import describe_repositories
from bench.servers import ROOT
from bench.transfer_memory import describe_memory
from bench.unzipping import describe_unzipping

PARTS: dict[str, Callable[[Run], str]] = {
    "data-path": describe_data_path,
    "function": describe_function,
    "memory": describe_memory,
    "functions": describe_functions,
    "shared-file": describe_shared_file,
    "connections": describe_connections,
    "repositories": lambda run: describe_repositories([run.scale_count(1000), run.scale_count(10_000)]),
    "unzipping": lambda run: describe_unzipping(run.scale_size(192 * MIB), run.scale_count(50_000)),
    "archives": lambda run: describe_archives(run.scale_size(400 * MB), run.scale_count(50_000)),
    "hub-reads": describe_hub_reads,
    "latency": describe_latency,
    "cold-start": lambda run: describe_cold_starts(),
    "differential": describe_differential,
}
"""In the order of the report. Each function runs a benchmark and returns its section in Markdown, with the heading."""

_HEAD = """\
# Benchmarks

`make bench` generates this page and overwrites manual changes. `make bench PARTS=memory` repeats one part."""
_MARK = re.compile(r"^<!-- part: ([a-z-]+) -->\n", re.MULTILINE)


def describe_machine() -> str:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    kernel = ".".join(platform.release().split(".")[:2])
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {cpu}, {os.cpu_count()} cores, Linux {kernel}, "
        f"Python {platform.python_version()}."
    )


def measure_part(name: str, run: Run) -> str:
    try:
        section = PARTS[name](run)
    except ProgramMissingError as error:
        section = f"## {name.capitalize()}\n\nNot measured. {error}"
    return f"{section}\n\n{describe_machine()}"


def read_sections(report: str) -> dict[str, str]:
    """Return the sections of a report by the name of their part."""
    _, *pieces = _MARK.split(report)
    return {name: section.strip() for name, section in zip(pieces[::2], pieces[1::2], strict=True)}


def format_report(sections: dict[str, str]) -> str:
    """Return the report. Sections of parts that no longer exist are omitted."""
    marked = [f"<!-- part: {name} -->\n{sections[name]}" for name in PARTS if name in sections]
    return "\n\n".join([_HEAD, *marked]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"parts to run: {', '.join(PARTS)}; default: all")
    parser.add_argument("--scale", type=float, default=1, help="factor for all sizes")
    options = parser.parse_args()
    selected = options.parts or list(PARTS)
    if unknown := set(selected) - set(PARTS):
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    run = Run(options.scale, ROOT / "docs" if options.scale == 1 else BUILT)
    run.folder.mkdir(parents=True, exist_ok=True)
    path = run.folder / "benchmarks.md"
    for name in selected:
        print(f"{name} …", file=sys.stderr, flush=True)
        started = time.monotonic()
        section = measure_part(name, run)
        print(f"{section}\n\n({name}: {time.monotonic() - started:.0f} s)\n", flush=True)
        sections = read_sections(path.read_text()) if path.is_file() else {}
        path.write_text(format_report(sections | {name: section}))
    print(f"Written to {run.folder.relative_to(ROOT)}.", file=sys.stderr)


if __name__ == "__main__":
    main()
