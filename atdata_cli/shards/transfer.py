"""Shards on their way from where they are to another place: read once, checked before the last byte is handed out.

``copy`` and ``publish --blobs`` share this; they differ in the function that takes a shard::

    def put(stream: ShardReader) -> str:
        return pds.upload(stream)  # or: for chunk in stream: sink.write(chunk)

    urls = copy_shards(located.shards, files, put, jobs=4)
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from atdata_cli import net
from atdata_cli.errors import AtdataError, IntegrityError, NotFoundError, TemporaryError, from_os_error, lost_shard
from atdata_cli.shards.reader import Shard
from atdata_cli.sources.base import Files, Source

if TYPE_CHECKING:
    from atdata_cli.shards.feed import Progress

__all__ = ["CHUNK", "JOBS", "ShardReader", "Stages", "TransferProgress", "copy_shards", "in_threads"]

CHUNK = 1 << 20
JOBS = 4
"""Shards under way at once. Each takes the part of an upload that fills, and 6 MB that are read ahead."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class TransferProgress:
    """How far a transfer is; the threads add to it, whoever draws it reads.

    Attributes
    ----------
    activity : what is going on, as a verb.
    shards, bytes : done so far.
    samples : likewise; None where nobody looks into the shards.
    total : bytes in all, if that is known.
    """

    def __init__(self, total: int | None = None, *, activity: str = "copying") -> None:
        self.activity = activity
        self.samples: int | None = None
        self.shards = 0
        self.bytes = 0
        self.total = total
        self._lock = threading.Lock()

    def add(self, *, shards: int = 0, byte_count: int = 0) -> None:
        """Count what was done; negative if it has to be done again."""
        with self._lock:
            self.shards += shards
            self.bytes += byte_count

    @property
    def source(self) -> TransferProgress:
        """What knows the position in the input: bytes read are bytes copied."""
        return self

    def position(self) -> int:
        """Bytes done."""
        return self.bytes

    def size(self) -> int | None:
        """Bytes in all."""
        return self.total


class Stages:
    """The progress of a run that does one thing after another: that of the one which is going on.

    Attributes
    ----------
    stage : it.
    """

    def __init__(self) -> None:
        self.stage: TransferProgress | Progress = TransferProgress()

    def transfer(self, activity: str) -> TransferProgress:
        """Go on to something that passes shards on as they are."""
        self.stage = stage = TransferProgress(activity=activity)
        return stage

    def writing(self, activity: str) -> Progress:
        """Go on to something that makes shards."""
        from atdata_cli.shards.feed import Progress  # with it come webdataset and numpy

        self.stage = stage = Progress(activity=activity)
        return stage

    @property
    def activity(self) -> str:
        """What is going on, as a verb."""
        return self.stage.activity

    @property
    def shards(self) -> int:
        """Done so far in this stage."""
        return self.stage.shards

    @property
    def bytes(self) -> int:
        """Done so far in this stage."""
        return self.stage.bytes

    @property
    def samples(self) -> int | None:
        """Done so far in this stage; None where nobody counts them."""
        return self.stage.samples

    @property
    def source(self) -> Source | TransferProgress | None:
        """What knows the position in the input of this stage."""
        return self.stage.source


class _StoppedError(Exception):
    """Another shard failed, or the run was interrupted: this one is given up."""


class ShardReader:
    """One shard as a stream that ends only if it is what it should be.

    The last bytes are handed out after size and SHA-256 of the whole were compared with what is expected. So a taker
    that has all it was told to expect (an upload with ``Content-Length``) has a right shard, and one that commits
    when :meth:`read` returns nothing commits a right one.

    A read that fails for a time goes on where it broke. Where no checksum would tell that the shard was replaced
    meanwhile, what was read before is read again and compared.

    Parameters
    ----------
    shard : what to read.
    index : its place among all.
    files : how it is opened.
    stop : once set, the next read gives the shard up.
    progress : told of every byte.
    compared : whoever takes it compares the SHA-256 with what is expected, if that is known: it need not be done here,
        and the last bytes tell nothing. See :meth:`compare`.

    Attributes
    ----------
    size : bytes, if they are known before.
    expected : SHA-256 that the shard must have, hex, if it is known before.
    sha256 : the one that it has; None until all is read and checked.
    stop : once set, the shard is given up.
    """

    def __init__(
        self,
        shard: Shard,
        files: Files,
        *,
        index: int = 0,
        stop: threading.Event | None = None,
        progress: TransferProgress | None = None,
        compared: bool = False,
    ) -> None:
        self.shard = shard
        self.index = index
        self.size = shard.size
        self.expected = shard.expected_sha256
        self.sha256: str | None = None
        self._files = files
        self.stop = stop or threading.Event()
        self._progress = progress or TransferProgress()
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._hashed = self.expected is None or not compared
        self._retry = net.retry()
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most *size* and at most :data:`CHUNK`; all that are left for -1; none at the end.

        Raises
        ------
        IntegrityError : the shard is not what it should be.
        AtdataError : it cannot be read.
        """
        if size is None or size < 0:
            return b"".join(self)
        if self.sha256 is not None or not size:
            return b""
        left = CHUNK if self.size is None else self.size - self._at
        data = self._next(min(size, CHUNK, left))
        if self._hashed:
            self._hash.update(data)
        self._at += len(data)
        self._progress.add(byte_count=len(data))
        if not data or self._at == self.size:
            self._check()
        return data

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(CHUNK):
            yield chunk

    def rewind(self) -> None:
        """Begin again at the first byte, to send the shard once more."""
        self.close()
        self._progress.add(byte_count=-self._at)
        self._hash, self._at, self.sha256 = hashlib.sha256(), 0, None

    @property
    def untouched(self) -> bool:
        """Whether nothing of it was read."""
        return not self._at and self.sha256 is None

    def compare(self) -> None:
        """Read it whole, and compare its SHA-256 after all: whether it is to blame for what its taker has got.

        Raises
        ------
        IntegrityError : it is not what it should be.
        """
        self._hashed = True
        self.rewind()
        for _ in self:
            pass

    def close(self) -> None:
        """Let go of the source."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError, AtdataError):  # nothing was written to it
                file.close()

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _check(self) -> None:
        """Compare the whole with what is expected."""
        larger = self.size is not None and self._next(1)
        self.close()
        if larger:
            raise self._wrong(f"it is larger than the {self.size} bytes that it should have")
        if not self._hashed:
            self.sha256 = self.expected
            return
        digest = self._hash.hexdigest()
        if self.expected is not None and digest != self.expected.lower():
            raise self._wrong(f"its SHA-256 is {digest}, and should be {self.expected}")
        self.sha256 = digest

    def _wrong(self, message: str) -> IntegrityError:
        return IntegrityError(message, url=self.shard.url, hint="the shard was damaged or replaced: get it anew")

    def _next(self, size: int) -> bytes:
        """The next bytes of the source; none at its end. A broken read is taken up again, patiently."""

        def attempt() -> bytes:
            if self.stop.is_set():
                raise _StoppedError
            try:
                data = self._read(size)
                if not data and self._ends_early():
                    self.close()
                    data = self._read(size)  # the first end may be that of a connection, the second is the shard's
            except AtdataError:
                self.close()
                raise
            if not data and self._ends_early():
                self.close()
                raise self._wrong(f"it ends after {self._at} of {self.size} bytes")
            return data

        return self._retry.run(attempt, stop=self.stop)

    def _ends_early(self) -> bool:
        return self.size is not None and self._at < self.size

    def _read(self, size: int) -> bytes:
        try:
            if self._file is None:
                self._file = self._open()
            return self._file.read(size)
        except OSError as error:
            raise from_os_error(error, self.shard.url, doing="read") from error

    def _open(self) -> BinaryIO:
        """The source at where the next byte is."""
        try:
            file = self._files.open(self.shard.url)
        except NotFoundError as error:
            if self.shard.row is None:
                raise
            raise lost_shard(self.shard.url) from error
        try:
            if self._at and self.expected is not None and file.seekable():
                file.seek(self._at)
            elif self._at:
                self._read_again(file)
        except BaseException:
            file.close()
            raise
        return file

    def _read_again(self, file: BinaryIO) -> None:
        seen, left = hashlib.sha256(), self._at
        while left:
            data = file.read(min(left, CHUNK))
            if not data or self.stop.is_set():
                break
            seen.update(data)
            left -= len(data)
        if seen.digest() != self._hash.digest():
            raise TemporaryError("it was replaced while it was read", url=self.shard.url, hint="start again")


def copy_shards(
    shards: Sequence[Shard],
    files: Files,
    put: Callable[[ShardReader], _Result],
    *,
    jobs: int = JOBS,
    progress: TransferProgress | None = None,
    compared: bool = False,
) -> list[_Result]:
    """Give each shard as a checked stream to *put*, many at a time.

    Parameters
    ----------
    shards : what to copy; :class:`~atdata_cli.shards.reader.Shard` says where each is, and its size and SHA-256.
    files : how they are opened.
    put : takes one shard whole, or nothing of it, and stores it; called from *jobs* threads. What it has begun is its
        to abort when the stream raises, which it does instead of giving the last bytes of a shard that is not right.
    jobs : shards under way at once.
    progress : told how far it is.
    compared : *put* compares the SHA-256 of what it has stored with what is expected.

    Returns
    -------
    What *put* returned, in the order of *shards*.

    Raises
    ------
    IntegrityError : a shard is not what it should be.
    AtdataError : the first other failure, of a source or of *put*. Everything that was under way has ended then.
    """
    told = progress or TransferProgress()

    def transfer(index: int, shard: Shard, stop: threading.Event) -> _Result:
        with ShardReader(shard, files, index=index, stop=stop, progress=told, compared=compared) as stream:
            result = put(stream)
            if stream.untouched:  # the same bytes are there already
                told.add(byte_count=shard.size or 0)
            elif stream.sha256 is None:
                raise AssertionError(f"not all of {shard.url} was taken")
        told.add(shards=1)
        return result

    return in_threads(transfer, shards, jobs)


def in_threads(
    work: Callable[[int, _Item, threading.Event], _Result], items: Sequence[_Item], jobs: int
) -> list[_Result]:
    """``work(index, item, stop)`` of each item, by *jobs* threads; results in order.

    After the first error, or an interrupt, no other item is begun, and ``stop`` is set for those under way.

    Raises
    ------
    Exception : the first one that *work* raised, when all threads have ended.
    """
    stop = threading.Event()
    failed: list[BaseException] = []
    results: dict[int, _Result] = {}
    waiting, turn = iter(enumerate(items)), threading.Lock()

    def run() -> None:
        while not stop.is_set():
            with turn:
                taken = next(waiting, None)
            if taken is None:
                return
            index, item = taken
            try:
                results[index] = work(index, item, stop)
            except BaseException as error:  # told by the thread that waits
                if not isinstance(error, _StoppedError):
                    failed.append(error)
                stop.set()

    with ThreadPoolExecutor(max(1, min(jobs, len(items))), "copy") as pool:
        try:
            wait([pool.submit(run) for _ in range(max(1, min(jobs, len(items))))])
        except BaseException:  # Ctrl-C reaches the thread that waits
            stop.set()
            raise
    if failed:
        raise failed[0]
    return [results[index] for index in range(len(items))]
