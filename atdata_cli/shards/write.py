"""The job: from a source to a dataset in a store, whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from posixpath import join
from typing import Any, Literal

from atdata_cli.errors import AtdataError, NotFoundError, OccupiedError, TemporaryError, UsageError
from atdata_cli.samples.schema import FieldStats, MemberStats, json_schema, member_schema, merge_stats
from atdata_cli.shards.destination import Destination
from atdata_cli.shards.encode import NewFields
from atdata_cli.shards.feed import Feed, Progress, Rejects, RowFeed, make_feed
from atdata_cli.shards.job import Job, WriteOptions
from atdata_cli.shards.manifest import MANIFEST, Manifest, ShardRow, SplitRow
from atdata_cli.shards.plan import MAX_SPLITS, Limits, even_limits
from atdata_cli.shards.protocols import ObjectInfo, ShardSink, ShardStore
from atdata_cli.shards.series import FinishedShard, ShardWriter
from atdata_cli.shards.stream import Pipeline
from atdata_cli.sources.base import Source

__all__ = ["WriteResult", "write", "write_dataset"]

Status = Literal["written", "unchanged", "planned"]
Finished = Mapping[str | None, Sequence[FinishedShard]]


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
    """

    status: Status
    prefix: str
    manifest: Manifest
    parts: Mapping[str, Manifest]
    tar_bytes: int
    limit: str | None = None
    warnings: Sequence[str] = ()

    def shards(self) -> Iterator[tuple[str, ShardRow]]:
        """Each shard's name in the store and its row, in order."""
        for folder, manifest in self.parts.items():
            for row in manifest.shards:
                yield join(self.prefix, folder, row.name), row


class _Unstored:
    """Stands in for a store where shards are made to be compared: takes the bytes, keeps none."""

    atomic = True
    writable = True

    def __init__(self, store: ShardStore) -> None:
        self.url = store.url

    def create(self, name: str) -> ShardSink:
        return _UnstoredSink()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(())


class _UnstoredSink:
    def write(self, chunk: object) -> None:
        """Nothing is kept."""

    def commit(self) -> None:
        """Nothing was kept."""

    def abort(self) -> None:
        """Nothing was kept."""


@dataclass
class _Run:
    """One pass, with all that it needs."""

    feed: Feed
    destination: Destination
    job: Job
    options: WriteOptions
    progress: Progress
    finished: dict[str | None, ShardWriter] = field(default_factory=dict)

    def attempt(self, store: ShardStore | None) -> Finished:
        """Feed all samples into the shards of *store*; None only counts.

        Raises
        ------
        AtdataError, NewFields, OSError, … : nothing unfinished stays behind; finished shards do.
        """
        limits = self._limits()
        self.finished = {}
        with Pipeline() as pipeline:

            def writer_of(split: str | None) -> ShardWriter:
                writer = self.finished.get(split)
                if writer is None:
                    if len(self.finished) == MAX_SPLITS:
                        raise UsageError(
                            f"there are more than {MAX_SPLITS} splits", hint="split by a field that has few values"
                        )
                    writer = self.finished[split] = ShardWriter(
                        store,
                        join(self.destination.prefix, split or ""),
                        limits.get(split) or self.feed.limits(),
                        pipeline,
                        gzip=self.options.compress == "gz",
                        on_shard=self._on_shard,
                    )
                return writer

            try:
                if self.feed.splits is None:
                    writer_of(None)
                for split in self.feed.splits.shares if self.feed.splits else ():
                    writer_of(split)
                self.feed.run(writer_of)
                if self.feed.rejects.failing:
                    raise self.feed.rejects.error()
                if self.feed.progress.source is not None:
                    self.feed.progress.source.finish()
                return {split: writer.close() for split, writer in self.finished.items()}
            except BaseException:
                for writer in self.finished.values():
                    with suppress(AtdataError):  # the first error is the one to tell; the other shards end, too
                        writer.abort()
                raise

    def _on_shard(self, shard: FinishedShard) -> None:
        self.progress.shards += 1
        self.progress.bytes += shard.row.bytes

    def _limits(self) -> Mapping[str | None, Limits]:
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
            )
            for split, samples in counts.items()
        }

    def _counts(self) -> Mapping[str | None, int]:
        """How many samples each split gets: asked of the source where that is exact, else by a pass without writing."""
        source = self.feed.progress.source
        assert source is not None
        if not source.rewindable:
            raise UsageError(
                "--shards and --shards-multiple-of need a number of samples that a stream does not tell",
                hint="use --max-count, or write the stream to a file first",
            )
        if self.feed.splits is None and self.options.on_error != "skip":
            counted = source.count()
            if counted is not None:
                return {None: counted}
        counting = _Counting(self.feed)
        self.feed.run(counting.writer_of)
        if self.feed.rejects.failing:
            raise self.feed.rejects.error()
        self.feed.rejects.restart()
        self.feed.progress.samples = 0
        self.feed.prepare()
        return counting.totals()


class _Counting:
    """Writers that only count."""

    def __init__(self, feed: Feed) -> None:
        self._limits = Limits(max_count=None, max_bytes=None)
        self._feed = feed
        self._writers: dict[str | None, ShardWriter] = {}

    def writer_of(self, split: str | None) -> ShardWriter:
        """The counter of a split."""
        if split not in self._writers:
            self._writers[split] = ShardWriter(None, "", self._limits, Pipeline())
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
    if_exists: Literal["resume", "fail"] = "resume",
    dry_run: bool = False,
) -> WriteResult:
    """Write a dataset under *prefix*: all its shards, then its manifest.

    Parameters
    ----------
    source : where samples come from.
    store, prefix : where they go.
    options : how.
    rejects : collects what cannot be a sample; by default nothing may be rejected.
    progress : is kept up to date while the run goes on.
    if_exists : ``resume`` leaves the same finished dataset as it is and starts an unfinished one over; ``fail``
        refuses both.
    dry_run : plan only; nothing is stored.

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
    if not store.writable:
        raise UsageError("this store can only be read", url=store.url(prefix))
    feed = make_feed(source, options, rejects=rejects, progress=progress)
    destination = Destination(store, prefix)
    job = Job.of(source.inputs, options)
    held, text = destination.survey(job)
    if held != "nothing" and if_exists == "fail":
        raise OccupiedError(
            f"it holds the same dataset, {held}", url=destination.url, hint="leave out --if-exists fail"
        )
    checked = feed.prepare()
    if rejects.failing:
        raise rejects.error()
    run = _Run(feed, destination, job, options, progress)
    if text is not None:
        progress.activity = "comparing"
        result = _result(run, _repeat(run, _Unstored(store)), "unchanged", checked.warnings)  # type: ignore[arg-type]
        return _compared(run, result, text)
    if dry_run:
        progress.activity = "planning"
        return _result(run, _repeat(run, None), "planned", checked.warnings)
    if held == "unfinished":
        destination.clear(job)
    destination.begin(job)
    return _stored(run, checked.warnings)


def _stored(run: _Run, warnings: Sequence[str]) -> WriteResult:
    try:
        result = _result(run, _repeat(run, run.destination.store), "written", warnings)
        for folder, manifest in result.parts.items():
            if folder:
                run.destination.publish(join(folder, MANIFEST), manifest)
        run.destination.publish(MANIFEST, result.manifest)
    except AtdataError as error:
        # What a later run can finish stays, marked as unfinished; after anything else nothing does.
        if not isinstance(error, TemporaryError | OccupiedError):
            with suppress(AtdataError):  # the first error is the one to tell
                run.destination.clear(run.job)
        raise
    run.destination.release()
    return result


def _repeat(run: _Run, store: ShardStore | None) -> Finished:
    """One pass; a second one if fields turned up that the first rows did not have."""
    try:
        return run.attempt(store)
    except NewFields as more:
        feed = run.feed
        assert isinstance(feed, RowFeed)
        run.progress.shards = run.progress.bytes = 0
        feed.learn(more.names)
        feed.prepare()
        return run.attempt(store)


def _result(run: _Run, finished: Finished, status: Status, warnings: Sequence[str]) -> WriteResult:
    shards = [shard for series in finished.values() for shard in series]
    total = sum(shard.row.samples for shard in shards)
    _check_enough(total, run.options)
    parts = {split or "": _manifest(run, series, split) for split, series in finished.items()}
    return WriteResult(
        status=status,
        prefix=run.destination.prefix,
        manifest=parts[""] if run.feed.splits is None else _root(run, parts, shards),
        parts=parts,
        tar_bytes=sum(shard.tar_bytes for shard in shards),
        limit=_limit(run, finished),
        warnings=[*warnings, *_doubts(run, finished)],
    )


def _check_enough(total: int, options: WriteOptions) -> None:
    if not total and not options.allow_empty:
        raise NotFoundError("there are no samples", hint="--allow-empty writes a dataset without any")
    if total < options.min_samples:
        raise NotFoundError(f"there are {total} samples, fewer than --min-samples {options.min_samples}")


def _limit(run: _Run, finished: Finished) -> str | None:
    if run.options.even:
        return "--shards" if run.options.shards else "--shards-multiple-of"
    series = max(finished.values(), key=len, default=())
    if len(series) < 2:
        return None
    return run.feed.limit if series[0].row.samples >= run.feed.limits().quota(0) else "--max-size"


def _doubts(run: _Run, finished: Finished) -> Iterator[str]:
    for split, series in finished.items():
        if not series and len(finished) > 1:
            yield f"the split {split!r} has no samples"
        large = [shard for shard in series if shard.tar_bytes > run.options.size_limit]
        if large and not run.options.even:
            yield (
                f"{len(large)} shards are larger than --max-size; the largest, {large[0].row.name}, "
                f"has {max(shard.tar_bytes for shard in large)} bytes"
            )


def _manifest(run: _Run, series: Sequence[FinishedShard], split: str | None) -> Manifest:
    described = _described(run, series)
    return Manifest(
        name=run.options.name,
        samples=sum(shard.row.samples for shard in series),
        bytes=sum(shard.row.bytes for shard in series),
        payload=sum(shard.payload for shard in series),
        shards=tuple(shard.row for shard in series),
        compression=run.options.compress,
        split=split,
        rejected=0 if split is not None else run.feed.rejects.count,
        job=run.job.id,
        options=run.job.options,
        **described,
    )


def _described(run: _Run, series: Sequence[FinishedShard]) -> dict[str, Any]:
    """Encoding, fields and schema: merged from what each shard saw."""
    samples = sum(shard.row.samples for shard in series)
    if (samples == 0 and run.feed.encoding == "msgpack") or (
        samples and all(shard.packed is not None for shard in series)
    ):
        packed: dict[str, FieldStats] = {}
        for shard in series:
            merge_stats(packed, shard.packed or {})
        fields = {name: seen.as_json() for name, seen in packed.items()}
        schema = run.options.schema or json_schema(packed, samples)
        return {"encoding": "msgpack", "fields": fields, "schema": schema}
    members: dict[str, MemberStats] = {}
    for shard in series:
        for name, seen in shard.members.items():
            members.setdefault(name, MemberStats()).merge(seen)
    fields = {name: seen.as_json(name) for name, seen in members.items()}
    return {"encoding": "files", "fields": fields, "schema": member_schema(members, samples)}


def _root(run: _Run, parts: Mapping[str, Manifest], shards: Sequence[FinishedShard]) -> Manifest:
    rows = {
        split: SplitRow(
            manifest=f"{split}/{MANIFEST}",
            sha256=hashlib.sha256(manifest.dumps()).hexdigest(),
            samples=manifest.samples,
            bytes=manifest.bytes,
            payload=manifest.payload,
            shards=len(manifest.shards),
        )
        for split, manifest in parts.items()
    }
    whole = _manifest(run, shards, None)
    return dataclasses.replace(whole, shards=(), splits=rows)


def _compared(run: _Run, result: WriteResult, text: bytes) -> WriteResult:
    if result.manifest.dumps() == text:
        run.destination.check_complete(result.parts)
        return result
    there = Manifest.loads(text, url=run.destination.url)
    raise OccupiedError(
        f"it holds the dataset {there.name!r} made from other data of the same names and sizes: "
        f"{there.samples} samples there, {result.manifest.samples} here",
        url=run.destination.url,
        hint="nothing was changed; choose another DEST, or remove what is there",
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

    # ``atdata.Index`` passes it to every store: whether to keep shards on disk on their way. None is ever kept.
    kwargs.pop("cache_local", None)
    for theirs, ours in (("maxcount", "max_count"), ("maxsize", "max_size")):
        if theirs in kwargs:
            kwargs[ours] = int(kwargs.pop(theirs))
    return write(as_source(ds), store, prefix, WriteOptions(**kwargs))
