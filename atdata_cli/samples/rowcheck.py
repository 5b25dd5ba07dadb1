"""Whether packed samples decode, and fit the JSON Schema of their dataset's manifest.

The usual schema says which kind of value a field holds. That is checked a column at a time over a batch of rows,
by the set of the values' types; rows are looked at one by one only where this fails, and where a schema has keywords
that need more. Both schema and samples come from others, and nothing here trusts them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any, BinaryIO, ClassVar, NamedTuple

from atdata_cli.errors import DataError
from atdata_cli.samples.codec import bytes_to_array
from atdata_cli.samples.schema import MAX_ITEM_DEPTH

__all__ = ["Misfit", "RowCheck", "decode", "skim"]

_NULL = type(None)
_UNDECODABLE = (ValueError, TypeError, OverflowError)
_TYPES: dict[str, frozenset[type]] = {
    "string": frozenset({str}),
    "integer": frozenset({int}),
    "number": frozenset({int, float}),
    "boolean": frozenset({bool}),
    "array": frozenset({list}),
    "object": frozenset({dict}),
    "null": frozenset({_NULL}),
}
# What says something to people or has been dealt with; a column with no other keyword needs no more than its types.
_PLAIN = frozenset(
    "type items format contentEncoding contentMediaType title description examples default $comment dtype shape".split()
)
# Names of other people's patterns: matching one can take for ever, and it says nothing of damage.
_UNCHECKED = frozenset({"pattern", "patternProperties", "format", "default", "$id", "$schema"})
_MAPS_OF_SCHEMAS = frozenset({"properties", "definitions", "$defs", "dependencies"})
# Of a schema as a whole: what relates fields to each other.
_RELATIONS = frozenset(
    "allOf anyOf oneOf not if dependencies propertyNames minProperties maxProperties enum const $ref".split()
)
_LARGEST_SCHEMA = 1 << 20
_MOST_FORMS = 1024  # of arrays in one field
_MOST_NAMES = 5  # in one message
_MOST_TOKENS = 4_000_000  # some seconds
_LONGEST_NAME = 1 << 16


class Misfit(NamedTuple):
    """What is wrong with one row of a batch.

    Attributes
    ----------
    row : its index.
    kind : ``missing-field`` or ``schema``.
    detail : one line.
    """

    row: int
    kind: str
    detail: str


def decode(payloads: Sequence[bytes]) -> list[dict[str, Any] | str]:
    """Packed samples, arrays left as bytes; for what is none, why not."""
    import msgpack

    unpack = functools.partial(msgpack.unpackb, raw=False, strict_map_key=True)
    try:
        rows: list[Any] = list(map(unpack, payloads))
    except (*_UNDECODABLE, msgpack.UnpackException):
        return [_decode_one(unpack, payload) for payload in payloads]
    if set(map(type, rows)) <= {dict} and set(map(type, chain.from_iterable(rows))) <= {str}:
        return rows
    return [_decode_one(unpack, payload) for payload in payloads]


def _decode_one(unpack: Callable[[bytes], Any], payload: bytes) -> dict[str, Any] | str:
    import msgpack

    try:
        row = unpack(payload)
    except msgpack.ExtraData as error:
        return f"{len(error.extra)} bytes follow the map"  # type: ignore[attr-defined]
    except (*_UNDECODABLE, msgpack.UnpackException) as error:
        if "map key" in str(error):
            return "it holds a map with a name that is no text"
        return f"it does not decode: {str(error) or type(error).__name__}"
    if type(row) is not dict:
        return f"it is no map but {_type_name(type(row))}"
    if not all(type(name) is str for name in row):
        return "a field's name is no text"
    return row


def skim(reader: BinaryIO) -> dict[str, type] | str:
    """The fields of a packed sample of any size with the types of their values; why not, if it is none.

    Nothing is kept of the values. After ``_MOST_TOKENS`` of them the rest is believed.
    """
    skimmer = _Skimmer(reader)
    try:
        kind, count = skimmer.token()
        if kind is not dict:
            return f"it is no map but {_type_name(kind)}"
        fields: dict[str, type] = {}
        for _ in range(count // 2):
            name = skimmer.text()
            if name is None:
                return "a field's name is no text"
            fields[name] = skimmer.value()
            if skimmer.tokens > _MOST_TOKENS:
                return fields
    except ValueError as error:
        return f"it does not decode: {error}"
    return "bytes follow the map" if reader.read(1) else fields


class _Skimmer:
    """Walks over msgpack (https://github.com/msgpack/msgpack/blob/master/spec.md) without making its values."""

    # First byte, from 0xc0 on: type, bytes of a length that follow, bytes or values besides.
    _FORMS: ClassVar[dict[int, tuple[type, int, int]]] = {
        **{0xC0: (_NULL, 0, 0), 0xC2: (bool, 0, 0), 0xC3: (bool, 0, 0)},
        **{0xC4: (bytes, 1, 0), 0xC5: (bytes, 2, 0), 0xC6: (bytes, 4, 0)},
        **{0xC7: (object, 1, 1), 0xC8: (object, 2, 1), 0xC9: (object, 4, 1)},
        **{0xCA: (float, 0, 4), 0xCB: (float, 0, 8)},
        **{0xCC + power: (int, 0, 1 << power) for power in range(4)},
        **{0xD0 + power: (int, 0, 1 << power) for power in range(4)},
        **{0xD4 + power: (object, 0, (1 << power) + 1) for power in range(5)},
        **{0xD9: (str, 1, 0), 0xDA: (str, 2, 0), 0xDB: (str, 4, 0)},
        **{0xDC: (list, 2, 0), 0xDD: (list, 4, 0), 0xDE: (dict, 2, 0), 0xDF: (dict, 4, 0)},
    }

    def __init__(self, reader: BinaryIO) -> None:
        self._read = reader.read
        self.tokens = 0

    def _take(self, size: int) -> bytes:
        data = self._read(size)
        if len(data) < size:
            raise ValueError("it ends in the middle")
        return data

    def token(self) -> tuple[type, int]:
        """Type of the next value, and how many bytes (of a scalar) or values (of a container) follow."""
        self.tokens += 1
        first = self._take(1)[0]
        if first < 0x80 or first >= 0xE0:
            return int, 0
        if first < 0xC0:
            kind: type = dict if first < 0x90 else list if first < 0xA0 else str
            size = first & (0x1F if kind is str else 0x0F)
        elif first == 0xC1:
            raise ValueError("the byte c1, which means nothing")
        else:
            kind, width, size = self._FORMS[first]
            size += int.from_bytes(self._take(width), "big")
        return kind, 2 * size if kind is dict else size

    def text(self) -> str | None:
        """The next value if it is text, as the names of fields are."""
        kind, size = self.token()
        if kind is not str:
            return None
        if size > _LONGEST_NAME:
            raise ValueError(f"a field's name of {size} bytes")
        return self._take(size).decode()

    def value(self) -> type:
        """Skip the next value; its type."""
        kind, size = self.token()
        left = self._skip(kind, size)
        while left and self.tokens <= _MOST_TOKENS:
            left += self._skip(*self.token()) - 1
        return kind

    def _skip(self, kind: type, size: int) -> int:
        """Skip a scalar's bytes; how many values a container still has."""
        if kind is list or kind is dict:
            return size
        while size:
            size -= len(self._take(min(size, 1 << 20)))
        return 0


class RowCheck:
    """Checks rows against one schema, compiled once.

    Raises
    ------
    DataError : the schema is none.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        if not isinstance(properties, dict) or not all(isinstance(value, dict) for value in properties.values()):
            raise DataError("the schema's properties are no schemas")
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise DataError("the schema's required fields are no names")
        self._required = frozenset(required)
        self._open = bool(schema.get("additionalProperties", False)) or "patternProperties" in schema
        self._columns: dict[str, _Column] = {}
        try:
            for name, declared in properties.items():
                self._columns[name] = _Column.parse(declared, schema, optional=name not in self._required)
            self._relations = _relations(schema)
        except RecursionError as error:
            raise DataError("the schema is nested too deeply") from error
        self._known = frozenset(properties)

    def misfits(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Misfit]:
        """Everything in a batch of rows that does not fit."""
        begin = 0
        for names, run in groupby(map(tuple, rows)):
            end = begin + sum(1 for _ in run)
            yield from self._run(names, rows[begin:end], begin)
            begin = end

    def type_misfits(self, types: Mapping[str, type]) -> Iterator[Misfit]:
        """What does not fit in one row of which only the fields' types are known (:func:`skim`)."""
        yield from self._names_misfits(tuple(types), range(1))
        for name, kind in types.items():
            check = self._columns.get(name)
            if check is not None and check.types is not None and kind not in check.types:
                allowed = _listed(map(_type_name, check.types))
                yield Misfit(0, "schema", f"field {_short(name)!r} holds {_type_name(kind)}, not {allowed}")

    def _names_misfits(self, names: tuple[str, ...], rows: range) -> Iterator[Misfit]:
        missing = self._required.difference(names)
        extra = frozenset() if self._open else frozenset(names) - self._known
        for index in rows if missing or extra else ():
            if missing:
                yield Misfit(index, "missing-field", f"without {_listed(missing)}")
            if extra:
                yield Misfit(index, "schema", f"{_listed(extra)}: not in the manifest's schema")

    def _run(self, names: tuple[str, ...], rows: Sequence[Mapping[str, Any]], begin: int) -> Iterator[Misfit]:
        """Consecutive rows with the same fields in the same order."""
        yield from self._names_misfits(names, range(begin, begin + len(rows)))
        values = zip(*map(dict.values, rows), strict=True)  # type: ignore[arg-type]
        for name, column in zip(names, values, strict=False):
            check = self._columns.get(name)
            if check is not None:
                for index, what in check.misfits(column):
                    yield Misfit(begin + index, "schema", f"field {_short(name)!r} {what}")
        if self._relations is not None:
            for index, row in enumerate(rows, begin):
                given = {name: value for name, value in row.items() if value is not None or name in self._required}
                reason = self._relations(given)
                if reason:
                    yield Misfit(index, "schema", reason)


@dataclass(frozen=True, slots=True)
class _Column:
    """What one field, or the items of a list, may hold.

    Attributes
    ----------
    types : Python's types of decoded values; None for any.
    array : bytes have to be an array, of this dtype and shape where the schema tells.
    items : for the values of lists.
    further : says why a value does not fit what its type cannot tell.
    """

    types: frozenset[type] | None
    array: _ArrayCheck | None = None
    items: _Column | None = None
    further: Callable[[Any], str | None] | None = None

    @classmethod
    def parse(cls, schema: Mapping[str, Any], root: Mapping[str, Any], *, optional: bool, depth: int = 0) -> _Column:
        reference = schema.get("$ref")
        # What this program leaves out of a row because it is not required is written as null.
        null = frozenset({_NULL}) if optional else frozenset()
        if isinstance(reference, str) and "ndarray" in reference:
            return cls(null | {bytes, _NULL}, array=_ArrayCheck(schema.get("dtype"), schema.get("shape")))
        types = _types(schema)
        items = schema.get("items")
        inner = None
        if isinstance(items, dict) and items and depth < MAX_ITEM_DEPTH:
            inner = cls.parse(items, root, optional=False, depth=depth + 1)
        further = None
        if not schema.keys() <= _PLAIN or isinstance(items, list | bool):
            done = ("type", "items") if inner else ("type",)
            further = _compiled({name: value for name, value in schema.items() if name not in done}, root)
        return cls(types | null if types is not None else None, items=inner, further=further)

    def misfits(self, column: Sequence[Any]) -> Iterator[tuple[int, str]]:
        """Index and reason of each value that does not fit; at most one of each value."""
        allowed = self.types
        types = set(map(type, column))
        wrong: set[int] = set()
        if allowed is not None and not types <= allowed:
            for index, value in enumerate(column):
                if type(value) not in allowed and not (float is type(value) and int in allowed and value.is_integer()):
                    wrong.add(index)
                    yield index, f"holds {_type_name(type(value))}, not {_listed(map(_type_name, allowed))}"
        if self.array is not None:
            yield from self.array.misfits(column)
        if self.items is not None and list in types and not self.items.fit(column):
            for index, value in enumerate(column):
                if type(value) is list:
                    first = next(self.items.misfits(value), None)
                    if first is not None:
                        wrong.add(index)
                        yield index, f"at item {first[0]} {first[1]}"
        if self.further is not None:
            for index, value in enumerate(column):
                reason = None if index in wrong or value is None else self.further(value)
                if reason:
                    yield index, reason

    def fit(self, lists: Sequence[Any]) -> bool:
        """Whether the items of all lists fit, together."""
        flat = list(chain.from_iterable(value for value in lists if type(value) is list))
        return next(self.misfits(flat), None) is None


def _types(schema: Mapping[str, Any]) -> frozenset[type] | None:
    declared = schema.get("type")
    if declared is None:
        return None
    several = isinstance(declared, list)
    names = declared if several else [declared]
    if not all(isinstance(name, str) and name in _TYPES for name in names):
        raise DataError(f"the schema has no such type: {str(declared)[:80]!r}")
    types = frozenset(chain.from_iterable(_TYPES[name] for name in names))
    if str in types:
        # JSON has no bytes: what holds them besides other kinds is described as text.
        if schema.get("format") == "byte":
            return types - {str} | {bytes}
        if several:
            return types | {bytes}
    return types


class _ArrayCheck:
    """Checks the header of arrays; a header that has been seen costs two comparisons."""

    def __init__(self, dtype: Any, shape: Any) -> None:
        self._dtype = dtype if isinstance(dtype, str) else None
        self._shape = shape if isinstance(shape, list) else None
        self._header = b"\0"
        self._size = -1
        self._seen: dict[tuple[bytes, int], str | None] = {}

    def misfits(self, column: Sequence[Any]) -> Iterator[tuple[int, str]]:
        """Index and reason of each bytes value that is no array, or another one than the schema says."""
        for index, value in enumerate(column):
            if type(value) is not bytes or (len(value) == self._size and value.startswith(self._header)):
                continue
            reason = self._look(value)
            if reason:
                yield index, reason

    def _look(self, value: bytes) -> str | None:
        end = 2 + value[0] if value else 0
        header = value[: end + 8 * value[end - 1]] if 2 <= end <= len(value) else b""
        known = (header, len(value))
        if header and known in self._seen:
            return self._seen[known]
        array = bytes_to_array(value)
        if array is None:
            return f"is no array: {len(value)} bytes without the header of one"
        reason = self._misfit(array)
        if header and not value.startswith(b"\x93NUMPY"):
            if reason is None:
                self._header, self._size = known
            if len(self._seen) < _MOST_FORMS:
                self._seen[known] = reason
        return reason

    def _misfit(self, array: Any) -> str | None:
        if self._dtype is not None and array.dtype.kind not in "US" and array.dtype.name != self._dtype:
            return f"is an array of {array.dtype.name}, not {self._dtype}"
        shape = self._shape
        if shape is not None and (
            len(shape) != array.ndim or any(a not in (None, b) for a, b in zip(shape, array.shape, strict=True))
        ):
            return f"is an array of shape {list(array.shape)}, not {shape}"
        return None


def _relations(schema: Mapping[str, Any]) -> Callable[[Any], str | None] | None:
    """A check of whole rows, if the schema relates fields to each other."""
    if not schema.keys() & _RELATIONS:
        return None
    return _compiled({name: schema[name] for name in _RELATIONS if name in schema}, schema)


def _compiled(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Callable[[Any], str | None] | None:
    """A check of single values by all keywords of a schema but patterns; None if only those were there."""
    import fastjsonschema

    plain = _without(schema, _UNCHECKED)
    if not plain:
        return None
    for place in ("definitions", "$defs"):
        if isinstance(root.get(place), dict):
            plain[place] = _without(root[place], frozenset())
    _refuse_references(plain)
    if len(repr(plain)) > _LARGEST_SCHEMA:
        raise DataError("the schema is too large to be checked")
    try:
        validate = fastjsonschema.compile(plain, use_default=False, use_formats=False, detailed_exceptions=False)
    except Exception as error:  # the compiler raises errors of every kind for a malformed schema
        raise DataError(
            f"the schema cannot be used: {str(error)[:200]}", hint="mend the schema: draft-07 JSON Schema"
        ) from error

    def check(value: Any) -> str | None:
        try:
            validate(value)
        except fastjsonschema.JsonSchemaValueException as error:
            return f"does not fit: {error.message[:200]}"
        except (RecursionError, TypeError, ValueError, ArithmeticError) as error:
            return f"cannot be checked: {type(error).__name__}"
        return None

    return check


def _without(schema: Mapping[str, Any], left_out: frozenset[str]) -> dict[str, Any]:
    """A copy of a schema without some keywords, at any depth; names of fields are no keywords."""
    out: dict[str, Any] = {}
    for name, value in schema.items():
        if name in left_out:
            continue
        if name in _MAPS_OF_SCHEMAS and isinstance(value, dict):
            out[name] = {key: _copied(inner) for key, inner in value.items()}
        else:
            out[name] = value if name in ("enum", "const") else _copied(value)
    return out


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return _without(value, _UNCHECKED)
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _refuse_references(schema: Any) -> None:
    """Nothing is fetched: a schema may only refer to itself."""
    if isinstance(schema, dict):
        reference = schema.get("$ref", "#")
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise DataError(f"the schema refers to {str(reference)[:200]!r}, and nothing is fetched")
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _refuse_references(inner)


def _type_name(kind: type) -> str:
    return {
        str: "text",
        int: "an integer",
        float: "a number",
        bool: "a boolean",
        bytes: "bytes",
        list: "a list",
        dict: "a map",
        _NULL: "null",
    }.get(kind, kind.__name__)


def _short(name: str) -> str:
    return name if len(name) <= 80 else name[:77] + "..."


def _listed(names: Any) -> str:
    ordered = sorted(map(_short, names))
    text = ", ".join(ordered[:_MOST_NAMES])
    return text if len(ordered) <= _MOST_NAMES else f"{text} and {len(ordered) - _MOST_NAMES} more"
