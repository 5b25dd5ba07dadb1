"""A global shuffle in bounded memory: every sample gets a rank that only its place and the seed decide."""

from __future__ import annotations

import hashlib
import heapq
import pickle
import tempfile
from collections.abc import Iterator
from itertools import count
from operator import itemgetter
from typing import IO, Any, BinaryIO

from atdata_cli.errors import from_os_error
from atdata_cli.sources.base import Preflight, Sample, SampleSource, Value, size_of
from atdata_cli.sources.pieces import Opened
from atdata_cli.sources.tars import Range

__all__ = ["Ranks", "ShuffledSamples", "Sorter"]

_IN_MEMORY = 32 << 20  # bytes that are sorted at a time
_READ_IN_ALL = 32 << 20  # bytes that are read ahead when sorted runs are merged
_SMALL = 64 << 10  # values up to this size are sorted themselves, larger ones wait in a file
_HEAD = 12  # bytes before each item of a run: its rank and its size


class Ranks:
    """The rank of each sample: the first 8 bytes of BLAKE2b of its place in the input, keyed with the seed.

    The order is that of the ranks, so that it is the same whoever computes it, and in whichever pieces.
    """

    def __init__(self, seed: int) -> None:
        self._key = str(seed).encode()

    def of(self, place: int) -> bytes:
        """The rank of the sample at a place, 0-based."""
        return hashlib.blake2b(place.to_bytes(8, "little"), key=self._key, digest_size=8).digest()


class Sorter:
    """Puts items into the order of their ranks, by sorted runs in a temporary file; as a context manager.

    Parameters
    ----------
    in_memory : bytes that are sorted at a time.
    """

    def __init__(self, in_memory: int = _IN_MEMORY) -> None:
        self._limit = in_memory
        self._items: list[tuple[bytes, bytes]] = []
        self._held = 0
        self._runs: list[tuple[int, int]] = []
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Sorter:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, rank: bytes, item: Any) -> None:
        """Take an item; anything that can be pickled."""
        data = pickle.dumps(item, protocol=5)
        self._items.append((rank, data))
        self._held += len(data) + 200  # of objects that hold it
        if self._held >= self._limit:
            self._write_run()

    def _write_run(self) -> None:
        self._items.sort()
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - until the end of the block
            start = self._file.tell()
            for rank, data in self._items:
                self._file.write(rank + len(data).to_bytes(_HEAD - len(rank), "little") + data)
            self._runs.append((start, self._file.tell()))
        except OSError as error:
            raise _no_room(error) from error
        self._items.clear()
        self._held = 0

    def items(self) -> Iterator[Any]:
        """All items in order."""
        for _, item in self._sized():
            yield item

    def batches(self, most: int, size: int) -> Iterator[list[Any]]:
        """All items in order, up to *most* at a time, or about *size* bytes of them."""
        batch: list[Any] = []
        held = 0
        for length, item in self._sized():
            batch.append(item)
            held += length
            if len(batch) >= most or held >= size:
                yield batch
                batch, held = [], 0
        if batch:
            yield batch

    def _sized(self) -> Iterator[tuple[int, Any]]:
        self._items.sort()
        ahead = _READ_IN_ALL // (len(self._runs) or 1)
        runs = [self._run(start, end, max(4096, ahead)) for start, end in self._runs]
        for _, data in heapq.merge(*runs, self._items, key=itemgetter(0)):
            yield len(data), pickle.loads(data)  # noqa: S301 - our own

    def _run(self, at: int, end: int, ahead: int) -> Iterator[tuple[bytes, bytes]]:
        assert self._file is not None
        held = memoryview(b"")
        while at < end or held:
            wanted = _HEAD
            if len(held) >= _HEAD:
                wanted += int.from_bytes(held[8:_HEAD], "little")
                if len(held) >= wanted:
                    yield bytes(held[:8]), bytes(held[_HEAD:wanted])
                    held = held[wanted:]
                    continue
            self._file.seek(at)
            more = self._file.read(min(end - at, max(ahead, wanted - len(held))))
            at += len(more)
            held = memoryview(bytes(held) + more)


def _no_room(error: OSError) -> Exception:
    return from_os_error(error, tempfile.gettempdir(), doing="write to")


class ShuffledSamples(SampleSource):
    """The samples of another source in the order of their ranks.

    Only what says where they are is sorted, if their source can tell; else they wait, whole, in temporary files.
    """

    def __init__(self, source: SampleSource, seed: int) -> None:
        super().__init__()
        self._source = source
        self._ranks = Ranks(seed)
        self.inputs = source.inputs
        self.rewindable = source.rewindable
        files = getattr(source, "files", None)  # samples from memory need none
        if files is not None:
            self.files = files

    def count(self) -> int | None:
        """See :class:`~atdata_cli.sources.base.Source`."""
        return self._source.count()

    def position(self) -> int:
        """See :class:`~atdata_cli.sources.base.Source`."""
        return self._source.position()

    def size(self) -> int | None:
        """See :class:`~atdata_cli.sources.base.Source`."""
        return self._source.size()

    @property
    def bulky(self) -> bool:
        """See :class:`~atdata_cli.sources.base.Source`."""
        return self._source.bulky

    def finish(self) -> None:
        """See :class:`~atdata_cli.sources.base.Source`."""
        self._source.finish()

    def preflight(self) -> Preflight:
        """See :class:`~atdata_cli.sources.base.SampleSource`."""
        return self._source.preflight()

    def samples(self) -> Iterator[Sample]:
        """See :class:`~atdata_cli.sources.base.SampleSource`."""
        promised = self.promised()
        if promised is None:
            yield from self._kept()
            return
        with Opened(self.files) as opened:
            for sample in promised:
                opened.attach(sample)
                yield sample

    def promised(self) -> Iterator[Sample] | None:
        """See :class:`~atdata_cli.sources.base.SampleSource`."""
        self._source.on_reject = self.on_reject
        promised = self._source.promised()
        return None if promised is None else self._sorted(promised)

    def _sorted(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        with Sorter() as sorter:
            for place, sample in zip(count(), samples, strict=False):
                plain = sample.key, tuple(sample.fields.items()), sample.where, sample.extra
                sorter.add(self._ranks.of(place), plain)
            for key, fields, where, extra in sorter.items():
                yield Sample(key, dict(fields), where, extra)

    def _kept(self) -> Iterator[Sample]:
        with tempfile.TemporaryFile() as spool, Sorter() as sorter:
            for place, sample in zip(count(), self._source.samples(), strict=False):
                fields = tuple((name, _keep(spool, value)) for name, value in sample.fields.items())
                sorter.add(self._ranks.of(place), (sample.key, fields, sample.where, sample.extra))
            for key, kept, where, extra in sorter.items():
                values = {name: _kept(spool, value, where) for name, value in kept}
                yield Sample(key, values, where, extra)


def _kept(spool: BinaryIO, value: bytes | tuple[int, int], where: str) -> Value:
    return value if isinstance(value, bytes) else Range(spool, value[0], value[1], where)


def _keep(spool: IO[bytes], value: Value) -> bytes | tuple[int, int]:
    """A value that is small, or where it is in the file now: offset, size."""
    size = size_of(value)
    if isinstance(value, bytes) and size <= _SMALL:
        return value
    start = spool.tell()
    try:
        if isinstance(value, bytes):
            spool.write(value)
        else:
            with value.open() as reader:
                while chunk := reader.read(1 << 20):
                    spool.write(chunk)
    except OSError as error:
        raise _no_room(error) from error
    return start, size
