"""Shards of one source, or of a piece of it, by one process: a straight pass from samples to a store."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

from atdata_cli.errors import AtdataError, DataError, UsageError
from atdata_cli.shards.destination import Destination
from atdata_cli.shards.encode import NewFields, PlacedRows
from atdata_cli.shards.feed import Feed, Piece, PreparedRows, Progress, Rejects, RowFeed, make_feed
from atdata_cli.shards.job import WriteOptions
from atdata_cli.shards.plan import MAX_SPLITS, Limits
from atdata_cli.shards.problems import KeyBatch
from atdata_cli.shards.series import FinishedShard, ShardWriter
from atdata_cli.shards.stream import Pipeline
from atdata_cli.shards.targets import Targets
from atdata_cli.sources.base import Files, Reject
from atdata_cli.sources.pieces import RowPiece, SamplePiece

__all__ = ["Done", "Finished", "Setting", "Task", "make", "make_piece", "running"]

Finished = Mapping[str | None, Sequence[FinishedShard]]
LimitsOf = Callable[[str | None], Limits]


def make(
    feed: Feed,
    targets: Targets,
    destination: Destination,
    limits_of: LimitsOf,
    *,
    on_shard: Callable[[FinishedShard], None] | None = None,
    piece: Piece | None = None,
    pipeline: Pipeline | None = None,
) -> Finished:
    """Feed all samples into the shards that *targets* gives.

    Parameters
    ----------
    limits_of : what ends the shards of a split.
    on_shard : called with each shard as it is finished.
    piece : what of the source the feed has, if it is not all of it.
    pipeline : of an earlier call, whose threads and buffers serve again; not after one that failed.

    Raises
    ------
    AtdataError, NewFields, OSError, … : nothing unfinished stays behind; finished shards do.
    """
    writers: dict[str | None, ShardWriter] = {}
    first = 0 if piece is None else piece.shard
    record = piece.record if isinstance(piece, RowPiece) else 0
    with Pipeline() if pipeline is None else nullcontext(pipeline) as lanes:

        def writer_of(split: str | None) -> ShardWriter:
            writer = writers.get(split)
            if writer is None:
                if len(writers) == MAX_SPLITS:
                    raise UsageError(
                        f"there are more than {MAX_SPLITS} splits", hint="split by a field that has few values"
                    )
                writer = writers[split] = ShardWriter(
                    partial(targets.target, destination, split or ""),
                    limits_of(split),
                    lanes,
                    gzip=feed.options.compress == "gz",
                    on_shard=on_shard,
                    first=first,
                    record=record,
                )
            return writer

        try:
            for split in feed.splits.shares if feed.splits else (feed.only_split,):
                writer_of(split)
            feed.run(writer_of)
            if feed.rejects.failing:
                raise feed.rejects.error()
            if piece is None and feed.progress.source is not None:
                feed.progress.source.finish()
            return {split: writer.close() for split, writer in writers.items()}
        except BaseException:
            for writer in writers.values():
                with suppress(AtdataError):  # the first error is the one to tell; the other shards end, too
                    writer.abort()
            raise


@dataclass(frozen=True, slots=True)
class Setting:
    """What all tasks of a run have in common.

    Attributes
    ----------
    files : how a task reads.
    destination : where it writes.
    options : of the job.
    prepared : of a job on rows.
    limits, default : of each split, and of those that are not named.
    """

    files: Files
    destination: Destination
    options: WriteOptions
    prepared: PreparedRows | None
    limits: Mapping[str | None, Limits]
    default: Limits

    def limits_of(self, split: str | None) -> Limits:
        """What ends the shards of a split."""
        return self.limits.get(split) or self.default


@dataclass(frozen=True, slots=True)
class Task:
    """Some shards that one process makes, by itself.

    Attributes
    ----------
    number : of the task, in the order of the input.
    piece : what they are made from.
    targets : where they go.
    """

    number: int
    piece: Piece
    targets: Targets


@dataclass(slots=True)
class Done:
    """What became of a task.

    Attributes
    ----------
    split : of the shards.
    shards : those that were finished, in order.
    rejects : inputs that cannot be samples, in order.
    keys : of the samples, if any of them may be elsewhere in the input, too.
    new_fields : that rows turned out to have beyond the known ones; then nothing else counts.
    error : that ended it.
    """

    split: str | None
    shards: Sequence[FinishedShard] = ()
    rejects: list[Reject] = field(default_factory=list)
    keys: KeyBatch | None = None
    new_fields: Sequence[str] = ()
    error: AtdataError | None = None


class _Rejected(DataError):
    """There are rejects, which those that started this process decide on."""


class _Collected(Rejects):
    """Keeps all rejects, and leaves it to others to decide on them."""

    def __init__(self, *, skip: bool) -> None:
        super().__init__(skip=skip)
        self.all: list[Reject] = []

    def add(self, reject: Reject) -> None:
        self.all.append(reject)
        super().add(reject)

    def error(self) -> DataError:
        return _Rejected("there are rejects")


class _Keys:
    """The keys of a piece's rows."""

    def __init__(self) -> None:
        self._keys: list[str] = []

    def add(self, placed: PlacedRows) -> None:
        self._keys += placed.keys

    def batch(self, task: int) -> KeyBatch | None:
        keys = self._keys
        if not keys:
            return None
        ascending = all(map(str.__lt__, keys, keys[1:]))
        packed = KeyBatch.pack(keys, range(len(keys)), [()] * len(keys))
        return KeyBatch(task, len(keys), min(keys), max(keys), ascending, packed)


def make_piece(setting: bytes, task: Task) -> Done:
    """Make the shards of one task: what a worker process does.

    Parameters
    ----------
    setting : a pickled :class:`Setting`; equal ones are unpickled once, so that connections last.
    """
    _RUNNING.append(task.number)
    try:
        return _make_piece(setting, task)
    finally:
        _RUNNING.remove(task.number)


def running() -> int:
    """How many tasks this process is busy with."""
    return len(_RUNNING)


# Of worker processes; several threads may share one.
_RUNNING: list[int] = []


def _make_piece(setting: bytes, task: Task) -> Done:
    common = _setting(setting)
    piece = task.piece
    rejects = _Collected(skip=common.options.on_error == "skip")
    source = piece.open(common.files)
    # The order has been decided on.
    options = dataclasses.replace(common.options, shuffle=False, seed=None)
    feed = make_feed(source, options, rejects=rejects, progress=Progress())
    feed.only_split = piece.split if isinstance(piece, SamplePiece) else None
    feed.splits = None
    keys = _Keys()
    if isinstance(feed, RowFeed):
        assert isinstance(piece, RowPiece)
        assert common.prepared is not None
        feed.on_keys = keys.add
        feed.proceed(common.prepared, piece.record)
    done = Done(feed.only_split, rejects=rejects.all)
    try:
        done.shards = _make_with_lanes(feed, task, common)
    except NewFields as more:
        done.new_fields = more.names
    except _Rejected:
        pass
    except AtdataError as error:
        done.error = error
    done.keys = keys.batch(task.number)
    return done


def _make_with_lanes(feed: Feed, task: Task, common: Setting) -> Sequence[FinishedShard]:
    """The shards of a task, by means of the threads and buffers of the task before."""
    pipeline = _SPARE.pop() if _SPARE else Pipeline()
    try:
        finished = make(feed, task.targets, common.destination, common.limits_of, piece=task.piece, pipeline=pipeline)
    except BaseException as error:
        pipeline.__exit__(type(error), error, None)
        raise
    _SPARE.append(pipeline)
    return finished[feed.only_split]


# Memory that is fresh from the system costs more than to fill it.
_SPARE: list[Pipeline] = []


@lru_cache(maxsize=2)
def _setting(pickled: bytes) -> Setting:
    setting: Any = pickle.loads(pickled)  # noqa: S301 - made by the process that started this one
    assert isinstance(setting, Setting)
    return setting
