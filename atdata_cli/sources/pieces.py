"""Pieces of sources: what one process can read of them while others read the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from atdata_cli.sources.base import Files, InputFile, RowSource, Sample, SampleSource, Value

__all__ = ["Cuts", "Opened", "Promise", "RowPiece", "SamplePiece", "Slice"]

_MOST_OPEN = 32


class Slice(NamedTuple):
    """Consecutive records of one file.

    Attributes
    ----------
    item : the file.
    start, stop : bytes of a text file, rows of another; None for its end.
    line : of the first record, 1-based.
    checked : every line begins and ends as an object does: whoever cut the file looked at its bytes.
    """

    item: InputFile
    start: int = 0
    stop: int | None = None
    line: int = 1
    checked: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is all of the file."""
        return self.start == 0 and self.stop is None


@dataclass(frozen=True, slots=True)
class RowPiece:
    """A piece of a row source that fills whole shards.

    Attributes
    ----------
    source : gives its records, as soon as :meth:`open` has given it access to files.
    shard, shards : number of its first shard, and how many it fills; None if that is not known.
    record : number of its first record among all.
    size : bytes of input.
    """

    source: RowSource
    shard: int
    shards: int | None
    record: int
    size: int

    def open(self, files: Files) -> RowSource:
        """Its records."""
        self.source.files = files
        return self.source


class Cuts:
    """Goes through a row source's records and finds where shards end.

    Parameters
    ----------
    quota : how many records shard *index* takes.
    """

    def __init__(self, quota: Callable[[int], float]) -> None:
        self._quota = quota
        self._shard = 0
        self._record = 0
        self._end = quota(0)
        self._first = (0, 0)

    @property
    def left(self) -> float:
        """Records that the current shard still takes."""
        return self._end - self._record

    def take(self, records: int) -> None:
        """Pass over some records of the current shard."""
        self._record += records

    def next_shard(self) -> None:
        """The current shard ends here."""
        self._shard += 1
        self._end += self._quota(self._shard)

    @property
    def begun(self) -> bool:
        """Whether the current piece has any record."""
        return self._record > self._first[1]

    def piece(self, source: RowSource, size: int, *, rest: bool = False) -> RowPiece:
        """All since the last piece; *rest* if it is all that is left, of which no more is known."""
        shard, record = self._first
        inside = self._record > self._end - self._quota(self._shard)
        self._first = self._shard, self._record
        return RowPiece(source, shard, None if rest else self._shard - shard + inside, record, size)


class Opened:
    """What a process has opened to keep promises, as a context manager.

    Attributes
    ----------
    files : how places are opened.
    """

    def __init__(self, files: Files) -> None:
        self.files = files
        self._descriptors: dict[str, int] = {}

    def descriptor(self, path: str) -> int:
        """A file on this machine's disks, kept open."""
        descriptor = self._descriptors.get(path)
        if descriptor is None:
            if len(self._descriptors) >= _MOST_OPEN:
                os.close(self._descriptors.pop(next(iter(self._descriptors))))
            descriptor = self._descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return descriptor

    def attach(self, sample: Sample) -> None:
        """Let a sample's values, which are bytes or promises, be read by these means."""
        for value in sample.fields.values():
            if not isinstance(value, bytes):
                value.attach(self)  # type: ignore[attr-defined]

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *exception: object) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()


class Promise(Protocol):
    """A value that another process can read than the one that made it."""

    def attach(self, opened: Opened, /) -> None:
        """Read it by means of *opened* from now on."""


@dataclass(frozen=True, slots=True)
class SamplePiece:
    """Samples that fill whole shards of one split.

    Attributes
    ----------
    samples : their values are bytes or promises.
    split, shard, shards : of which split; number of its first shard, and how many there are.
    size : bytes of their values.
    """

    samples: Sequence[Sample]
    split: str | None
    shard: int
    shards: int
    size: int

    def __reduce__(self) -> tuple[Callable[..., SamplePiece], tuple[Any, ...]]:
        # Plain tuples are pickled several times as fast as samples.
        plain = [(sample.key, tuple(sample.fields.items()), sample.where) for sample in self.samples]
        return _sample_piece, (plain, self.split, self.shard, self.shards, self.size)

    def open(self, files: Files) -> SampleSource:
        """The samples."""
        return _Promised(self.samples, files)


def _sample_piece(plain: Sequence[tuple[str, tuple[tuple[str, Value], ...], str]], *rest: Any) -> SamplePiece:
    return SamplePiece([Sample(key, dict(fields), where) for key, fields, where in plain], *rest)


class _Promised(SampleSource):
    inputs = ()

    def __init__(self, samples: Sequence[Sample], files: Files) -> None:
        super().__init__()
        self._samples = samples
        self._files = files

    def count(self) -> int:
        return len(self._samples)

    def samples(self) -> Iterator[Sample]:
        with Opened(self._files) as opened:
            for sample in self._samples:
                opened.attach(sample)
                yield sample
