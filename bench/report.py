"""Sizes, tables and plots of the report."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pygal
from pygal.graph.base import BaseGraph
from pygal.style import Style

# pygal registers a finder for plugins without find_spec, which other importers call. The benchmarks use no plugins.
sys.meta_path[:] = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]

MB = 1_000_000
GB = 1_000_000_000
MIB = 1024 * 1024
_COLORS = ("#0969da", "#cf222e", "#1a7f37", "#8250df", "#9a6700")
_STYLE = Style(
    background="#ffffff",
    plot_background="#ffffff",
    colors=_COLORS,
    font_family="sans-serif",
    title_font_size=18,
    label_font_size=13,
    major_label_font_size=13,
    legend_font_size=13,
    value_font_size=12,
)

type Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Run:
    """`scale` is a factor for all sizes. The report and its plots are written to `folder`."""

    scale: float
    folder: Path

    def scale_size(self, size: int) -> int:
        """Return the scaled size in bytes, in whole MiB."""
        return max(MIB, int(size * self.scale) // MIB * MIB)

    def scale_count(self, count: int) -> int:
        return max(1, int(count * self.scale))


def draw_lines(
    run: Run,
    name: str,
    title: str,
    lines: Mapping[str, Points],
    *,
    x_title: str,
    y_title: str,
    logarithmic: bool = False,
) -> str:
    """Write benchmarks/NAME.svg, with y from 0 and optionally a logarithmic x axis. Returns the Markdown."""
    xs = sorted({x for points in lines.values() for x, _ in points})
    top = max(y for points in lines.values() for _, y in points)
    options = {
        "range": (0, top * 1.05),
        "x_title": x_title,
        "y_title": y_title,
        "title": title,
        "legend_at_bottom": True,
    }
    if logarithmic:
        # The logarithmic option of pygal also applies to y.
        chart = pygal.Line(style=_STYLE, width=800, height=420, js=[], **options)
        chart.x_labels = [f"{x:.2g}" for x in xs]
        for label, points in lines.items():
            ys = dict(points)
            chart.add(label, [ys.get(x) for x in xs], allow_interruptions=False)
    else:
        chart = pygal.XY(style=_STYLE, width=800, height=420, js=[], **options)
        chart.x_labels = xs
        for label, points in lines.items():
            chart.add(label, list(points))
    return _write(run, name, title, chart)


def draw_bars(run: Run, name: str, title: str, bars: Mapping[str, Mapping[str, float]], *, x_title: str) -> str:
    """Write benchmarks/NAME.svg with a stacked bar for each key. Returns the Markdown."""
    height = 140 + 60 * len(bars)
    chart = pygal.HorizontalStackedBar(
        style=_STYLE, width=800, height=height, js=[], title=title, x_title=x_title, legend_at_bottom=True
    )
    # pygal draws the first bar at the bottom.
    labels = list(bars)[::-1]
    chart.x_labels = labels
    for part in bars[labels[0]]:
        chart.add(part, [bars[label][part] for label in labels])
    return _write(run, name, title, chart)


def _write(run: Run, name: str, title: str, chart: BaseGraph) -> str:
    path = run.folder / "benchmarks" / f"{name}.svg"
    chart.uuid = name  # random by default, and part of the file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(chart.render())
    return f"![{title}](benchmarks/{name}.svg)"


def format_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table. The first column is left-aligned, the others are right-aligned."""
    lines = [heads, [":---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def format_spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the median and the range of values."""
    median, low, high = statistics.median(values), min(values), max(values)
    if len(values) == 1:
        return f"{median:.{digits}f}"
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
