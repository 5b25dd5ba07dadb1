"""JSON Lines: one JSON object a line (https://jsonlines.org), in UTF-8."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from atdata_cli.sources.base import InputFile, PackedBatch, Reject, Row, RowBatch
from atdata_cli.sources.rows import BATCH_ROWS, LineFiles, clip, count_lines, line_blocks
from atdata_cli.sources.stream import Meter

__all__ = ["JsonlSource"]

# orjson turns an integer beyond 64 bits into a float and says nothing. Only a row with 20 digits one after
# another, or a minus and 19, can hold one. To make every digit a 0 and look for 20 of them beats a regex.
_SHAPE = bytes(48 if 48 <= code < 58 else code if code in b"-." else 32 for code in range(256))
_POSITIVE = b"0" * 20
_NEGATIVE = b"-" + b"0" * 19
_LONG = re.compile(rb"-[0-9]{19}|(?<![.0-9])[0-9]{20}")
_NO_NUMBER = re.compile(r"-?(NaN|Infinity)")
_LINE_ENDS = (b"\n", b"\r\n")
_INT64_MIN, _UINT64_MAX = -(2**63), 2**64 - 1


class JsonlSource(LineFiles):
    """Rows of ``.jsonl`` files, plain or compressed.

    Blank lines are no records. Of two equal names in one object the last wins, as with Python's json.
    Rejected: what is no JSON (``NaN`` and ``Infinity`` are none), what is no object, integers beyond 64 bits.
    """

    packs = True

    def _read(self) -> Iterator[RowBatch | PackedBatch]:
        meter = self._meter = Meter()
        for part in self.slices:
            item, first = part.item, part.line
            with self._open_slice(part, meter) as reader:
                for block in line_blocks(reader, item, first=not part.start):
                    packed = self._packed(block, first, checked=part.checked)
                    if packed is not None:
                        first += len(packed.payloads)
                        yield packed
                        continue
                    lines = block.split(b"\n")
                    if not lines[-1]:
                        lines.pop()
                    exact = not may_hold_long_integers(block)
                    for start in range(0, len(lines), BATCH_ROWS):
                        yield parse_lines(item, lines[start : start + BATCH_ROWS], first + start, exact=exact)
                    first += len(lines)

    def _packed(self, block: bytes, first: int, *, checked: bool) -> PackedBatch | None:
        """The records of a block, packed, if all are good and have the known fields."""
        if self._record_type is None:
            return None
        from atdata_cli.samples.records import UNREADABLE

        lines = count_lines(block)
        if not checked and not self._are_objects(block, lines):
            return None
        try:
            records = self._record_type.decode(block)
            payloads = self._record_type.pack(records)
        except UNREADABLE:
            return None  # read once more, line by line, which tells what is wrong with which
        if len(records) != lines:
            return None
        return PackedBatch(payloads, self._record_type.columns(records), first)

    def count(self) -> int | None:
        """How many lines are not blank; None for a stream. Reads everything, hardly slower than the disk."""
        if not self.rewindable:
            return None
        return sum(map(self._count_file, self.inputs))

    def _count_file(self, item: InputFile) -> int:
        with self._open(item) as reader:
            return sum(map(self._count_block, line_blocks(reader, item)))

    def _are_objects(self, block: bytes, lines: int) -> bool:
        """Whether each line begins with ``{`` and ends with ``}``.

        A decoder that minds no line feeds takes two objects on one line, and one object on two. But here no line ends
        inside an object: what follows a ``}`` there is never a ``{``, and no text holds a line feed. So as many
        objects as lines are one a line; more are two on one.
        """
        return any(
            block.startswith(b"{")
            and block.endswith((b"}" + end, b"}"))
            and block.count(b"}" + end + b"{") == lines - 1
            for end in _LINE_ENDS
        )

    def _records(self, block: bytes, start: int, lines: int) -> int:
        # If as many lines begin with a brace as there are lines, none is blank.
        if block.count(b"\n{", start) + block.startswith(b"{", start) == lines:
            return lines
        return sum(1 for line in block[start:].split(b"\n") if line.strip())

    @staticmethod
    def _is_blank(line: bytes) -> bool:
        return not line.strip()


def may_hold_long_integers(block: bytes) -> bool:
    """Whether a JSON text may hold an integer beyond 64 bits. Long decimal fractions do not count."""
    shape = block.translate(_SHAPE)
    if _NEGATIVE in shape:
        return True
    at = shape.find(_POSITIVE)
    while at >= 0:
        # ``find`` gives the start of a run of digits, or, after a fraction, the middle of one.
        if shape[at - 1 : at] not in (b".", b"0"):
            return True
        at = shape.find(_POSITIVE, at + len(_POSITIVE))
    return False


def parse_lines(item: InputFile, lines: Sequence[bytes], first: int, *, exact: bool) -> RowBatch:
    """The batch that some consecutive lines make.

    Parameters
    ----------
    item : the file they are from.
    lines : without line feeds.
    first : number of the first line, 1-based.
    exact : no line holds an integer beyond 64 bits.
    """
    if exact:
        try:
            rows = list(map(orjson.loads, lines))
        except orjson.JSONDecodeError:
            rows = []
        if set(map(type, rows)) == {dict}:
            return RowBatch(item, rows, range(first, first + len(rows)), range(len(rows)), len(rows))
    return _parse_each(item, lines, first)


def _parse_each(item: InputFile, lines: Sequence[bytes], first: int) -> RowBatch:
    """As :func:`parse_lines`, line by line: skips blank ones and finds out which are bad, and why."""
    rows: list[Row] = []
    numbers: list[int] = []
    offsets: list[int] = []
    rejects: list[Reject] = []
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        reason, row = _parse_line(line)
        if reason is None:
            offsets.append(len(rows) + len(rejects))
            numbers.append(number)
            rows.append(row)
        else:
            text = clip(line.rstrip(b"\r").decode("utf-8", "replace"))
            rejects.append(Reject(f"{item.url}:{number}", reason, record=text))
    return RowBatch(item, rows, numbers, offsets, len(rows) + len(rejects), rejects)


_KINDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false"}


def _parse_line(line: bytes) -> tuple[str | None, Row]:
    """Why a line is no row, or None and the row."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _why_no_json(line, error), {}
    if type(row) is not dict:
        return f'not an object but {_KINDS.get(type(row), "null")}: a row has the form {{"name": value}}', {}
    if _LONG.search(line) and (number := _integer_beyond_64_bits(line)):
        return f"integer beyond 64 bits: {number}; write it as text", {}
    return None, row


def _why_no_json(line: bytes, error: json.JSONDecodeError) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as bad:
        return f"not UTF-8: byte 0x{line[bad.start]:02x} at byte {bad.start + 1} of the line"
    sign = error.doc.startswith("-", max(0, error.pos - 1))
    if literal := _NO_NUMBER.match(error.doc, error.pos - sign):
        return f"not JSON: {literal[0]} at column {error.colno - sign}; write null"
    return f"not JSON: {error.msg} at column {error.colno}"


class _BeyondError(Exception):
    """An integer that needs more than 64 bits; its text is the argument."""


def _parse_int(text: str) -> int:
    # ``int`` refuses very long texts, and is slow on long ones.
    if len(text) > 20 or not _INT64_MIN <= int(text) <= _UINT64_MAX:
        raise _BeyondError(text)
    return int(text)


def _integer_beyond_64_bits(line: bytes) -> str | None:
    """The first integer beyond 64 bits in a line that is JSON, shortened."""
    decode: Any = json.loads
    try:
        decode(line, parse_int=_parse_int)
    except _BeyondError as beyond:
        text = str(beyond)
        return text if len(text) <= 40 else f"{text[:20]}… ({len(text)} digits)"
    except RecursionError:
        # Between its depth limit and orjson's. Nothing reads samples that deep, so it may as well be refused.
        return "unknown, nested too deep to check"
    return None
