"""Rows become samples: their fields, their keys, their bytes; what cannot be one becomes a reject."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atdata_cli.errors import DataError
from atdata_cli.refs import stem
from atdata_cli.samples.check import RowSchema
from atdata_cli.samples.codec import Unencodable, dump_json, explain, pack_rows, packer
from atdata_cli.samples.keys import KeyTemplate, UniqueKeys, check_field, check_key, number_keys
from atdata_cli.samples.schema import FieldStats, observe_columns, observe_rows
from atdata_cli.shards.embed import Embedder
from atdata_cli.sources.base import InputFile, PackedBatch, Reject, Row, RowBatch, Sample, Value, content
from atdata_cli.sources.rows import BATCH_ROWS, BLOCK
from atdata_cli.sources.shuffle import Ranks, Sorter

__all__ = [
    "ENCODE_ERRORS",
    "KEY",
    "NewFields",
    "PlacedPacked",
    "PlacedRows",
    "RowPlacer",
    "as_members",
    "embed_values",
    "known_fields",
    "members",
    "pack",
    "shuffled",
]

KEY = "__key__"
# What msgpack and orjson raise for a row they cannot take.
ENCODE_ERRORS = (DataError, ValueError, TypeError, OverflowError, RecursionError)


class NewFields(Exception):
    """Rows have fields that the first ones did not have."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(", ".join(names))
        self.names = tuple(names)


@dataclass(slots=True)
class PlacedRows:
    """Rows that are to be samples, each with its key and its place.

    Attributes
    ----------
    keys, rows : one of each a sample; every row has exactly the known fields, in their order.
    records : for each row, its number among all records of the input, 0-based.
    files : for each row, the file that it is from, if they are not all from one.
    where : place of row *i*, as ``file:line``.
    """

    keys: list[str]
    rows: list[Row]
    lines: list[int]
    records: Sequence[int]
    batch: RowBatch
    files: Sequence[InputFile] | None = None

    def file(self, index: int) -> InputFile:
        """The file that row *index* is from."""
        return self.batch.file if self.files is None else self.files[index]

    def where(self, index: int) -> str:
        """The place of row *index*, as ``file:line``."""
        return f"{self.file(index).url}:{self.lines[index]}"

    def select(self, indexes: Sequence[int]) -> PlacedRows:
        """Some of the rows."""
        return PlacedRows(
            [self.keys[i] for i in indexes],
            [self.rows[i] for i in indexes],
            [self.lines[i] for i in indexes],
            [self.records[i] for i in indexes],
            self.batch,
            None if self.files is None else [self.files[i] for i in indexes],
        )

    def cut(self, start: int, stop: int) -> PlacedRows:
        """Rows *start* to *stop*."""
        if start == 0 and stop >= len(self.keys):
            return self
        part = slice(start, stop)
        files = None if self.files is None else self.files[part]
        return PlacedRows(self.keys[part], self.rows[part], self.lines[part], self.records[part], self.batch, files)

    def reject(self, index: int, reason: str) -> Reject:
        """A reject that shows the row."""
        row = self.rows[index]
        return Reject(self.where(index), reason, key=self.keys[index], record=show_row(row))


@dataclass(slots=True)
class PlacedPacked:
    """As :class:`PlacedRows`, of rows that their source has packed: nothing is wrong with them.

    Attributes
    ----------
    columns : the values of each known field.
    """

    keys: list[str]
    payloads: list[bytes]
    columns: Sequence[Sequence[Any]]
    records: Sequence[int]

    def select(self, indexes: Sequence[int]) -> PlacedPacked:
        """Some of the rows."""
        return PlacedPacked(
            [self.keys[i] for i in indexes],
            [self.payloads[i] for i in indexes],
            [[column[i] for i in indexes] for column in self.columns],
            [self.records[i] for i in indexes],
        )

    def cut(self, start: int, stop: int) -> PlacedPacked:
        """Rows *start* to *stop*."""
        if start == 0 and stop >= len(self.keys):
            return self
        part = slice(start, stop)
        columns = [column[part] for column in self.columns]
        return PlacedPacked(self.keys[part], self.payloads[part], columns, self.records[part])


def show_row(row: Mapping[str, Any]) -> str:
    """A row as text for the list of rejects; never fails, never huge."""
    try:
        text = dump_json(row).decode()
    except ENCODE_ERRORS:
        text = repr(row)
    return text[:10_000]


def known_fields(rows: Iterator[Row]) -> tuple[str, ...]:
    """All fields of *rows*, in order of first appearance."""
    seen: dict[str, None] = {}
    last: tuple[str, ...] = ()
    for row in rows:
        names = tuple(row)
        if names != last:
            seen.update(dict.fromkeys(names))
            last = names
    seen.pop(KEY, None)
    return tuple(seen)


@dataclass(slots=True)
class RowPlacer:
    """Gives rows their keys and exactly the known fields.

    Attributes
    ----------
    fields : the known fields, in the order in which they are written.
    template : where keys come from; None for the global record number.
    schema : what rows have to fit, if given.
    selected : True if *fields* is a choice, so that others are left out instead of reported.
    rewindable : True if the source can be read again with more fields.
    on_reject : told of each row that cannot be a sample.
    records : how many have been placed so far.
    own_keys : whether rows have a ``__key__``; None until the first one is seen.
    on_keys : told of rows with keys that could come twice, and do not so far.
    """

    fields: tuple[str, ...]
    template: KeyTemplate | None
    schema: RowSchema | None
    selected: bool
    rewindable: bool
    on_reject: Callable[[Reject], None]
    unique: UniqueKeys = field(default_factory=UniqueKeys)
    records: int = 0
    own_keys: bool | None = None
    on_keys: Callable[[PlacedRows], None] | None = None

    def place(self, batch: RowBatch | PackedBatch) -> PlacedRows | PlacedPacked:
        """Keys and fields for one batch; must be called with the batches in order.

        Raises
        ------
        NewFields : rows have fields beyond the known ones and the source can be read again.
        """
        return self.place_packed(batch) if isinstance(batch, PackedBatch) else self.place_rows(batch)

    def place_packed(self, batch: PackedBatch) -> PlacedPacked:
        """See :meth:`place`; rows that are packed have the known fields already, and no keys of their own."""
        records = range(self.records, self.records + len(batch.payloads))
        self.records = records.stop
        return PlacedPacked(number_keys(records), batch.payloads, batch.columns, records)

    def place_rows(self, batch: RowBatch) -> PlacedRows:
        """See :meth:`place`."""
        for reject in batch.rejects:
            self.on_reject(reject)
        first = self.records
        self.records += batch.records
        keys, problems = self._keys(batch, first)
        records = _numbers(first, batch.offsets)
        placed = PlacedRows(keys, batch.rows, list(batch.lines), records, batch)
        if problems is not None:
            placed = self._with_safe_keys(placed, problems)
        return self._with_known_fields(placed)

    def _keys(self, batch: RowBatch, first: int) -> tuple[list[str], dict[int, str] | None]:
        """The keys, and what is wrong with some; None where they are record numbers, safe and never repeated."""
        if self.own_keys is None and batch.rows:
            self.own_keys = KEY in batch.rows[0]
        if not self.own_keys and self.template is None:
            return number_keys(_numbers(first, batch.offsets)), None
        keys, problems = [], {}
        file_stem = stem(batch.file.url) if batch.file.url != "-" else "stdin"
        for index, (row, offset) in enumerate(zip(batch.rows, batch.offsets, strict=True)):
            try:
                key = self._key(row, first + offset, file_stem)
                reason = check_key(key)
            except DataError as error:
                key, reason = "", error.message
            keys.append(key)
            if reason is not None:
                problems[index] = reason
        return keys, problems

    def _key(self, row: Row, number: int, file_stem: str) -> str:
        if not self.own_keys:
            assert self.template is not None
            return self.template.render(row, number, file_stem)
        key = row.pop(KEY, None)
        if isinstance(key, int) and not isinstance(key, bool):
            return str(key)
        if not isinstance(key, str):
            raise DataError(f"no {KEY}, or one that is not text, although the first row has one")
        return key

    def _with_safe_keys(self, placed: PlacedRows, problems: Mapping[int, str]) -> PlacedRows:
        for index, reason in problems.items():
            row = placed.rows[index]
            self.on_reject(Reject(placed.where(index), reason, key=placed.keys[index] or None, record=show_row(row)))
        if problems:
            placed = placed.select([index for index in range(len(placed.keys)) if index not in problems])
        places = [placed.where(index) for index in range(len(placed.keys))]
        repeated = dict(self.unique.add_many(placed.keys, places))
        for index, earlier in repeated.items():
            self.on_reject(placed.reject(index, f"duplicate key {placed.keys[index]!r}, first at {earlier}"))
        if repeated:
            placed = placed.select([index for index in range(len(placed.keys)) if index not in repeated])
        if self.on_keys is not None:
            self.on_keys(placed)
        return placed

    def _with_known_fields(self, placed: PlacedRows) -> PlacedRows:
        if self.schema is not None:
            return self._fitted(placed, self.schema)
        shapes = set(map(tuple, placed.rows))
        if shapes <= {self.fields}:
            return placed
        new = set().union(*shapes).difference(self.fields)
        if new and not self.selected:
            placed = self._without_new_fields(placed, new)
        placed.rows = [{name: row.get(name) for name in self.fields} for row in placed.rows]
        return placed

    def _without_new_fields(self, placed: PlacedRows, new: set[str]) -> PlacedRows:
        if self.rewindable and KEY not in new:
            raise NewFields(sorted(new))
        good = []
        for index, row in enumerate(placed.rows):
            extra = sorted(row.keys() & new)
            if not extra:
                good.append(index)
            elif extra[0] == KEY:
                self.on_reject(placed.reject(index, f"has a {KEY}, although the first row has none"))
            else:
                reason = (
                    f"field {extra[0]!r} is not in the first rows, and a stream cannot be read again: "
                    "name all fields with --fields or --schema"
                )
                self.on_reject(placed.reject(index, reason))
        return placed.select(good)

    def _fitted(self, placed: PlacedRows, schema: RowSchema) -> PlacedRows:
        good, rows = [], []
        for index, row in enumerate(placed.rows):
            try:
                rows.append(schema.apply(row))
                good.append(index)
            except Unencodable as error:
                self.on_reject(placed.reject(index, f"does not fit the schema: {error}"))
        fitted = placed.select(good)
        fitted.rows = rows
        return fitted


def shuffled(batches: Iterable[PlacedRows], seed: int) -> Iterator[PlacedRows]:
    """The rows of all batches in the order of their ranks, which their place in the input and the seed decide."""
    ranks = Ranks(seed)
    files: dict[InputFile, int] = {}
    with Sorter() as sorter:
        for placed in batches:
            for index, record in enumerate(placed.records):
                file = files.setdefault(placed.file(index), len(files))
                sorter.add(ranks.of(record), (placed.keys[index], placed.rows[index], placed.lines[index], file))
        known = list(files)
        done = 0
        for some in sorter.batches(BATCH_ROWS, BLOCK):
            keys, rows, lines, numbers = map(list, zip(*some, strict=True))
            places = [known[number] for number in numbers]
            records = range(done, done + len(keys))
            done += len(keys)
            yield PlacedRows(keys, rows, lines, records, RowBatch(places[0], rows, lines, range(len(rows)), 0), places)


def _numbers(first: int, offsets: Sequence[int]) -> Sequence[int]:
    if isinstance(offsets, range):
        return range(first + offsets.start, first + offsets.stop)
    return [first + offset for offset in offsets]


def pack(
    placed: PlacedRows | PlacedPacked, fields: Sequence[str], on_reject: Callable[[Reject], None]
) -> tuple[list[str], list[bytes], dict[str, FieldStats]]:
    """Msgpack samples: (keys, payloads, statistics of their fields)."""
    stats: dict[str, FieldStats] = {}
    if isinstance(placed, PlacedPacked):
        observe_columns(stats, fields, placed.columns)
        return placed.keys, placed.payloads, stats
    encode = packer()
    try:
        payloads = pack_rows(encode, placed.rows)
        observe_rows(stats, fields, placed.rows)
    except ENCODE_ERRORS:
        good = []
        for index, row in enumerate(placed.rows):
            try:
                encode(row)
                observe_rows({}, fields, [row])
                good.append(index)
            except ENCODE_ERRORS as error:
                on_reject(placed.reject(index, explain(error)))
        placed = placed.select(good)
        payloads = pack_rows(encode, placed.rows)
        stats = {}
        observe_rows(stats, fields, placed.rows)
    return placed.keys, payloads, stats


def as_members(placed: PlacedRows, embedder: Embedder, on_reject: Callable[[Reject], None]) -> Iterator[Sample]:
    """Samples of one member a field: embedded files and bytes as they are, arrays as ``.npy``, the rest ``.json``."""
    for index, (key, row) in enumerate(zip(placed.keys, placed.rows, strict=True)):
        try:
            fields = members(row, embedder, placed.file(index))
        except ENCODE_ERRORS as error:
            on_reject(placed.reject(index, explain(error)))
        else:
            yield Sample(key, fields, placed.where(index), extra=row)


def members(row: Row, embedder: Embedder, file: InputFile) -> dict[str, Value]:
    """The fields of one ``files`` sample.

    Raises
    ------
    DataError : an embedded file cannot be had, or two values would get the same name.
    """
    embedded = embedder.embed(row, file)
    fields: dict[str, Value] = dict(embedded.values())
    columns: dict[str, Any] = {}
    for name, value in row.items():
        if name in embedder.fields:
            continue
        if isinstance(value, bytes):
            _add(fields, name, value)
        elif type(value).__name__ == "ndarray":
            _add(fields, f"{name}.npy", _npy(value))
        else:
            columns[name] = value
    if columns:
        _add(fields, "json", dump_json(columns))
    if not fields:
        raise DataError("has no value to write")
    return fields


def _add(fields: dict[str, Value], name: str, value: Value) -> None:
    reason = check_field(name)
    if reason is not None:
        raise DataError(reason)
    if name in fields:
        raise DataError(f"two values would become the member {name!r}: leave one out with --fields")
    fields[name] = value


def _npy(array: Any) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def embed_values(placed: PlacedRows, embedder: Embedder, on_reject: Callable[[Reject], None]) -> PlacedRows:
    """For msgpack samples: the named files' content as bytes values, in place of their names."""
    good = []
    for index, row in enumerate(placed.rows):
        try:
            for name, (_, blob) in embedder.embed(row, placed.file(index)).items():
                row[name] = content(blob)
        except DataError as error:
            on_reject(placed.reject(index, error.message))
        else:
            good.append(index)
    return placed.select(good)
