"""``--join``: a table's columns become a member of the samples whose files its rows name."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, overload

import orjson

from atdata_cli.errors import AtdataError
from atdata_cli.samples.codec import dump_json
from atdata_cli.samples.keys import split_name
from atdata_cli.sources.base import InputFile, Preflight, Reject, Row, RowSource, Sample, SampleSource
from atdata_cli.sources.fieldcheck import examples, no_such_field
from atdata_cli.sources.files import FolderSource

__all__ = ["JoinSource"]

_FIELD = "json"
_AMBIGUOUS = -1
_BATCH = 10_000


class JoinSource(SampleSource):
    """The samples of a folder, each with the columns of the row that names one of its files.

    A row's field names a file by its path relative to the root, else by a basename that only one file has,
    else by the sample's key. The row's other columns become the member ``json``, in their order; all columns
    are the sample's ``extra``.

    The rows are read when the source is made, and wait in a temporary file until their sample comes.

    Parameters
    ----------
    folder : the samples.
    rows : the table.
    on : the field that names the file.

    Raises
    ------
    UsageError : no row has it.
    """

    def __init__(self, folder: FolderSource, rows: RowSource, on: str) -> None:
        super().__init__()
        self._folder = folder
        self.files = folder.files
        self._on = on
        self._found = Preflight()
        self._names = _FileNames(folder)
        self._table = _RowTable()
        self._conflicts = self._find_conflicts()
        self._read(rows)
        self.inputs = _Chained(folder.inputs, rows.inputs)

    def count(self) -> int:
        """How many samples there are."""
        return self._names.samples - len(self._conflicts)

    def position(self) -> int:
        """Bytes of the samples that have been taken; the table's are not counted."""
        return self._folder.position()

    def size(self) -> int:
        """Bytes of all files in the folder."""
        return self._folder.size()

    @property
    def bulky(self) -> bool:
        """Whether the folder's files are."""
        return self._folder.bulky

    def preflight(self) -> Preflight:
        """What the folder has to say, rows that fit no sample, and samples without a row."""
        found = self._folder.preflight()
        problems = [*found.problems, *self._found.problems]
        return Preflight(problems, [*found.warnings, *self._found.warnings, *self._without_row()])

    def samples(self) -> Iterator[Sample]:
        """The folder's samples in order, with their row."""
        for index, sample in enumerate(self._folder.samples()):
            if index in self._conflicts:
                continue
            row = self._table.row(index)
            yield sample if row is None else self._with_row(sample, *row)

    def promised(self) -> Iterator[Sample]:
        """See :class:`~atdata_cli.sources.base.SampleSource`: files, and columns as they are."""
        return self.samples()

    def _with_row(self, sample: Sample, named: str, columns: bytes) -> Sample:
        fields = dict(sorted({**sample.fields, _FIELD: columns}.items()))
        return replace(sample, fields=fields, extra={self._on: orjson.loads(named), **orjson.loads(columns)})

    def _find_conflicts(self) -> set[int]:
        """Samples that have the member already; nobody could tell which one is meant."""
        conflicts = set()
        for index, group in enumerate(self._folder.members()):
            for file in group:
                if file.field.lower() == _FIELD:
                    conflicts.add(index)
                    reason = f"the sample {file.key!r} has a {file.field!r} file, where the row's columns would go"
                    hint = f"rename it, or pass --exclude '*.{file.field}'"
                    self._problem(self._folder.url(file), f"{reason}: {hint}", key=file.key)
        return conflicts

    def _read(self, rows: RowSource) -> None:
        waiting: list[tuple[int, str, str, bytes]] = []
        known: dict[str, None] = {}  # fields, until the one that names the file is among them
        for batch in rows.batches():
            self._found.problems.extend(batch.rejects)
            for number, row in enumerate(batch.rows):
                if self._on not in known:
                    known.update(dict.fromkeys(row))
                # A file's name need not be UTF-8, but the table's texts must be.
                where = batch.where(number).encode("utf-8", "backslashreplace").decode()
                placed = self._place(row, where)
                if placed is not None:
                    waiting.append(placed)
            if len(waiting) >= _BATCH:
                self._store(waiting)
                waiting = []
        self._store(waiting)
        if known and self._on not in known:
            raise no_such_field("--on", self._on, [*known])

    def _place(self, row: Row, where: str) -> tuple[int, str, str, bytes] | None:
        """The index of the row's sample, the row's place, the name it gave, and its other columns as JSON."""
        named = row.get(self._on)
        if isinstance(named, bool) or not isinstance(named, str | int):
            what = "null or missing" if named is None else f"{type(named).__name__}, not text"
            self._problem(where, f"the field {self._on!r}, which is to name a file, is {what}")
            return None
        index = self._names.find(str(named))
        if index is None or index == _AMBIGUOUS:
            many = "is the name of several files: give the path" if index is not None else "is no file of the folder"
            self._problem(where, f"{str(named)!r} {many}")
            return None
        if index in self._conflicts:
            return None
        columns = {name: value for name, value in row.items() if name != self._on}
        try:
            return index, where, orjson.dumps(named).decode(), dump_json(columns)
        except TypeError as error:
            self._problem(where, f"a column cannot be written as JSON: {error}")
            return None

    def _store(self, waiting: list[tuple[int, str, str, bytes]]) -> None:
        for row in self._table.add(waiting):
            index, where, named, _ = row
            first = self._table.place(index)
            self._problem(where, f"{orjson.loads(named)!r} is in a sample that has a row already, at {first}")

    def _without_row(self) -> Iterator[str]:
        total = self.count()
        missing = total - self._table.count()
        if missing:
            keys = (
                group[0].key
                for index, group in enumerate(self._folder.members())
                if index not in self._conflicts and self._table.place(index) is None
            )
            yield f"{missing} of {total} samples have no row, such as {examples(keys)}"

    def _problem(self, where: str, reason: str, key: str | None = None) -> None:
        self._found.problems.append(Reject(where, reason, key=key))


class _FileNames:
    """Finds the sample that a text names.

    Attributes
    ----------
    samples : how many there are.
    """

    def __init__(self, folder: FolderSource) -> None:
        self._folder = folder
        self._by_key: dict[str, int] = {}
        self._fields: list[tuple[str, ...]] = []
        self._by_basename: dict[str, int] | None = None
        known: dict[tuple[str, ...], tuple[str, ...]] = {}
        for index, group in enumerate(folder.members()):
            self._by_key[group[0].key] = index
            fields = tuple([file.field for file in group])
            self._fields.append(known.setdefault(fields, fields))
        self.samples = len(self._fields)

    def find(self, name: str) -> int | None:
        """Index of the sample; ``_AMBIGUOUS`` if several files are called so, None if none is."""
        name = name.removeprefix("./")
        split = split_name(name)
        if split is not None:
            index = self._by_key.get(split[0])
            if index is not None and split[1] in self._fields[index]:
                return index
        index = self._basenames().get(name.rpartition("/")[2])
        return self._by_key.get(name) if index is None else index

    def _basenames(self) -> dict[str, int]:
        """Basename to sample; made only when a row does not give the path."""
        if self._by_basename is None:
            self._by_basename = {}
            for index, group in enumerate(self._folder.members()):
                for file in group:
                    base = file.name.rpartition("/")[2]
                    self._by_basename[base] = index if base not in self._by_basename else _AMBIGUOUS
        return self._by_basename


class _RowTable:
    """Rows by the index of their sample, in a private temporary file as soon as they are many."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._database.close)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("PRAGMA cache_size = -32768")
        self._database.execute("CREATE TABLE rows (sample INTEGER PRIMARY KEY, place TEXT, named TEXT, columns BLOB)")

    def add(self, rows: Sequence[tuple[int, str, str, bytes]]) -> list[tuple[int, str, str, bytes]]:
        """Keep rows; gives back those whose sample has one already."""
        try:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?)", rows)
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            hint = "set TMPDIR to a folder on a disk with more free space"
            raise AtdataError(f"cannot keep the rows in a temporary file: {error}", hint=hint) from error
        return [row for row in rows if self.place(row[0]) != row[1]]

    def place(self, sample: int) -> str | None:
        """Where a sample's row came from."""
        found = self._database.execute("SELECT place FROM rows WHERE sample = ?", (sample,)).fetchone()
        return found[0] if found else None

    def row(self, sample: int) -> tuple[str, bytes] | None:
        """What a sample's row named it by, and its other columns, both JSON."""
        found = self._database.execute("SELECT named, columns FROM rows WHERE sample = ?", (sample,)).fetchone()
        return (found[0], found[1]) if found else None

    def count(self) -> int:
        """How many samples have a row."""
        (count,) = self._database.execute("SELECT count(*) FROM rows").fetchone()
        return int(count)


class _Chained(Sequence[InputFile]):
    """Two sequences of inputs as one."""

    def __init__(self, first: Sequence[InputFile], second: Sequence[InputFile]) -> None:
        self._first = first
        self._second = second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    @overload
    def __getitem__(self, index: int) -> InputFile: ...
    @overload
    def __getitem__(self, index: slice) -> list[InputFile]: ...
    def __getitem__(self, index: int | slice) -> InputFile | list[InputFile]:
        positions: Any = range(len(self))[index]
        if isinstance(index, slice):
            return [self._at(position) for position in positions]
        return self._at(positions)

    def __iter__(self) -> Iterator[InputFile]:
        yield from self._first
        yield from self._second

    def _at(self, position: int) -> InputFile:
        split = len(self._first)
        return self._first[position] if position < split else self._second[position - split]
