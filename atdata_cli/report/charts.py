"""Numbers ready to be drawn: the template only places bars."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import ceil, isfinite
from typing import Any, Literal

from atdata_cli.words import count

__all__ = ["MOST_BARS", "Bar", "Chart", "bars", "categories", "columns", "cut", "histogram", "number"]

MOST_BARS = 12
_BINS = 20
_EXACT_BELOW = 10**15
_LONGEST_LABEL = 80


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes
    ----------
    label : what it stands for.
    shown : its value as text.
    share : its length, of the longest bar's.
    """

    label: str
    shown: str
    share: float


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart, and the table that says the same.

    Attributes
    ----------
    kind : ``bars`` lie and have names; ``columns`` stand side by side on an axis.
    title, summary : for those who cannot see it; the summary also stands below.
    heads : the table's two column heads.
    bars : from top to bottom, or from left to right.
    ticks : first, middle and last mark of the axis of columns.
    peak : the longest bar's value as text.
    """

    kind: Literal["bars", "columns"]
    title: str
    summary: str
    heads: tuple[str, str]
    bars: Sequence[Bar]
    ticks: Sequence[str] = ()
    peak: str = ""


def number(value: float) -> str:
    """A number as people read it: ``1,797``, ``0.1235``, ``1.2e+400``."""
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < _EXACT_BELOW else f"{Decimal(value):.4g}"
    if not isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < _EXACT_BELOW:
        return f"{int(value):,}"
    return f"{value:.6g}"


def cut(text: str, longest: int = _LONGEST_LABEL) -> str:
    """*text*, or as much of it as fits."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def bars(
    title: str,
    rows: Sequence[tuple[str, float]],
    *,
    summary: str,
    heads: tuple[str, str],
    show: Callable[[Any], str] = number,
) -> Chart:
    """Rows of (label, value) as lying bars."""
    most = max((value for _, value in rows), default=0)
    drawn = [Bar(cut(label), show(value), _share(value, most)) for label, value in rows]
    return Chart("bars", title, summary, heads, drawn, peak=show(most))


def categories(title: str, counted: Counter[str], *, ordered: bool = False) -> Chart:
    """How often each value comes: the most frequent ones first, or all in the counter's order."""
    rows = list(counted.items())
    if not ordered:
        rows.sort(key=lambda row: (-row[1], row[0]))
    shown, rest = (rows, []) if ordered else (rows[:MOST_BARS], rows[MOST_BARS:])
    most = max(rows, key=lambda row: row[1])
    summary = f"{count(len(rows), 'value')}; most often {cut(most[0], 40)}, {count(most[1], 'time')}."
    if len(rows) == 1:
        summary = f"Always {cut(most[0], 40)}."
    if rest:
        shown.append((f"{len(rest):,} others", sum(times for _, times in rest)))
    return bars(title, shown, summary=summary, heads=("value", "how often"))


def columns(
    title: str,
    rows: Sequence[tuple[str, int]],
    *,
    summary: str,
    heads: tuple[str, str],
    show: Callable[[Any], str] = number,
) -> Chart:
    """Rows of (label, value) side by side, in their order."""
    most = max((value for _, value in rows), default=0)
    drawn = [Bar(cut(label), show(value), _share(value, most)) for label, value in rows]
    ticks = [drawn[0].label, "", drawn[-1].label] if len(drawn) > 1 else ["", drawn[0].label, ""]
    return Chart("columns", title, summary, heads, drawn, ticks, show(most))


def histogram(title: str, values: Sequence[float], *, what: str, show: Callable[[Any], str] = number) -> Chart:
    """How many of the *values* (at least one, all finite) lie where, in equal steps from the smallest to the largest.

    Parameters
    ----------
    what : what a value is, as the head of a column: ``value``, ``size``.
    """
    ordered = sorted(values)
    low, high = show(ordered[0]), show(ordered[-1])
    labels, counts = _binned(ordered, show)
    most = max(counts)
    drawn = [Bar(label, number(times), _share(times, most)) for label, times in zip(labels, counts, strict=True)]
    if ordered[0] == ordered[-1]:
        return Chart("columns", title, f"Always {low}.", (what, "how often"), drawn, ["", low, ""], number(most))
    summary = f"{low} to {high}, median {show(ordered[len(ordered) // 2])}."
    return Chart("columns", title, summary, (what, "how often"), drawn, [low, "", high], number(most))


def _binned(ordered: Sequence[float], show: Callable[[Any], str]) -> tuple[list[str], list[int]]:
    """Bins as labels and counts. Whole numbers get bins of whole width; nothing overflows between ±1e308."""
    low, high = ordered[0], ordered[-1]
    bins = min(_BINS, max(5, ceil(2 * len(ordered) ** (1 / 3))))
    edges: list[float]
    if isinstance(low, int) and isinstance(high, int):
        width = -((low - high - 1) // bins)
        edges = list(range(low, high + 1, width))
        tops = [min(edge + width - 1, high) for edge in edges]
    else:
        parts = [part / bins for part in range(bins + 1)] if low < high else [0.0, 1.0]
        edges = [low * (1 - part) + high * part for part in parts]
        tops = edges[1:]
        del edges[-1]
    counts = [0] * len(edges)
    for value in ordered:
        counts[max(bisect_right(edges, value) - 1, 0)] += 1
    labels = [show(a) if a == b else f"{show(a)} – {show(b)}" for a, b in zip(edges, tops, strict=True)]
    return labels, counts


def _share(value: float, most: float) -> float:
    return value / most if most else 0.0
