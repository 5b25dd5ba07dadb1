"""One pass over a source by several processes: each makes whole shards from its pieces, and stores them itself."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, overload

from atdata_cli.shards.destination import Destination
from atdata_cli.shards.encode import NewFields
from atdata_cli.shards.feed import Feed, Piece, RowFeed
from atdata_cli.shards.making import Done, Finished, Setting, Task, connect, make_piece
from atdata_cli.shards.plan import Limits
from atdata_cli.shards.problems import KeyBatch
from atdata_cli.shards.protocols import ConnectingStore
from atdata_cli.shards.repeats import KeyLog
from atdata_cli.shards.series import FinishedShard
from atdata_cli.shards.targets import Stored, Targets
from atdata_cli.shards.workers import ProcessExecutor
from atdata_cli.sources.base import Source

__all__ = ["Here", "Indivisible", "Workers", "divide", "run_pieces", "start_processes"]

# Input bytes below which one process is done before others have started.
_WORTH = 24 << 20
_SMALLEST_PIECE = 4 << 20
_LARGEST_PIECE = 64 << 20
_PIECES = 8  # for each process, so that none is left with much more than the others


def start_processes(jobs: int) -> Executor:
    """Processes of this machine."""
    return ProcessExecutor(jobs, preload="atdata_cli.shards.making")


@dataclass(frozen=True, slots=True)
class Workers:
    """Who does the work of a run.

    Attributes
    ----------
    jobs : how many processes.
    worth : input bytes from which on they are worth their start.
    start : makes the executor that has them.
    each : if they are there already: has each of them do something while nothing else is to be done yet.
    remote : the engine that they belong to, if they are not this machine's processes.
    smallest : input bytes of a piece at least; it has one shard, however small.
    few : one process, whose threads read, hash and store at a time, keeps all cores busy with large files.
    """

    jobs: int
    worth: int = _WORTH
    start: Callable[[int], Executor] = start_processes
    each: Callable[..., None] | None = None
    remote: str | None = None
    smallest: int = _SMALLEST_PIECE
    few: bool = False

    def are_worth(self, feed: Feed, destination: Destination) -> bool:
        """Whether work should be given to them: there is enough of it, and they reach the store."""
        source = feed.progress.source
        if (
            (self.jobs < 2 and self.remote is None)
            or source is None
            or not getattr(destination.store, "portable", False)
            or (self.few and source.bulky)
        ):
            return False
        size = source.size()
        return source.rewindable and size is not None and size >= self.worth

    def connect(self, feed: Feed, destination: Destination) -> None:
        """Have them connect to the store, if they are going to need it."""
        store = destination.store
        if self.each is not None and isinstance(store, ConnectingStore) and self.are_worth(feed, destination):
            self.each(connect, store)

    def piece_size(self, size: int) -> int:
        """Input bytes of one piece, of *size* in all."""
        return min(_LARGEST_PIECE, max(self.smallest, size // (self.jobs * _PIECES)))


class Indivisible(Exception):
    """One process has to do it all: the source has no pieces, or some of their samples exclude each other.

    Attributes
    ----------
    finished : shards that were made before that was found.
    """

    def __init__(self, finished: Finished) -> None:
        super().__init__()
        self.finished = finished


def divide(
    feed: Feed,
    targets: Targets,
    destination: Destination,
    limits: Mapping[str | None, Limits],
    default: Limits,
    workers: Workers,
    on_shard: Callable[[FinishedShard], None],
) -> Finished:
    """As :func:`atdata_cli.shards.making.make`, by *workers*; the same shards, rejects and errors.

    What becomes of the pieces is looked at in the order of the input, whichever is finished first.

    Raises
    ------
    Indivisible : nothing is wrong, but it must be done by one process.
    """
    source = feed.progress.source
    assert source is not None
    prepared = feed.prepared() if isinstance(feed, RowFeed) else None
    setting = Setting(source.files, destination, feed.options, prepared, limits, default)
    pieces = feed.pieces(setting.limits_of, workers.piece_size(source.size() or 0))
    first = list(islice(pieces, 2))
    if len(first) < 2 and (not first or workers.remote is None):
        raise Indivisible({})
    keys = KeyLog(_OneSeries())
    with closing(keys):
        finished = run_pieces(feed, setting, enumerate(chain(first, pieces)), targets, workers, on_shard, keys.add)
        if any(True for _ in keys.repeats()):
            raise Indivisible(finished)
    if feed.rejects.failing:
        raise feed.rejects.error()
    return finished


def run_pieces(
    feed: Feed,
    setting: Setting,
    pieces: Iterable[tuple[int, Piece]],
    targets: Targets,
    workers: Workers,
    on_shard: Callable[[FinishedShard], None],
    on_keys: Callable[[KeyBatch], None],
) -> dict[str | None, list[FinishedShard]]:
    """Have the shards of some pieces made.

    Parameters
    ----------
    feed : takes the rejects, and tells the splits.
    pieces : each with its number.
    on_shard, on_keys : told of each shard, and of the keys of a piece's rows that may be elsewhere, too.
    """
    source = feed.progress.source
    assert source is not None
    tasks = (_task(number, piece, targets, setting.destination) for number, piece in pieces)
    finished: dict[str | None, list[FinishedShard]] = {split: [] for split in _known_splits(feed)}
    counted = feed.progress.source = _Counted(source)
    try:
        with closing(_run(workers, pickle.dumps(setting), tasks)) as results:
            for task, done in results:
                _take(feed, done, on_keys)
                finished.setdefault(done.split, []).extend(done.shards)
                counted.done += task.piece.size
                for shard in done.shards:
                    feed.progress.samples += shard.row.samples
                    on_shard(shard)
    finally:
        feed.progress.source = source
    return finished


def _task(number: int, piece: Piece, targets: Targets, destination: Destination) -> Task:
    split = getattr(piece, "split", None)
    if split is not None and isinstance(targets, Stored):
        expect = getattr(destination.store, "expect", None)  # a plugin's store need not have it
        if expect is not None:
            expect(destination.name(split))
    return Task(number, piece, targets.only(split or "", piece.shard, piece.shards))


def _known_splits(feed: Feed) -> Sequence[str | None]:
    return [None] if feed.splits is None else list(feed.splits.shares)


def _take(feed: Feed, done: Done, on_keys: Callable[[KeyBatch], None]) -> None:
    if done.new_fields:
        raise NewFields(done.new_fields)
    for reject in done.rejects:
        feed.rejects.add(reject)
    if done.error is not None:
        raise done.error
    if done.keys is not None:
        on_keys(done.keys)


def _run(workers: Workers, setting: bytes, tasks: Iterator[Task]) -> Generator[tuple[Task, Done], None, None]:
    """What becomes of the tasks, in their order. Only so many are made and sent at a time as keep all busy."""
    executor = workers.start(workers.jobs)
    running: deque[tuple[Task, Future[Done]]] = deque()
    failure: BaseException | None = None
    more = True
    try:
        while more or running:
            while more and len(running) < 2 * workers.jobs + 1:
                try:
                    task = next(tasks, None)
                except Exception as error:  # what comes before it in the input may be worse
                    failure, task = error, None
                if task is None:
                    more = False
                else:
                    running.append((task, executor.submit(make_piece, setting, task)))
            if running:
                task, future = running.popleft()
                yield task, future.result()
        if failure is not None:
            raise failure
    except BaseException:
        _stop(executor, [future for _, future in running])
        raise
    executor.shutdown()


def _stop(executor: Executor, running: Sequence[Future[Done]]) -> None:
    """End all that is going on: when this returns, nobody writes any more."""
    stop = getattr(executor, "stop", None)
    if stop is not None:
        stop()
        return
    wait([future for future in running if not future.cancel()])
    executor.shutdown(cancel_futures=True)


class Here(Executor):
    """Runs a task in this process, when it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See :class:`concurrent.futures.Executor`."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class _Counted(Source):
    """A source whose position is told by the pieces that are done."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.inputs = source.inputs
        self.rewindable = source.rewindable
        self.done = 0

    def count(self) -> int | None:
        return self._source.count()

    def position(self) -> int:
        return self.done

    def size(self) -> int | None:
        return self._source.size()


class _OneSeries(Sequence[str]):
    """All pieces are of one series, however many there are."""

    def __len__(self) -> int:
        return 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: Any) -> str | Sequence[str]:
        return ""
