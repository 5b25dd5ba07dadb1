"""What the names of fields tell about names that were not meant as they are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from atdata_cli.errors import UsageError

__all__ = [
    "FieldSets",
    "arbitrary_fields",
    "case_reason",
    "examples",
    "no_such_field",
    "renamed",
    "splits_unexpectedly",
]

_EXTENSION_PART = re.compile(r"[A-Za-z_-][A-Za-z0-9_-]*\Z")
# More different fields with a dot than a person would invent: their first part is data (``IMG.alice.jpg``).
_MOST_DOTTED_FIELDS = 32
_EXAMPLES = 3
_MOST_WARNINGS = 10


def splits_unexpectedly(field: str) -> bool:
    """True for a field with a dot whose first part does not look like one of an extension: ``3.14.txt``."""
    first, dot, _ = field.partition(".")
    return bool(dot) and _EXTENSION_PART.match(first) is None


def arbitrary_fields(fields: Iterable[str]) -> set[str]:
    """The fields with a dot, if there are so many different ones that they cannot be meant; else none."""
    dotted = {field for field in set(fields) if "." in field}
    return dotted if len(dotted) > _MOST_DOTTED_FIELDS else set()


def no_such_field(option: str, name: str, known: Sequence[str]) -> UsageError:
    """What it means that an option names a field that is in no row: a slip of the pen."""
    return UsageError(f"{option}: no row has {name!r}", hint="the fields are " + ", ".join(map(repr, known[:20])))


def renamed(path: str) -> str:
    """A path whose basename keeps only its last dot, so that it splits where people expect it."""
    folder, slash, base = path.rpartition("/")
    stem, dot, ending = base.rpartition(".")
    return folder + slash + stem.replace(".", "_") + dot + ending


def case_reason(first: str, second: str) -> str:
    """Why one sample cannot have both fields."""
    return f"the fields {first!r} and {second!r} differ only by case, and readers lower it: rename one"


def examples(names: Iterable[str]) -> str:
    """The first few names for a message."""
    shown = [name for name, _ in zip(names, range(_EXAMPLES), strict=False)]
    return ", ".join(shown)


class FieldSets:
    """Counts which fields samples have together."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, ...], int] = {}
        self._keys: dict[tuple[str, ...], list[str]] = {}

    def add(self, fields: tuple[str, ...], key: str) -> None:
        """Count one sample."""
        count = self._counts.get(fields, 0)
        self._counts[fields] = count + 1
        if count < _EXAMPLES:
            self._keys.setdefault(fields, []).append(key)

    def warnings(self) -> list[str]:
        """One line for each field that some samples lack, and for fields that differ by case."""
        everything = sorted({field for fields in self._counts for field in fields})
        lines = [*self._case_lines(everything), *self._lacking_lines(everything)]
        if len(lines) > _MOST_WARNINGS:
            more = len(lines) - _MOST_WARNINGS
            lines[_MOST_WARNINGS:] = [f"{more} more fields are inconsistent between samples"]
        return lines

    def _lacking_lines(self, everything: list[str]) -> Iterator[str]:
        total = sum(self._counts.values())
        having = dict.fromkeys(everything, 0)
        for fields, count in self._counts.items():
            for field in fields:
                having[field] += count
        for field in everything:
            if having[field] < total:
                keys = (key for fields, some in self._keys.items() if field not in fields for key in some)
                missing = total - having[field]
                lack = "lacks" if missing == 1 else "lack"
                yield f"{missing} of {total} samples {lack} the field {field!r}, such as {examples(keys)}"

    @staticmethod
    def _case_lines(everything: list[str]) -> Iterator[str]:
        lowered: dict[str, list[str]] = {}
        for field in everything:
            lowered.setdefault(field.lower(), []).append(field)
        for names in lowered.values():
            if len(names) > 1:
                yield f"the fields {', '.join(map(repr, names))} differ only by case, and readers lower it"
