"""What all row sources share: inputs read one after the other, the position, blocks of whole lines."""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Iterator, Sequence

from atdata_cli.errors import DataError, UsageError
from atdata_cli.sources.base import Files, InputFile, RowBatch, RowSource
from atdata_cli.sources.stream import CommandInput, Meter, is_stream, open_decompressed

__all__ = ["BATCH_ROWS", "BLOCK", "MAX_ROW", "RowFiles", "clip", "drop_bom", "line_blocks"]

BATCH_ROWS = 1000
BLOCK = 512 << 10
"""Input bytes that a batch holds, unless one row alone has more."""
MAX_ROW = 256 << 20
"""Bytes of a row beyond which the input is taken for something else, so that no input fills the memory."""
_MAX_TEXT = 10_000
_UTF8_BOM = b"\xef\xbb\xbf"


class RowFiles(RowSource):
    """A source of rows in files, which are read one after the other.

    Parameters
    ----------
    files : opens them.
    inputs : the files, in order; at least one. A stream among them makes the source not rewindable.
    """

    def __init__(self, files: Files, inputs: Sequence[InputFile]) -> None:
        if not inputs:
            raise UsageError("no input files")
        self.files = files
        self.inputs = tuple(inputs)
        self.rewindable = not any(map(is_stream, self.inputs))
        self._meter = Meter()
        self._begun = False

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
        return self._read()

    @abstractmethod
    def _read(self) -> Iterator[RowBatch]:
        """All batches of all inputs; a fresh iterator at each call."""

    def position(self) -> int:
        """Input bytes consumed so far; compressed ones where the input is compressed."""
        return self._meter.bytes

    def finish(self) -> None:
        """Raise if the command whose output was read did not succeed."""
        if isinstance(self.files, CommandInput):
            self.files.finish()

    def _open(self, item: InputFile, meter: Meter | None = None) -> io.BufferedReader:
        return open_decompressed(self.files, item, meter)


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


def line_blocks(reader: io.BufferedReader, item: InputFile) -> Iterator[bytes]:
    """Blocks of about :data:`BLOCK` bytes that end after a line feed; a line that is longer comes alone.

    The last block may lack the line feed. A byte order mark is dropped.

    Raises
    ------
    DataError : a line is longer than :data:`MAX_ROW`, or the text is UTF-16.
    """
    begun: list[bytes] = []  # the pieces of a line whose end is still to come
    held = 0
    chunk = drop_bom(reader.read(BLOCK), item)
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
            raise DataError(f"a line is longer than {MAX_ROW >> 20} MiB: is it one record a line?", url=item.url)
        chunk = reader.read(BLOCK)
    if held:
        yield b"".join(begun)


def clip(text: str) -> str:
    """A record's text for a reject, cut to a length that a report can hold."""
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"
