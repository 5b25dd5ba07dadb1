"""Tar members at speed, on webdataset's writer.

The stock writer spends its time in :mod:`tarfile`, which formats and sums each header in Python and keeps every
member's header for ever. Here a header is the stock one with name, size and checksum filled in; names that need an
extended (PAX) header still take the stock way. The bytes are those of
``webdataset.TarWriter(..., encoder=False, mtime=0)``.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import webdataset

from atdata_cli.errors import DataError
from atdata_cli.sources.base import Blob, Value

__all__ = ["TarWriter", "archive_bytes", "member_bytes", "padded"]

BLOCK = tarfile.BLOCKSIZE
RECORD = tarfile.RECORDSIZE
_MAX_NAME = 100  # of a name that fits into the header itself
_MAX_SIZE = 1 << 33  # eleven octal digits; the header says a larger size in an extension
_ZEROS = bytes(BLOCK)
_CACHED_SIZES = 8192


class _Stream(Protocol):
    def take(self) -> bytearray: ...

    def send(self, buffer: bytearray, length: int) -> None: ...


def padded(size: int) -> int:
    """Bytes that a payload of *size* bytes takes in a tar."""
    return -(-size // BLOCK) * BLOCK


def archive_bytes(members: int) -> int:
    """Bytes of a tar whose members (headers, payloads and padding) take *members* bytes."""
    return -(-(members + 2 * BLOCK) // RECORD) * RECORD


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


class _HeaderForm:
    """The stock header of an unnamed, empty file, cut where name, size and checksum go (POSIX ustar layout)."""

    def __init__(self) -> None:
        form = _stock_header("", 0)
        self.before_size = form[100:124]
        self.after_size = form[136:148]
        self.after_sum = form[156:]
        self.sum = int(form[148:154], 8) - sum(form[124:136])
        self._cache: dict[int, tuple[bytes, int, bytes, bytes]] = {}

    def parts(self, size: int) -> tuple[bytes, int, bytes, bytes]:
        """For a payload of *size* bytes: header after the name, checksum without the name, header's end, padding."""
        known = self._cache.get(size)
        if known is None:
            if len(self._cache) >= _CACHED_SIZES:
                self._cache.clear()
            digits = b"%011o\0" % size
            known = self._cache[size] = (
                self.before_size + digits + self.after_size,
                self.sum + sum(digits),
                self.after_sum,
                _ZEROS[: -size % BLOCK],
            )
        return known


_FORM = _HeaderForm()


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
        size = len(value) if isinstance(value, bytes) else value.size
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
        parts = []
        form = _FORM.parts
        tail = end.encode("ascii")
        for key, payload in zip(keys, payloads, strict=True):
            name = key.encode("ascii") + tail
            before, base, after, padding = form(len(payload))
            parts.append(
                b"%b%b%06o\0 %b%b%b" % (name.ljust(_MAX_NAME, b"\0"), before, base + sum(name), after, payload, padding)
            )
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
        raw = name.encode("ascii")
        before, base, after, _ = _FORM.parts(size)
        return b"%b%b%06o\0 %b" % (raw.ljust(_MAX_NAME, b"\0"), before, base + sum(raw), after)

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
        size = len(value) if isinstance(value, bytes) else value.size
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
