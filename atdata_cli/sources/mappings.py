"""Datasets that Python code holds: iterables of sample mappings, and ``atdata.Dataset`` objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, BinaryIO

from atdata_cli.errors import DataError, NotFoundError, UsageError
from atdata_cli.samples.keys import UniqueKeys, check_field, check_key
from atdata_cli.sources.base import (
    FileInfo,
    InputFile,
    Reject,
    Row,
    RowBatch,
    RowSource,
    Sample,
    SampleSource,
    Source,
)

__all__ = ["as_source"]

_BATCH = 1000
_INPUT = InputFile(name="-", url="-", size=None)


class _NoFiles:
    """Stands in where samples come from memory: there is no place that a path could be relative to."""

    def info(self, url: str) -> FileInfo | None:
        """Nothing is anywhere."""
        return None

    def walk(self, url: str) -> Iterator[tuple[str, FileInfo]]:
        """Nothing is anywhere."""
        return iter(())

    def hidden(self) -> int:
        """Nothing is hidden."""
        return 0

    def glob(self, pattern: str) -> list[str]:
        """Nothing matches."""
        return []

    def open(self, url: str) -> BinaryIO:
        """Raise :class:`NotFoundError`."""
        raise NotFoundError("samples from memory name no files", url=url)


class _Once:
    """Gives the items of an iterable: again and again if it can be iterated anew, else once."""

    def __init__(self, items: Callable[[], Iterator[Any]], first: list[Any], *, rewindable: bool) -> None:
        self._items = items
        self._first: list[Any] | None = first
        self.rewindable = rewindable
        self._started: Iterator[Any] | None = None if rewindable else items()

    def __iter__(self) -> Iterator[Any]:
        if self._started is None:
            return self._items()
        if self._first is None:
            raise UsageError(
                "an iterator can be read once only", hint="pass a list, or an object that can be iterated anew"
            )
        first, self._first = self._first, None
        return chain(first, self._started)


class MappingRows(RowSource):
    """Mappings of field to any value; ``__key__`` is optional."""

    inputs = (_INPUT,)

    def __init__(self, items: _Once) -> None:
        self._items = items
        self.rewindable = items.rewindable
        self.files = _NoFiles()

    def count(self) -> int | None:
        """Unknown: an iterable need not tell."""
        return None

    def batches(self) -> Iterator[RowBatch]:
        """See :class:`RowSource`."""
        items = iter(self._items)
        first = 1
        while block := list(islice(items, _BATCH)):
            rows: list[Row] = []
            lines: list[int] = []
            rejects: list[Reject] = []
            for line, item in enumerate(block, first):
                reason = _bad_row(item)
                if reason is None:
                    rows.append(dict(item))
                    lines.append(line)
                else:
                    rejects.append(Reject(f"sample {line}", reason, record=repr(item)[:1000]))
            yield RowBatch(_INPUT, rows, lines, [line - first for line in lines], len(block), rejects)
            first += len(block)


def _bad_row(item: Any) -> str | None:
    if not isinstance(item, Mapping):
        return f"a sample is a mapping of field to value, not {type(item).__name__}"
    if not all(isinstance(name, str) for name in item):
        return "a field's name is not text"
    level = list(item.values())
    while level:
        inner = [value for value in level if isinstance(value, dict)]
        if not all(isinstance(name, str) for value in inner for name in value):
            return "a map with keys that are not text"  # which msgpack writes, but no reader takes
        items = [value for value in level if isinstance(value, list | tuple)]
        level = [*chain.from_iterable(items), *chain.from_iterable(value.values() for value in inner)]
    return None


class MappingSamples(SampleSource):
    """Mappings of ``__key__`` and fields whose values are bytes already, as webdataset's writers take them."""

    inputs = (_INPUT,)

    def __init__(self, items: _Once) -> None:
        super().__init__()
        self._items = items
        self.rewindable = items.rewindable

    def count(self) -> int | None:
        """Unknown: an iterable need not tell."""
        return None

    def samples(self) -> Iterator[Sample]:
        """See :class:`SampleSource`."""
        unique = UniqueKeys()
        for number, item in enumerate(self._items):
            where = f"sample {number + 1}"
            reason = _bad_row(item) or _bad_bytes(item)
            if reason:
                self.on_reject(Reject(where, reason, record=repr(item)[:1000]))
                continue
            key = item.get("__key__", f"{number:010d}")
            fields = {name: bytes(value) for name, value in item.items() if not name.startswith("__")}
            reason = check_key(key) or next(filter(None, map(check_field, fields)), None)
            first = None if reason else unique.add(key, where)
            if first is not None:
                reason = f"duplicate key {key!r}, first at {first}"
            if reason:
                self.on_reject(Reject(where, reason, key=key))
            else:
                yield Sample(key, fields, where)


def _bad_bytes(item: Mapping[str, Any]) -> str | None:
    if not isinstance(item.get("__key__", ""), str):
        return f"the __key__ is {type(item['__key__']).__name__}, not text"
    for name, value in item.items():
        if not name.startswith("__") and not isinstance(value, bytes | bytearray | memoryview):
            return f"field {name!r} is {type(value).__name__}, although all of the first sample are bytes"
    return None


def _is_bytes_sample(item: Any) -> bool:
    if not isinstance(item, Mapping):
        return False
    values = [value for name, value in item.items() if not str(name).startswith("__")]
    return bool(values) and all(isinstance(value, bytes | bytearray | memoryview) for value in values)


def as_source(ds: Any) -> Source:
    """A source for *ds*.

    Parameters
    ----------
    ds : a :class:`Source`; an ``atdata.Dataset`` (an object whose ``ordered(batch_size=None)`` yields samples with
        ``as_wds``); or an iterable of such samples or of mappings. What is the first sample's kind is that of all.
        The random keys that ``as_wds`` makes anew at each call are replaced by the sample's number, so that the
        same dataset gives the same shards.

    Raises
    ------
    DataError : it is none of these.
    """
    if isinstance(ds, Source):
        return ds
    if hasattr(ds, "ordered"):
        return MappingSamples(_Once(lambda: map(_as_wds, ds.ordered(batch_size=None)), [], rewindable=True))
    if not isinstance(ds, Iterable) or isinstance(ds, str | bytes | Mapping):
        raise DataError(f"{type(ds).__name__} is no dataset: an iterable of sample mappings is needed")
    iterator = iter(ds)
    rewindable = iterator is not ds
    first = list(islice(iterator, 1))
    if first and hasattr(first[0], "as_wds"):
        first = [_as_wds(first[0])]
        items = _Once(
            (lambda: map(_as_wds, ds)) if rewindable else (lambda: map(_as_wds, iterator)), first, rewindable=rewindable
        )
    else:
        items = _Once((lambda: iter(ds)) if rewindable else (lambda: iterator), first, rewindable=rewindable)
    return MappingSamples(items) if first and _is_bytes_sample(first[0]) else MappingRows(items)


def _as_wds(sample: Any) -> Mapping[str, bytes]:
    return {name: value for name, value in sample.as_wds.items() if name != "__key__"}
