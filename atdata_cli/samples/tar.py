"""Reading the tar container: members with their offsets, from any stream, fast, and without trust.

Formats: POSIX ustar and pax (https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html), GNU tar
(https://www.gnu.org/software/tar/manual/html_node/Standard.html) and Version 7. Nothing is unpacked here.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, Literal, NamedTuple, NoReturn

from atdata_cli.errors import IntegrityError, from_os_error

__all__ = ["BLOCK", "Damage", "Kind", "Member", "Run", "TarDamage", "TarReader", "archive_bytes", "is_header", "padded"]

BLOCK = 512
_ZEROS = bytes(BLOCK)
_ENDS = b"\0 "  # what ends a number
# After a jump only this part is read ahead, as another jump may follow; reads then double up to the full size.
_AFTER_JUMP = 32
# Names and pax records are read into memory; writers make a few hundred bytes, attributes at most some 100
# KB.
_LARGEST_EXTENSION = 1 << 20
_LARGEST_SIZE = (1 << 63) - 1
# Magic and version of POSIX and of GNU headers, and where in a header they are.
_MAGIC = re.compile(rb"ustar(?:\x0000|  \x00)")
_MAGIC_AT = 257
_IN_EXTENDED = "the file ends inside an extended header"

# A header as a scan sees it: name, numbers (mode, owner, size, time), checksum, and what is the same in most of a tar.
_HEADER = struct.Struct("100s48s8s356s")
_NAME_BYTES, _REST_AT = 100, 156
# A run is worth its trouble from here on; after a shorter one so many members are taken one by one.
_SHORTEST_RUN = 16
_ONE_BY_ONE = 64
_MOST_KNOWN = 8192
# So far a header is looked for where one may be: members that take a scan long are small.
_NEAR = 1 << 20

RECORD = 20 * BLOCK  # what archives are padded to, by POSIX and by everyone

Kind = Literal["file", "folder", "hardlink", "symlink", "other"]

_FILE = ord("0")
_KINDS: dict[int, Kind] = {
    _FILE: "file",
    0: "file",
    ord("7"): "file",  # contiguous: a file to all but one historic system
    ord("5"): "folder",
    ord("1"): "hardlink",
    ord("2"): "symlink",
}
# Of these kinds a size says nothing about payload: no blocks follow the header (links, devices, folders,
# fifos).
_WITHOUT_PAYLOAD = frozenset(b"123456")
_EXTENSIONS = frozenset(b"xXgLK")
_REFUSED = {
    ord("S"): "a sparse file",
    ord("M"): "the continuation of a file from another volume",
}


def padded(size: int) -> int:
    """Bytes that a payload of *size* bytes takes in a tar."""
    return -(-size // BLOCK) * BLOCK


def archive_bytes(members: int) -> int:
    """Bytes of a tar whose members (headers, payloads and padding) take *members* bytes."""
    return -(-(members + 2 * BLOCK) // RECORD) * RECORD


class Member(NamedTuple):
    """One member of a tar.

    Attributes
    ----------
    name : as stored, without leading ``./``; bytes that are not UTF-8 are surrogate escapes.
    size : bytes of payload.
    offset : of the payload, in the uncompressed tar.
    header : offset of its first header block, extended headers included.
    kind : ``other`` is a device, a fifo or something that only its writer knows.
    """

    name: str
    size: int
    offset: int
    header: int
    kind: Kind


class Run(NamedTuple):
    """Plain files one after another, as a scan meets them.

    Attributes
    ----------
    names : one after another as in their headers: 100 bytes each, filled up with NUL. None begins with a dot.
    sizes : bytes of payload.
    """

    names: bytes
    sizes: Sequence[int]


Damage = Literal["not-a-tar", "bad-checksum", "bad-header", "empty-block", "no-end", "truncated"]


class TarDamage(IntegrityError):
    """A tar is damaged, and a reader may be able to go on behind it (:meth:`TarReader.resume`).

    Attributes
    ----------
    kind : ``bad-header`` has a right checksum and impossible content; ``empty-block`` is one in the middle.
    offset : of the first header of the member that is concerned, or of the damage.
    name : of the member that is concerned, as far as it can be read.
    block : where the search for the next member begins.
    detail : what is wrong, without what *kind* and *offset* say.
    """

    def __init__(
        self,
        message: str,
        *,
        detail: str,
        url: str,
        kind: Damage,
        offset: int,
        name: str | None,
        block: int,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, url=url, hint=hint)
        self.kind = kind
        self.offset = offset
        self.name = name
        self.block = block
        self.detail = detail


class TarReader:
    """Iterates once over the members of a tar; the current member's payload can be read, or is skipped.

    The stream is read in blocks ahead, so that small members cost no system calls. Memory is bounded by the
    block size, whatever the tar says. Payloads are never interpreted.

    Parameters
    ----------
    stream : at the tar's first byte.
    where : path or URL, for messages.
    seek : the stream can seek, and cheaply: large payloads are jumped over instead of read.
    block : bytes read at a time. The default stays in a processor's cache, which makes local reading three
        times as fast as a MiB does; where every read is a request, 4 MiB are better.
    total : bytes of the tar where they are known: a member that claims more is damage before it is read.
    peek : reads (offset, size) of the tar without moving the stream; helps to go on after damage.

    Attributes
    ----------
    end : offset of the end-of-archive marker, once it has been reached.

    Raises
    ------
    TarDamage : while iterating or reading: truncated, damaged, or no tar; names the byte offset and the member.
    """

    def __init__(
        self,
        stream: BinaryIO,
        *,
        where: str,
        seek: bool = False,
        block: int = 1 << 18,
        total: int | None = None,
        peek: Callable[[int, int], bytes] | None = None,
    ) -> None:
        self.where = where
        self.end: int | None = None
        self._stream = stream
        self._block = block
        self._read_ahead = block
        # The window: bytes of the tar from offset _start on. The stream stands at its end.
        self._data = b""
        self._start = 0
        self._member: Member | None = None
        self._next = 0  # offset of the next byte of the current payload that read() or open() gives
        self._origin = stream.tell() if seek else None
        self._total = total
        self._peek = peek
        self._extensions = _Extensions()
        self._plain = _PlainHeaders(b"")
        if self._origin is not None:
            self._total = stream.seek(0, io.SEEK_END) - self._origin
            stream.seek(self._origin)

    def position(self) -> int:
        """Bytes of the tar taken from the stream so far."""
        return self._start + len(self._data)

    def __iter__(self) -> Iterator[Member]:
        return self.members(0)

    def members(self, at: int) -> Iterator[Member]:
        """The members from the header at an offset on: 0, or what :meth:`resume` gave."""
        first = at
        extensions = self._extensions
        extended = bool(extensions)
        total = _LARGEST_SIZE if self._total is None else self._total
        while True:
            index = at - self._start
            header: bytes | None = self._data[index : index + BLOCK] if index >= 0 else b""
            if len(header) < BLOCK or not header[0]:  # type: ignore[arg-type, index]
                header = self._header(at)
                if header is None:
                    if extensions.pending:
                        self._fail(first, "an extended header without a member", "truncated")
                    self.end = at
                    return
            type_, name, size = self._parse(header, at)  # type: ignore[arg-type]
            at += BLOCK
            if type_ == _FILE and not extended and name[:1] != "." and at + size <= total:
                member = Member(name, size, at, first, "file")
            elif type_ in _EXTENSIONS:
                self._extend(extensions, type_, at, size)
                extended = True
                at += -(-size // BLOCK) * BLOCK
                continue
            else:
                if extended:
                    name, size = extensions.take(name, size)
                    extended = bool(extensions)
                member = self._as_member(type_, name, size, at, first)
            self._member = member
            self._next = at
            yield member
            first = at = at + -(-member.size // BLOCK) * BLOCK

    def runs(self, at: int = 0, stop: int | None = None) -> Iterator[Run | Member]:
        """The same members for a scan, three times as fast: plain ones together, all others one by one.

        Parameters
        ----------
        at : offset of the first header.
        stop : of members that begin here or later none is taken.
        """
        last = _LARGEST_SIZE if stop is None else stop
        while self.end is None and at < last:
            run, end = self._run(at, last)
            if run is not None:
                at = end
                yield run
                continue
            for member in islice(self.members(at), _ONE_BY_ONE):
                at = self.behind
                yield member
                if at >= last:
                    break

    @property
    def behind(self) -> int:
        """Offset behind the current member: the next one's header is there."""
        return 0 if self._member is None else self._member.offset + padded(self._member.size)

    @property
    def has_globals(self) -> bool:
        """Whether an extended header gave all members that follow a name or a size."""
        return bool(self._extensions)

    def header_near(self, at: int) -> int | None:
        """The first block from an offset on, and not far from it, that is a header by its checksum and magic."""
        for block in range(at, at + _NEAR, BLOCK):
            header = self._load(block, BLOCK)
            if _MAGIC.match(header, _MAGIC_AT) and _checksum_is_right(header):
                return block
        return None

    def _run(self, at: int, stop: int) -> tuple[Run | None, int]:
        """The plain files whose headers are in the window, and where the next member begins; None if they are few."""
        self._load(at, BLOCK)
        data, index = self._data, at - self._start
        if self._plain.rest != data[index + _REST_AT : index + BLOCK]:
            self._plain = _PlainHeaders(data[index + _REST_AT : index + BLOCK])
        names, sizes, index = self._plain.run(data, index, min(len(data) - BLOCK, stop - self._start - 1))
        end = self._start + index
        initials = names[::_NAME_BYTES]
        if len(sizes) < _SHORTEST_RUN or 0 in initials or ord(".") in initials or self._extensions:
            return None, at
        if self._total is not None and end > self._total:
            return None, at
        offset = end - padded(sizes[-1])
        name = str(names[-_NAME_BYTES:].partition(b"\0")[0], "utf-8", "surrogateescape")
        self._member = Member(name, sizes[-1], offset, offset - BLOCK, "file")
        self._next = offset
        return Run(names, sizes), end

    def read(self) -> bytes:
        """The current member's payload, or what is left of it."""
        member = self._member
        if member is None:
            return b""
        begin = self._next - self._start
        end = member.offset + member.size - self._start
        if end <= len(self._data):
            self._next = member.offset + member.size
            return self._data[begin:end]
        return b"".join(iter(lambda: self.take(1 << 23), b""))

    def open(self) -> BinaryIO:
        """A reader of the current member's payload, or of what is left of it; good until the next member."""
        return io.BufferedReader(_Payload(self), 1 << 16)

    def take(self, limit: int) -> bytes:
        """Up to *limit* next bytes of the current member's payload; empty at its end."""
        member = self._member
        if member is None or limit <= 0:
            return b""
        wanted = min(limit, member.offset + member.size - self._next)
        if wanted <= 0:
            return b""
        begin = self._next - self._start
        chunk = self._data[begin : begin + wanted]
        if not chunk:
            # Past the window: the stream stands exactly there. No read asks for more than is sure to be
            # payload.
            chunk = self._read_stream(wanted)
            if not chunk:
                self._truncated(self._next)
            self._data = b""
            self._start = self._next + len(chunk)
        self._next += len(chunk)
        return chunk

    def rest(self, at: int) -> Iterator[bytes]:
        """Everything from an offset on, which is not before the last header, to the end of the file."""
        while chunk := self._load(at, self._block):
            yield chunk
            at += len(chunk)

    def resume(self, damage: TarDamage) -> int | None:
        """Where to go on after *damage*: the offset of another header, or of the end; None if there is none.

        If the damaged header's size leads to one, that is it, so that a tar inside the member is not taken for
        members. Otherwise it is the next thing that looks like a header, wherever it begins: bytes may be missing.
        """
        self._extensions.forget()
        at = max(damage.block, self._start)
        try:
            return self._end_of(at) or self._find_header(at + 1)
        except TarDamage:  # the file ends before
            return None

    # --- headers ---

    def _end_of(self, at: int) -> int | None:
        """The end of the member at an offset, if its size can be believed."""
        header = self._load(at, BLOCK)
        try:
            size = _number(header[124:136]) if len(header) == BLOCK else -1
        except ValueError:
            return None
        end = at + BLOCK + -(-size // BLOCK) * BLOCK
        if size < 0 or size > _LARGEST_SIZE or (self._total is not None and end > self._total):
            return None
        if end == self._total:
            return end
        if self._peek is not None:
            around = self._peek(end - BLOCK, 2 * BLOCK)
        elif end - at <= 4 * self._block:
            around = self._load(at, end - at + BLOCK)[end - at - BLOCK :]
        else:
            return None
        # Empty blocks are nothing to go by inside a payload, or behind the end: only the first of them is.
        return end if is_header(around[BLOCK:]) and (any(around[BLOCK:]) or any(around[:BLOCK])) else None

    def _find_header(self, at: int) -> int | None:
        """The offset of the next header with magic and a right checksum."""
        while True:
            data = self._load(at, max(self._block, 2 * BLOCK))
            for magic in _MAGIC.finditer(data, _MAGIC_AT):
                begin = magic.start() - _MAGIC_AT
                header = data[begin : begin + BLOCK]
                if len(header) == BLOCK and _checksum_is_right(header):
                    return at + begin
            if len(data) < 2 * BLOCK:
                return None
            at += len(data) - BLOCK + 1

    def _header(self, at: int) -> bytes | None:
        """The header block at an offset, or None if the archive ends there."""
        index = at - self._start
        header = self._data[index : index + BLOCK] if index >= 0 else b""
        if len(header) < BLOCK:
            header = self._load(at, BLOCK)
        if len(header) == BLOCK:
            if header == _ZEROS:
                self._check_end(at)
                return None
            return header
        if at == 0:
            self._fail(at, "there is no header", "not-a-tar", label="not a tar file")
        if any(header):
            self._fail(at, "the file ends inside a header", "truncated", label="truncated")
        self._fail(at, "the file ends without the two empty blocks that end a tar", "no-end", label="truncated")

    def _check_end(self, at: int) -> None:
        # GNU tar warns of a lone empty block and stops there; it may as well be a hole that a crash left in
        # a file.
        if any(self._load(at + BLOCK, BLOCK)):
            self._fail(at, "an empty block with more data behind it: damaged, or two tars in one file", "empty-block")

    def _parse(self, header: bytes, at: int) -> tuple[int, str, int]:
        """Type, name and payload size as one header block gives them."""
        if not _checksum_is_right(header):
            if at == 0 and not _MAGIC.match(header, _MAGIC_AT):
                self._fail(at, "there is no header", "not-a-tar", label="not a tar file")
            self._fail(at, "bad header checksum", "bad-checksum", name=self._extensions.path or _name(header))
        digits = header[124:135]
        try:
            size = int(digits, 8) if digits.isdigit() and header[135] in _ENDS else _number(header[124:136])
        except ValueError:
            size = -1
        if size < 0 or size > _LARGEST_SIZE:
            self._fail(at, "a header with an impossible size", name=self._extensions.path or _name(header))
        if header[345]:
            return header[156], _name(header), size
        return header[156], str(header[:100].partition(b"\0")[0], "utf-8", "surrogateescape"), size

    def _as_member(self, type_: int, name: str, size: int, at: int, first: int) -> Member:
        if name[:2] == "./":
            name = _without_dots(name)
        kind = _KINDS.get(type_, "other")
        if kind == "file":
            if type_ == 0 and name[-1:] == "/":
                kind, size = "folder", 0  # Version 7 had no type for them
        elif type_ in _WITHOUT_PAYLOAD:
            size = 0
        elif type_ in _REFUSED:
            what = f"{_REFUSED[type_]} ({name!a}), which cannot be read: pack the tar anew"
            self._fail(first, what, name=name, block=at - BLOCK)
        if self._total is not None and at + size > self._total:
            self._member = Member(name, size, at, first, kind)
            self._truncated(self._total, block=at - BLOCK)
        return Member(name, size, at, first, kind)

    def _extend(self, extensions: _Extensions, type_: int, at: int, size: int) -> None:
        """Take in an extended header whose payload begins at *at*."""
        if size > _LARGEST_EXTENSION:
            self._fail(at - BLOCK, f"an extended header of {size} bytes")
        end = at + -(-size // BLOCK) * BLOCK
        payload = self._load(at, size)
        if len(payload) < size:
            self._fail(at + len(payload), _IN_EXTENDED, "truncated", label="truncated", block=end)
        try:
            extensions.add(type_, payload)
        except ValueError as error:
            # The member that it describes has no name or size that could be believed.
            self._fail(at - BLOCK, f"a bad extended header ({error})", block=end)

    # --- the window over the stream ---

    def _load(self, at: int, size: int) -> bytes:
        """The *size* bytes at an offset, fewer at the end of the file. Offsets only grow."""
        index = at - self._start
        if index > len(self._data):
            self._skip_to(at)
            index = 0
        if index + size > len(self._data):
            tail = self._data[index:]
            parts = [tail] if tail else []  # one part alone is not copied
            have = len(tail)
            while have < size:
                chunk = self._read_stream(max(self._read_ahead, size - have))
                if not chunk:
                    break
                parts.append(chunk)
                have += len(chunk)
            self._read_ahead = min(self._block, self._read_ahead * 2)
            self._data = b"".join(parts)
            self._start = at
            index = 0
        return self._data[index : index + size]

    def _skip_to(self, at: int) -> None:
        here = self._start + len(self._data)
        self._data = b""
        if self._origin is not None:
            self._seek(self._origin + at)
            self._read_ahead = self._block // _AFTER_JUMP
            here = at
        while here < at:
            skipped = len(self._read_stream(min(self._block, at - here)))
            if not skipped:
                self._truncated(here)
            here += skipped
        self._start = at

    def _read_stream(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except OSError as error:
            raise from_os_error(error, self.where, doing="read") from error

    def _seek(self, to: int) -> None:
        try:
            self._stream.seek(to)
        except OSError as error:
            raise from_os_error(error, self.where, doing="read") from error

    # --- what is wrong ---

    def _truncated(self, at: int, *, block: int | None = None) -> NoReturn:
        member = self._member
        if member is None:  # in the padding of an extended header
            self._fail(at, _IN_EXTENDED, "truncated", label="truncated")
        has = f"{member.size} bytes"
        raise TarDamage(
            f"truncated at byte {at}: member {member.name!a} at byte {member.header} has {has}",
            detail=f"the member {member.name!a} has {has}, the file ends at byte {at}",
            url=self.where,
            kind="truncated",
            offset=member.header,
            name=member.name,
            block=at if block is None else block,
            hint="fetch or make the file again",
        )

    def _fail(
        self,
        at: int,
        what: str,
        kind: Damage = "bad-header",
        *,
        label: str = "",
        name: str | None = None,
        block: int | None = None,
    ) -> NoReturn:
        """Raise; *label* says *kind* to those who are not told it otherwise."""
        after = f", after member {self._member.name!a}" if self._member else ""
        raise TarDamage(
            (f"{label}: " if label else "") + f"{what} at byte {at}{after}",
            detail=what + after,
            url=self.where,
            kind=kind,
            offset=at,
            name=name,
            block=at if block is None else block,
        )


class _Payload(io.RawIOBase):
    """The current payload of a reader as a raw stream."""

    def __init__(self, reader: TarReader) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._reader.take(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)


class _PlainHeaders(dict[bytes, tuple[int, int, int]]):
    """What a header's numbers say, given what follows them in it: each combination is worked out once.

    The values are the distance to the next header, the size, and the sum of all bytes but the name's. A header is
    plain if it is a regular file's, its numbers are the usual digits, and all of the name is in its own field.
    """

    def __init__(self, rest: bytes) -> None:
        self.rest = rest
        self._is_plain = len(rest) == BLOCK - _REST_AT and rest[0] == _FILE and not rest[345 - _REST_AT]
        self._sum = sum(rest) + 8 * 0x20
        self._checksums = _Checksums()

    def run(self, data: bytes, index: int, last: int) -> tuple[bytes, list[int], int]:
        """Names and sizes by the plain headers in *data* between two indexes, and the next header's index."""
        names = []
        sizes = []
        # A third of a microsecond a member, most of it for four objects and two calls: what is found by its name here
        # is not looked for in each round.
        unpack_from, adler32, checksums, same = _HEADER.unpack_from, zlib.adler32, self._checksums, self.rest
        while index <= last:
            name, numbers, checksum, rest = unpack_from(data, index)
            step, size, others = self[numbers]
            # The low half of Adler-32 is 1 + the sum of the bytes; those of a name stay below the modulus.
            if (adler32(name) & 0xFFFF) + others != checksums[checksum] or rest != same:
                break
            names.append(name)
            sizes.append(size)
            index += step
        return b"".join(names), sizes, index

    def __missing__(self, numbers: bytes) -> tuple[int, int, int]:
        if len(self) >= _MOST_KNOWN:
            self.clear()
        size = _octal(numbers[24:35]) if self._is_plain and numbers[35] in _ENDS else -1
        # A sum of 1 << 20 is no header's.
        found = (BLOCK + padded(size), size, self._sum + sum(numbers) - 1) if size >= 0 else (0, 0, 1 << 20)
        self[numbers] = found
        return found


class _Checksums(dict[bytes, int]):
    """What checksum fields say: -1 if that is not just six digits."""

    def __missing__(self, field: bytes) -> int:
        if len(self) >= _MOST_KNOWN:
            self.clear()
        self[field] = found = _octal(field[:6]) if field[6] in _ENDS else -1
        return found


def _octal(digits: bytes) -> int:
    """A number of nothing but octal digits, or -1."""
    try:
        return int(digits, 8) if digits.isdigit() else -1
    except ValueError:
        return -1


class _Extensions:
    """What extended headers say of the next member (``x``, ``L``) and of all that follow (``g``)."""

    __slots__ = ("_everywhere", "_here")

    def __init__(self) -> None:
        self._everywhere: dict[str, str] = {}
        self._here: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._here or self._everywhere)

    @property
    def pending(self) -> bool:
        """True if a member has to follow."""
        return bool(self._here)

    @property
    def path(self) -> str | None:
        """The next member's name, if an extended header gives it."""
        return self._here.get("path")

    def forget(self) -> None:
        """Drop what belongs to the next member alone."""
        self._here = {}

    def add(self, type_: int, payload: bytes) -> None:
        """Take in one extended header; ValueError if it cannot be read."""
        if type_ == ord("L"):
            self._here["path"] = str(payload.partition(b"\0")[0], "utf-8", "surrogateescape")
        elif type_ == ord("g"):
            self._everywhere.update(_pax_records(payload))
        elif type_ != ord("K"):  # a long link target: links are only reported
            self._here.update(_pax_records(payload))

    def take(self, name: str, size: int) -> tuple[str, int]:
        """Name and size of the next member, given those of its own header."""
        found = {**self._everywhere, **self._here} if self._everywhere else self._here
        self._here = {}
        # An empty value takes back a global one.
        return found.get("path") or name, int(found.get("size") or size)


def _pax_records(payload: bytes) -> dict[str, str]:
    """Path and size from pax records, ``LENGTH KEY=VALUE\\n`` each; ValueError if they cannot be read."""
    found: dict[str, str] = {}
    at = 0
    while at < len(payload) and payload[at]:
        blank = payload.find(b" ", at, at + 20)
        digits = payload[at:blank] if blank > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        if end <= blank + 1 or end > len(payload) or payload[end - 1] != 0x0A:
            raise ValueError("a record of the wrong length")
        key, equals, value = payload[blank + 1 : end - 1].partition(b"=")
        if not equals:
            raise ValueError("a record without a value")
        if key.startswith(b"GNU.sparse."):
            raise ValueError("a sparse file, which cannot be read: pack the tar anew")
        if key == b"size" and value and not (value.isdigit() and len(value) < 20 and int(value) <= _LARGEST_SIZE):
            raise ValueError("an impossible size")
        if key in (b"path", b"size"):
            found[key.decode()] = str(value, "utf-8", "surrogateescape")
        at = end
    return found


def is_header(block: bytes) -> bool:
    """True if a file that begins with these 512 bytes is a tar: a header, or the end of an empty one."""
    return len(block) == BLOCK and (block == _ZEROS or _checksum_is_right(block))


def _checksum_is_right(header: bytes) -> bool:
    """Compare a header's checksum with the sum of its bytes, its own field counted as eight blanks."""
    field = header[148:156]
    digits = field[:6]
    try:
        stored = int(digits, 8) if digits.isdigit() and field[6] in _ENDS else _number(field)
    except ValueError:
        return False
    own = sum(field) - 8 * 0x20
    if header.isascii():
        # The low half of Adler-32 is 1 + the sum of all bytes, modulo 65521; 512 bytes of ASCII stay below
        # that. It takes a tenth of the time of sum().
        return (zlib.adler32(header) & 0xFFFF) - 1 - own == stored
    unsigned = sum(header) - own
    # Some old writers summed signed bytes.
    high = sum(byte >= 0x80 for byte in header[:148]) + sum(byte >= 0x80 for byte in header[156:])
    return stored in (unsigned, unsigned - 256 * high)


def _name(header: bytes) -> str:
    """The name that a header block itself gives."""
    raw = header[:100].partition(b"\0")[0]
    # Only POSIX headers have a prefix: GNU tar keeps other things in its place.
    if header[345] and header[257:263] == b"ustar\0":
        raw = header[345:500].partition(b"\0")[0] + b"/" + raw
    return str(raw, "utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    """A header's number: octal digits, or GNU's base-256 if the first bit is set; ValueError if neither."""
    if field[0] >= 0x80:
        if field[0] == 0xFF:
            return -1  # negative: only times may be
        return int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if not digits.isdigit():
        raise ValueError("not an octal number")
    return int(digits, 8)


def _without_dots(name: str) -> str:
    while name[:2] == "./":
        name = name[2:].lstrip("/")
    return name
