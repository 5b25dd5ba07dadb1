"""Arrow columns as the values that samples have.

Numbers, texts, booleans and bytes stay what they are; a column of lists of numbers becomes arrays; times
become ISO 8601 text and decimals text, since msgpack and JSON have neither.
"""

from __future__ import annotations

import datetime
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from atdata_cli.errors import DataError

__all__ = ["Problems", "column_values"]

Problems = dict[int, str]
"""Index of a value that cannot be converted, to the reason."""

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_EPOCH = datetime.datetime(1970, 1, 1)


def column_values(array: pa.Array, problems: Problems) -> list[Any]:
    """Convert a column of a record batch.

    Parameters
    ----------
    array : the column.
    problems : gets the indices of values that cannot be converted; these are None in the result.

    Returns
    -------
    One value a row. A list of numbers or booleans, also of fixed-size lists of them, is a ``numpy.ndarray``,
    which may be a read-only view of *array*.

    Raises
    ------
    DataError : nothing can be made of the column's type.
    """
    array = _storage(array)
    shape = _array_shape(array.type)
    if shape is not None:
        return _arrays(array, shape, problems)
    return _plain(array, problems)


# --- arrays ---------------------------------------------------------------------------------------


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def _is_element(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _array_shape(kind: pa.DataType) -> tuple[int, ...] | None:
    """The inner shape of a column whose values become arrays, () for plain lists; None for other columns."""
    if not _is_list(kind):
        return None
    shape: list[int] = []
    kind = kind.value_type
    while types.is_fixed_size_list(kind):
        shape.append(kind.list_size)
        kind = kind.value_type
    return tuple(shape) if _is_element(kind) else None


def _arrays(array: pa.Array, shape: tuple[int, ...], problems: Problems) -> list[Any]:
    ends = _ends(array)
    items = array.flatten()  # without what stands under null lists
    holes = np.zeros(len(items), dtype=bool)
    for size in shape:
        holes = np.repeat(holes | _null_mask(items), size)
        items = items.values[items.offset * size : (items.offset + len(items)) * size]
    missing = _null_mask(items)
    floating = types.is_floating(items.type)
    flat = _elements(items, missing)
    per_item = int(np.prod(shape, dtype=np.int64))
    bad = holes if floating else holes | missing
    valid = array.is_valid().to_pylist()
    has_bad = bool(bad.any())
    rows: list[Any] = []
    start = 0
    for index, end in enumerate(ends):
        count, first, last = end - start, start * per_item, end * per_item
        start = end
        if not valid[index]:
            rows.append(None)
        elif has_bad and bad[first:last].any():
            problems[index] = f"holds a null inside a list of {items.type}, which an array cannot"
            rows.append(None)
        else:
            rows.append(flat[first:last].reshape(count, *shape) if shape else flat[first:last])
    return rows


def _elements(array: pa.Array, missing: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Numbers or booleans as one array; NaN for a null float, anything for other nulls."""
    if missing.any() and not types.is_floating(array.type):
        array = array.fill_null(False if types.is_boolean(array.type) else 0)
    flat: np.ndarray[Any, Any] = array.to_numpy(zero_copy_only=False)
    return flat


def _null_mask(array: pa.Array) -> np.ndarray[Any, Any]:
    if not array.null_count:
        return np.zeros(len(array), dtype=bool)
    mask: np.ndarray[Any, Any] = array.is_null().to_numpy(zero_copy_only=False)
    return mask


def _ends(array: pa.Array) -> list[int]:
    """For each list, where it ends in ``array.flatten()``."""
    if types.is_fixed_size_list(array.type):
        lengths = np.where(_null_mask(array), 0, array.type.list_size)
    else:
        lengths = pc.fill_null(array.value_lengths(), 0).to_numpy(zero_copy_only=False)
    ends: list[int] = np.cumsum(lengths, dtype=np.int64).tolist()
    return ends


def _tensors(array: pa.Array, problems: Problems) -> list[Any]:
    """A column of ``arrow.fixed_shape_tensor``.

    Dimension *i* of the tensor is dimension ``permutation[i]`` of what is stored in row-major order
    (https://arrow.apache.org/docs/format/CanonicalExtensions.html#fixed-shape-tensor). pyarrow's own
    conversion is not used: as of 26.0 some permuted tensors get wrong strides there, and lose elements.
    """
    shape = array.type.shape
    order = array.type.permutation or range(len(shape))
    if not _is_element(array.type.value_type):
        return _plain(array.storage, problems)
    rows = _arrays(array.storage, (), problems)
    return [None if row is None else row.reshape(shape).transpose(order) for row in rows]


# --- all other values -----------------------------------------------------------------------------


def _storage(array: pa.Array) -> pa.Array:
    """A column without the wrappings that say nothing about its values."""
    while True:
        if types.is_dictionary(array.type):
            array = array.dictionary_decode()
        elif types.is_run_end_encoded(array.type):
            array = pc.run_end_decode(array)
        elif isinstance(array.type, pa.BaseExtensionType) and array.type.extension_name not in _EXTENSIONS:
            array = array.storage
        else:
            return array


def _plain(array: pa.Array, problems: Problems) -> list[Any]:
    """A column as plain Python values; lists, maps and structs by going down into them."""
    array = _storage(array)
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _EXTENSIONS[kind.extension_name](array, problems)
    for matches, convert in _CONVERTERS:
        if matches(kind):
            return convert(array, problems)
    raise DataError(f"columns of type {kind} cannot be read", hint="leave the column out: --fields NAME,NAME")


def _direct(array: pa.Array, _problems: Problems) -> list[Any]:
    if array.null_count:
        listed: list[Any] = array.to_pylist()
        return listed
    values: list[Any] = array.to_numpy(zero_copy_only=False).tolist()
    return values


def _texts(array: pa.Array, problems: Problems) -> list[Any]:
    try:
        listed: list[Any] = array.to_pylist()
    except UnicodeDecodeError:
        raw = array.cast(pa.large_string()).view(pa.large_binary()).to_pylist()
        return [_decoded(value, index, problems) for index, value in enumerate(raw)]
    return listed


def _decoded(value: bytes | None, index: int, problems: Problems) -> str | None:
    try:
        return value if value is None else value.decode()
    except UnicodeDecodeError:
        problems[index] = "holds text that is not UTF-8"
        return None


def _lists(array: pa.Array, problems: Problems) -> list[Any]:
    ends = _ends(array)
    owners: Problems = {}
    items = _plain(array.flatten(), owners)
    rows: list[Any] = []
    start = 0
    for valid, end in zip(array.is_valid().to_pylist(), ends, strict=True):
        rows.append(items[start:end] if valid else None)
        start = end
    _pass_on(owners, ends, problems)
    return rows


def _pass_on(owners: Problems, ends: list[int], problems: Problems) -> None:
    """A problem with an item is one of the row that holds it."""
    for item, reason in owners.items():
        problems.setdefault(int(np.searchsorted(ends, item, side="right")), reason)


def _structs(array: pa.Array, problems: Problems) -> list[Any]:
    names = [field.name for field in array.type]
    if len(set(names)) < len(names):
        raise DataError(f"several fields of a struct have the same name: {', '.join(names)}", hint="rename them")
    columns = [_plain(column, problems) for column in array.flatten()]  # nulls of the struct become nulls of each
    values = zip(*columns, strict=True) if columns else [()] * len(array)
    rows: list[Any] = [dict(zip(names, row, strict=True)) for row in values]
    return _with_nulls(array, rows)


def _maps(array: pa.Array, problems: Problems) -> list[Any]:
    owners: Problems = {}
    lengths = pc.fill_null(pc.list_value_length(_as_lists(array)), 0).to_numpy(zero_copy_only=False)
    ends: list[int] = np.cumsum(lengths, dtype=np.int64).tolist()
    items = _as_lists(array).flatten()
    keys, values = (_plain(column, owners) for column in items.flatten())
    text = types.is_string(array.type.key_type) or types.is_large_string(array.type.key_type)
    rows: list[Any] = []
    start = 0
    for end in ends:
        pairs = zip(keys[start:end], values[start:end], strict=True)
        rows.append(dict(pairs) if text else [list(pair) for pair in pairs])
        start = end
    _pass_on(owners, ends, problems)
    return _with_nulls(array, rows)


def _as_lists(array: pa.Array) -> pa.Array:
    """A map column as the list of key-value structs that it is."""
    kind = pa.list_(pa.struct([pa.field("key", array.type.key_type), pa.field("value", array.type.item_type)]))
    return array.cast(kind)


def _with_nulls(array: pa.Array, rows: list[Any]) -> list[Any]:
    if not array.null_count:
        return rows
    return [row if valid else None for row, valid in zip(rows, array.is_valid().to_pylist(), strict=True)]


def _decimals(array: pa.Array, _problems: Problems) -> list[Any]:
    return [None if value is None else format(value, "f") for value in array.to_pylist()]


# --- times ----------------------------------------------------------------------------------------


def _ticks(array: pa.Array) -> list[Any]:
    """The integers that dates, times and durations are stored as."""
    narrow = types.is_date32(array.type) or types.is_time32(array.type)
    listed: list[Any] = array.view(pa.int32() if narrow else pa.int64()).to_pylist()
    return listed


def _each(array: pa.Array, problems: Problems, convert: Callable[[int], str]) -> list[Any]:
    values: list[Any] = []
    for index, tick in enumerate(_ticks(array)):
        try:
            values.append(None if tick is None else convert(tick))
        except OverflowError:
            values.append(None)
            problems[index] = f"holds a {array.type} outside the years 1 to 9999"
    return values


def _fraction(ticks: int, per_second: int) -> str:
    """As Python writes it: nothing for whole seconds, else 6 digits, or 9 where 6 would lose some."""
    if not ticks:
        return ""
    nanoseconds = ticks * (10**9 // per_second)
    return f".{nanoseconds:09d}" if nanoseconds % 1000 else f".{nanoseconds // 1000:06d}"


def _dates(array: pa.Array, problems: Problems) -> list[Any]:
    per_day = 1 if types.is_date32(array.type) else 86_400_000
    return _each(array, problems, lambda tick: _moment(tick // per_day * 86_400).date().isoformat())


def _moment(seconds: int) -> datetime.datetime:
    return _EPOCH + datetime.timedelta(seconds=seconds)


def _timestamps(array: pa.Array, problems: Problems) -> list[Any]:
    per_second = _PER_SECOND[array.type.unit]
    zone = _zone(array.type.tz) if array.type.tz else None

    def convert(tick: int) -> str:
        seconds, rest = divmod(tick, per_second)
        moment = _moment(seconds)
        if zone is None:
            return moment.isoformat() + _fraction(rest, per_second)
        text = moment.replace(tzinfo=datetime.UTC).astimezone(zone).isoformat()
        return text[:19] + _fraction(rest, per_second) + text[19:]

    return _each(array, problems, convert)


def _zone(name: str) -> datetime.tzinfo:
    if name[:1] in "+-":
        # "+05:30", as Arrow's format allows beside the names of the Olson database.
        hours, minutes = int(name[1:3]), int(name[-2:]) if len(name) > 3 else 0
        offset = datetime.timedelta(hours=hours, minutes=minutes)
        return datetime.timezone(-offset if name[0] == "-" else offset)
    if name in ("UTC", "Etc/UTC", "Z"):
        return datetime.UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        # Falling back to UTC would give other text, so other shards, than the same job on another machine.
        raise DataError(f"time zone {name!r} is not known here", hint="pip install tzdata") from error


def _times(array: pa.Array, problems: Problems) -> list[Any]:
    per_second = _PER_SECOND[array.type.unit]

    def convert(tick: int) -> str:
        seconds, rest = divmod(tick, per_second)
        minutes, second = divmod(seconds, 60)
        return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}{_fraction(rest, per_second)}"

    return _each(array, problems, convert)


def _durations(array: pa.Array, problems: Problems) -> list[Any]:
    per_second = _PER_SECOND[array.type.unit]

    def convert(tick: int) -> str:
        seconds, rest = divmod(abs(tick), per_second)
        return f"{'-' if tick < 0 else ''}PT{seconds}{_fraction(rest, per_second)}S"

    return _each(array, problems, convert)


# --- which converter ------------------------------------------------------------------------------

_CONVERTERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array, Problems], list[Any]]], ...] = (
    (lambda kind: _is_element(kind) or types.is_null(kind), _direct),
    (lambda kind: types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind), _texts),
    (lambda kind: types.is_binary(kind) or types.is_large_binary(kind), _direct),
    (lambda kind: types.is_fixed_size_binary(kind) or types.is_binary_view(kind), _direct),
    (_is_list, _lists),
    (types.is_struct, _structs),
    (types.is_map, _maps),
    (types.is_decimal, _decimals),
    (types.is_date, _dates),
    (types.is_timestamp, _timestamps),
    (types.is_time, _times),
    (types.is_duration, _durations),
)


def _uuids(array: pa.Array, _problems: Problems) -> list[Any]:
    return [None if value is None else str(uuid.UUID(bytes=value)) for value in array.storage.to_pylist()]


def _bools(array: pa.Array, _problems: Problems) -> list[Any]:
    return [None if value is None else bool(value) for value in array.storage.to_pylist()]


_EXTENSIONS: dict[str, Callable[[pa.Array, Problems], list[Any]]] = {
    "arrow.fixed_shape_tensor": _tensors,
    "arrow.uuid": _uuids,
    "arrow.bool8": _bools,
}
