"""One part of a dataset, and the run that makes a dataset of all parts."""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from posixpath import join
from typing import BinaryIO, cast

from atdata_cli.errors import AtdataError, DataError, IntegrityError, NotFoundError, UsageError
from atdata_cli.samples.keys import split_name
from atdata_cli.samples.tar import TarReader
from atdata_cli.samples.unique import UniqueKeys
from atdata_cli.shards.assemble import Facts, check_enough, manifests, publish
from atdata_cli.shards.destination import PARTS, Destination, Held
from atdata_cli.shards.dividing import Here, Workers, run_pieces
from atdata_cli.shards.feed import Piece, Progress, Rejects, RowFeed, make_feed
from atdata_cli.shards.job import Job, WriteOptions, joined
from atdata_cli.shards.making import Finished, Setting
from atdata_cli.shards.manifest import Manifest
from atdata_cli.shards.parts import DonePart, NamedPart, NumberedPart, Part, Plan
from atdata_cli.shards.plan import Limits
from atdata_cli.shards.protocols import ShardStore
from atdata_cli.shards.series import FinishedShard
from atdata_cli.shards.targets import Counted, Stored, Targets
from atdata_cli.shards.write import Run, WriteResult, make_all, result_of
from atdata_cli.sources.base import RowSource, Source
from atdata_cli.sources.pieces import RowPiece
from atdata_cli.sources.rows import RowFiles

__all__ = ["Committed", "commit", "write_part"]


def write_part(
    source: Source,
    store: ShardStore,
    prefix: str,
    options: WriteOptions,
    part: Part,
    *,
    rejects: Rejects | None = None,
    progress: Progress | None = None,
    dry_run: bool = False,
    workers: Workers | None = None,
) -> WriteResult:
    """Write one part of a dataset; :func:`commit` makes a dataset of all of them.

    Parameters
    ----------
    part : which one.
    source, store, prefix, options, rejects, progress, dry_run, workers : see :func:`atdata_cli.shards.write.write`.

    Raises
    ------
    UsageError : the input cannot be divided.
    OccupiedError : the prefix holds something else, or other parts.
    AtdataError : see :func:`atdata_cli.shards.write.write`.
    """
    if not store.writable or not getattr(store, "portable", False):
        raise UsageError(
            "no other run could reach the parts in this store",
            url=store.url(prefix),
            hint="write to a folder or store that all runs see",
        )
    named = isinstance(part, NamedPart)
    shared = joined(["parts"], options)
    if named and isinstance(source, RowSource) and options.key is None:
        # Record numbers begin anew in each part; a row's own key wins.
        options = dataclasses.replace(options, key=f"{part.label}/{{row}}")
    options.check()
    rejects = rejects or Rejects(skip=options.on_error == "skip", limit=options.max_errors)
    progress = progress or Progress()
    feed = make_feed(source, options, rejects=rejects, progress=progress)
    identity = Job.of(source.inputs, options)
    job = shared if named else identity
    destination = Destination(store, prefix, part.label if named else "")
    held = destination.survey(job)
    run = Run(feed, destination, held, job, options, progress, workers or Workers(1), partly=True)
    if held.kind == "finished" and held.root is not None:
        destination.check_complete(held.parts)
        return WriteResult("unchanged", prefix, held.root, held.parts, held.root.bytes)
    if held.text is not None:
        raise destination.refusal(held)
    done = DonePart.read(destination, part.label)
    if done is not None and done.input == identity.id and _are_there(done, held):
        return result_of(run, done.finished, "unchanged", ())
    done = DonePart(part.label, identity.id, {}, 0, None if named else [])
    if isinstance(part, NamedPart):
        warnings = _make_named(run, done, dry_run=dry_run)
    else:
        warnings = _make_numbered(run, part, done, dry_run=dry_run)
    result = result_of(run, done.finished, "planned" if dry_run else "written", warnings)
    if not dry_run:
        done.put(destination)
    return result


def _are_there(done: DonePart, held: Held) -> bool:
    return all(
        held.names.get(join(split or "", shard.row.name)) == shard.row.bytes
        for split, series in done.finished.items()
        for shard in series
    )


def _checked(run: Run) -> Sequence[str]:
    """Look at the input; warnings."""
    warnings = run.feed.prepare().warnings
    if run.feed.rejects.failing:
        raise run.feed.rejects.error()
    return warnings


# --- a part with an input of its own ---


def _make_named(run: Run, done: DonePart, *, dry_run: bool) -> Sequence[str]:
    warnings = _checked(run)
    if dry_run:
        done.finished = run.attempt(Counted(run.names))
        return warnings
    run.begin()
    _put_plan(run, Plan(run.job, run.options, 0, _splits(run), run.feed.encoding))
    run.destination.put_state(f"{PARTS}/{done.part}.begun", {"part": done.part})
    done.finished = make_all(run)
    done.rejected = run.feed.rejects.count
    return warnings


def _splits(run: Run) -> Sequence[str] | None:
    return None if run.feed.splits is None else list(run.feed.splits.shares)


def _put_plan(run: Run, plan: Plan) -> Plan:
    """Put a plan, or take the one that another part has put."""
    source = run.feed.progress.source
    assert source is not None
    if plan.put(run.destination, source.inputs if plan.pieces is not None else ()):
        return plan
    there = Plan.read(run.destination, source)
    if there is None:
        raise AtdataError("the plan vanished", url=run.destination.url, hint="was the dataset given up?")
    plan.check_same(there, run.destination)
    return there


# --- one part of an input ---


def _make_numbered(run: Run, part: NumberedPart, done: DonePart, *, dry_run: bool) -> Sequence[str]:
    warnings: Sequence[str] = ()
    source = run.feed.progress.source
    plan = Plan.read(run.destination, source)
    bare = Plan(run.job, run.options, part.of, _splits(run), run.feed.encoding)
    if plan is None:
        warnings = _checked(run)
        plan = _divided(run, bare)
        if not dry_run:
            run.begin()
            plan = _put_plan(run, plan)
    else:
        bare.check_same(plan, run.destination)
        run.begin()
    numbered = _Numbered(run, part, plan, done)
    if dry_run:
        done.finished = numbered.make(Counted(run.names))
        return warnings
    done.finished = numbered.make(Stored(run.names, run.held.shards))
    if any(shard.how == "compared" for series in done.finished.values() for shard in series):
        # Shards that an earlier run of this part has finished are others by now: the input changed.
        run.feed.rejects.restart()
        done.keys = []
        done.finished = numbered.make(Stored(run.names))
    if run.feed.rejects.failing:
        raise run.feed.rejects.error()
    # Of samples every part has seen all rejects; of rows its own.
    done.rejected = run.feed.rejects.count if isinstance(run.feed, RowFeed) or part.number == 1 else 0
    return warnings


def _divided(run: Run, plan: Plan) -> Plan:
    """The plan with what the first part finds out for all of them."""
    feed, source = run.feed, run.feed.progress.source
    assert source is not None
    if not feed.is_divisible():
        raise _indivisible(run)
    if not isinstance(feed, RowFeed):
        return plan
    feed.learn_all()
    feed.prepare()
    limits = run.limits().get(None) or feed.limits()
    pieces = list(feed.pieces(lambda split: limits, plan.piece_size(source.size() or 0)))
    rows = [piece for piece in pieces if isinstance(piece, RowPiece)]
    if not isinstance(source, RowFiles) or (source.size() and (not rows or rows[0].shards is None)):
        raise _indivisible(run)
    types = source.found_types()
    return dataclasses.replace(plan, limits=limits, prepared=feed.prepared(), pieces=rows, types=types)


def _indivisible(run: Run) -> UsageError:
    options = run.options
    asked = {"--shuffle": options.shuffle, "--split": options.split, "--split-from": options.split_from}
    whole = next((option for option, value in asked.items() if value and isinstance(run.feed, RowFeed)), None)
    what = "nothing tells where a part would begin" if whole is None else f"{whole} needs all of its rows"
    return UsageError(
        f"this input cannot be divided: {what}",
        url=run.destination.url,
        hint="give each part an input of its own (--part NAME), or leave out --part: man atdata-cli-write tells more",
    )


@dataclass
class _Numbered:
    """One part of an input."""

    run: Run
    part: NumberedPart
    plan: Plan
    done: DonePart

    def make(self, targets: Targets) -> Finished:
        """Have its shards made."""
        run, plan = self.run, self.plan
        feed, source = run.feed, run.feed.progress.source
        assert source is not None
        limits: Mapping[str | None, Limits] = {} if plan.limits is not None else run.limits()
        default = plan.limits or feed.limits()
        setting = Setting(source.files, run.destination, run.options, plan.prepared, limits, default)
        pieces: Iterable[Piece] = plan.pieces or ()
        if plan.limits is None:
            pieces = feed.pieces(setting.limits_of, plan.piece_size(source.size() or 0))
        mine = ((number, piece) for number, piece in enumerate(pieces) if self.part.has(number))
        workers = run.workers
        if not workers.are_worth(feed, run.destination):
            workers = Workers(1, start=lambda jobs: Here())
        return run_pieces(feed, setting, mine, targets, workers, run.on_shard, self.done.add_keys)


# --- all parts ---


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did.

    Attributes
    ----------
    status : ``unchanged`` if it had been done before, ``planned`` for a dry run.
    result : the dataset, as a write that was not divided gives it.
    parts : how many there were.
    """

    result: WriteResult
    parts: int


def commit(store: ShardStore, prefix: str, *, dry_run: bool = False) -> Committed:
    """Make a dataset of the parts that are there, without copying a shard.

    Raises
    ------
    NotFoundError : nothing was begun there.
    IntegrityError : a part is not done, or shards of one are missing.
    DataError : two parts have the same key.
    """
    destination = Destination(store, prefix)
    plan = Plan.read(destination)
    if plan is None:
        return _committed_before(destination)
    labels = _labels(destination, plan)
    parts = [_read(destination, label) for label in labels]
    job = plan.job if plan.parts else joined([part.input for part in parts], plan.options)
    held = destination.survey(plan.job)
    finished = _together(parts, plan)
    rejected = sum(part.rejected for part in parts)
    check_enough(sum(shard.row.samples for series in finished.values() for shard in series), plan.options)
    facts = Facts(destination, held, job, plan.options, plan.encoding, rejected)
    root, folders = manifests(facts, finished, splits=plan.splits is not None)
    destination.check_complete(folders)
    _check_keys(destination, parts, folders, numbered=bool(plan.parts))
    if not dry_run:
        publish(destination, held, root, folders)
        destination.finish(root)
        destination.release()
    tar_bytes = sum(shard.tar_bytes for series in finished.values() for shard in series)
    result = WriteResult("planned" if dry_run else "written", prefix, root, folders, tar_bytes)
    return Committed(result, len(parts))


def _committed_before(destination: Destination) -> Committed:
    root, folders = destination.dataset()
    if root is None:
        raise NotFoundError(
            "no part of a dataset was begun there", url=destination.url, hint="write SOURCE DEST --part I/N"
        )
    destination.check_complete(folders)
    return Committed(WriteResult("unchanged", destination.prefix, root, folders, root.bytes), 0)


def _labels(destination: Destination, plan: Plan) -> Sequence[str]:
    """The parts' labels, in order; all are done.

    Raises
    ------
    IntegrityError : one is not.
    """
    names = set(destination.part_names())
    if plan.parts:
        labels = [NumberedPart(number, plan.parts).label for number in range(1, plan.parts + 1)]
    else:
        labels = sorted({name.rpartition(".")[0] for name in names})
    missing = [label for label in labels if f"{label}.json" not in names]
    if missing:
        shown = ", ".join(label.replace("-of-", "/") if plan.parts else label for label in missing[:10])
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise IntegrityError(
            f"{len(missing)} of {len(labels)} parts {'is' if len(missing) == 1 else 'are'} not done: {shown}{more}",
            url=destination.url,
            hint="run them (again), then commit",
        )
    return labels


def _read(destination: Destination, label: str) -> DonePart:
    part = DonePart.read(destination, label)
    if part is None:
        raise IntegrityError(f"the part {label} vanished", url=destination.url, hint="run it again, then commit")
    return part


def _together(parts: Sequence[DonePart], plan: Plan) -> Finished:
    """The shards of all parts: by their number if they are of one input, else part by part."""
    finished: dict[str | None, list[FinishedShard]] = {}
    for split in (None,) if plan.splits is None else plan.splits:
        finished[split] = []
    for part in parts:
        for split, series in part.finished.items():
            finished.setdefault(split, []).extend(series)
    if plan.parts:
        for series in finished.values():
            series.sort(key=lambda shard: shard.index)
    return finished


def _check_keys(
    destination: Destination, parts: Sequence[DonePart], folders: Mapping[str, Manifest], *, numbered: bool
) -> None:
    """Find keys that two parts have.

    Raises
    ------
    DataError : there is one.
    """
    ranges = [row for part in parts for row in part.keys or ()]
    if numbered and all(ascending for _, _, ascending in ranges):
        ranges.sort()
        if all(before[1] < after[0] for before, after in pairwise(ranges)):
            return
    unique = UniqueKeys()
    for folder, manifest in folders.items():
        for row in manifest.shards:
            name = destination.name(join(folder, row.name))
            place = destination.store.url(name)
            for key in _keys(destination.store, name):
                first = unique.add(key, place)
                if first is not None:
                    raise DataError(
                        f"the key {key!r} is in two parts: first in {first}",
                        url=place,
                        hint="give one of them other keys (--key), and run it again",
                    )


def _keys(store: ShardStore, name: str) -> Iterator[str]:
    """Keys of the samples of one shard, from its headers."""
    with store.open(name) as file:
        packed = name.endswith(".gz")
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
        last = None
        for member in TarReader(stream, where=store.url(name), seek=not packed and file.seekable()):
            split = split_name(member.name)
            if split is not None and split[0] != last:
                last = split[0]
                yield last
