"""Keys that come back, in a shard or in another one: found exactly, in bounded memory and close to linear time."""

from __future__ import annotations

import pickle
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from atdata_cli.errors import AtdataError
from atdata_cli.shards.problems import KeyBatch

__all__ = ["KeyLog", "Place", "Repeat"]

_IN_MEMORY = 16 << 20  # bytes of a log that has no file yet
_AT_ONCE = 250_000  # keys that are compared at a time: some 40 MB
_BUFFERED = 50_000  # rows that wait for being written down, in all buckets: some 10 MB

Column = tuple[int, Sequence[str], Sequence[int], Sequence[tuple[str, ...]]]


class Place(NamedTuple):
    """Where a key is: index of the shard, offset of the sample, its fields."""

    shard: int
    offset: int
    fields: tuple[str, ...]


class Repeat(NamedTuple):
    """A key that was there before."""

    key: str
    place: Place
    first: Place


@dataclass(slots=True)
class _Shard:
    """The keys of one shard, as far as they have to be known at once.

    Attributes
    ----------
    ascending : each is above the one before it, so none comes twice.
    pieces : where they are in the log.
    """

    lowest: str
    highest: str
    last: str
    ascending: bool
    keys: int = 0
    pieces: list[tuple[int, int]] = field(default_factory=list)


class KeyLog:
    """Writes keys down as they come, and looks at them at the end, where there is anything to look for.

    Keys in ascending order, in shards whose ranges do not overlap, cannot come twice, and they are not even read
    again. Others are distributed over buckets by hash, so that equal ones meet in one bucket, and each bucket fits in
    memory.

    Parameters
    ----------
    series : for each shard, which others it may not share keys with.
    """

    def __init__(self, series: Sequence[str]) -> None:
        self._series = series
        self._log = _Log()
        self._shards: dict[int, _Shard] = {}

    def close(self) -> None:
        """Let go of the temporary files."""
        self._log.close()

    def add(self, batch: KeyBatch) -> None:
        """Write down some keys; those of one shard come in their order."""
        shard = self._shards.get(batch.shard)
        if shard is None:
            shard = self._shards[batch.shard] = _Shard(batch.lowest, batch.highest, "", batch.ascending)
        else:
            shard.ascending = shard.ascending and batch.ascending and shard.last < batch.lowest
            shard.lowest = min(shard.lowest, batch.lowest)
            shard.highest = max(shard.highest, batch.highest)
        shard.last = batch.highest
        shard.keys += batch.keys
        shard.pieces.append(self._log.write(batch.packed))

    def repeats(self) -> Iterator[Repeat]:
        """Every key that was there before, in an earlier shard or earlier in its shard."""
        for group in self._overlapping():
            if len(group) > 1 or not self._shards[group[0]].ascending:
                keys = sum(self._shards[index].keys for index in group)
                if keys <= _AT_ONCE:
                    yield from _repeats(lambda group=group: self._columns(group))  # type: ignore[misc]
                else:
                    yield from self._by_buckets(group, keys // _AT_ONCE * 2 + 2)

    def _overlapping(self) -> Iterator[list[int]]:
        """Groups of shards of one series whose keys' ranges overlap, each in order."""
        by_series: dict[str, list[int]] = defaultdict(list)
        for index in self._shards:
            by_series[self._series[index]].append(index)
        for indexes in by_series.values():
            indexes.sort(key=lambda index: self._shards[index].lowest)
            group: list[int] = []
            highest = ""
            for index in indexes:
                if group and self._shards[index].lowest > highest:
                    yield sorted(group)
                    group = []
                group.append(index)
                highest = max(highest, self._shards[index].highest)
            yield sorted(group)

    def _columns(self, group: Iterable[int]) -> Iterator[Column]:
        for index in group:
            for piece in self._shards[index].pieces:
                yield (index, *KeyBatch.unpack(self._log.read(piece)))

    def _by_buckets(self, group: Sequence[int], count: int) -> Iterator[Repeat]:
        log = _Log()
        try:
            buckets = [_Bucket(log) for _ in range(count)]
            buffered = max(16, _BUFFERED // count)
            for index, keys, offsets, sets in self._columns(group):
                for key, offset, fields in zip(keys, offsets, sets, strict=True):
                    # Hashes of text are salted for each process: nobody can prepare keys for one bucket.
                    buckets[hash(key) % count].rows.append((index, key, offset, fields))
                for bucket in buckets:
                    if len(bucket.rows) >= buffered:
                        bucket.write()
            for bucket in buckets:
                bucket.write()
                yield from _repeats(bucket.columns)
        finally:
            log.close()


class _Bucket:
    """Keys of which equal ones are in no other bucket, in their order."""

    def __init__(self, log: _Log) -> None:
        self._log = log
        self._pieces: list[tuple[int, int]] = []
        self.rows: list[tuple[int, str, int, tuple[str, ...]]] = []

    def write(self) -> None:
        """Write down what is buffered."""
        if self.rows:
            self._pieces.append(self._log.write(pickle.dumps(self.rows, protocol=5)))
            self.rows = []

    def columns(self) -> Iterator[Column]:
        """What was written."""
        for piece in self._pieces:
            rows: list[tuple[int, str, int, tuple[str, ...]]] = pickle.loads(self._log.read(piece))  # noqa: S301 - our own
            for index, key, offset, fields in rows:
                yield index, (key,), (offset,), (fields,)


def _repeats(columns: Callable[[], Iterator[Column]]) -> Iterator[Repeat]:
    """The repeats among keys that fit in memory; looks twice if there are any."""
    seen: set[str] = set()
    twice: set[str] = set()
    for _, keys, _, _ in columns():
        before = len(seen)
        if seen.isdisjoint(keys):
            seen.update(keys)
            if len(seen) == before + len(keys):
                continue
            twice.update(key for key, times in Counter(keys).items() if times > 1)
        else:
            twice.update(key for key, times in Counter(keys).items() if times > 1 or key in seen)
            seen.update(keys)
    if not twice:
        return
    seen.clear()
    first: dict[str, Place] = {}
    for index, keys, offsets, sets in columns():
        for key, offset, fields in zip(keys, offsets, sets, strict=True):
            if key in twice:
                place = Place(index, offset, fields)
                known = first.setdefault(key, place)
                if known is not place:
                    yield Repeat(key, place, known)


class _Log:
    """Pieces of bytes in a temporary file without a name, which is gone when the process ends, however it ends."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed by close()
        self._size = 0

    def close(self) -> None:
        self._file.close()

    def write(self, data: bytes) -> tuple[int, int]:
        """Add a piece; where it is."""
        place = (self._size, len(data))
        try:
            self._file.seek(self._size)
            self._file.write(data)
        except OSError as error:
            raise AtdataError(
                f"cannot keep the keys in a temporary file: {error}",
                hint="set TMPDIR to a folder on a disk with more free space",
            ) from error
        self._size += len(data)
        return place

    def read(self, place: tuple[int, int]) -> bytes:
        """A piece again."""
        self._file.seek(place[0])
        return self._file.read(place[1])
