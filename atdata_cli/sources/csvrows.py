"""CSV and TSV (RFC 4180, with any delimiter): a header, then one record a line, in UTF-8."""

from __future__ import annotations

import csv
import functools
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Self

from atdata_cli.errors import DataError, UsageError
from atdata_cli.sources.base import Files, InputFile, Reject, RowBatch
from atdata_cli.sources.columns import NAMED, CellType, by_name, infer, with_nulls
from atdata_cli.sources.pieces import Slice
from atdata_cli.sources.rows import BATCH_ROWS, LineFiles, clip, line_blocks
from atdata_cli.sources.stream import Meter

__all__ = ["CsvSource", "TsvSource"]

_HEAD_RECORDS = 10_000
_HEAD_CHARACTERS = 64 << 20
_MAX_CELL = 64 << 20  # characters
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(slots=True)
class _Cells:
    """Some consecutive records as text.

    Attributes
    ----------
    item : the file they are from.
    records : those with as many cells as the header.
    lines : for each of them, the line in the file where it starts, 1-based.
    offsets : for each of them, its position among all records here, 0-based.
    bad : the others, by their position.
    """

    item: InputFile
    records: list[list[str]] = field(default_factory=list)
    lines: Sequence[int] = ()
    offsets: Sequence[int] = ()
    bad: dict[int, Reject] = field(default_factory=dict)


class CsvSource(LineFiles):
    """Rows of CSV files, plain or compressed. Empty lines are no records.

    Types come from the first 10,000 records (or 64 Mi characters of them), of all files together: integer,
    number, boolean, else text; only where every value survives. An empty cell is null.

    Parameters
    ----------
    files, inputs : see :class:`~atdata_cli.sources.rows.RowFiles`. All files need the same header.
    delimiter : one character.
    infer : False to keep every column as text.
    null : a text that means null, as an empty cell does.
    types : types of some columns by name, "integer", "number", "boolean" or "string"; these are not inferred.
    """

    def __init__(
        self,
        files: Files,
        inputs: Sequence[InputFile],
        *,
        delimiter: str = ",",
        infer: bool = True,
        null: str | None = None,
        types: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(files, inputs)
        if len(delimiter) != 1 or delimiter in '"\r\n\0':
            raise UsageError(
                f"the delimiter must be one character, not {delimiter!r}",
                hint="such as ';'",
            )
        if unknown := sorted(set((types or {}).values()) - set(NAMED)):
            raise UsageError(f"unknown column type {unknown[0]!r}", hint=f"types are {', '.join(NAMED)}")
        self._delimiter = delimiter
        self._infer = infer
        self._nulls = frozenset(("", null or ""))
        self._types = dict(types or {})
        self._held: _CsvFile | None = None
        self._found_types: list[CellType] | None = None
        # A limit of the whole process, and too low for texts: 131,072.
        csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL))

    @functools.cached_property
    def fields(self) -> tuple[str, ...]:  # type: ignore[override]
        """The header. Reads the first line of the first file; a stream stays open at the second."""
        opened = self._open_csv(self.inputs[0], Meter() if self.rewindable else self._meter)
        if self.rewindable:
            opened.close()
        else:
            self._held = opened
        return opened.header

    def found_types(self) -> Sequence[str] | None:
        """See :class:`~atdata_cli.sources.rows.RowFiles`."""
        return None if self._found_types is None else [kind.name for kind in self._found_types]

    def take_types(self, names: Sequence[str]) -> None:
        """See :class:`~atdata_cli.sources.rows.RowFiles`."""
        self._found_types = [by_name(name) for name in names]

    def part(self, slices: Sequence[Slice]) -> Self:
        """See :class:`~atdata_cli.sources.rows.RowFiles`: the columns' types are those of the first records of all."""
        part = super().part(slices)
        part.__dict__["fields"] = self.fields
        return part

    def _open_csv(self, item: InputFile, meter: Meter) -> _CsvFile:
        return _CsvFile(self._open(item, meter), item, self._delimiter)

    def _open_part(self, part: Slice, meter: Meter) -> _CsvFile:
        header = self.fields if part.start else None
        return _CsvFile(self._open_slice(part, meter), part.item, self._delimiter, header=header, line=part.line)

    def _read(self) -> Iterator[RowBatch]:
        meter = self._meter = self._meter if self._held else Meter()
        texts = self._texts(meter)
        head: list[_Cells] = []
        if self._found_types is None:
            records = characters = 0
            for cells in texts:
                head.append(cells)
                records += len(cells.records)
                characters += sum(map(len, chain.from_iterable(cells.records)))
                if records >= _HEAD_RECORDS or characters >= _HEAD_CHARACTERS:
                    break
            self._found_types = self._column_types(head)
        types = self._found_types
        converter = _Converter(self.fields, types, self._nulls, frozenset(self._types), self._delimiter)
        head.reverse()
        while head:
            yield converter.batch(head.pop())
        yield from map(converter.batch, texts)

    def _texts(self, meter: Meter) -> Iterator[_Cells]:
        fields = self.fields
        for part in self.slices:
            item = part.item
            opened, self._held = self._held or self._open_part(part, meter), None
            with opened:
                if opened.header != fields:
                    how = _difference(fields, opened.header)
                    raise DataError(
                        f"its header differs from that of {self.inputs[0].url}: {how}",
                        url=item.url,
                        hint="files that are read together need the same columns in the same order",
                    )
                yield from opened.batches()

    def _column_types(self, head: list[_Cells]) -> list[CellType]:
        columns: Sequence[Sequence[str]] = [()] * len(self.fields)
        if self._infer:
            records = islice(chain.from_iterable(cells.records for cells in head), _HEAD_RECORDS)
            columns = list(zip(*records, strict=True)) or columns
        return [
            NAMED[self._types[name]] if name in self._types else infer([c for c in cells if c not in self._nulls])
            for name, cells in zip(self.fields, columns, strict=True)
        ]

    def count(self) -> int | None:
        """How many records there are, bad ones included; None for a stream. Reads everything once."""
        if not self.rewindable:
            return None
        return sum(len(cells.records) + len(cells.bad) for cells in self._texts(Meter()))

    def _header_end(self, block: bytes) -> int | None:
        return block.find(b"\n") + 1 or len(block)

    @functools.cached_property
    def _plain(self) -> re.Pattern[bytes]:
        """Lines whose quotes enclose whole cells, so that every line feed ends a record."""
        delimiter = re.escape(self._delimiter.encode())
        cell = rb'(?:"[^"\r\n]*+")++|[^"\r\n' + delimiter + rb"]*+"
        return re.compile(rb"(?:(?:" + cell + rb")(?:" + delimiter + rb"|\r?\n|\Z))*+")

    def _is_plain(self, block: bytes) -> bool:
        if b'"' not in block and (b"\r" not in block or block.count(b"\r") == block.count(b"\r\n")):
            return True
        return len(self._delimiter.encode()) == 1 and self._plain.fullmatch(block) is not None

    def _records(self, block: bytes, start: int, lines: int) -> int:
        if block.startswith((b"\n", b"\r\n"), start) or block.find(b"\n\n", start) >= 0 or b"\n\r\n" in block:
            return sum(1 for line in block[start:].split(b"\n") if not self._is_blank(line))
        return lines

    @staticmethod
    def _is_blank(line: bytes) -> bool:
        return not line.strip(b"\r\n")


class TsvSource(CsvSource):
    """As :class:`CsvSource`, between tabs; cells may be quoted as in CSV."""

    def __init__(self, files: Files, inputs: Sequence[InputFile], *, delimiter: str = "\t", **options: Any) -> None:
        super().__init__(files, inputs, delimiter=delimiter, **options)


def _difference(expected: tuple[str, ...], found: tuple[str, ...]) -> str:
    missing = [name for name in expected if name not in found]
    added = [name for name in found if name not in expected]
    said = [f"it lacks {', '.join(missing)}"] if missing else []
    said += [f"it adds {', '.join(added)}"] if added else []
    return " and ".join(said) or "the same names in another order"


class _CsvFile:
    """An open CSV file, or a part of one after its *header*: first the header, then records.

    Raises
    ------
    DataError : the header is missing or names are empty or double; a quote is never closed.
    """

    def __init__(
        self,
        reader: io.BufferedReader,
        item: InputFile,
        delimiter: str,
        *,
        header: tuple[str, ...] | None = None,
        line: int = 1,
    ) -> None:
        self._reader = reader
        self._item = item
        self._delimiter = delimiter
        self._before = line - 1  # lines of the file before those that the csv module is given
        self._blocks = line_blocks(reader, item, first=header is None)
        self._lines: list[str] = []
        self._fed = 0  # lines handed to the csv module, those of the current block included
        self._odd = False  # the text has NULs or bytes that are not UTF-8
        lines = chain.from_iterable(iter(self._next_lines, []))
        self._csv = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            self.header = self._read_header() if header is None else header
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> _CsvFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()

    def _next_lines(self) -> list[str]:
        """The lines of the next block with their ends, none at the end of the file."""
        block = next(self._blocks, b"")
        try:
            text = block.decode()
        except UnicodeDecodeError:
            text = block.decode("utf-8", "surrogateescape")
            self._odd = True
        self._odd = self._odd or "\0" in text
        # Not ``splitlines``, for which U+2028, form feed and others end a line, too.
        self._lines = io.StringIO(text, newline="").readlines()
        self._fed += len(self._lines)
        return self._lines

    def _read_header(self) -> tuple[str, ...]:
        hint = "the first line must name the columns, each once"
        try:
            header = next(self._csv, [])
        except csv.Error as error:
            raise DataError(f"the header is no CSV: {error}", url=self._item.url, hint=hint) from error
        if not any(header):
            raise DataError("there is no header", url=self._item.url, hint=hint)
        if problem := self._odd and _bad_text(header):
            raise DataError(f"the header {problem}", url=self._item.url, hint=hint)
        if "" in header:
            raise DataError(f"column {header.index('') + 1} has no name", url=self._item.url, hint=hint)
        double = [name for name, times in Counter(header).items() if times > 1]
        if double:
            raise DataError(f"several columns are named {', '.join(double)}", url=self._item.url, hint=hint)
        return tuple(header)

    def batches(self) -> Iterator[_Cells]:
        """The records, up to 1,000 of one block at a time; a record that goes on into the next comes last."""
        while True:
            before = self._csv.line_num
            cells = _Cells(self._item)
            records, broken = self._take()
            if not records and not broken:
                return
            self._fill(cells, records, before + 1)
            if broken:
                cells.bad[len(cells.records) + len(cells.bad)] = broken
            if cells.records or cells.bad:
                yield cells

    def _take(self) -> tuple[list[list[str]], Reject | None]:
        """The next records, and the one after them if it is no CSV."""
        records: list[list[str]] = []
        while len(records) < BATCH_ROWS:
            # Every record takes at least one line.
            wanted = min(self._fed - self._csv.line_num, BATCH_ROWS - len(records))
            if not wanted and records:
                break
            start, taken = self._csv.line_num, len(records)
            try:
                # What the reader gave before an error stays in the list.
                records.extend(islice(self._csv, wanted or 1))
            except csv.Error as error:
                start += sum(map(_lines_taken, records[taken:]))
                return records, self._broken(error, start + 1)
            if len(records) == taken:
                break
        return records, None

    def _broken(self, error: csv.Error, line: int) -> Reject:
        reason = str(error)
        where = f"{self._item.url}:{self._before + line}"
        if "unexpected end" in reason:
            raise DataError(
                "a quote in the record that starts here is never closed",
                url=where,
                hint="close it, or double the quotes that belong to the text",
            ) from error
        if "field limit" in reason:
            raise DataError(
                f"a cell of the record that starts here has over {_MAX_CELL >> 20} Mi characters",
                url=where,
                hint="is a quote never closed?",
            ) from error
        last = self._lines[len(self._lines) - 1 - (self._fed - self._csv.line_num)]
        return Reject(where, f"not CSV: {reason}", record=clip(_printable(last.rstrip("\r\n"))))

    def _fill(self, cells: _Cells, records: list[list[str]], first: int) -> None:
        """Sort records, which start at line *first*, into good and bad ones."""
        width = len(self.header)
        count = len(records)
        if not self._odd and self._csv.line_num - first + 1 == count and set(map(len, records)) == {width}:
            cells.records = records
            line = self._before + first
            cells.lines, cells.offsets = range(line, line + count), range(count)
            return
        lines: list[int] = []
        offsets: list[int] = []
        line = self._before + first
        for record in records:
            problem = self._problem(record)
            if problem:
                text = clip(_printable(self._delimiter.join(record)))
                cells.bad[len(lines) + len(cells.bad)] = Reject(f"{self._item.url}:{line}", problem, record=text)
            elif record:
                offsets.append(len(lines) + len(cells.bad))
                lines.append(line)
                cells.records.append(record)
            line += _lines_taken(record)
        cells.lines, cells.offsets = lines, offsets

    def _problem(self, record: list[str]) -> str | None:
        if record and len(record) != len(self.header):
            cells = "1 cell" if len(record) == 1 else f"{len(record)} cells"
            return f"has {cells}, the header has {len(self.header)}"
        return _bad_text(record) if self._odd else None


def _lines_taken(record: list[str]) -> int:
    """How many lines of the file a record takes: one, and one for every line end inside quotes."""
    text = "\0".join(record)
    return 1 + len(_LINE_END.findall(text)) if "\n" in text or "\r" in text else 1


def _bad_text(record: list[str]) -> str | None:
    text = "".join(record)
    if "\0" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"is not UTF-8: byte 0x{ord(text[error.start]) - 0xDC00:02x}"
    return None


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class _Converter:
    """Turns records of text into rows.

    Attributes
    ----------
    fields, types : name and type of each column.
    nulls : texts that mean null.
    given : names of the columns whose type was given, not inferred.
    """

    fields: tuple[str, ...]
    types: list[CellType]
    nulls: frozenset[str]
    given: frozenset[str]
    delimiter: str

    def batch(self, cells: _Cells) -> RowBatch:
        """Convert by column; only a column with a bad cell is looked at cell by cell."""
        columns = list(zip(*cells.records, strict=True))
        values: list[list[Any]] = []
        bad: dict[int, str] = {}
        for name, kind, column in zip(self.fields, self.types, columns, strict=False):
            converted = with_nulls(kind, column, self.nulls)
            values.append(self._each(name, kind, column, bad) if converted is None else converted)
        rows = [dict(zip(self.fields, row, strict=True)) for row in zip(*values, strict=True)]
        batch = RowBatch(cells.item, rows, cells.lines, cells.offsets, len(rows) + len(cells.bad))
        if bad or cells.bad:
            self._set_aside(batch, cells, bad)
        return batch

    def _each(self, name: str, kind: CellType, column: Sequence[str], bad: dict[int, str]) -> list[Any]:
        values: list[Any] = []
        for index, cell in enumerate(column):
            try:
                values.append(None if cell in self.nulls else kind.cell(cell))
            except ValueError:
                values.append(None)
                bad.setdefault(index, self._reason(name, kind, cell))
        return values

    def _reason(self, name: str, kind: CellType, cell: str) -> str:
        shown = repr(cell if len(cell) <= 40 else cell[:40] + "…")
        if name in self.given:
            return f"column {name!r}: {shown} is not {kind.name}, as --schema says"
        return (
            f"column {name!r}: {shown} is not {kind.name}, as the first {_HEAD_RECORDS:,} records are;"
            " --no-infer keeps all columns as text, --schema gives their types"
        )

    def _set_aside(self, batch: RowBatch, cells: _Cells, bad: dict[int, str]) -> None:
        """Move the rows at the indices *bad* to the rejects, and keep these in the file's order."""
        rejects = dict(cells.bad)
        for index, reason in bad.items():
            text = clip(self.delimiter.join(cells.records[index]))
            rejects[cells.offsets[index]] = Reject(batch.where(index), reason, record=text)
        kept = [index for index in range(len(batch.rows)) if index not in bad]
        batch.rows = [batch.rows[index] for index in kept]
        batch.lines = [cells.lines[index] for index in kept]
        batch.offsets = [cells.offsets[index] for index in kept]
        batch.rejects = [rejects[offset] for offset in sorted(rejects)]
