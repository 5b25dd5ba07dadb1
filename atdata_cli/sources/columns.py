"""Types of text columns: what the cells of a CSV file mean, decided and converted without losing anything."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

__all__ = ["INTEGER", "NAMED", "NUMBER", "TEXT", "CellType", "by_name", "infer", "with_nulls"]

Cells = Sequence[str]

_INT64_MIN, _UINT64_MAX = -(2**63), 2**64 - 1
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_PLAIN_NUMBERS = re.compile(r"(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?\n)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class CellType:
    """A type that cells can have.

    Attributes
    ----------
    name : with its article, for messages: "an integer".
    column : converts many cells at once; None if one of them is not of this type, or may not be.
    cell : converts one cell; raises ValueError if it is not of this type.
    """

    name: str
    column: Callable[[Cells], list[Any] | None]
    cell: Callable[[str], Any]

    def __reduce__(self) -> tuple[Callable[[str], CellType], tuple[str]]:
        return by_name, (self.name,)


def _integer(cell: str) -> int:
    # ``int`` takes more than the grammar: "1_000", " 1 ", "٣", "007". None of these is what it writes.
    value = int(cell) if len(cell) <= 20 else _UINT64_MAX + 1
    if str(value) != cell or not _INT64_MIN <= value <= _UINT64_MAX:
        raise ValueError(cell)
    return value


def _integers(cells: Cells) -> list[Any] | None:
    try:
        values = list(map(int, cells))
    except ValueError:
        return None
    if min(values) < _INT64_MIN or max(values) > _UINT64_MAX or list(map(str, values)) != list(cells):
        return None
    return values


def _number(cell: str) -> float:
    """A number whose nearest double still is the number that was written."""
    value = float(cell)
    if repr(value) == cell and cell[-1].isdigit():  # neither "nan" nor "inf"
        return value
    value = _loose_number(cell)
    if Decimal(cell) != Decimal(repr(value)):
        raise ValueError(cell)
    if cell.lstrip("-").isdigit() and cell != "-0":
        _integer(cell)  # one beyond 64 bits is an identifier rather than a quantity: it stays text
    return value


def _loose_number(cell: str) -> float:
    if not _NUMBER.fullmatch(cell):
        raise ValueError(cell)
    value = float(cell)
    if math.isinf(value):
        raise ValueError(cell)
    return value


def _numbers(cells: Cells) -> list[Any] | None:
    # A double keeps every decimal of up to 15 digits (DBL_DIG), so short cells need no closer look.
    if max(map(len, cells)) <= 15 and _PLAIN_NUMBERS.fullmatch("\n".join(cells) + "\n"):
        try:
            return list(map(float, cells))
        except ValueError:  # a cell with a line feed in it
            return None
    return _one_by_one(_number, cells)


def _one_by_one(convert: Callable[[str], Any], cells: Cells) -> list[Any] | None:
    try:
        return list(map(convert, cells))
    except ValueError:
        return None


def _words(words: dict[str, bool]) -> CellType:
    def cell(text: str) -> bool:
        try:
            return words[text]
        except KeyError:
            raise ValueError(text) from None

    return CellType(" or ".join(words), lambda cells: _one_by_one(cell, cells), cell)


TEXT = CellType("text", list, str)
INTEGER = CellType("an integer of 64 bits", _integers, _integer)
NUMBER = CellType("a number that a double keeps exactly", _numbers, _number)
_LOOSE_NUMBER = CellType("a number", lambda cells: _one_by_one(_loose_number, cells), _loose_number)
_LOWER = _words({"true": True, "false": False})
_TITLE = _words({"True": True, "False": False})
_BOOLEAN = _words({"true": True, "false": False, "True": True, "False": False})

_ALL = {kind.name: kind for kind in (TEXT, INTEGER, NUMBER, _LOOSE_NUMBER, _LOWER, _TITLE, _BOOLEAN)}


def by_name(name: str) -> CellType:
    """The type of a name.

    Raises
    ------
    KeyError : there is none.
    """
    return _ALL[name]


NAMED = {"integer": INTEGER, "number": _LOOSE_NUMBER, "boolean": _BOOLEAN, "string": TEXT}
"""The types by their names in JSON Schema. Who asks for a number gets the nearest double."""


def infer(cells: Cells) -> CellType:
    """The narrowest type of all *cells*, none of them a null, without a loss; text if there are none."""
    if not cells:
        return TEXT
    return next((kind for kind in (INTEGER, NUMBER, _LOWER, _TITLE) if kind.column(cells) is not None), TEXT)


def with_nulls(kind: CellType, cells: Cells, nulls: frozenset[str]) -> list[Any] | None:
    """Convert a column in which some texts mean null; None if a cell is not of this type."""
    if nulls.isdisjoint(cells):
        return kind.column(cells)
    present = [cell for cell in cells if cell not in nulls]
    converted = kind.column(present) if present else []
    if converted is None:
        return None
    values = iter(converted)
    return [None if cell in nulls else next(values) for cell in cells]
