"""Drives a source into shards: one straight pass, from samples or rows to the writers of their splits."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Protocol

from atdata_cli.errors import AtdataError, DataError, UsageError
from atdata_cli.samples.check import RowSchema
from atdata_cli.samples.codec import packer
from atdata_cli.samples.keys import KeyTemplate
from atdata_cli.shards.embed import Embedder
from atdata_cli.shards.encode import (
    ENCODE_ERRORS,
    KEY,
    PlacedPacked,
    PlacedRows,
    RowPlacer,
    as_members,
    embed_values,
    known_fields,
    members,
    pack,
    shuffled,
)
from atdata_cli.shards.job import Encoding, WriteOptions
from atdata_cli.shards.plan import Limits, Splits, check_split_name
from atdata_cli.shards.series import ShardWriter, sample_bytes
from atdata_cli.shards.writer import member_bytes
from atdata_cli.sources.base import (
    Preflight,
    Reject,
    Row,
    RowBatch,
    RowSource,
    Sample,
    SampleSource,
    Source,
    Value,
    content,
    size_of,
)
from atdata_cli.sources.fieldcheck import no_such_field
from atdata_cli.sources.pieces import RowPiece, SamplePiece
from atdata_cli.sources.shuffle import ShuffledSamples

__all__ = ["Feed", "Piece", "PreparedRows", "Progress", "RejectSink", "Rejects", "RowFeed", "SampleFeed", "make_feed"]

# How much of the rows is looked at before the first shard: enough for stable sizes, little enough to hold.
_HEAD_RECORDS = 10_000
_HEAD_BYTES = 16 << 20
# Embedded files are looked up one by one, which is a request each in a remote store.
_HEAD_EMBEDDED = 1_000
# A run that fails lists what is wrong, all of it up to this many.
_MAX_LISTED = 1_000
_LARGEST_VALUE = 64 * 1024  # of a member that names a split or a group

Piece = RowPiece | SamplePiece
WriterOf = Callable[[str | None], ShardWriter]


@dataclass(slots=True)
class Progress:
    """How far a run is; read by whoever draws it, while the run goes on.

    Attributes
    ----------
    source : where the input position comes from.
    samples : written so far.
    shards, bytes : committed so far.
    activity : what is going on, as a verb.
    """

    source: Source | None = None
    samples: int = 0
    shards: int = 0
    bytes: int = 0
    activity: str = "writing"


class RejectSink(Protocol):
    """Where rejects are written down."""

    def write(self, reject: Reject, /) -> None:
        """Take one."""

    def restart(self) -> None:
        """Forget all: the input is read again from the beginning."""


class Rejects:
    """Collects what cannot become a sample, and decides when it is too much.

    Parameters
    ----------
    skip : whether the run goes on without the rejected samples.
    limit : how many are too many; None for no limit while skipping.
    sink : takes each, for ``--rejects FILE``.
    """

    def __init__(self, *, skip: bool = False, limit: int | None = None, sink: RejectSink | None = None) -> None:
        self.skip = skip
        self.count = 0
        self.listed: list[Reject] = []
        self._limit = limit
        self._sink = sink

    @property
    def failing(self) -> bool:
        """True once the run can only fail: it goes on to find the other rejects, but writes nothing more."""
        return self.count > 0 and not self.skip

    def add(self, reject: Reject) -> None:
        """Take one.

        Raises
        ------
        DataError : there are too many.
        """
        self.count += 1
        if len(self.listed) < _MAX_LISTED:
            self.listed.append(reject)
        if self._sink is not None:
            self._sink.write(reject)
        if self._limit is not None and self.count > self._limit:
            raise DataError(
                f"more than {self._limit} samples rejected (--max-errors)",
                url=reject.where,
                hint="see --rejects FILE for why; --max-errors allows more",
            )
        if not self.skip and self.count >= _MAX_LISTED:
            raise self.error()

    def error(self) -> DataError:
        """What a failing run ends with."""
        first = self.listed[0]
        if self.count < _MAX_LISTED:
            many = f"{self.count} samples cannot be written; the first: " if self.count > 1 else ""
        else:  # nobody looked any further
            many = (
                f"the first {_MAX_LISTED:,} samples that cannot be written are listed, there may be more; the first: "
            )
        return DataError(
            many + first.reason, url=first.where, hint="mend the input, or leave such samples out with --on-error skip"
        )

    def restart(self) -> None:
        """Forget all: the source is read again from the beginning."""
        self.count = 0
        self.listed.clear()
        if self._sink is not None:
            self._sink.restart()


@dataclass
class Feed(ABC):
    """One source with the options for it.

    Attributes
    ----------
    encoding : how its samples are written.
    limit : which limit ends shards, for people.
    splits : how samples are divided, or None.
    only_split : the one that all samples are of, if they are not divided.
    """

    options: WriteOptions
    rejects: Rejects
    progress: Progress
    encoding: Encoding = "files"
    limit: str = "--max-count"
    splits: Splits | None = field(init=False)
    only_split: str | None = None

    def __post_init__(self) -> None:
        self.splits = self.options.splits()

    @abstractmethod
    def prepare(self) -> Preflight:
        """Look at the input before anything is written."""

    @abstractmethod
    def limits(self) -> Limits:
        """What ends a shard where the number of samples does not matter."""

    @abstractmethod
    def run(self, writer_of: WriterOf) -> None:
        """Read the source once and hand each sample to the writer of its split."""

    @abstractmethod
    def is_divisible(self) -> bool:
        """Whether :meth:`pieces` can be made at all, where the source has any."""

    @abstractmethod
    def pieces(self, limits_of: Callable[[str | None], Limits], size: int) -> Iterator[Piece]:
        """The source in pieces of whole shards, for several processes; none if it cannot be divided.

        Parameters
        ----------
        limits_of : what ends the shards of a split.
        size : bytes that a piece is to have at least.
        """

    @abstractmethod
    def mappings(self) -> Iterator[dict[str, Any]]:
        """The samples as webdataset takes them, for stores that write shards themselves."""


@dataclass
class SampleFeed(Feed):
    """Feeds samples that are members already."""

    source: SampleSource = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.encoding = self.options.encoding or "files"
        if self.options.key is not None or self.options.embed or self.options.schema is not None:
            raise UsageError("--key, --embed and --schema apply to rows; these samples are files already")
        self.source.on_reject = self.rejects.add

    def prepare(self) -> Preflight:
        """The source's own preflight; its problems become rejects."""
        checked = self.source.preflight()
        for problem in checked.problems:
            self.rejects.add(problem)
        return checked

    def limits(self) -> Limits:
        """Exact tar bytes and count, as sizes are known before a sample is written."""
        hard = self.options.hard_limit
        return Limits(max_count=self.options.count_limit, max_bytes=self.options.size_limit, hard=hard)

    def run(self, writer_of: WriterOf) -> None:
        """See :class:`Feed`."""
        for sample in self._samples():
            if not self.rejects.failing:
                writer_of(self._split(sample)).add(sample)
                self.progress.samples += 1

    def is_divisible(self) -> bool:
        """See :class:`Feed`: packed samples are of unknown size until they are made."""
        return self.encoding == "files" and self.source.promised() is not None

    def pieces(self, limits_of: Callable[[str | None], Limits], size: int) -> Iterator[Piece]:
        """See :class:`Feed`."""
        promised = self.source.promised() if self.encoding == "files" else None
        if promised is None:
            return
        cutters: dict[str | None, _SampleCutter] = {}
        for sample in self._selected(promised):
            if self.rejects.failing:
                continue
            split = self._split(sample)
            cutter = cutters.get(split)
            if cutter is None:
                cutter = cutters[split] = _SampleCutter(split, limits_of(split), size)
            piece = cutter.add(sample)
            if piece is not None:
                yield piece
        for cutter in cutters.values():
            yield from cutter.rest()

    def mappings(self) -> Iterator[dict[str, Any]]:
        """See :class:`Feed`; members are read whole."""
        for sample in self._samples():
            yield {"__key__": sample.key} | {name: content(value) for name, value in sample.fields.items()}

    def _samples(self) -> Iterator[Sample]:
        pack_map = packer() if self.encoding == "msgpack" else None
        for sample in self._selected(self.source.samples()):
            fields = sample.fields
            if pack_map is not None and fields.keys() != {"msgpack"}:
                fields = {"msgpack": pack_map({name: content(fields[name]) for name in sorted(fields)})}
            yield sample if fields is sample.fields else Sample(sample.key, fields, sample.where, sample.extra)

    def _selected(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        """The samples with no other fields than are wanted."""
        wanted = None if self.options.fields is None else set(self.options.fields)
        for sample in samples:
            if wanted is None or wanted.issuperset(sample.fields):
                yield sample
                continue
            fields = {name: value for name, value in sample.fields.items() if name in wanted}
            if fields:
                yield Sample(sample.key, fields, sample.where, sample.extra)
            else:
                self.rejects.add(Reject(sample.where, "has none of the fields named with --fields", sample.key))

    def _split(self, sample: Sample) -> str | None:
        if self.splits is None:
            return self.only_split
        name = self.splits.source or self.splits.by
        if name is None:
            return self.splits.of(sample.key)
        value = (sample.extra or {}).get(name)
        if value is None:
            content = sample.fields.get(name)
            if content is None:
                raise DataError(f"sample {sample.key!r} has no field {name!r} to split by", url=sample.where)
            value = _small_text(content, name, sample)
        return _split_of(self.splits, value, sample.where)


class _SampleCutter:
    """Collects the samples of one split until they fill enough shards to be a piece."""

    def __init__(self, split: str | None, limits: Limits, size: int) -> None:
        self._split = split
        self._limits = limits
        self._size = size
        self._first = self._index = 0
        self._samples: list[Sample] = []
        self._bytes = 0
        self._begin()

    def _begin(self) -> None:
        """Begin a shard."""
        self._in_shard = self._members = 0

    def add(self, sample: Sample) -> SamplePiece | None:
        """Take a sample; the piece that is complete by now, if there is one. The same cuts as of a shard writer."""
        size = sample_bytes(sample.key, sample.fields)
        piece = None
        if not self._limits.takes(self._in_shard, self._members + size):
            piece = self._end_shard()
        self._samples.append(sample)
        self._in_shard += 1
        self._members += size
        self._bytes += size
        if self._in_shard >= self._limits.quota(self._index):
            return piece or self._end_shard()
        return piece

    def _end_shard(self) -> SamplePiece | None:
        self._index += 1
        self._begin()
        return self._take() if self._bytes >= self._size else None

    def _take(self) -> SamplePiece:
        piece = SamplePiece(self._samples, self._split, self._first, self._index - self._first, self._bytes)
        self._first, self._samples, self._bytes = self._index, [], 0
        return piece

    def rest(self) -> Iterator[SamplePiece]:
        """What is left at the end."""
        self._index += bool(self._in_shard)
        if self._samples:
            yield self._take()


def _split_of(splits: Splits, value: Any, where: str) -> str:
    if not isinstance(value, str | int | bool):
        raise DataError(f"{value!r} cannot choose a split: text or a whole number is needed", url=where)
    if splits.source is None:
        return splits.of(str(value))
    try:
        return check_split_name(str(value))
    except UsageError as error:
        raise DataError(error.message, url=where, hint=error.hint) from error


def _small_text(value: Value, name: str, sample: Sample) -> str:
    size = size_of(value)
    if size > _LARGEST_VALUE:
        raise DataError(f"field {name!r} is too large to split by ({size} bytes)", url=sample.where)
    return content(value).decode("utf-8", "replace").strip()


@dataclass(frozen=True, slots=True)
class PreparedRows:
    """What the first rows have told.

    Attributes
    ----------
    fields : the known fields, in order.
    own_keys : whether rows have a ``__key__``; None if there is no row among the first ones.
    """

    fields: tuple[str, ...]
    own_keys: bool | None


@dataclass
class RowFeed(Feed):
    """Feeds rows, through the encoder."""

    source: RowSource = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.encoding = self.options.encoding or ("files" if self.options.embed else "msgpack")
        self._embedder = Embedder(self.source.files, self.options.embed, self.options.embed_root)
        self._schema = None if self.options.schema is None else RowSchema(self.options.schema)
        self._template = None if self.options.key is None else KeyTemplate.parse(self.options.key)
        self._fields: tuple[str, ...] | None = None
        self._head: list[RowBatch] = []
        self._rest: Iterator[RowBatch] = iter(())
        self._max_count = self.options.count_limit
        self._own_keys: bool | None = None
        self._first_record = 0
        self.on_keys: Callable[[PlacedRows], None] | None = None

    def prepared(self) -> PreparedRows:
        """What is known after :meth:`prepare`."""
        assert self._fields is not None
        return PreparedRows(self._fields, self._own_keys)

    def proceed(self, prepared: PreparedRows, record: int) -> None:
        """Begin with a piece of the source, whose first record has this number, instead of :meth:`prepare`."""
        self._fields, self._own_keys = prepared.fields, prepared.own_keys
        self._first_record = record
        self._head, self._rest = [], self.source.batches()

    def is_divisible(self) -> bool:
        """See :class:`Feed`: rows of splits, and shuffled ones, come one after the other."""
        alone = self.splits is not None or self.options.shuffle or self._own_keys is None
        return self.source.rewindable and not alone

    def pieces(self, limits_of: Callable[[str | None], Limits], size: int) -> Iterator[Piece]:
        """See :class:`Feed`."""
        limits = limits_of(None)
        if not self.is_divisible() or not limits.by_record or limits.max_bytes is not None:
            return iter(())
        return self.source.pieces(limits.quota, size)

    def prepare(self) -> Preflight:
        """Read the first rows: they tell the fields and how many rows a shard can hold."""
        self._read_head()
        if self._fields is None:
            self._fields = self._declared() or known_fields(row for batch in self._head for row in batch.rows)
        self._own_keys = next((KEY in batch.rows[0] for batch in self._head if batch.rows), None)
        self._check_named(self._fields)
        self._lower_count()
        return Preflight(warnings=_doubtful(self._fields))

    def learn(self, new: tuple[str, ...]) -> None:
        """Go over all rows for their fields, after some turned up beyond the first rows."""
        self.rejects.restart()
        self.progress.samples = 0
        self._fields = known_fields(row for batch in self.source.batches() for row in batch.rows)
        missing = set(new).difference(self._fields)
        if missing:
            raise DataError(
                f"the input changed while it was read: {sorted(missing)} came and went",
                hint="run the command again when nothing writes to it",
            )

    def learn_all(self) -> None:
        """Go over all rows for their fields, unless something declares them."""
        if self.source.fields is None and self.options.fields is None and self._schema is None:
            self.learn(())

    def _declared(self) -> tuple[str, ...] | None:
        if self._schema is not None:
            return self._schema.fields
        if self.options.fields is None:
            return self.source.fields
        known = self.source.fields or known_fields(row for batch in self._head for row in batch.rows)
        unknown = [name for name in self.options.fields if name not in known]
        if unknown and known:
            raise no_such_field("--fields", unknown[0], known)
        return self.options.fields

    def _check_named(self, known: tuple[str, ...]) -> None:
        """An option that names a field which no row has is a slip of the pen, not a dataset without it."""
        options = self.options
        named: list[tuple[str, str | None]] = [("--embed", name) for name in options.embed]
        named += [("--split-by", options.split_by), ("--split-from", options.split_from)]
        if self._template is not None and options.fields is None and options.schema is None:
            named += [("--key", name) for name in self._template.fields]
        for option, name in named:
            if name is None or not known or name in known:
                continue
            if options.fields is not None or options.schema is not None:
                kept = "--fields" if options.fields is not None else "--schema"
                raise UsageError(f"{option}: the field {name!r} is not among those that {kept} keeps")
            raise no_such_field(option, name, known)

    def _read_head(self) -> None:
        self._rest = self.source.batches()
        self._head = []
        records, start = 0, self.source.position()
        for batch in self._rest:
            self._head.append(batch)
            records += batch.records
            if records >= _HEAD_RECORDS or self.source.position() - start >= _HEAD_BYTES:
                break

    def limits(self) -> Limits:
        """By count alone, so that the boundaries of all shards are known before any row is encoded.

        Where the store's own limit is hard, by bytes too.
        """
        if self.options.hard_limit:
            return Limits(max_count=self._max_count, max_bytes=self.options.size_limit, hard=True)
        return Limits(max_count=self._max_count, max_bytes=None, by_record=self.splits is None)

    def _lower_count(self) -> None:
        sizes = [] if self.options.hard_limit else self._head_sizes()
        if not sizes:
            return
        mean = sum(sizes) / len(sizes)
        spread = math.sqrt(sum((size - mean) ** 2 for size in sizes) / len(sizes))
        fitting = max(1, int(self.options.size_limit / mean))
        # Four standard errors above the mean of so many rows, plus a tenth for rows that are unlike the first ones.
        fitting = max(1, int(self.options.size_limit / (1.1 * (mean + 4 * spread / math.sqrt(fitting)))))
        if fitting < self._max_count:
            self._max_count = fitting
            self.limit = "--max-size"

    def _head_sizes(self) -> list[int]:
        """Tar bytes that each of the first rows takes; rows that cannot be encoded are told of later, in their turn."""
        most = _HEAD_EMBEDDED if self.options.embed else _HEAD_RECORDS
        encode = packer()
        if self.encoding == "msgpack" and not self.options.embed:
            with suppress(*ENCODE_ERRORS):
                rows = islice(chain.from_iterable(batch.rows for batch in self._head), most)
                return [member_bytes("", size) for size in map(len, map(encode, map(self._fitted, rows)))]
        sizes: list[int] = []
        for batch in self._head:
            for row in batch.rows:
                if len(sizes) >= most:
                    return sizes
                try:
                    row = self._fitted(row)
                    if self.encoding == "files":
                        fields = members(row, self._embedder, batch.file)
                        sizes.append(sum(member_bytes(f"{0:010d}.{name}", size_of(v)) for name, v in fields.items()))
                    else:
                        embedded = self._embedder.embed(row, batch.file).values()
                        size = len(encode(row)) + sum(content.size for _, content in embedded)
                        sizes.append(member_bytes("", size))
                except ENCODE_ERRORS:
                    continue
        return sizes

    def _fitted(self, row: Row) -> Row:
        """A row as it will be written: with every known field, whether it has it or not."""
        if self._schema is not None:
            return self._schema.apply(row)
        return {name: row.get(name) for name in self._fields or ()}

    def run(self, writer_of: WriterOf) -> None:
        """See :class:`Feed`.

        Raises
        ------
        NewFields : see :meth:`RowPlacer.place`; call :meth:`learn`, then start over.
        """
        for placed in self._placed():
            for split, rows in self._divide(placed):
                if isinstance(rows, PlacedPacked) or self.encoding == "msgpack":
                    self._write_packed(writer_of, split, rows)
                else:
                    self._write_members(writer_of, split, rows)

    def mappings(self) -> Iterator[dict[str, Any]]:
        """See :class:`Feed`."""
        for placed in self._placed():
            if isinstance(placed, PlacedPacked) or self.encoding == "msgpack":
                keys, payloads, _ = pack(self._with_content(placed), self._fields or (), self.rejects.add)
                for key, payload in zip(keys, payloads, strict=True):
                    yield {"__key__": key, "msgpack": payload}
            else:
                for sample in as_members(placed, self._embedder, self.rejects.add):
                    yield {"__key__": sample.key} | {name: content(v) for name, v in sample.fields.items()}

    def _placed(self) -> Iterator[PlacedRows | PlacedPacked]:
        """The rows of all batches; packed ones only where keys are numbers and nothing but their bytes is wanted."""
        assert self._fields is not None, "prepare() comes first"
        placer = RowPlacer(
            fields=self._fields,
            template=self._template,
            schema=self._schema,
            selected=self.options.fields is not None,
            rewindable=self.source.rewindable,
            on_reject=self.rejects.add,
            records=self._first_record,
            own_keys=self._own_keys,
            on_keys=self.on_keys,
        )
        head, self._head = self._head, []
        if self.options.shuffle:
            return shuffled(map(placer.place_rows, chain(_consume(head), self._rest)), self.options.seed or 0)
        rest = self.source.packing(self._rest, self._fields) if self._only_packed() else self._rest
        return map(placer.place, chain(_consume(head), rest))

    def _only_packed(self) -> bool:
        """Whether no more is wanted of most rows than to be packed as they are."""
        options = self.options
        changed = options.fields is not None or self._schema is not None or bool(options.embed)
        named = self._own_keys is not False or self._template is not None
        divided = self.splits is not None and (self.splits.source or self.splits.by) is not None
        return self.encoding == "msgpack" and not (changed or named or divided)

    def _with_content(self, placed: PlacedRows | PlacedPacked) -> PlacedRows | PlacedPacked:
        if isinstance(placed, PlacedPacked) or not self.options.embed:
            return placed
        return embed_values(placed, self._embedder, self.rejects.add)

    def _divide(self, placed: PlacedRows | PlacedPacked) -> Iterator[tuple[str | None, PlacedRows | PlacedPacked]]:
        if self.splits is None:
            yield None, placed
            return
        name = self.splits.source or self.splits.by
        groups: dict[str, list[int]] = {}
        if name is None or isinstance(placed, PlacedPacked):
            for index, split in enumerate(map(self.splits.of, placed.keys)):
                groups.setdefault(split, []).append(index)
        else:
            for index, row in enumerate(placed.rows):
                try:
                    groups.setdefault(_split_of(self.splits, row.get(name), ""), []).append(index)
                except DataError as error:
                    self.rejects.add(placed.reject(index, f"field {name!r}: {error.message}"))
        for split, indexes in groups.items():
            yield split, placed.select(indexes)

    def _write_packed(self, writer_of: WriterOf, split: str | None, rows: PlacedRows | PlacedPacked) -> None:
        rows = self._with_content(rows)
        for writer, start, stop in _by_shard(writer_of, split, rows.records):
            part = rows.cut(start, stop)
            keys, payloads, stats = pack(part, self._fields or (), self.rejects.add)
            if self.rejects.failing:
                continue
            if writer.fitting(keys, payloads) == len(keys):
                writer.add_packed(keys, payloads, stats)
                self.progress.samples += len(keys)
            else:
                self._write_by_bytes(writer, part, keys, payloads)

    def _write_by_bytes(
        self, writer: ShardWriter, rows: PlacedRows | PlacedPacked, keys: Sequence[str], payloads: Sequence[bytes]
    ) -> None:
        """Write packed rows that go over the end of the current shard, each part with the statistics of its rows."""
        packed = set(keys)
        rows = rows.select([index for index, key in enumerate(rows.keys) if key in packed])
        start = 0
        while start < len(keys):
            count = writer.fitting(keys[start:], payloads[start:])
            if not count:
                writer.finish_shard()
                continue
            writer.add_packed(*pack(rows.cut(start, start + count), self._fields or (), self.rejects.add))
            self.progress.samples += count
            start += count

    def _write_members(self, writer_of: WriterOf, split: str | None, rows: PlacedRows) -> None:
        for writer, start, stop in _by_shard(writer_of, split, rows.records):
            for sample in as_members(rows.cut(start, stop), self._embedder, self.rejects.add):
                if not self.rejects.failing:
                    writer.add(sample)
                    self.progress.samples += 1


def _by_shard(writer_of: WriterOf, split: str | None, records: Sequence[int]) -> Iterator[tuple[ShardWriter, int, int]]:
    """The rows in parts, *start* to *stop*, that each go into the writer's shard of that moment."""
    start = 0
    while start < len(records):
        writer = writer_of(split)
        stop = writer.stop(records, start)
        yield writer, start, stop
        start = stop


def _consume(batches: list[RowBatch]) -> Iterator[RowBatch]:
    """The batches, each let go of as it is handed out."""
    batches.reverse()
    while batches:
        yield batches.pop()


def _doubtful(fields: tuple[str, ...]) -> list[str]:
    """What a person would want to know about the names of fields; nothing of it loses data."""
    warnings = []
    folded: dict[str, str] = {}
    for name in fields:
        twin = folded.setdefault(name.lower(), name)
        if twin != name:
            warnings.append(f"the fields {twin!r} and {name!r} differ only by case")
        if name.startswith("_"):
            warnings.append(f"the field {name!r} begins with an underscore, which webdataset keeps for itself")
    return warnings


def make_feed(source: Source, options: WriteOptions, *, rejects: Rejects, progress: Progress) -> Feed:
    """The feed for a source's kind."""
    if options.shuffle and isinstance(source, SampleSource):
        source = ShuffledSamples(source, options.seed or 0)
    progress.source = source
    if isinstance(source, RowSource):
        return RowFeed(options, rejects, progress, source=source)
    if isinstance(source, SampleSource):
        return SampleFeed(options, rejects, progress, source=source)
    raise AtdataError(f"{type(source).__name__} is neither a RowSource nor a SampleSource")
