"""Small line charts as SVG, drawn by hand: nothing to install, and a picture is a few kilobytes of text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 380, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 44
_LINE, _INK, _GRID = "#1f6f8b", "#222", "#ddd"


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes
    ----------
    title : above it.
    x, y : what the axes say.
    points : (x, y), x above 0.
    is_log : whether y is drawn by powers of ten; else from 0.
    limit : a y that must not be passed, drawn as a dashed line.
    """

    title: str
    x: str
    y: str
    points: Sequence[tuple[float, float]]
    is_log: bool = True
    limit: float | None = None


def draw(panels: Sequence[Panel]) -> str:
    """The panels beside each other."""
    width = _WIDTH * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" width="{width}" height="{_HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{_HEIGHT}" fill="white"/>',
    ]
    for number, panel in enumerate(panels):
        parts += [f'<g transform="translate({number * _WIDTH} 0)">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel) -> list[str]:
    xs = [x for x, _ in panel.points]
    ys = [y for _, y in panel.points] + ([] if panel.limit is None else [panel.limit])
    across, x_ticks = _axis(xs, _LEFT, _WIDTH - _RIGHT, is_log=True)
    up, y_ticks = _axis(ys, _HEIGHT - _BOTTOM, _TOP, is_log=panel.is_log)
    middle, bottom, right = (_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [_text(middle, 18, panel.title, weight="bold"), _text(middle, _HEIGHT - 8, panel.x)]
    parts.append(
        f'<text transform="translate(14 {(_TOP + bottom) / 2:.0f}) rotate(-90)" text-anchor="middle" '
        f'fill="{_INK}">{escape(panel.y)}</text>'
    )
    for tick in x_ticks:
        parts += [_stroke(across(tick), _TOP, across(tick), bottom), _text(across(tick), bottom + 15, _number(tick))]
    for tick in y_ticks:
        parts += [_stroke(_LEFT, up(tick), right, up(tick)), _text(_LEFT - 6, up(tick) + 4, _number(tick), "end")]
    if panel.limit is not None:
        parts.append(_stroke(_LEFT, up(panel.limit), right, up(panel.limit), "#b03a2e", dashed=True))
    places = [(across(x), up(y)) for x, y in panel.points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts.append(f'<polyline points="{line}" fill="none" stroke="{_LINE}" stroke-width="2"/>')
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_LINE}"/>' for x, y in places]
    return parts


def _axis(
    values: Sequence[float], start: float, end: float, *, is_log: bool
) -> tuple[Callable[[float], float], list[float]]:
    """Where a value is drawn, and the values that are marked."""
    if is_log:
        low, high = math.floor(math.log10(min(values)) + 1e-9), math.ceil(math.log10(max(values)) - 1e-9)
        high = max(high, low + 1)
        ticks = [10.0**power for power in range(low, high + 1)]
        return lambda value: start + (end - start) * (math.log10(value) - low) / (high - low), ticks
    step = 10 ** math.floor(math.log10(max(values)))
    step = next(step * part for part in (0.2, 0.5, 1, 2, 5) if max(values) / (step * part) <= 6)
    top = math.ceil(max(values) / step) * step
    return lambda value: start + (end - start) * value / top, [n * step for n in range(round(top / step) + 1)]


def _number(value: float) -> str:
    if value >= 1:
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if value >= size:
                return f"{value / size:g} {letter}"
    return f"{value:g}"


def _text(x: float, y: float, text: str, anchor: str = "middle", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{_INK}">'
        f"{escape(text)}</text>"
    )


def _stroke(x1: float, y1: float, x2: float, y2: float, color: str = _GRID, *, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"{dashes}/>'
