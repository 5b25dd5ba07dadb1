"""MessagePack streams: maps, one after the other (https://github.com/msgpack/msgpack/blob/master/spec.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack

from atdata_cli.errors import DataError
from atdata_cli.sources.base import InputFile, Reject, Row, RowBatch
from atdata_cli.sources.rows import BATCH_ROWS, BLOCK, MAX_ROW, RowFiles, clip
from atdata_cli.sources.stream import Meter

__all__ = ["MsgpackSource"]

# How the three forms of a timestamp begin. The unpacker turns these into objects without asking its ext_hook.
_TIMESTAMPS = (b"\xd6\xff", b"\xd7\xff", b"\xc7\x0c\xff")


class MsgpackSource(RowFiles):
    """Rows of msgpack files, plain or compressed: each a map whose names are texts.

    Rejected: what is no map, extension types (timestamps are one), names that are no text, text that is not
    UTF-8. A record's line is its number in the file.
    """

    def _read(self) -> Iterator[RowBatch]:
        meter = self._meter = Meter()
        for item in self.inputs:
            with self._open(item, meter) as reader:
                blocks = _Blocks(item)
                # A record that is not complete is parsed anew with twice the data, so long ones stay linear.
                while chunk := reader.read(max(BLOCK, len(blocks.data))):
                    yield from blocks.feed(chunk)
                blocks.end()

    def count(self) -> None:
        """None: only a full read tells."""
        return


class _Blocks:
    """The state between two blocks of a file: what the next record begins with, and where."""

    def __init__(self, item: InputFile) -> None:
        self._item = item
        self._records = 0
        self._offset = 0
        self.data = b""

    def feed(self, chunk: bytes) -> Iterator[RowBatch]:
        """Take the next bytes of the file; gives the records that are complete."""
        self.data += chunk
        used = 0
        batch = self._new_batch()
        for record, end in _records(self.data, self._offset, self._item):
            used = end
            self._records += 1
            self._add(batch, record)
            if batch.records == BATCH_ROWS:
                yield batch
                batch = self._new_batch()
        if batch.records:
            yield batch
        self.data = self.data[used:]
        self._offset += used
        if len(self.data) > MAX_ROW:
            raise DataError(f"the record at byte {self._offset:,} has over {MAX_ROW >> 20} MiB", url=self._item.url)

    def _new_batch(self) -> RowBatch:
        return RowBatch(self._item, [], [], [], 0)

    def _add(self, batch: RowBatch, record: Row | _Bad) -> None:
        if isinstance(record, _Bad):
            where = f"{self._item.url}:{self._records}"
            batch.rejects.append(Reject(where, record.reason, record=record.text))
        else:
            batch.rows.append(record)
            batch.lines.append(self._records)  # type: ignore[attr-defined]
            batch.offsets.append(batch.records)  # type: ignore[attr-defined]
        batch.records += 1

    def end(self) -> None:
        """The file ends here."""
        if self.data:
            raise DataError(
                f"it is truncated: the record that begins at byte {self._offset:,} is not complete",
                url=self._item.url,
                hint="make or fetch it again",
            )


class _Bad:
    """A record that is no row."""

    def __init__(self, reason: str, value: Any = None) -> None:
        self.reason = reason
        self.text = None if value is None else clip(repr(value))


def _records(data: bytes, offset: int, item: InputFile) -> Iterator[tuple[Row | _Bad, int]]:
    """The complete records in *data*, which is at byte *offset* of the file, each with where it ends."""
    watch = _Watch(any(mark in data for mark in _TIMESTAMPS))
    unpacker = _unpacker(data, watch)
    at = 0
    try:
        for record in unpacker:
            at = unpacker.tell()
            yield watch.check(record), at
    except ValueError:  # also bad UTF-8, a name that is no text, nesting without end
        # An unpacker is of no use after an error, and does not say where the bad record ends.
        yield from _records_one_by_one(data, at, offset, item)


def _records_one_by_one(data: bytes, at: int, offset: int, item: InputFile) -> Iterator[tuple[Row | _Bad, int]]:
    """As :func:`_records`, from index *at* on, where records may be bad."""
    first = at
    skipper = msgpack.Unpacker(raw=True, strict_map_key=False, max_buffer_size=len(data))
    skipper.feed(memoryview(data)[first:])
    watch = _Watch(True)
    while True:
        try:
            skipper.skip()
        except msgpack.OutOfData:
            return
        except ValueError as error:
            raise DataError(
                f"no msgpack at byte {offset + at:,}: {error or type(error).__name__}",
                url=item.url,
                hint="is it a stream of msgpack maps, and complete?",
            ) from error
        start, at = at, first + skipper.tell()
        try:
            record = watch.check(_unpacker(data[start:at], watch).unpack())
        except ValueError as error:
            record = _Bad(_why(error))
        yield record, at


def _unpacker(data: bytes, watch: _Watch) -> msgpack.Unpacker:
    # No container has more items than there are bytes. Without these limits a head of five bytes makes the
    # unpacker allocate a list of four thousand million.
    size = len(data)
    unpacker = msgpack.Unpacker(
        raw=False,
        strict_map_key=True,
        max_buffer_size=max(size, 1),
        max_array_len=size,
        max_map_len=size,
        object_hook=watch.map,
        ext_hook=watch.extension,
    )
    unpacker.feed(data)
    return unpacker


def _why(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "holds text that is not UTF-8; write bytes as msgpack's bin type"
    if "map key" in str(error):
        return "holds a map with a name that is no text"
    return f"cannot be unpacked: {error or type(error).__name__}"


class _Watch:
    """Notices, while records are unpacked, whether one may hold something that is refused."""

    def __init__(self, timestamps: bool) -> None:
        self._timestamps = timestamps
        self._seen = False

    def map(self, value: dict[Any, Any]) -> dict[Any, Any]:
        # ``strict_map_key`` lets bytes pass.
        if bytes in set(map(type, value)):
            self._seen = True
        return value

    def extension(self, code: int, data: bytes) -> msgpack.ExtType:
        self._seen = True
        return msgpack.ExtType(code, data)

    def check(self, record: Any) -> Row | _Bad:
        """The record as it is if it is a row."""
        look, self._seen = self._seen or self._timestamps, False
        if type(record) is not dict:
            return _Bad(f"not a map but {type(record).__name__}", record)
        reason = _refused(record) if look else None
        return _Bad(reason, record) if reason else record


def _refused(record: Row) -> str | None:
    """Why a record that may hold something odd is refused, or None."""
    waiting: list[Any] = [record]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if bytes in set(map(type, value)):
                return "holds a map with a name that is no text"
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, msgpack.Timestamp):
            return "holds a msgpack timestamp; write times as ISO 8601 text"
        elif isinstance(value, msgpack.ExtType):
            return f"holds msgpack extension type {value.code}; write plain values"
    return None
