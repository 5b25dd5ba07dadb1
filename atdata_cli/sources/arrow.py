"""Parquet files, Arrow IPC files and Arrow IPC streams, read batch by batch."""

from __future__ import annotations

import contextlib
import functools
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from atdata_cli.errors import AtdataError, DataError, MissingExtraError, UsageError, from_os_error
from atdata_cli.sources.base import Files, InputFile, PackedBatch, Reject, RowBatch
from atdata_cli.sources.pieces import Cuts, RowPiece, Slice
from atdata_cli.sources.rows import BATCH_ROWS, BLOCK, RowFiles
from atdata_cli.sources.stream import Meter, is_compressed, is_stream

if TYPE_CHECKING:
    import pyarrow as pa

    from atdata_cli.samples.records import RecordType

__all__ = ["ArrowSource", "ParquetSource"]

_READ_BUFFER = 1 << 20  # bytes a column; without it pyarrow holds whole column chunks
_FILE_MAGIC = b"ARROW1"
_PIECES_OF_GROUP = 4  # at most


class _Columnar(RowFiles):
    """What Parquet and Arrow share.

    Parameters
    ----------
    files, inputs : see :class:`~atdata_cli.sources.rows.RowFiles`. All files need the same column names.
    columns : the columns to read, in this order; None for all.
    """

    packs = True
    _format: str

    def __init__(self, files: Files, inputs: Sequence[InputFile], *, columns: Sequence[str] | None = None) -> None:
        super().__init__(files, inputs)
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            url = self.inputs[0].url
            raise MissingExtraError(f"reading {self._format}", extra="parquet", url=url) from error
        self._columns = None if columns is None else list(columns)

    def _select(self, schema: pa.Schema, item: InputFile) -> tuple[str, ...]:
        """The columns to read, in order.

        Raises
        ------
        DataError : two columns have the same name.
        UsageError : a wanted column is not there.
        """
        names: list[str] = schema.names
        double = [name for name, times in Counter(names).items() if times > 1]
        if double:
            raise DataError(
                f"several columns are named {', '.join(double)}",
                url=item.url,
                hint="rename them, or choose with --fields",
            )
        missing = [name for name in self._columns or () if name not in names]
        if missing:
            raise UsageError(f"no column {missing[0]!r}", url=item.url, hint=f"columns: {', '.join(names)}")
        return tuple(names if self._columns is None else self._columns)

    def _check_same(self, found: tuple[str, ...], item: InputFile) -> None:
        if self._columns is not None or set(found) == set(self.fields or ()):
            return
        missing = [name for name in self.fields or () if name not in found]
        added = [name for name in found if name not in (self.fields or ())]
        said = [f"it lacks {', '.join(missing)}"] if missing else []
        said += [f"it adds {', '.join(added)}"] if added else []
        raise DataError(
            f"its columns differ from those of {self.inputs[0].url}: {' and '.join(said)}",
            url=item.url,
            hint="read files with other columns apart, or name the common ones: --fields NAME,NAME",
        )


@contextlib.contextmanager
def _errors(item: InputFile, kind: str) -> Iterator[None]:
    """Turn pyarrow's errors into ours."""
    import pyarrow as pa

    try:
        yield
    except AtdataError as error:
        error.url = error.url or item.url
        raise
    except pa.ArrowException as error:
        raise _corrupt(item, kind, error) from error
    except OSError as error:
        # pyarrow raises it for corrupt pages, too, but then without a number.
        if error.errno is None and not isinstance(error, TimeoutError | ConnectionError):
            raise _corrupt(item, kind, error) from error
        raise from_os_error(error, item.url, doing="read") from error


def _check_seekable(handle: BinaryIO, item: InputFile, kind: str) -> None:
    """Raise if *handle* can only be read from the first byte on, as from a web server without ranges."""
    if not handle.seekable():
        raise UsageError(
            f"{kind} cannot be read in one pass, and its server sends no ranges: the index is at the end of the file",
            url=item.url,
            hint="download it first, and name the file",
        )


def _corrupt(item: InputFile, kind: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:300]
    return DataError(f"cannot be read as {kind}: {reason}", url=item.url, hint="is it whole? make or fetch it again")


def _rows(
    batch: pa.RecordBatch, fields: Sequence[str], item: InputFile, first: int, record_type: RecordType | None
) -> RowBatch | PackedBatch:
    """Convert one record batch, whose first row is number *first* of the file, 1-based."""
    from atdata_cli.sources.arrowvalues import Problems, column_values

    bad: dict[int, str] = {}
    columns: list[list[Any]] = []
    for name in fields:
        problems: Problems = {}
        try:
            columns.append(column_values(batch.column(batch.schema.get_field_index(name)), problems))
        except DataError as error:
            error.message = f"column {name!r}: {error.message}"
            error.args = (error.message,)
            raise
        for index, reason in problems.items():
            bad.setdefault(index, f"column {name!r} {reason}")
    count = batch.num_rows
    if record_type is not None and count and not bad:
        return PackedBatch(record_type.pack(record_type.records(columns)), columns, first)
    values = zip(*columns, strict=True) if columns else iter([()] * count)
    rows = [dict(zip(fields, row, strict=True)) for row in values]
    if not bad:
        return RowBatch(item, rows, range(first, first + count), range(count), count)
    kept = [index for index in range(count) if index not in bad]
    rejects = [Reject(f"{item.url}:{first + index}", bad[index]) for index in sorted(bad)]
    return RowBatch(item, [rows[i] for i in kept], [first + i for i in kept], kept, count, rejects)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Slices of at most 1,000 rows and about 0.5 MiB."""
    each = max(1, min(BATCH_ROWS, BLOCK * batch.num_rows // max(1, _size(batch))))
    for start in range(0, batch.num_rows, each):
        yield batch.slice(start, each)


def _size(batch: pa.RecordBatch) -> int:
    import pyarrow as pa

    try:
        return int(batch.nbytes)
    except pa.ArrowTypeError:  # before pyarrow 24 that of string views is not known
        return int(batch.get_total_buffer_size())


class ParquetSource(_Columnar):
    """Rows of Parquet files. They need to be seekable."""

    _format = "Parquet"

    def __init__(self, files: Files, inputs: Sequence[InputFile], *, columns: Sequence[str] | None = None) -> None:
        super().__init__(files, inputs, columns=columns)
        if stream := next((item for item in self.inputs if is_stream(item)), None):
            raise UsageError(
                "Parquet cannot be read from a stream: its index is at the end of the file",
                url=stream.url,
                hint="write it to a file first, and name the file",
            )

    @contextlib.contextmanager
    def _parquet(self, item: InputFile) -> Iterator[Any]:
        import pyarrow.parquet as pq

        with _errors(item, self._format), self.files.open(item.url) as handle:
            _check_seekable(handle, item, self._format)
            file = pq.ParquetFile(handle, pre_buffer=False, buffer_size=_READ_BUFFER)
            yield file

    @functools.cached_property
    def fields(self) -> tuple[str, ...]:  # type: ignore[override]
        """The columns that are read."""
        with self._parquet(self.inputs[0]) as file:
            return self._select(file.schema_arrow, self.inputs[0])

    def count(self) -> int:
        """How many rows the files' metadata tell."""
        total = 0
        for item in self.inputs:
            with self._parquet(item) as file:
                total += file.metadata.num_rows
        return total

    def pieces(self, quota: Callable[[int], float], size: int) -> Iterator[RowPiece]:
        """See :class:`~atdata_cli.sources.base.RowSource`.

        A piece ends with the shard that ends in the next row group: to skip rows, those before them in their group
        must be decoded. Large groups are divided nevertheless, into a few pieces: decoding is the least of the work.
        """
        cuts = Cuts(quota)
        slices: list[Slice] = []
        held = 0.0
        due = False
        for item in self.inputs:
            start = at = 0
            for rows, each in self._ends(item, size):
                while cuts.left <= rows - at:
                    taken = int(cuts.left)
                    at += taken
                    held += taken * each
                    cuts.take(taken)
                    cuts.next_shard()
                    if held >= size and (due or at == rows):
                        slices.append(Slice(item, start, at, start + 1))
                        yield cuts.piece(self.part(slices), int(held))
                        start, slices, held, due = at, [], 0.0, False
                cuts.take(rows - at)
                held += (rows - at) * each
                at, due = rows, True
            if start < at:
                slices.append(Slice(item, start, at, start + 1))
        if cuts.begun:
            yield cuts.piece(self.part(slices), int(held))

    def _ends(self, item: InputFile, size: int) -> Iterator[tuple[int, float]]:
        """Row numbers near which pieces may end, each with the bytes of a row before it."""
        with self._parquet(item) as file:
            columns = _leaf_columns(file, set(self.fields))
            at = 0
            for index in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(index)
                total = sum(group.column(column).total_uncompressed_size for column in columns)
                count = min(_PIECES_OF_GROUP, 1 + total // max(size, 1))
                each = total / max(1, group.num_rows)
                yield from ((at + group.num_rows * part // count, each) for part in range(1, count + 1))
                at += group.num_rows

    def _read(self) -> Iterator[RowBatch | PackedBatch]:
        meter = self._meter = Meter()
        for part in self.slices:
            item, before = part.item, meter.bytes
            with self._parquet(item) as file:
                names = self._select(file.schema_arrow, item)
                self._check_same(names, item)
                total = max(1, file.metadata.num_rows)
                stop = file.metadata.num_rows if part.stop is None else part.stop
                done = part.start
                for batch in self._record_batches(file, part.start, stop):
                    for piece in _pieces(batch):
                        rows = _rows(piece, self.fields, item, done + 1, self._record_type)
                        done += piece.num_rows
                        meter.bytes = before + (item.size or 0) * (done - part.start) // total
                        yield rows
            meter.bytes = before + (item.size or 0) * (stop - part.start) // total

    def _record_batches(self, file: Any, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """The rows from *start* to *stop*."""
        groups, skipped = _groups(file.metadata, start, stop)
        wanted = _leaf_columns(file, set(self.fields))
        size = _batch_size(file.metadata, wanted)
        at = skipped
        # One thread: the encoder's processes use the cores already, and read-ahead is memory.
        for batch in file.iter_batches(batch_size=size, row_groups=groups, columns=self._columns, use_threads=False):
            first, at = at, at + batch.num_rows
            if at > start and first < stop:
                begin = max(0, start - first)
                yield batch.slice(begin, min(stop, at) - first - begin)


def _groups(metadata: Any, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that have rows from *start* to *stop*, and how many rows come before these groups."""
    groups: list[int] = []
    at = skipped = 0
    for index in range(metadata.num_row_groups):
        first, at = at, at + metadata.row_group(index).num_rows
        if at <= start:
            skipped = at
        elif first < stop:
            groups.append(index)
    return groups, skipped


def _leaf_columns(file: Any, wanted: set[str]) -> list[int]:
    """Indices of the leaves in the file that the wanted top-level columns consist of."""
    leaves = file.schema
    return [index for index in range(len(leaves)) if _top(leaves.column(index).path, wanted)]


def _top(path: str, wanted: set[str]) -> bool:
    return path in wanted or path.split(".", 1)[0] in wanted


def _batch_size(metadata: Any, columns: list[int]) -> int:
    """Rows that make about 0.5 MiB in the row group with the largest ones."""
    largest = 1
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        size = sum(group.column(column).total_uncompressed_size for column in columns)
        largest = max(largest, size // max(1, group.num_rows))
    return max(1, min(BATCH_ROWS, BLOCK // largest))


class ArrowSource(_Columnar):
    """Rows of Arrow IPC files (Feather 2) and streams; streams may be compressed, or standard input."""

    _format = "Arrow"

    @functools.cached_property
    def fields(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """The columns that are read; None for a stream."""
        if not self.rewindable:
            return None if self._columns is None else tuple(self._columns)
        with self._reader(self.inputs[0], Meter()) as reader:
            return self._select(reader.schema, self.inputs[0])

    @contextlib.contextmanager
    def _reader(self, item: InputFile, meter: Meter) -> Iterator[Any]:
        """A reader with ``schema``; of a file if it has ``get_batch``, else of a stream."""
        import pyarrow.ipc

        with _errors(item, self._format), contextlib.ExitStack() as stack:
            handle = stack.enter_context(self._open(item, meter))
            if not _is_arrow_file(handle):
                yield pyarrow.ipc.open_stream(handle)
            elif is_stream(item) or is_compressed(handle):
                raise UsageError(
                    "only an Arrow stream can be read from a stream or compressed, not an Arrow file:"
                    " its index is at the end",
                    url=item.url,
                    hint="write it to an uncompressed file first, or make a stream: pyarrow.ipc.new_stream",
                )
            else:
                whole = stack.enter_context(self.files.open(item.url))
                _check_seekable(whole, item, "an Arrow file")
                yield pyarrow.ipc.open_file(whole)

    def _read(self) -> Iterator[RowBatch | PackedBatch]:
        meter = self._meter = Meter()
        for item in self.inputs:
            before = meter.bytes
            with self._reader(item, meter) as reader:
                names = self._select(reader.schema, item)
                if self.fields is None:
                    self.__dict__["fields"] = names  # a stream's columns are known now
                self._check_same(names, item)
                done = 0
                for share, batch in _ipc_batches(reader):
                    for piece in _pieces(batch):
                        yield _rows(piece, self.fields or (), item, done + 1, self._record_type)
                        done += piece.num_rows
                    if share is not None:
                        meter.bytes = before + int((item.size or 0) * share)
            if item.size is not None:
                meter.bytes = before + item.size

    def count(self) -> int | None:
        """How many rows there are; None for a stream. Files tell, others are read once."""
        if not self.rewindable:
            return None
        return sum(map(self._count_file, self.inputs))

    def _count_file(self, item: InputFile) -> int:
        import pyarrow.dataset

        with _errors(item, self._format), self._open(item) as handle:
            if _is_arrow_file(handle) and not is_compressed(handle):
                with self.files.open(item.url) as file:
                    return int(pyarrow.dataset.IpcFileFormat().make_fragment(file).count_rows())
        with self._reader(item, Meter()) as reader:
            return sum(batch.num_rows for batch in reader)


def _is_arrow_file(handle: io.BufferedReader) -> bool:
    return handle.peek(len(_FILE_MAGIC)).startswith(_FILE_MAGIC)


def _ipc_batches(reader: Any) -> Iterator[tuple[float | None, pa.RecordBatch]]:
    """The record batches, checked, with the share of the file that is read after each, if it is known."""
    if hasattr(reader, "get_batch"):
        total = reader.num_record_batches
        numbered = ((index / total, reader.get_batch(index - 1)) for index in range(1, total + 1))
    else:
        numbered = ((None, batch) for batch in reader)
    for share, batch in numbered:
        # Offsets in the file are used as they are: wrong ones would read outside the buffers.
        batch.validate(full=True)
        yield share, batch
