"""Bytes in: standard input, commands and compressed files, as plain readers.

Compression is recognised by the first bytes, never by the name, so that ``-`` and misnamed files work.
"""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import select
import signal
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from atdata_cli.errors import AtdataError, AuthError, DataError, NotFoundError, UsageError, from_os_error
from atdata_cli.sources.base import FileInfo, Files, InputFile

__all__ = ["CommandInput", "Meter", "is_compressed", "is_stream", "open_decompressed"]

_BUFFER = 1 << 20
_CHUNK = 256 << 10
_HEAD = 6  # bytes; the longest magic number below


@dataclass(slots=True)
class Meter:
    """Bytes taken from a file so far, before decompression; a reader counts and anyone may look."""

    bytes: int = 0


def is_stream(item: InputFile) -> bool:
    """Whether *item* can be read only once, from its first byte to its last."""
    return item.url == "-" or item.size is None


class _MeteredReader(io.RawIOBase):
    """The bytes of a file, counted, whose first ones can be looked at beforehand without seeking."""

    def __init__(self, inner: BinaryIO, url: str, meter: Meter) -> None:
        self._inner = inner
        # ``readinto1`` gives what a pipe has now; ``readinto`` would wait until the buffer is full.
        self._fill: Callable[[memoryview], int | None] = getattr(inner, "readinto1", None) or inner.readinto  # type: ignore[attr-defined]
        self._url = url
        self._meter = meter
        self._head = b""

    def readable(self) -> bool:
        return True

    def head(self, size: int) -> bytes:
        """The next *size* bytes (fewer at the end of the file); they will be read again."""
        buffer = bytearray(size)
        while len(self._head) < size:
            count = self._read_inner(memoryview(buffer)[: size - len(self._head)])
            if not count:
                break
            self._head += buffer[:count]
        return self._head

    def readinto(self, target: Any, /) -> int:
        view = memoryview(target).cast("B")
        if not self._head:
            return self._read_inner(view)
        count = min(len(view), len(self._head))
        view[:count] = self._head[:count]
        self._head = self._head[count:]
        return count

    def _read_inner(self, view: memoryview) -> int:
        try:
            while (count := self._fill(view)) is None:
                # A descriptor in non-blocking mode, as some parents hand it down, has nothing just now.
                select.select([self._inner], [], [])
        except OSError as error:
            raise from_os_error(error, self._url, doing="read") from error
        self._meter.bytes += count
        return count

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._inner.close()


class _Decoder(Protocol):
    """Decompresses one member; ``bz2`` and ``lzma`` have it as it is."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes: ...


class _Inflater:
    """One gzip member as a :class:`_Decoder`."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail or data, max_length)


class _ZstdDecoder:
    """One zstd frame as a :class:`_Decoder`.

    Not ``stream_reader``: at the end of a truncated frame that one ends as if all were well.
    """

    needs_input = True

    def __init__(self) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._zstd = zstandard.ZstdDecompressor().decompressobj()

    @property
    def eof(self) -> bool:
        return self._zstd.eof

    @property
    def unused_data(self) -> bytes:
        return self._zstd.unused_data

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        try:
            return self._zstd.decompress(data)
        except self._error as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True, slots=True)
class _Codec:
    """A kind of compression.

    Attributes
    ----------
    name : of the program, for messages.
    magics : what a member may begin with.
    decoder : makes the decoder of one member.
    piece : bytes given to the decoder at a time.
    padded : zero bytes may stand between and after members.
    """

    name: str
    magics: tuple[bytes, ...]
    decoder: Callable[[], _Decoder]
    piece: int = 64 << 10
    padded: bool = False


_SKIPPABLE = tuple(bytes((first, 0x2A, 0x4D, 0x18)) for first in range(0x50, 0x60))
_CODECS = (
    _Codec("gzip", (b"\x1f\x8b",), _Inflater, padded=True),
    # A zstd decoder's output cannot be bounded, but 4 KiB hold at most 1,024 blocks of at most 128 KiB each
    # (RFC 8878, 3.1.1.2), so a bomb gets 128 MiB at a time; and pieces that small cost no speed.
    _Codec("zstd", (b"\x28\xb5\x2f\xfd", *_SKIPPABLE), _ZstdDecoder, piece=4 << 10),
    _Codec("bzip2", (b"BZh",), bz2.BZ2Decompressor),
    _Codec("xz", (b"\xfd7zXZ\x00",), lzma.LZMADecompressor, padded=True),
)


class _DecodedReader(io.RawIOBase):
    """The decompressed bytes of all members of a compressed file."""

    def __init__(self, source: _MeteredReader, codec: _Codec, url: str, meter: Meter) -> None:
        self._source = source
        self._codec = codec
        self._url = url
        self._meter = meter
        self._decoder = codec.decoder()
        self._chunk = b""
        self._used = 0
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any, /) -> int:
        view = memoryview(target).cast("B")
        while not self._ready:
            if not self._advance(len(view)):
                return 0
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _advance(self, limit: int) -> bool:
        """Decode a little more, about *limit* bytes; False at the end of the last member."""
        if self._decoder.eof:
            return self._next_member()
        wanted = self._decoder.needs_input
        piece = self._take() if wanted else b""
        try:
            out = self._decoder.decompress(piece, limit)
        except (zlib.error, lzma.LZMAError, ValueError, OSError, EOFError) as error:
            raise self._error(f"is corrupt near byte {self._meter.bytes:,}: {error}") from error
        if wanted and not piece and not out and not self._decoder.eof:
            raise self._error(f"is truncated: it ends in the middle, after {self._meter.bytes:,} bytes")
        self._ready = memoryview(out)
        return True

    def _take(self) -> bytes | memoryview:
        """The next compressed bytes, none at the end of the file."""
        if self._used == len(self._chunk) and not self._refill():
            return b""
        start = self._used
        self._used = min(start + self._codec.piece, len(self._chunk))
        return memoryview(self._chunk)[start : self._used]

    def _refill(self) -> bool:
        more = self._source.read(_CHUNK) or b""
        self._chunk = self._chunk[self._used :] + more
        self._used = 0
        return bool(more)

    def _next_member(self) -> bool:
        """Start on the next member; False if there is none."""
        # What the decoder did not use is the end of the last piece, which the chunk still holds.
        self._used -= len(self._decoder.unused_data)
        while True:
            if self._codec.padded:
                rest = self._chunk[self._used :].lstrip(b"\0")
                self._used = len(self._chunk) - len(rest)
            if len(self._chunk) - self._used >= _HEAD or not self._refill():
                break
        if self._used == len(self._chunk):
            return False
        if not self._chunk.startswith(self._codec.magics, self._used):
            raise self._error("is followed by something else", doing="make the file again")
        self._decoder = self._codec.decoder()
        return True

    def _error(self, what: str, doing: str | None = None) -> DataError:
        name = self._codec.name
        hint = doing or f"check it with {name} -t; then fetch or make it again"
        if self._url == "-":
            hint = "the program that wrote it may have failed; run it again, best with --stdin-from-command"
        return DataError(f"the {name} data {what}", url=self._url, hint=hint)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._source.close()


def open_decompressed(files: Files, item: InputFile, meter: Meter | None = None) -> io.BufferedReader:
    """Open an input and decompress it if its first bytes say that it is gzip, zstd, bzip2 or xz.

    Parameters
    ----------
    files : opens it.
    item : what to open; it need not be seekable.
    meter : counts the bytes taken from the file, which are the compressed ones.

    Raises
    ------
    DataError : by the returned reader, if compressed data is corrupt, truncated, or followed by other data.
    """
    meter = meter or Meter()
    try:
        inner = files.open(item.url)
    except OSError as error:
        raise from_os_error(error, item.url, doing="read") from error
    source = _MeteredReader(inner, item.url, meter)
    try:
        head = source.head(_HEAD)
    except BaseException:
        source.close()
        raise
    for codec in _CODECS:
        if head.startswith(codec.magics):
            return io.BufferedReader(_DecodedReader(source, codec, item.url, meter), _BUFFER)
    return io.BufferedReader(source, _BUFFER)


def is_compressed(reader: io.BufferedReader) -> bool:
    """Whether :func:`open_decompressed`, which made *reader*, found compressed data."""
    return isinstance(reader.raw, _DecodedReader)


class _CommandReader(io.RawIOBase):
    """A running command's standard output; reading its end fails unless the command succeeded."""

    _GRACE = 0.5  # seconds that a command gets to end by itself, and again to obey a signal
    _DRAIN = 1 << 20  # bytes that a command may still write when the reader has all it needs

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._process = process
        self._pipe = process.stdout
        self._ended = False

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._pipe.fileno()

    def readinto(self, target: Any, /) -> int:
        view = memoryview(target).cast("B")
        count: int = self._pipe.readinto(view)  # type: ignore[attr-defined]
        if not count and len(view):
            self._ended = True
            self.check()
        return count

    def check(self) -> None:
        """Wait for the command and raise unless it succeeded."""
        status = self._process.wait()
        # Once its output is no longer wanted, a signal is how a command normally ends.
        if status == 0 or (not self._ended and status in (-signal.SIGTERM, -signal.SIGPIPE, -signal.SIGKILL)):
            return
        how = f"exited with status {status}"
        if status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
        name = str(self._process.args[0])  # type: ignore[index]
        hint = "its own messages are above; mend it and run the same command again"
        raise DataError(f"the command {name} {how}, so its output may be incomplete", url="-", hint=hint)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        if not self._ended:
            self._drain()
        self._pipe.close()
        self._reap()

    def _drain(self) -> None:
        """Let a command end that only has padding left to write, as ``tar`` does after its last member."""
        deadline = time.monotonic() + self._GRACE
        left = self._DRAIN
        while left > 0 and select.select([self._pipe], [], [], max(0, deadline - time.monotonic()))[0]:
            data = self._pipe.read(min(left, 64 << 10))
            if not data:
                self._ended = True
                return
            left -= len(data)

    def _reap(self) -> None:
        for stop in (None, self._process.terminate, self._process.kill):
            if stop:
                stop()
            elif not self._ended:
                continue
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self._GRACE)
                return
        self._process.wait()


class CommandInput:
    """A :class:`~atdata_cli.sources.base.Files` whose file ``-`` is the output of a command.

    The command runs without a shell, when ``-`` is opened. Its stderr passes through; standard input is
    shared. It fails the reader if it does not exit 0; it is terminated if the reader is closed early.

    Parameters
    ----------
    argv : the program and its arguments.
    others : where all other files are: those that rows name, a schema.
    """

    item = InputFile(name="-", url="-", size=None)

    def __init__(self, argv: Sequence[str], others: Files) -> None:
        if not argv:
            raise UsageError("--stdin-from-command needs a command", hint="end the line with: -- CMD ARGS")
        self._argv = list(argv)
        self._others = others
        self._reader: _CommandReader | None = None

    def open(self, url: str) -> BinaryIO:
        """Start the command.

        Raises
        ------
        NotFoundError : there is no such command.
        UsageError : it runs already.
        """
        if url != "-":
            return self._others.open(url)
        if self._reader is not None:
            raise UsageError("a command's output can be read only once", url="-")
        name = self._argv[0]
        try:
            process = subprocess.Popen(self._argv, stdout=subprocess.PIPE, bufsize=0)
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no command {name}", hint="check its name and PATH") from error
        except PermissionError as error:
            raise AuthError(f"the command {name} is not executable", hint=f"chmod +x {name}") from error
        except OSError as error:
            raise AtdataError(
                f"cannot run {name}: {error.strerror or error}", hint="is it installed, and on the PATH?"
            ) from error
        self._reader = _CommandReader(process)
        return self._reader  # type: ignore[return-value]

    def finish(self) -> None:
        """Wait for the command; does nothing if it was never started.

        Raises
        ------
        DataError : it did not exit 0. One that was stopped because its reader had enough has not failed.
        """
        if self._reader is not None:
            self._reader.close()
            self._reader.check()

    def info(self, url: str) -> FileInfo | None:
        """``-`` is a pipe."""
        return FileInfo("-", "other") if url == "-" else self._others.info(url)

    def walk(self, url: str) -> Iterator[tuple[str, FileInfo]]:
        """See :class:`~atdata_cli.sources.base.Files`."""
        return self._others.walk(url)

    def hidden(self) -> int:
        """See :class:`~atdata_cli.sources.base.Files`."""
        return self._others.hidden()

    def glob(self, pattern: str) -> list[str]:
        """See :class:`~atdata_cli.sources.base.Files`."""
        return self._others.glob(pattern)
