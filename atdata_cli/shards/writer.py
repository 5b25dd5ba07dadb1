"""Tar members at speed, on webdataset's writer.

The stock writer spends its time in :mod:`tarfile`, which formats and sums each header in Python and keeps every
member's header for ever. Here a header is the stock one with name, size and checksum filled in; names that need an
extended (PAX) header still take the stock way. The bytes are those of
``webdataset.TarWriter(..., encoder=False, mtime=0)``.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol
from zlib import adler32

import webdataset

from atdata_cli.errors import DataError
from atdata_cli.samples.tar import BLOCK, archive_bytes, padded
from atdata_cli.sources.base import Blob, Value, WholeBlob, size_of

__all__ = ["TarWriter", "archive_bytes", "member_bytes", "padded"]

_MAX_NAME = 100  # of a name that fits into the header itself
_MAX_SIZE = 1 << 33  # eleven octal digits; the header says a larger size in an extension
_ZEROS = bytes(BLOCK)
_CACHED_SIZES = 2048
_SUM = 0xFFFF
"""The half of an Adler-32 that is the sum of the bytes (RFC 1950): modulo 65521, which that of a header is below."""
_JOINED = 128  # members at a time, so that they are still in the processor's cache when they are copied


class _Stream(Protocol):
    def take(self) -> bytearray: ...

    def send(self, buffer: bytearray, length: int) -> None: ...


def member_bytes(name: str, size: int) -> int:
    """Bytes that a member takes in a tar: header, extended header where there is one, payload, padding."""
    header = BLOCK if _fits(name, size) else len(_stock_header(name, size))
    return header + padded(size)


def _fits(name: str, size: int) -> bool:
    return len(name) <= _MAX_NAME and name.isascii() and size < _MAX_SIZE


def _stock_header(name: str, size: int) -> bytes:
    """The header as ``webdataset.TarWriter`` lets ``tarfile`` make it: its defaults, time 0."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mtime = 0
    info.mode = 0o0444
    info.uname = info.gname = "bigdata"
    return info.tobuf(tarfile.PAX_FORMAT, tarfile.ENCODING, "surrogateescape")


class _Ends(dict[int, bytes]):
    """A header from its checksum to its end, by the checksum; what follows that is the same in all.

    There are some 18,000 sums at most, as a name has 100 characters, and in one dataset some hundreds.
    """

    def __init__(self, after_sum: bytes) -> None:
        super().__init__()
        self._after_sum = after_sum

    def __missing__(self, value: int) -> bytes:
        if len(self) >= _CACHED_SIZES:
            self.clear()
        end = self[value] = b"%06o\0 %b" % (value, self._after_sum)
        return end


class _Stock:
    """The parts of the stock header of an unnamed file (POSIX ustar layout).

    Attributes
    ----------
    ends : headers' ends, from their checksums on.
    """

    def __init__(self) -> None:
        stock = _stock_header("", 0)
        self._before_size = stock[100:124]
        self._after_size = stock[136:148]
        self._sum = int(stock[148:154], 8) - sum(stock[124:136])
        self.ends = _Ends(stock[156:])

    def header(self, name: bytes, size: int) -> bytes:
        """The header of one file: of files nearly every size is another, so that nothing is kept."""
        digits = b"%011o\0" % size
        end = self.ends[adler32(digits, adler32(name, self._sum)) & _SUM]
        return b"".join((name.ljust(_MAX_NAME, b"\0"), self._before_size, digits, self._after_size, end))

    def before_sum(self, size: int) -> tuple[bytes, int]:
        """What is between name and checksum, and the checksum as far as the name does not matter."""
        digits = b"%011o\0" % size
        return self._before_size + digits + self._after_size, self._sum + sum(digits)


_STOCK = _Stock()


class _Forms(dict[int, tuple[bytes, int, bytes]]):
    """What small files whose names have the same length and the same end share with others of their size.

    A form is: the header from the name's end to the checksum; the checksum as far as the rest of the name does not
    matter; the padding after the payload.
    """

    def __init__(self, end: bytes, room: int) -> None:
        super().__init__()
        self._end = end.ljust(room, b"\0")
        self._sum = sum(end)

    def __missing__(self, size: int) -> tuple[bytes, int, bytes]:
        if len(self) >= _CACHED_SIZES:
            self.clear()
        before, base = _STOCK.before_sum(size)
        form = self[size] = (self._end + before, self._sum + base, _ZEROS[: -size % BLOCK])
        return form


@lru_cache(maxsize=8)
def _forms_of(end: bytes) -> list[_Forms]:
    """The forms of names with this end, by how long the rest of the name is."""
    return [_Forms(end, _MAX_NAME - length) for length in range(_MAX_NAME - len(end) + 1)]


class TarWriter(webdataset.TarWriter):  # type: ignore[misc]
    """Writes samples into one tar, through a :class:`~atdata_cli.shards.stream.ShardStream`.

    Attributes
    ----------
    members : bytes of the members written so far, with headers and padding.
    payload : sum of the members' sizes.
    """

    def __init__(self, stream: _Stream) -> None:
        # The base class opens a tarfile on the stream but writes nothing to it before the first member.
        super().__init__(stream, encoder=False, mtime=0)
        self.members = 0
        self.payload = 0
        self._buffer = stream.take()
        self._view = memoryview(self._buffer)
        self._used = 0

    def write(self, obj: Mapping[str, Any]) -> int:
        """Write one sample, as the stock method does: fields in order of name, those that begin with ``_`` left out.

        Parameters
        ----------
        obj : ``__key__`` and fields; a field is bytes or a :class:`~atdata_cli.sources.base.Blob`.

        Returns
        -------
        Sum of the payloads in bytes.
        """
        key = obj["__key__"]
        before = self.payload
        for field in sorted(obj):
            if not field.startswith("_"):
                self.add(f"{key}.{field}", obj[field])
        return self.payload - before

    def add(self, name: str, value: Value) -> None:
        """Write one member.

        Raises
        ------
        DataError : a blob gave more or fewer bytes than it promised.
        """
        size = size_of(value)
        header = self._header(name, size)
        self._put(header)
        if isinstance(value, bytes):
            self._put(value)
        else:
            self._copy(value)
        self._put(_ZEROS[: -size % BLOCK])
        self.members += len(header) + padded(size)
        self.payload += size

    def add_packed(self, keys: Sequence[str], payloads: Sequence[bytes], field: str = "msgpack") -> None:
        """Write many samples of one small member each: the hot path of rows.

        Parameters
        ----------
        keys : the samples' keys.
        payloads : their members' content, in the same order.
        field : the members' extension.
        """
        end = f".{field}"
        if max(map(len, keys)) + len(end) > _MAX_NAME or not all(map(str.isascii, keys)):
            for key, payload in zip(keys, payloads, strict=True):
                self.add(key + end, payload)
            return
        forms, ends = _forms_of(end.encode("ascii")), _STOCK.ends
        for start in range(0, len(keys), _JOINED):
            parts: list[bytes] = []
            stop = start + _JOINED
            for key, payload in zip(keys[start:stop], payloads[start:stop], strict=True):
                name = key.encode()
                before, base, padding = forms[len(name)][len(payload)]
                parts += (name, before, ends[adler32(name, base) & _SUM], payload, padding)
            members = b"".join(parts)
            self._put(members)
            self.members += len(members)
        self.payload += sum(map(len, payloads))

    def close(self) -> None:
        """Write the end of the archive and pass on what is left."""
        self._put(bytes(archive_bytes(self.members) - self.members))
        self._flush()
        self.drop()

    def drop(self) -> None:
        """Let go of the buffer without writing; for an archive that is given up."""
        self._view.release()

    def _header(self, name: str, size: int) -> bytes:
        if not _fits(name, size):
            return _stock_header(name, size)
        return _STOCK.header(name.encode("ascii"), size)

    def _put(self, data: bytes) -> None:
        size = len(data)
        room = len(self._view) - self._used
        if size <= room:
            self._view[self._used : self._used + size] = data
            self._used += size
            return
        source = memoryview(data)
        while source:
            taken = source[: len(self._view) - self._used]
            self._view[self._used : self._used + len(taken)] = taken
            self._used += len(taken)
            source = source[len(taken) :]
            if self._used == len(self._view):
                self._next_buffer()

    def _copy(self, blob: Blob) -> None:
        """Read a blob straight into the buffers, so that a member of any size costs no memory of its own."""
        left = blob.size
        if left <= len(self._view) - self._used and isinstance(blob, WholeBlob):
            if not blob.readinto(self._view[self._used : self._used + left]):
                raise _changed(blob)
            self._used += left
            return
        with blob.open() as reader:
            readinto = reader.readinto  # type: ignore[attr-defined]
            while left:
                if self._used == len(self._view):
                    self._next_buffer()
                count = readinto(self._view[self._used : self._used + left])
                if not count:
                    raise _changed(blob)
                self._used += count
                left -= count
            if reader.read(1):
                raise _changed(blob)

    def _next_buffer(self) -> None:
        self._flush()
        self._buffer = self.stream.take()
        self._view = memoryview(self._buffer)

    def _flush(self) -> None:
        self._view.release()
        self.stream.send(self._buffer, self._used)
        self._used = 0


def _changed(blob: Blob) -> DataError:
    return DataError(
        f"the file changed while it was read: it had {blob.size} bytes when the job was planned",
        url=getattr(blob, "where", None),
        hint="run the command again when nothing writes to the source",
    )


class TarCounter:
    """Counts what a :class:`TarWriter` would write: for plans, which need sizes and no bytes.

    Attributes
    ----------
    members, payload : as in :class:`TarWriter`.
    """

    def __init__(self) -> None:
        self.members = 0
        self.payload = 0

    def add(self, name: str, value: Value) -> None:
        """Count one member."""
        size = size_of(value)
        self.members += member_bytes(name, size)
        self.payload += size

    def add_packed(self, keys: Sequence[str], payloads: Sequence[bytes], field: str = "msgpack") -> None:
        """Count many samples of one small member each."""
        for key, payload in zip(keys, payloads, strict=True):
            self.add(f"{key}.{field}", payload)

    def close(self) -> None:
        """Nothing is held."""

    def drop(self) -> None:
        """Nothing is held."""
