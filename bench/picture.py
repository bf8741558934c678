"""Small line charts as SVG: panels of series over logarithmic axes. No library, no script; readable on any background."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#1f6feb", "#d9730d", "#8250df", "#57606a")
WIDE, HIGH = 330, 230  # of one panel, with its margins
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 30, 26


@dataclass(frozen=True)
class Series:
    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Panel:
    title: str
    series: Sequence[Series]
    unit: str


class Axis:
    """Positions of values on a logarithmic axis whose ends are `low` and `high`."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self.low, self.high = min(values) / 1.15, max(values) * 1.15
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """1, 2 and 5 times powers of ten, thinned to at most six."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        found = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
        inside = [t for t in found if self.low <= t <= self.high]
        return inside[:: math.ceil(len(inside) / 6)] if inside else []


def panels(title: str, wanted: Sequence[Panel], columns: int) -> str:
    """The document. The legend names every series once, in the colour of its place in its panel."""
    rows = -(-len(wanted) // columns)
    width, height = columns * WIDE, rows * HIGH + 60
    names = list(dict.fromkeys(s.name for p in wanted for s in p.series))
    colour = dict(zip(names, COLOURS, strict=False))
    parts = [text(14, 22, title, 15, weight="bold")]
    at = 14.0
    for name in names:
        parts.append(
            f'<line x1="{at}" x2="{at + 18}" y1="40" y2="40" stroke="{colour[name]}" stroke-width="2.5"/>'
        )
        parts.append(text(at + 23, 44, name, 12))
        at += 40 + 6.6 * len(name)
    for i, panel in enumerate(wanted):
        x, y = (i % columns) * WIDE, 52 + (i // columns) * HIGH
        parts.append(f'<g transform="translate({x} {y})">{_panel(panel, colour)}</g>')
    return document(width, height, parts)


def document(width: float, height: float, parts: Sequence[str]) -> str:
    style = 'font-family="system-ui, sans-serif" fill="#24292f"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" {style}>'
    back = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, back, *parts, "</svg>"]) + "\n"


def _panel(panel: Panel, colour: dict[str, str]) -> str:
    across = Axis([v for s in panel.series for v in s.x], LEFT, WIDE - RIGHT)
    up = Axis([v for s in panel.series for v in s.y], HIGH - BOTTOM, TOP)
    parts = [text(LEFT, 18, panel.title, 12)]
    for tick in up.ticks():
        y = up(tick)
        parts.append(f'<line x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d0d7de"/>')
        parts.append(text(LEFT - 5, y + 4, f"{short(tick)} {panel.unit}", 10, "end"))
    values = sorted({v for s in panel.series for v in s.x})
    parts += [text(across(v), HIGH - BOTTOM + 15, short(v), 10, "middle") for v in values]
    for series in panel.series:
        points = [(across(x), up(y)) for x, y in zip(series.x, series.y, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        stroke = colour[series.name]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{stroke}"/>' for x, y in points]
    return "".join(parts)


def short(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 10 * size or (size > 1e3 and value >= size):
            return f"{value / size:.3g}{unit}"
    return f"{value:.4g}"


def text(x: float, y: float, words: str, size: int, anchor: str = "start", weight: str = "normal") -> str:
    facts = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}"'
    return f"<text {facts}>{escape(words)}</text>"
