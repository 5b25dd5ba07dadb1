"""What all row sources share: inputs read one after the other, the position, blocks of whole lines."""

from __future__ import annotations

import copy
import io
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Self, cast

from atdata_cli.errors import DataError, UsageError, from_os_error
from atdata_cli.sources.base import Files, InputFile, PackedBatch, RowBatch, RowSource
from atdata_cli.sources.pieces import Cuts, RowPiece, Slice
from atdata_cli.sources.stream import CommandInput, Meter, is_compressed, is_stream, open_decompressed

if TYPE_CHECKING:
    from atdata_cli.samples.records import RecordType

__all__ = [
    "BATCH_ROWS",
    "BLOCK",
    "MAX_ROW",
    "LineFiles",
    "RowFiles",
    "clip",
    "count_lines",
    "drop_bom",
    "line_blocks",
]

BATCH_ROWS = 1000
BLOCK = 512 << 10
"""Input bytes that a batch holds, unless one row alone has more."""
MAX_ROW = 256 << 20
"""Bytes of a row beyond which the input is taken for something else, so that no input fills the memory."""
_BUFFER = 1 << 20
_MAX_TEXT = 10_000
_UTF8_BOM = b"\xef\xbb\xbf"


class RowFiles(RowSource):
    """A source of rows in files, which are read one after the other.

    Parameters
    ----------
    files : opens them.
    inputs : the files, in order; at least one. A stream among them makes the source not rewindable.

    Attributes
    ----------
    slices : what is read of them.
    packs : whether :meth:`packing` makes a difference.
    """

    packs = False

    def __init__(self, files: Files, inputs: Sequence[InputFile]) -> None:
        if not inputs:
            raise UsageError("no input files", hint="name files, folders or URLs")
        self.files = files
        self.inputs = tuple(inputs)
        self.slices = tuple(map(Slice, self.inputs))
        self.rewindable = not any(map(is_stream, self.inputs))
        self._meter = Meter()
        self._begun = False
        self._record_type: RecordType | None = None

    def batches(self) -> Iterator[RowBatch]:
        """The records in order, from the beginning.

        Raises
        ------
        UsageError : the input is a stream that has been read already.
        """
        if self._begun and not self.rewindable:
            raise UsageError(
                "standard input can be read only once",
                url="-",
                hint="write it to a file first, and name the file",
            )
        self._begun = True
        self._record_type = None
        return cast("Iterator[RowBatch]", self._read())  # there are no others before packing() says so

    def packing(self, rest: Iterator[RowBatch], fields: Sequence[str]) -> Iterator[RowBatch | PackedBatch]:
        """See :class:`~atdata_cli.sources.base.RowSource`."""
        if self.packs:
            from atdata_cli.samples.records import RecordType

            with suppress(ValueError):
                self._record_type = RecordType(fields)
        return rest

    @abstractmethod
    def _read(self) -> Iterator[RowBatch | PackedBatch]:
        """All batches of all inputs; a fresh iterator at each call.

        Packed ones come only while there is a ``_record_type``.
        """

    def position(self) -> int:
        """Input bytes consumed so far; compressed ones where the input is compressed."""
        return self._meter.bytes

    def finish(self) -> None:
        """Raise if the command whose output was read did not succeed."""
        if isinstance(self.files, CommandInput):
            self.files.finish()

    def found_types(self) -> Sequence[str] | None:
        """Names of the types that columns of text have, once they are known; None where values have types."""
        return None

    def take_types(self, names: Sequence[str]) -> None:
        """Use these types, from :meth:`found_types` of the same source elsewhere."""

    def part(self, slices: Sequence[Slice]) -> Self:
        """The same source, of which only some is read, and which can be sent to another process."""
        part = copy.copy(self)
        part.slices = tuple(slices)
        part.inputs = self.inputs[:1]
        part.__dict__.pop("files", None)  # whoever opens it has its own
        part._meter = Meter()
        part._begun = False
        part._record_type = None
        return part

    def _open(self, item: InputFile, meter: Meter | None = None) -> io.BufferedReader:
        return open_decompressed(self.files, item, meter)

    def _open_slice(self, part: Slice, meter: Meter) -> io.BufferedReader:
        """The bytes of a slice; a part of a file is of a plain one."""
        if part.whole:
            return self._open(part.item, meter)
        reader = self.files.open(part.item.url)
        reader.seek(part.start)
        size = (part.item.size or 0) if part.stop is None else part.stop
        return io.BufferedReader(_Part(reader, size - part.start, part.item.url, meter), _BUFFER)


class LineFiles(RowFiles):
    """Row files of which it can be told from the bytes where records begin, without reading these."""

    def pieces(self, quota: Callable[[int], float], size: int) -> Iterator[RowPiece]:
        """See :class:`~atdata_cli.sources.base.RowSource`. What cannot be cut is one last piece: the rest."""
        if not self.rewindable:
            return
        cuts = Cuts(quota)
        slices: list[Slice] = []
        held = 0
        for number, item in enumerate(self.inputs):
            start, line = 0, 1
            with self._open(item) as reader:
                for end in self._shard_ends(reader, item, cuts):
                    if end is None:
                        rest = [Slice(item, start, None, line), *map(Slice, self.inputs[number + 1 :])]
                        held += sum(part.item.size or 0 for part in rest) - start
                        yield cuts.piece(self.part([*slices, *rest]), held, rest=True)
                        return
                    if held + end.at - start >= size:
                        slices.append(Slice(item, start, end.at, line, end.checked))
                        yield cuts.piece(self.part(slices), held + end.at - start)
                        start, line, slices, held = end.at, end.line, [], 0
            slices.append(Slice(item, start, None, line))
            held += (item.size or 0) - start
        if cuts.begun:
            yield cuts.piece(self.part(slices), held)

    def _shard_ends(self, reader: io.BufferedReader, item: InputFile, cuts: Cuts) -> Iterator[_End | None]:
        """Where shards end in one file; None, last, if that cannot be told from somewhere on."""
        if is_compressed(reader):
            yield None
            return
        at = len(_UTF8_BOM) if reader.peek(len(_UTF8_BOM)).startswith(_UTF8_BOM) else 0
        line = 1
        checked = True
        for block in line_blocks(reader, item):
            pos = self._header_end(block) if line == 1 else 0
            if pos is None or not self._is_plain(block):
                yield None
                return
            line += block.count(b"\n", 0, pos)
            lines = count_lines(block, pos)
            after = line + lines - (not block.endswith(b"\n"))
            objects = not pos and self._are_objects(block, lines)
            left = lines if objects else self._records(block, pos, lines)
            checked = checked and objects
            while cuts.left <= left:
                wanted = int(cuts.left)
                dense = lines == left
                start, pos = pos, self._after(block, pos, wanted, dense=dense)
                line += wanted if dense else block.count(b"\n", start, pos)
                lines -= wanted  # where all lines are records; else only more than *left*
                left -= wanted
                cuts.take(wanted)
                cuts.next_shard()
                yield _End(at + pos, line, checked)
                checked = objects
            cuts.take(left)
            line = after
            at += len(block)

    def _count_block(self, block: bytes) -> int:
        """How many records there are in a block."""
        return self._records(block, 0, count_lines(block))

    def _header_end(self, block: bytes) -> int | None:
        """Where the first block's header ends; None if that cannot be told."""
        return 0

    def _is_plain(self, block: bytes) -> bool:
        """Whether every line is a record, or blank."""
        return True

    def _are_objects(self, block: bytes, lines: int) -> bool:
        """Whether each of the *lines* of a block looks like an object; False if that was not looked at."""
        return False

    @abstractmethod
    def _records(self, block: bytes, start: int, lines: int) -> int:
        """How many records there are in the *lines* of a block from *start* on."""

    @staticmethod
    @abstractmethod
    def _is_blank(line: bytes) -> bool:
        """Whether a line is no record."""

    def _after(self, block: bytes, start: int, records: int, *, dense: bool) -> int:
        """Where the line after some records begins; *dense* if no line is blank."""
        while records:
            end = block.find(b"\n", start) + 1 or len(block)
            records -= dense or not self._is_blank(block[start:end])
            start = end
        return start


def count_lines(block: bytes, start: int = 0) -> int:
    """How many lines there are from *start* on; the last one may lack its end."""
    if start:
        block = block[start:]
    # To take line feeds out, Python looks for them with memchr; count() looks at every byte, in twice the time.
    ended = len(block) - len(block.replace(b"\n", b""))
    return ended + (len(block) > 0 and not block.endswith(b"\n"))


class _End(NamedTuple):
    """The end of a shard in a file: byte, number of the line that begins there, and :attr:`.pieces.Slice.checked`."""

    at: int
    line: int
    checked: bool


class _Part(io.RawIOBase):
    """Some bytes of a file, from where it stands."""

    def __init__(self, inner: BinaryIO, size: int, url: str, meter: Meter) -> None:
        self._inner = inner
        self._left = size
        self._url = url
        self._meter = meter

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any, /) -> int:
        view = memoryview(target).cast("B")[: self._left]
        try:
            count: int = self._inner.readinto(view)  # type: ignore[attr-defined]
        except OSError as error:
            raise from_os_error(error, self._url, doing="read") from error
        self._left -= count
        self._meter.bytes += count
        return count

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._inner.close()


def drop_bom(block: bytes, item: InputFile) -> bytes:
    """The first block of a text file without its UTF-8 byte order mark.

    Raises
    ------
    DataError : it is UTF-16 or UTF-32, as spreadsheets like to export.
    """
    if block.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(
            "it is UTF-16 text, not UTF-8",
            url=item.url,
            hint="convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW",
        )
    return block.removeprefix(_UTF8_BOM)


def line_blocks(reader: io.BufferedReader, item: InputFile, *, first: bool = True) -> Iterator[bytes]:
    """Blocks of about :data:`BLOCK` bytes that end after a line feed; a line that is longer comes alone.

    The last block may lack the line feed. A byte order mark is dropped where the file begins, which is where *first*
    says so.

    Raises
    ------
    DataError : a line is longer than :data:`MAX_ROW`, or the text is UTF-16.
    """
    begun: list[bytes] = []  # the pieces of a line whose end is still to come
    held = 0
    chunk = reader.read(BLOCK)
    if first:
        chunk = drop_bom(chunk, item)
    while chunk:
        if held >= BLOCK and (end := chunk.find(b"\n") + 1):
            yield b"".join((*begun, chunk[:end]))
            begun, held, chunk = [], 0, chunk[end:]
        if end := chunk.rfind(b"\n") + 1:
            yield b"".join((*begun, chunk[:end]))
            begun, held, chunk = [], 0, chunk[end:]
        begun.append(chunk)
        held += len(chunk)
        if held > MAX_ROW:
            raise DataError(
                f"a line is longer than {MAX_ROW >> 20} MiB: is it one record a line?",
                url=item.url,
                hint="--from names the format",
            )
        chunk = reader.read(BLOCK)
    if held:
        yield b"".join(begun)


def clip(text: str) -> str:
    """A record's text for a reject, cut to a length that a report can hold."""
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"
