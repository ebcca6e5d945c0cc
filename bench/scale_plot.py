"""An SVG plot with side-by-side panels and a logarithmic x axis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 460, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 44, 48
_COLOURS = ("#1f6feb", "#d1570a", "#2da44e")


@dataclass(frozen=True, slots=True)
class Panel:
    """`lines` maps names to a y value for each of `xs`. `ticks` are the labelled y values, in ascending order."""

    title: str
    x_title: str
    xs: Sequence[int]
    lines: Mapping[str, Sequence[float]]
    ticks: Sequence[float]
    logarithmic: bool = False


def draw(panels: Sequence[Panel]) -> str:
    width = _WIDTH * len(panels)
    body = "\n".join(
        f'<g transform="translate({_WIDTH * number},0)">\n{_draw_panel(panel)}\n</g>'
        for number, panel in enumerate(panels)
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" width="{width}" height="{_HEIGHT}" \
font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
{body}
</svg>
"""


def _draw_panel(panel: Panel) -> str:
    def place_x(x: float) -> float:
        first, last = math.log2(panel.xs[0]), math.log2(panel.xs[-1])
        return _LEFT + (math.log2(x) - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    def place_y(y: float) -> float:
        low, high, value = panel.ticks[0], panel.ticks[-1], y
        if panel.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(y)
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [_write(_LEFT, 20, panel.title, weight="bold")]
    for tick in panel.ticks:
        y = place_y(tick)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(_write(_LEFT - 6, y + 4, f"{tick:g}", anchor="end"))
    parts += [_write(place_x(x), bottom + 16, f"{x}", anchor="middle") for x in panel.xs]
    parts.append(_write((_LEFT + right) / 2, bottom + 34, panel.x_title, anchor="middle"))
    for number, (name, ys) in enumerate(panel.lines.items()):
        colour = _COLOURS[number]
        points = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in zip(panel.xs, ys, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(_write(right, _TOP - 8 + 16 * number, name, anchor="end", fill=colour))
    return "\n".join(parts)


def _write(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", fill: str = "#222") -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{fill}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
