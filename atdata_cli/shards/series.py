"""A series of shards under one prefix: opens the next where a limit is reached, gives up what is unfinished."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from atdata_cli.errors import DataError
from atdata_cli.samples.codec import unpack_rows
from atdata_cli.samples.schema import FieldStats, MemberStats, merge_stats, observe_rows
from atdata_cli.samples.tar import archive_bytes
from atdata_cli.shards.manifest import ShardRow
from atdata_cli.shards.plan import Limits
from atdata_cli.shards.protocols import ShardSink
from atdata_cli.shards.stream import Pipeline, ShardStream, Stored
from atdata_cli.shards.writer import TarCounter, TarWriter, member_bytes
from atdata_cli.sources.base import Sample, Value, content, size_of

__all__ = ["FinishedShard", "ShardWriter", "Target", "sample_bytes"]

# Packed samples that came as files are decoded for their statistics in batches of this many, or of so many bytes.
_OBSERVE_BATCH = 1000
_OBSERVE_BYTES = 8 << 20
_PACKED_MOST = 64 << 20  # bytes of one: a byte can become 72 bytes of objects


@dataclass(frozen=True, slots=True)
class FinishedShard:
    """All that the manifest needs to know of one shard.

    Attributes
    ----------
    row : its row in the manifest.
    index : its number.
    payload : sum of its members' sizes.
    tar_bytes : size of the tar, before compression.
    packed : statistics of the fields of its msgpack samples; None if a sample is something else.
    members : statistics of its members, by field.
    how : what became of it: ``stored`` by this run; ``kept`` as it was there; made, but not ``stored``, only
        ``compared``; or its sizes ``counted``, for a plan.
    """

    row: ShardRow
    index: int
    payload: int
    tar_bytes: int
    packed: Mapping[str, FieldStats] | None
    members: Mapping[str, MemberStats]
    how: Literal["stored", "kept", "compared", "counted"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where one shard goes.

    Attributes
    ----------
    name : its file name.
    sink : takes its bytes; None if they are not made, only counted.
    stores : False if the sink keeps nothing.
    known : the shard that is there; one of the same bytes is kept, with its name, and not stored.
    made : the shard as an earlier pass over the same input made it: it is not made again.
    check : called, in a thread, before it is stored.
    note : called, in a thread, when it is stored.
    """

    name: str
    sink: ShardSink | None = None
    stores: bool = False
    known: ShardRow | None = None
    made: FinishedShard | None = None
    check: Callable[[], None] | None = None
    note: Callable[[ShardRow], None] | None = None


@dataclass(slots=True)
class _OpenShard:
    index: int
    target: Target
    tar: TarWriter | TarCounter
    stream: ShardStream | None = None
    samples: int = 0
    first_key: str = ""
    last_key: str = ""
    packed: dict[str, FieldStats] | None = field(default_factory=dict)
    members: dict[str, MemberStats] = field(default_factory=dict)
    pending: list[bytes] = field(default_factory=list)
    pending_bytes: int = 0

    def note(self, first_key: str, last_key: str, samples: int) -> None:
        if not self.samples:
            self.first_key = first_key
        self.last_key = last_key
        self.samples += samples

    def observe(self, fields: Sequence[tuple[str, Value]]) -> None:
        for name, value in fields:
            seen = self.members.get(name)
            if seen is None:
                seen = self.members[name] = MemberStats()
            seen.observe(size_of(value))
        if self.packed is None:
            return
        value = fields[0][1]
        if _is_packed(fields) and isinstance(value, bytes):
            self.pending.append(value)
            self.pending_bytes += len(value)
            if len(self.pending) >= _OBSERVE_BATCH or self.pending_bytes >= _OBSERVE_BYTES:
                self.observe_pending()
        else:
            self.packed = None
            self.pending.clear()

    def observe_pending(self) -> None:
        """Decode the packed samples that came as bytes; one that is no map makes the shard one of plain files."""
        pending, self.pending, self.pending_bytes = self.pending, [], 0
        if self.packed is None or not pending:
            return
        rows = unpack_rows(pending)
        if rows is None:
            self.packed = None
            return
        for fields, group in groupby(rows, tuple):  # foreign samples need not agree in their fields
            observe_rows(self.packed, fields, list(group))

    def row(self, stored: Stored) -> ShardRow:
        """Its row in the manifest."""
        known = self.target.known
        return ShardRow(
            name=known.name if stored.kept and known is not None else self.target.name,
            samples=self.samples,
            bytes=stored.bytes,
            sha256=stored.sha256,
            first_key=self.first_key,
            last_key=self.last_key,
        )

    def finished(self, stored: Stored) -> FinishedShard:
        """What became of it.

        Raises
        ------
        DataError : it is not what an earlier pass over the same input made.
        """
        made, tar = self.target.made, self.tar
        if made is not None:
            same = (made.row.samples, made.row.first_key, made.row.last_key, made.payload) == (
                self.samples,
                self.first_key,
                self.last_key,
                tar.payload,
            )
            if not same or (stored.sha256 and not stored.kept):
                raise DataError(
                    "the input changed while it was read", hint="run the command again when nothing writes to it"
                )
            return made
        how: Literal["stored", "kept", "compared", "counted"] = "stored" if self.target.stores else "compared"
        if self.stream is None:
            how = "counted"
        elif stored.kept:
            how = "kept"
        return FinishedShard(
            self.row(stored), self.index, tar.payload, archive_bytes(tar.members), self.packed, self.members, how
        )


def _is_packed(fields: Sequence[tuple[str, Value]]) -> bool:
    return len(fields) == 1 and fields[0][0] == "msgpack"


def _read(fields: list[tuple[str, Value]]) -> list[tuple[str, Value]]:
    """A packed sample with its bytes; as it is if they are many, or not as many as they were, which the tar tells."""
    ((name, value),) = fields
    if isinstance(value, bytes) or value.size > _PACKED_MOST:
        return fields
    data = content(value)
    return [(name, data)] if len(data) == value.size else fields


class ShardWriter:
    """Writes samples one after another into ``PREFIX/shard-000000.tar``, ``…-000001.tar``, …

    A shard is opened with its first sample, so that none is empty. Finished shards are committed in the background;
    what goes wrong there is raised by a later call.

    Parameters
    ----------
    targets : given a shard's number, where it goes.
    limits : what ends a shard.
    pipeline : threads and buffers, shared by all series of a run.
    gzip : compress each shard.
    on_shard : called with each shard as it is finished.
    first : number of the first shard.
    record : number of the first record that it takes, where records count.
    """

    def __init__(
        self,
        targets: Callable[[int], Target],
        limits: Limits,
        pipeline: Pipeline,
        *,
        gzip: bool = False,
        on_shard: Callable[[FinishedShard], None] | None = None,
        first: int = 0,
        record: int = 0,
    ) -> None:
        self._targets = targets
        self._limits = limits
        self._pipeline = pipeline
        self._gzip = gzip
        self._on_shard = on_shard
        self._index = first
        self._end = record + limits.quota(first)
        self._open: _OpenShard | None = None
        self._committing: tuple[_OpenShard, Future[Stored]] | None = None
        self.finished: list[FinishedShard] = []

    def room(self) -> float:
        """How many samples the current shard still takes, by count."""
        taken = 0 if self._open is None else self._open.samples
        return self._limits.quota(self._index) - taken

    def stop(self, records: Sequence[int], start: int) -> int:
        """Go to the shard that takes the next rows, and tell how many of them it takes.

        A shard of whose records none is a sample is left out, and its number, too.

        Parameters
        ----------
        records : the rows' numbers among all records, ascending.
        start : index of the first row that is still to be written.

        Returns
        -------
        Index of the first row that the shard does not take.
        """
        if not self._limits.by_record:
            return int(min(len(records), start + self.room()))
        while records[start] >= self._end:
            if self._open is not None:
                self.finish_shard()
            else:
                self._next()
        return bisect_left(records, self._end, start)

    def _next(self) -> None:
        self._index += 1
        self._end += self._limits.quota(self._index)

    def fitting(self, keys: Sequence[str], payloads: Sequence[bytes]) -> int:
        """How many of these msgpack samples the current shard still takes, by bytes; at least one if it is empty."""
        limit = self._limits.max_bytes
        if limit is None or self._limits.even is not None:
            return len(keys)
        members = 0 if self._open is None else self._open.tar.members
        for count, (key, payload) in enumerate(zip(keys, payloads, strict=True)):
            members += member_bytes(f"{key}.msgpack", len(payload))
            if archive_bytes(members) > limit:
                return count or int(self._open is None)
        return len(keys)

    def add_packed(self, keys: Sequence[str], payloads: Sequence[bytes], stats: Mapping[str, FieldStats]) -> None:
        """Write msgpack samples into the current shard; no more of them than :meth:`room` says.

        Parameters
        ----------
        keys, payloads : the samples.
        stats : of their fields.
        """
        if not keys:
            return
        shard = self._current()
        shard.tar.add_packed(keys, payloads)
        shard.note(keys[0], keys[-1], len(keys))
        if shard.packed is not None:
            merge_stats(shard.packed, stats)
        self._finish_if_full()

    def add(self, sample: Sample) -> None:
        """Write one sample of members, into the next shard if the current one would grow over its limit."""
        fields = sorted(sample.fields.items())
        if self._limits.max_bytes is not None and self._open is not None:
            members = self._open.tar.members + sample_bytes(sample.key, sample.fields)
            if not self._limits.takes(self._open.samples, members):
                self.finish_shard()
        shard = self._current()
        if shard.packed is not None and _is_packed(fields):
            fields = _read(fields)
        for name, value in fields:
            shard.tar.add(f"{sample.key}.{name}", value)
        shard.note(sample.key, sample.key, 1)
        shard.observe(fields)
        self._finish_if_full()

    def finish_shard(self) -> None:
        """End the current shard, if one is open: the next sample begins another."""
        shard = self._open
        if shard is None:
            return
        self._check_size(shard)
        shard.tar.close()
        shard.observe_pending()
        self._collect()  # while this shard still counts as open: if the one before it failed, abort() ends this one too
        self._open = None
        self._next()
        if shard.stream is None:
            self._finished(shard, Stored(archive_bytes(shard.tar.members), ""))
            return

        def note(stored: Stored) -> None:
            if shard.target.note is not None:
                shard.target.note(shard.row(stored))

        self._committing = shard, shard.stream.finish(note, check=shard.target.check)

    def _check_size(self, shard: _OpenShard) -> None:
        """Find that the store will not take a shard, before it is asked to.

        Raises
        ------
        DataError : it will not.
        """
        size, limit = archive_bytes(shard.tar.members), self._limits.max_bytes
        if not self._limits.hard or limit is None or size <= limit:
            return
        if shard.samples == 1:
            what, hint = f"the sample {shard.first_key!r} alone makes", "leave it out, or make its members smaller"
        else:
            what, hint = f"{shard.samples} samples make", "ask for more shards, or leave out --shards"
        raise DataError(
            f"{what} a shard of {size:,} bytes, and the destination takes {limit:,} at most",
            url=shard.target.name,
            hint=hint,
        )

    def close(self) -> list[FinishedShard]:
        """End the series; all shards are in the store when this returns."""
        self.finish_shard()
        self._collect()
        return self.finished

    def abort(self) -> None:
        """Give up the shard that is open; what is committed already stays."""
        shard, self._open = self._open, None
        try:
            if shard is not None and shard.stream is not None:
                shard.tar.drop()
                shard.stream.abort()
        finally:
            if self._committing is not None:
                committing, future = self._committing
                self._committing = None
                if future.exception() is None:  # wait: it commits, or cleans up after itself
                    self._finished(committing, future.result())

    def _current(self) -> _OpenShard:
        if self._open is None:
            target = self._targets(self._index)
            if target.sink is None:
                self._open = _OpenShard(self._index, target, TarCounter())
            else:
                known = None if target.known is None else target.known.sha256
                stream = ShardStream(target.sink, self._pipeline, gzip=self._gzip, known=known)
                try:
                    self._open = _OpenShard(self._index, target, TarWriter(stream), stream)
                except BaseException:  # an interrupt while it waits for a buffer
                    stream.abort()
                    raise
        return self._open

    def _finish_if_full(self) -> None:
        if self.room() <= 0:
            self.finish_shard()

    def _collect(self) -> None:
        """Wait for the shard that is being committed; at most one is, which bounds memory and surprises."""
        if self._committing is None:
            return
        shard, future = self._committing
        self._committing = None
        self._finished(shard, future.result())

    def _finished(self, shard: _OpenShard, stored: Stored) -> None:
        done = shard.finished(stored)
        self.finished.append(done)
        if self._on_shard is not None:
            self._on_shard(done)


def sample_bytes(key: str, fields: Mapping[str, Value]) -> int:
    """Bytes that a sample's members take in a tar."""
    return sum([member_bytes(f"{key}.{name}", size_of(value)) for name, value in fields.items()])
