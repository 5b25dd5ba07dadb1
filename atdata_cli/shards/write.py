"""The job: from a source to a dataset in a store, whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from posixpath import join
from typing import Any, Literal, Protocol

from atdata_cli.errors import (
    AtdataError,
    DataError,
    IntegrityError,
    NotFoundError,
    OccupiedError,
    TemporaryError,
    UsageError,
)
from atdata_cli.shards.assemble import Facts, check_enough, manifests, publish
from atdata_cli.shards.destination import Destination, Held, Place, ShardNames
from atdata_cli.shards.dividing import Indivisible, Workers, divide
from atdata_cli.shards.encode import NewFields
from atdata_cli.shards.feed import Feed, Progress, Rejects, RowFeed, SampleFeed, make_feed
from atdata_cli.shards.job import Job, WriteOptions
from atdata_cli.shards.making import Finished, make
from atdata_cli.shards.manifest import Manifest, ShardRow
from atdata_cli.shards.plan import Limits, even_limits
from atdata_cli.shards.protocols import ShardStore
from atdata_cli.shards.series import FinishedShard, ShardWriter, Target
from atdata_cli.shards.stream import Pipeline
from atdata_cli.shards.targets import Compared, Counted, Stored, Targets
from atdata_cli.sources.base import Source

__all__ = ["Run", "WriteResult", "make_all", "result_of", "write", "write_dataset", "write_options"]

Status = Literal["written", "unchanged", "planned"]
IfExists = Literal["resume", "update", "fail"]


class Seen(Protocol):
    """What this machine remembers of the inputs of datasets."""

    def are_those_of(self, manifest: bytes, /) -> bool:
        """Whether the dataset with this manifest was surely made from the inputs of now."""

    def remember(self, manifest: bytes, /) -> None:
        """Keep that it was."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a write did, or would do.

    Attributes
    ----------
    status : ``planned`` for a dry run that would write.
    prefix : of the dataset in its store.
    manifest : of the dataset, or the root one of its splits.
    parts : folder relative to the prefix (``""``, or each split's) to its manifest.
    tar_bytes : size of all tars before compression.
    limit : the option that ended shards, or None if all samples went into one.
    warnings : what a person would want to know.
    stored : the shards that this run has stored; the others were there already.
    """

    status: Status
    prefix: str
    manifest: Manifest
    parts: Mapping[str, Manifest]
    tar_bytes: int
    limit: str | None = None
    warnings: Sequence[str] = ()
    stored: Sequence[ShardRow] = ()

    def shards(self) -> Iterator[tuple[str, ShardRow]]:
        """Each shard's name in the store and its row, in order."""
        for folder, manifest in self.parts.items():
            for row in manifest.shards:
                yield join(self.prefix, folder, row.name), row


@dataclass
class Run:
    """One run, with all that its passes over the input need.

    Attributes
    ----------
    partly : it makes only a part of the dataset.
    begun : the destination is marked.
    alone : this process has done the work by itself.
    kept : there are shards that a later run need not store again.
    protected : the store keeps runs of different jobs apart.
    """

    feed: Feed
    destination: Destination
    held: Held
    job: Job
    options: WriteOptions
    progress: Progress
    workers: Workers
    partly: bool = False
    alone: bool = False
    begun: bool = False
    kept: bool = False
    protected: bool = True
    _beginning: threading.Lock = field(default_factory=threading.Lock, init=False)
    _name: str = field(default_factory=lambda: os.urandom(8).hex(), init=False)

    @property
    def names(self) -> ShardNames:
        """The names of shards that are stored."""
        return self.destination.names(self.job, self.held, gzip=self.options.compress == "gz")

    def facts(self) -> Facts:
        """What the manifest tells besides the shards."""
        return Facts(self.destination, self.held, self.job, self.options, self.feed.encoding, self.feed.rejects.count)

    def begin(self) -> None:
        """Mark the destination as this job's, once; called by whichever thread is the first to store something."""
        with self._beginning:
            if not self.begun:
                name = self._name if self.is_stream else None
                self.protected = self.destination.begin(self.job, self.held, run=name)
                self.begun = True

    @property
    def is_stream(self) -> bool:
        """Whether the input can be read once, and may be another the next time."""
        source = self.feed.progress.source
        return source is not None and not source.rewindable

    def check(self) -> None:
        """Find that another run has taken over; there can be one only where the input is a stream."""
        if self.is_stream and self.begun:
            self.destination.check_ours(self._name)

    def attempt(self, targets: Targets) -> Finished:
        """One pass over the input: by several processes, where that helps, or by this one.

        Raises
        ------
        AtdataError, NewFields, OSError, … : nothing unfinished stays behind; finished shards do.
        """
        limits = self.limits()
        default = self.feed.limits()
        self.progress.shards = self.progress.bytes = 0
        if not self.workers.are_worth(self.feed, self.destination):
            self.alone = True
            return self._alone(targets, limits, default)
        try:
            return divide(self.feed, targets, self.destination, limits, default, self.workers, self.on_shard)
        except Indivisible as found:
            before = _by_place(found.finished)
        self.alone = True
        self.again()
        self.progress.shards = self.progress.bytes = 0
        if isinstance(targets, Stored):
            known = {place: shard.row for place, shard in before.items()}
            targets = dataclasses.replace(targets, known={**targets.known, **known})
        finished = self._alone(targets, limits, default)
        for place in before.keys() - _by_place(finished).keys():
            if before[place].how == "stored":
                self.destination.forget(place, before[place].row)
        return finished

    def _alone(self, targets: Targets, limits: Mapping[str | None, Limits], default: Limits) -> Finished:
        def limits_of(split: str | None) -> Limits:
            return limits.get(split) or default

        return make(self.feed, targets, self.destination, limits_of, on_shard=self.on_shard)

    def again(self) -> None:
        """Go back to the beginning of the input."""
        self.feed.rejects.restart()
        self.progress.samples = 0
        self.feed.prepare()

    def on_shard(self, shard: FinishedShard) -> None:
        """Take in a shard that is finished."""
        self.progress.shards += 1
        self.kept = self.kept or shard.how in ("stored", "kept")
        if shard.how == "stored":
            self.progress.bytes += shard.row.bytes

    def limits(self) -> Mapping[str | None, Limits]:
        """What ends the shards of each split, where that depends on how many samples it has."""
        if not self.options.even:
            return {}
        counts = self._counts()
        return {
            split: even_limits(
                samples,
                shards=self.options.shards,
                multiple_of=self.options.shards_multiple_of,
                max_count=self.options.max_count or self.feed.limits().max_count,
                hard_limit=self.options.size_limit if self.options.hard_limit else None,
                by_record=self._records_count(),
            )
            for split, samples in counts.items()
        }

    def _records_count(self) -> bool:
        """Whether every record is a sample of the one series, or the run fails."""
        return self.feed.splits is None and self.options.on_error != "skip"

    def _counts(self) -> Mapping[str | None, int]:
        """How many samples each split gets: asked of the source where that is exact, else by a pass without writing."""
        source = self.feed.progress.source
        assert source is not None
        if not source.rewindable:
            raise UsageError(
                "--shards and --shards-multiple-of need a number of samples that a stream does not tell",
                hint="use --max-count, or write the stream to a file first",
            )
        if self._records_count():
            counted = source.count()
            if counted is not None:
                return {None: counted}
        counting = _Counting()
        self.feed.run(counting.writer_of)
        if self.feed.rejects.failing:
            raise self.feed.rejects.error()
        self.again()
        return counting.totals()


class _Counting:
    """Writers that only count."""

    def __init__(self) -> None:
        self._writers: dict[str | None, ShardWriter] = {}

    def writer_of(self, split: str | None) -> ShardWriter:
        """The counter of a split."""
        if split not in self._writers:
            limits = Limits(max_count=None, max_bytes=None)
            self._writers[split] = ShardWriter(lambda _: Target(""), limits, Pipeline())
        return self._writers[split]

    def totals(self) -> Mapping[str | None, int]:
        """Samples of each split."""
        return {split: sum(shard.row.samples for shard in writer.close()) for split, writer in self._writers.items()}


def write(
    source: Source,
    store: ShardStore,
    prefix: str,
    options: WriteOptions,
    *,
    rejects: Rejects | None = None,
    progress: Progress | None = None,
    if_exists: IfExists = "resume",
    dry_run: bool = False,
    seen: Seen | None = None,
    workers: Workers | None = None,
) -> WriteResult:
    """Write a dataset under *prefix*: all its shards, then its manifest.

    Parameters
    ----------
    source : where samples come from.
    store, prefix : where they go.
    options : how.
    rejects : collects what cannot be a sample; by default nothing may be rejected.
    progress : is kept up to date while the run goes on.
    if_exists : what to do if the prefix holds something. ``resume`` leaves the same finished dataset as it is, goes on
        with an unfinished one and refuses anything else; ``update`` replaces what changed of another dataset;
        ``fail`` refuses everything.
    dry_run : plan only; nothing is stored.
    seen : may know, without reading it, that the input is what the dataset there was made from.
    workers : the processes that do the work, if not this one alone.

    Raises
    ------
    OccupiedError : the prefix holds something else.
    DataError : the input is wrong; nothing stays behind.
    NotFoundError : there are no samples, or fewer than asked for.
    AtdataError : anything else; the same call can be repeated.
    """
    options.check()
    rejects = rejects or Rejects(skip=options.on_error == "skip", limit=options.max_errors)
    progress = progress or Progress()
    destination = Destination(store, prefix)
    destination.check_writable()
    workers = workers or Workers(1)
    feed = make_feed(source, options, rejects=rejects, progress=progress)
    if not dry_run:
        workers.connect(feed, destination)
    job = Job.of(source.inputs, options)
    held = destination.survey(job)
    if held.kind == "finished" and held.root is not None and not dry_run:
        # Also without a mark: of runs at the same time one may be killed when another one has tidied up already.
        destination.tidy(held.root)
        destination.sweep(held)
    if held.over and held.root is not None and not dry_run:
        destination.finish(held.root)
    if held.kind != "nothing" and if_exists == "fail":
        what = "another dataset" if held.kind == "other" else f"the same dataset, {held.kind}"
        if not source.rewindable:
            what = "a dataset"  # a stream may be anything
        raise OccupiedError(f"it holds {what}", url=destination.url, hint="leave out --if-exists fail")
    if held.kind == "other" and if_exists != "update":
        raise destination.refusal(held)
    if held.kind == "finished" and held.root and held.text and seen is not None and seen.are_those_of(held.text):
        destination.check_complete(held.parts)
        return WriteResult("unchanged", prefix, held.root, held.parts, held.root.bytes)
    run = Run(feed, destination, held, job, options, progress, workers)
    try:
        result = _write(run, source, if_exists=if_exists, dry_run=dry_run)
    except TemporaryError as error:
        if error.repeated or dry_run or not source.rewindable:
            raise
        # Another run of this job may have finished first, and taken away the state that this one was relying on.
        again = destination.survey(job)
        if again.kind != "finished" or again.text == held.text:
            raise
        rejects.restart()
        progress.samples = progress.shards = progress.bytes = 0
        run = dataclasses.replace(run, held=again, begun=False)
        result = _write(run, source, if_exists=if_exists, dry_run=dry_run)
    if seen is not None and result.status != "planned":
        seen.remember(result.manifest.dumps())
    return result


def _write(run: Run, source: Source, *, if_exists: IfExists, dry_run: bool) -> WriteResult:
    """:func:`write`, now that it is known what the prefix holds."""
    checked = run.feed.prepare()
    if run.feed.rejects.failing:
        raise run.feed.rejects.error()
    if run.held.kind in ("finished", "other") and (if_exists != "update" or source.rewindable or dry_run):
        return _over_finished(run, checked.warnings, update=if_exists == "update", dry_run=dry_run)
    if dry_run:
        run.progress.activity = "planning"
        finished = _repeat(run, Counted(run.names))
        return result_of(run, finished, "planned", checked.warnings)
    return _stored(run, checked.warnings, spool=not source.rewindable)


def _over_finished(run: Run, warnings: Sequence[str], *, update: bool, dry_run: bool) -> WriteResult:
    """A run over a finished dataset: makes all shards without storing any, and tells whether anything changed."""
    run.progress.activity = "comparing"
    finished = _repeat(run, Compared(run.names, run.held.shards))
    result = result_of(run, finished, "unchanged", warnings)
    if result.manifest.dumps() == run.held.text:
        run.destination.check_complete(result.parts)
        return result
    if not update:
        raise _other_data(run, result)
    if dry_run:
        return dataclasses.replace(result, status="planned")
    run.progress.activity = "updating"
    run.again()
    return _stored(run, warnings, made=_by_place(finished))


def _by_place(finished: Finished) -> dict[Place, FinishedShard]:
    return {(split or "", shard.index): shard for split, series in finished.items() for shard in series}


def _stored(
    run: Run,
    warnings: Sequence[str],
    *,
    made: Mapping[Place, FinishedShard] | None = None,
    spool: bool = False,
) -> WriteResult:
    """The passes that store: shards, then the manifests; the marks go last."""
    destination = run.destination
    if run.held.kind in ("nothing", "unfinished") or made is not None:
        run.begin()  # a stream over a dataset may turn out to change nothing: then nothing is marked
    try:
        finished = make_all(run, made=made, spool=spool)
        result = result_of(run, finished, "written", warnings)
        if result.manifest.dumps() == run.held.text and not run.begun:
            destination.check_complete(result.parts)
            return dataclasses.replace(result, status="unchanged")
        run.begin()
        run.check()
        _check_undisturbed(run, result)
        publish(run.destination, run.held, result.manifest, result.parts)
    except AtdataError as error:
        # What a later run can finish stays, marked as unfinished; where the input or the command is wrong nothing does.
        passing = isinstance(error, TemporaryError | OccupiedError)
        if run.begun and not passing and (isinstance(error, _WRONG) or not run.kept):
            with suppress(AtdataError):  # the first error is the one to tell
                run.check()
                destination.clear(run.job, run.held)
        raise
    destination.finish(result.manifest)
    return result


def make_all(run: Run, *, made: Mapping[Place, FinishedShard] | None = None, spool: bool = False) -> Finished:
    """All shards, in the store."""
    finished = _repeat(run, _targets(run, made=made, spool=spool))
    if any(shard.how == "compared" for shard in _by_place(finished).values()):
        # Shards that an earlier run has finished are others by now: the input changed.
        run.again()
        finished = _repeat(run, _targets(run, made=_by_place(finished)))
    return finished


_WRONG = (DataError, IntegrityError, NotFoundError, UsageError)


def _check_undisturbed(run: Run, result: WriteResult) -> None:
    """A run of the same job that failed, or ``abort``, may have removed what this one relied on."""
    try:
        run.destination.check_complete(result.parts)
    except IntegrityError as error:
        raise TemporaryError(
            f"another run removed what this one wrote: {error.message}",
            url=error.url,
            hint="run the command again when no other writes here",
        ) from error


def _targets(run: Run, *, made: Mapping[Place, FinishedShard] | None, spool: bool = False) -> Stored:
    count = isinstance(run.feed, SampleFeed)  # sizes tell where shards end; rows must be encoded
    return Stored(
        run.names,
        run.held.shards,
        made=made,
        spool=spool,
        count=count,
        begin=run.begin,
        check=run.check if run.is_stream else None,
    )


def _repeat(run: Run, targets: Targets) -> Finished:
    """One pass; a second one if fields turned up that the first rows did not have."""
    try:
        return run.attempt(targets)
    except NewFields as more:
        feed = run.feed
        assert isinstance(feed, RowFeed)
        feed.learn(more.names)
        feed.prepare()
        return run.attempt(targets)


def result_of(run: Run, finished: Finished, status: Status, warnings: Sequence[str]) -> WriteResult:
    """What a run has done, or would do."""
    shards = [shard for series in finished.values() for shard in series]
    if not run.partly:
        check_enough(sum(shard.row.samples for shard in shards), run.options)
    root, parts = manifests(run.facts(), finished, splits=run.feed.splits is not None)
    return WriteResult(
        status=status,
        prefix=run.destination.prefix,
        manifest=root,
        parts=parts,
        tar_bytes=sum(shard.tar_bytes for shard in shards),
        limit=_limit(run, finished),
        warnings=[*warnings, *_doubts(run, finished)],
        stored=[shard.row for shard in shards if shard.how == "stored"],
    )


def _limit(run: Run, finished: Finished) -> str | None:
    if run.options.even:
        return "--shards" if run.options.shards else "--shards-multiple-of"
    series = max(finished.values(), key=len, default=())
    if len(series) < 2:
        return None
    return run.feed.limit if series[0].row.samples >= run.feed.limits().quota(0) else "--max-size"


def _doubts(run: Run, finished: Finished) -> Iterator[str]:
    if run.workers.remote is not None and run.alone:
        yield f"{run.workers.remote} was not used: this input, or this store, is for one process"
    if not run.protected:
        yield "this store ignores the condition that keeps runs apart: let no two write here at the same time"
    for split, series in finished.items():
        if not series and len(finished) > 1:
            yield f"the split {split!r} has no samples"
        large = [shard for shard in series if shard.tar_bytes > run.options.size_limit]
        if large and not run.options.even:
            yield (
                f"{len(large)} shards are larger than --max-size; the largest, {large[0].row.name}, "
                f"has {max(shard.tar_bytes for shard in large)} bytes"
            )


def _other_data(run: Run, result: WriteResult) -> OccupiedError:
    there = run.held.parts
    samples = sum(part.samples for part in there.values())
    return OccupiedError(
        f"it holds the dataset {next(iter(there.values())).name!r} made from other data of the same names and sizes: "
        f"{samples} samples there, {result.manifest.samples} here",
        url=run.destination.url,
        hint="nothing was changed; choose another DEST, or replace what changed with --if-exists update",
    )


def write_dataset(ds: Any, store: ShardStore, prefix: str, **kwargs: Any) -> WriteResult:
    """Write any dataset under *prefix*; what ``write_shards`` of the built-in stores does.

    Parameters
    ----------
    ds : see :meth:`atdata_cli.stores.base.StoreBase.write_shards`.
    store, prefix : where it goes.
    **kwargs : fields of :class:`WriteOptions`; ``maxcount`` and ``maxsize`` as in ``webdataset.ShardWriter``;
        ``cache_local``, which has no effect.

    Raises
    ------
    TypeError : an unknown keyword.
    AtdataError : see :func:`write`.
    """
    from atdata_cli.sources.mappings import as_source

    return write(as_source(ds), store, prefix, write_options(**kwargs))


def write_options(**kwargs: Any) -> WriteOptions:
    """The options that :func:`write_dataset` takes as keywords."""
    # ``atdata.Index`` passes it to every store: whether to keep shards on disk on their way. None is ever kept.
    kwargs.pop("cache_local", None)
    for theirs, ours in (("maxcount", "max_count"), ("maxsize", "max_size")):
        if theirs in kwargs:
            kwargs[ours] = int(kwargs.pop(theirs))
    unknown = kwargs.keys() - {option.name for option in dataclasses.fields(WriteOptions)}
    if unknown:
        raise TypeError(f"write_shards() has no option {min(unknown)!r}")
    return WriteOptions(**kwargs)
