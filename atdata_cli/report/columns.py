"""What the values of a field are like: gathered sample by sample, then drawn as the chart that fits them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from math import isfinite
from typing import Any

import msgpack
import numpy as np

from atdata_cli.report.charts import Chart, categories, histogram
from atdata_cli.report.members import Member
from atdata_cli.words import human_bytes

__all__ = ["Column", "Columns"]

_MOST_COLUMNS = 60
_MOST_DISTINCT = 12  # so many whole numbers are drawn one by one
_LONGEST_LABEL = 80  # longer text is no label
_MOST_ITEMS = 64  # numbers taken from one list or array
_DEEPEST = 2  # "json.camera.lens" is looked at, what is below is not


class Column:
    """The values of one field, or of one entry of its maps.

    Attributes
    ----------
    samples : how many values.
    nulls : how many of them are null.
    stored : bytes of all of them.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.nulls = 0
        self.stored = 0
        self.numbers: list[float] = []
        self.items: list[float] = []
        self.labels: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()
        self.flags: Counter[str] = Counter()
        self.lengths: list[int] = []
        self.sizes: list[int] = []

    def add(self, value: Any) -> None:
        """Take in one value."""
        self.samples += 1
        self.stored += _stored(value)
        if value is None:
            self.nulls += 1
        elif isinstance(value, bool):
            self.flags["true" if value else "false"] += 1
        elif isinstance(value, int | float):
            self._add_number(value, self.numbers)
        elif isinstance(value, str):
            self.lengths.append(len(value))
            if len(value) <= _LONGEST_LABEL:
                self.labels[value] += 1
        elif isinstance(value, np.ndarray):
            self._add_array(value)
        elif isinstance(value, list):
            self._add_list(value)
        elif isinstance(value, Member):
            self.sizes.append(value.size)
        elif isinstance(value, bytes):
            self.sizes.append(len(value))

    @staticmethod
    def _add_number(value: float, into: list[float]) -> None:
        # Whole numbers of any length come from JSON; as floats they would overflow.
        if isinstance(value, int) or isfinite(value):
            into.append(value)

    def _add_array(self, array: np.ndarray[Any, Any]) -> None:
        if array.dtype.kind not in "biuf":
            self.sizes.append(array.nbytes)
            return
        flat = array.ravel()[:: max(1, array.size // _MOST_ITEMS)][:_MOST_ITEMS]
        for item in flat.tolist():
            self._add_number(item + 0 if isinstance(item, bool) else item, self.items)

    def _add_list(self, values: list[Any]) -> None:
        self.lengths.append(len(values))
        for item in islice(values, _MOST_ITEMS):
            if isinstance(item, str) and len(item) <= _LONGEST_LABEL:
                self.tags[item] += 1
            elif isinstance(item, int | float) and not isinstance(item, bool):
                self._add_number(item, self.items)

    def chart(self) -> Chart | None:
        """The chart that says most; None if there is nothing to draw."""
        if self.flags:
            return categories("true or false", self.flags)
        if self.numbers:
            return self._number_chart()
        if self.items:
            return histogram("numbers in it", self.items, what="number")
        if self._repeats(self.tags):
            return categories("items", self.tags)
        if self._repeats(self.labels) and self.labels.total() == len(self.lengths):
            return categories("values", self.labels)
        if self.lengths:
            lengths = histogram("length", self.lengths, what="length")
            if len(self.labels) < len(self.lengths):
                return lengths
            uncapitalised = lengths.summary[0].lower() + lengths.summary[1:]
            return replace(lengths, summary=f"{len(self.labels):,} different texts; length {uncapitalised}")
        if self.sizes:
            return histogram("size", self.sizes, what="size", show=human_bytes)
        return None

    def _number_chart(self) -> Chart:
        whole = all(isinstance(value, int) for value in self.numbers)
        if whole and len(distinct := sorted(set(self.numbers))) <= _MOST_DISTINCT and len(distinct) > 1:
            times = Counter(self.numbers)
            return categories("values", Counter({str(n): times[n] for n in distinct}), ordered=True)
        return histogram("values", self.numbers, what="value")

    @staticmethod
    def _repeats(counted: Counter[str]) -> bool:
        """Whether these are labels rather than names of single samples."""
        return 0 < 2 * len(counted) <= counted.total()


class Columns:
    """The columns of samples, in the order in which they came up; ``json.label`` is an entry of the map ``json``."""

    def __init__(self) -> None:
        self._columns: dict[str, Column] = {}

    def __iter__(self) -> Iterator[tuple[str, Column]]:
        return iter(self._columns.items())

    def add(self, fields: Mapping[str, Any]) -> None:
        """Take in one sample."""
        for name, value in fields.items():
            self._add(name, value, _DEEPEST)

    def _add(self, name: str, value: Any, depth: int) -> None:
        column = self._columns.get(name)
        if column is None:
            if len(self._columns) >= _MOST_COLUMNS:
                return
            column = self._columns[name] = Column()
        column.add(value)
        if depth and isinstance(value, dict):
            for key, item in value.items():
                self._add(f"{name}.{key}", item, depth - 1)


def _stored(value: Any) -> int:
    """Bytes of a value in a packed sample, but for array headers."""
    if isinstance(value, Member):
        return value.size
    if isinstance(value, np.ndarray):
        return value.nbytes
    return len(msgpack.packb(value, default=str, unicode_errors="replace"))
