"""What is in the fields: kinds, ranges and the JSON Schema, gathered from every row while it is written.

Statistics are taken a column at a time over a batch of rows, so that the work is done by ``map``, ``min`` and
``set`` instead of by a loop, and they merge: those of a dataset are the merged ones of its shards, whatever the
order and the cut.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import isfinite
from typing import Any

from atdata_cli.samples.codec import Unencodable, plain_value

__all__ = [
    "JSON_TYPES",
    "FieldStats",
    "MemberStats",
    "json_schema",
    "member_kind",
    "member_schema",
    "observe_columns",
    "observe_rows",
]

DRAFT_07 = "http://json-schema.org/draft-07/schema#"
NDARRAY_REF = "https://alt.science/schemas/atdata-ndarray-bytes/1.0.0#/$defs/ndarray"
# Lists of lists of lists say enough; deeper ones are not described further.
MAX_ITEM_DEPTH = 4

JSON_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "bytes": {"type": "string", "format": "byte", "contentEncoding": "base64"},
    "object": {"type": "object"},
    "array": {"type": "array"},
}
"""Kind of a value to its JSON Schema."""

_PACKED_AS_BASE = (str, int, float, list, tuple, dict, bytes)

Range = tuple[float, float]


def _widen(a: Range | None, b: Range | None) -> Range | None:
    """The range of both.

    Of an integer and an equal float the integer is kept, whichever came first: they look different as JSON, and the
    manifest must not tell how the input was cut.
    """
    if a is None or b is None:
        return a or b
    low = a[0] if a[0] < b[0] or (a[0] == b[0] and isinstance(a[0], int)) else b[0]
    high = a[1] if a[1] > b[1] or (a[1] == b[1] and isinstance(a[1], int)) else b[1]
    return low, high


def _pair(dumped: Any) -> Range | None:
    if dumped is None:
        return None
    low, high = dumped
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        raise TypeError(f"{dumped!r} is no range")
    return low, high


@dataclass(slots=True)
class FieldStats:
    """One field of msgpack samples, or the items of a list.

    Attributes
    ----------
    kinds : JSON Schema's type names plus ``bytes`` and ``ndarray``, each with how many values were of it.
    nulls : values that are None.
    range : smallest and largest finite number.
    length : shortest and longest: characters of text, bytes, items of a list, entries of a map.
    items : what the lists hold.
    dtypes : of arrays, numpy names (``float32``).
    shape : of arrays; None for a dimension that varies, and as a whole if the number of dimensions does.
    """

    kinds: dict[str, int] = field(default_factory=dict)
    nulls: int = 0
    range: Range | None = None
    length: Range | None = None
    items: FieldStats | None = None
    dtypes: set[str] = field(default_factory=set)
    shape: tuple[int | None, ...] | None = None

    def observe(self, column: Sequence[Any], depth: int = 0) -> None:
        """Take in the values of one column.

        Raises
        ------
        Unencodable : for a map whose keys are no strings; no reader of the samples could take it. Maps inside maps are
            the sources' care: those of JSON have no other keys, and looking costs a third more.
        """
        types = set(map(type, column))
        if len(types) == 1:
            self._observe_type(types.pop(), column, depth)
            return
        for kind in types:
            self._observe_type(kind, [value for value in column if type(value) is kind], depth)

    def _observe_type(self, kind: type, values: Sequence[Any], depth: int) -> None:
        if kind is type(None):
            self.nulls += len(values)
        elif kind is str:
            self._add("string", values, lengths=True)
        elif kind is int:
            self._add("integer", values)
            self.range = _widen(self.range, (min(values), max(values)))
        elif kind is float:
            self._add("number", values)
            # A sum is finite only of finite numbers, and costs a quarter of asking each.
            finite = values if isfinite(sum(values)) else list(filter(isfinite, values))
            if finite:
                # Adding zero makes 0.0 of -0.0, which is equal but looks different.
                self.range = _widen(self.range, (min(finite) + 0.0, max(finite) + 0.0))
        elif kind is bool:
            self._add("boolean", values)
        elif kind is list or kind is tuple:
            self._add("array", values, lengths=True)
            self._observe_items(values, depth)
        elif kind is dict:
            self._add("object", values, lengths=True)
            self._check_keys(values)
        elif kind in (bytes, bytearray):
            self._add("bytes", values, lengths=True)
        else:
            self._observe_other(kind, values, depth)

    def _add(self, kind: str, values: Sequence[Any], *, lengths: bool = False) -> None:
        self.kinds[kind] = self.kinds.get(kind, 0) + len(values)
        if lengths:
            sizes = set(map(len, values))
            self.length = _widen(self.length, (min(sizes), max(sizes)))

    def _observe_items(self, values: Sequence[Sequence[Any]], depth: int) -> None:
        if depth >= MAX_ITEM_DEPTH:
            return
        flat = list(chain.from_iterable(values))
        if self.items is None:
            self.items = FieldStats()
        if flat:
            self.items.observe(flat, depth + 1)

    @staticmethod
    def _check_keys(values: Iterable[Mapping[Any, Any]]) -> None:
        if set(map(type, chain.from_iterable(values))) - {str}:
            raise Unencodable("a map with keys that are not text")

    def _observe_other(self, kind: type, values: Sequence[Any], depth: int) -> None:
        numpy = sys.modules.get("numpy")
        if numpy is not None and issubclass(kind, numpy.ndarray):
            self._add("ndarray", values)
            # "str32" and "bytes8" name a width; widths differ from sample to sample and say little.
            dtypes = {value.dtype for value in values}
            self.dtypes |= {"text" if dtype.kind in "US" else dtype.name for dtype in dtypes}
            for shape in {value.shape for value in values}:
                self._merge_shape(shape)
        elif numpy is not None and issubclass(kind, numpy.generic):
            self.observe(list(map(plain_value, values)))
        elif issubclass(kind, _PACKED_AS_BASE):  # msgpack writes named tuples, ordered maps and enums as their base
            base = next(base for base in _PACKED_AS_BASE if issubclass(kind, base))
            self._observe_type(base, list(map(base, values)), depth)
        elif kind is memoryview:
            self._observe_type(bytes, list(map(bytes, values)), depth)
        else:  # dates, decimals and the like, which are written as text
            self._add("string", values)

    def _merge_shape(self, shape: tuple[int | None, ...] | None) -> None:
        if not self._shapes_seen:
            self.shape = shape
        elif shape is None or self.shape is None or len(shape) != len(self.shape):
            self.shape = None
        else:
            self.shape = tuple(a if a == b else None for a, b in zip(self.shape, shape, strict=True))
        self._shapes_seen = True

    _shapes_seen: bool = False

    def merge(self, other: FieldStats) -> None:
        """Add what *other* saw."""
        for kind, count in other.kinds.items():
            self.kinds[kind] = self.kinds.get(kind, 0) + count
        self.nulls += other.nulls
        self.range = _widen(self.range, other.range)
        self.length = _widen(self.length, other.length)
        self.dtypes |= other.dtypes
        if other._shapes_seen:
            self._merge_shape(other.shape)
        if other.items is not None:
            if self.items is None:
                self.items = FieldStats()
            self.items.merge(other.items)

    def dump(self) -> dict[str, Any]:
        """All of it as JSON values, for :meth:`load`."""
        return {
            "kinds": self.kinds,
            "nulls": self.nulls,
            "range": self.range,
            "length": self.length,
            "items": None if self.items is None else self.items.dump(),
            "dtypes": sorted(self.dtypes),
            "shape": self.shape,
            "shapes": self._shapes_seen,
        }

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> FieldStats:
        """From what :meth:`dump` gave.

        Raises
        ------
        KeyError, TypeError, ValueError : it is something else.
        """
        stats = cls(
            kinds={str(kind): int(count) for kind, count in dumped["kinds"].items()},
            nulls=int(dumped["nulls"]),
            items=None if dumped["items"] is None else cls.load(dumped["items"]),
            dtypes=set(map(str, dumped["dtypes"])),
            shape=None if dumped["shape"] is None else tuple(dumped["shape"]),
            range=_pair(dumped["range"]),
            length=_pair(dumped["length"]),
        )
        stats._shapes_seen = bool(dumped["shapes"])
        return stats

    @property
    def values(self) -> int:
        """How many values were seen, nulls included."""
        return sum(self.kinds.values()) + self.nulls

    @property
    def kind(self) -> str:
        """The one kind of all values that are not null; ``null`` if there are none, ``mixed`` if there are several."""
        if not self.kinds:
            return "null"
        if self.kinds.keys() == {"integer", "number"}:
            return "number"
        return next(iter(self.kinds)) if len(self.kinds) == 1 else "mixed"

    def as_json(self) -> dict[str, Any]:
        """The field's entry in ``manifest.json``."""
        described: dict[str, Any] = {"kind": self.kind, "samples": sum(self.kinds.values()), "nulls": self.nulls}
        if self.kind == "mixed":
            described["kinds"] = dict(sorted(self.kinds.items()))
        if self.range is not None:
            described["range"] = list(self.range)
        if self.length is not None:
            described["length"] = list(self.length)
        if self.items is not None and self.items.kinds:
            items = self.items.as_json()
            described["items"] = {name: items[name] for name in ("kind", "range", "length") if name in items}
        if self.dtypes:
            described["dtypes"] = sorted(self.dtypes)
            described["shape"] = None if self.shape is None else list(self.shape)
        return described

    def as_schema(self) -> dict[str, Any]:
        """The field's property in a draft-07 JSON Schema."""
        kind = self.kind
        if kind == "ndarray":
            return self._array_schema()
        if kind == "array":
            schema: dict[str, Any] = {"type": "array"}
            if self.items is not None and self.items.kind not in ("mixed", "null") and not self.items.nulls:
                schema["items"] = self.items.as_schema()
        elif kind == "null":
            return {"type": "null"}
        elif kind == "mixed":
            schema = {"type": sorted({JSON_TYPES.get(name, {"type": "string"})["type"] for name in self.kinds})}
        else:
            schema = dict(JSON_TYPES[kind])
        if self.nulls:
            declared = schema["type"]
            schema["type"] = [*declared, "null"] if isinstance(declared, list) else [declared, "null"]
        return schema

    def _array_schema(self) -> dict[str, Any]:
        # Keywords beside $ref are ignored by draft-07 validators; ours tell a person dtype and shape.
        schema: dict[str, Any] = {"$ref": NDARRAY_REF}
        if len(self.dtypes) == 1:
            schema["dtype"] = next(iter(self.dtypes))
        if self.shape is not None:
            schema["shape"] = list(self.shape)
        return schema


def observe_rows(stats: dict[str, FieldStats], fields: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Take in a batch of rows that all have exactly *fields*, in this order.

    Raises
    ------
    Unencodable : see :meth:`FieldStats.observe`.
    """
    if rows:
        observe_columns(stats, fields, list(zip(*map(dict.values, rows), strict=True)))  # type: ignore[arg-type]


def observe_columns(stats: dict[str, FieldStats], fields: Sequence[str], columns: Sequence[Sequence[Any]]) -> None:
    """Take in a batch of rows as one column a field, none of them empty.

    Raises
    ------
    Unencodable : see :meth:`FieldStats.observe`.
    """
    for name, column in zip(fields, columns, strict=True):
        seen = stats.get(name)
        if seen is None:
            seen = stats[name] = FieldStats()
        seen.observe(column)


def json_schema(stats: Mapping[str, FieldStats], samples: int) -> dict[str, Any]:
    """The draft-07 schema of msgpack samples; required are the fields that all *samples* have, null or not.

    What this program packed has every known field in every sample.
    """
    return {
        "$schema": DRAFT_07,
        "type": "object",
        "properties": {name: seen.as_schema() for name, seen in sorted(stats.items())},
        "required": sorted(name for name, seen in stats.items() if seen.values == samples),
    }


# What people put into shards, by the last part of the field's name. Own table: the platform's mime types differ
# from machine to machine, and the manifest must not.
_MEMBER_KINDS: dict[str, str] = {
    **dict.fromkeys("jpg jpeg png gif bmp webp tif tiff ppm pgm pbm pnm img avif heic svg jp2 jxl".split(), "image"),
    **dict.fromkeys("wav flac mp3 ogg opus m4a aac aiff".split(), "audio"),
    **dict.fromkeys("mp4 webm mkv avi mov mpg mpeg m4v".split(), "video"),
    **dict.fromkeys("txt text transcript md html htm xml csv tsv srt vtt".split(), "text"),
    **dict.fromkeys("json jsn".split(), "json"),
    **dict.fromkeys("cls cls2 index inx id count class".split(), "integer"),
    **dict.fromkeys("npy ten tenbin tb".split(), "ndarray"),
    **dict.fromkeys("npz safetensors h5 mat pth".split(), "arrays"),
    **dict.fromkeys("msgpack mp msg".split(), "msgpack"),
    "cbor": "cbor",
    "pdf": "document",
}


def member_kind(name: str) -> str:
    """What a member of a ``files`` sample holds, from its field name: ``seg.png`` is an image."""
    return _MEMBER_KINDS.get(name.rpartition(".")[2].lower(), "bytes")


@dataclass(slots=True)
class MemberStats:
    """One field of ``files`` samples: how many samples have it, and how large it is (bytes)."""

    samples: int = 0
    total: int = 0
    smallest: int = sys.maxsize
    largest: int = 0

    def observe_all(self, sizes: Sequence[int]) -> None:
        """Take in members of these sizes, at least one."""
        self.samples += len(sizes)
        self.total += sum(sizes)
        self.smallest = min(self.smallest, *sizes)
        self.largest = max(self.largest, *sizes)

    def observe(self, size: int) -> None:
        """Take in one member of *size* bytes."""
        self.samples += 1
        self.total += size
        if size < self.smallest:
            self.smallest = size
        if size > self.largest:
            self.largest = size

    def merge(self, other: MemberStats) -> None:
        """Add what *other* saw."""
        self.samples += other.samples
        self.total += other.total
        self.smallest = min(self.smallest, other.smallest)
        self.largest = max(self.largest, other.largest)

    def as_json(self, name: str) -> dict[str, Any]:
        """The field's entry in ``manifest.json``."""
        return {
            "kind": member_kind(name),
            "samples": self.samples,
            "bytes": self.total,
            "size": [self.smallest, self.largest],
        }


def member_schema(stats: Mapping[str, MemberStats], samples: int) -> dict[str, Any]:
    """The draft-07 schema of ``files`` samples: every field is bytes; required are those that all samples have."""
    return {
        "$schema": DRAFT_07,
        "type": "object",
        "properties": {name: dict(JSON_TYPES["bytes"]) for name in sorted(stats)},
        "required": sorted(name for name, seen in stats.items() if seen.samples == samples),
    }


def merge_stats(into: dict[str, FieldStats], other: Mapping[str, FieldStats]) -> None:
    """Add *other*'s statistics to *into*, field by field."""
    for name, seen in other.items():
        mine = into.get(name)
        if mine is None:
            mine = into[name] = FieldStats()
        mine.merge(seen)
