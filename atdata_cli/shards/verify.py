"""Verifying a dataset: every byte of every shard, against its manifest where there is one and against itself.

Shards are checked in processes; what they find is put together here: keys that come again in another shard, samples
without a field that almost all others have, and what concerns the dataset as a whole.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atdata_cli.errors import AtdataError, DataError
from atdata_cli.refs import basename, join, parent
from atdata_cli.samples.rowcheck import RowCheck
from atdata_cli.shards.forks import usable_cores
from atdata_cli.shards.manifest import MANIFEST, STATE, Manifest
from atdata_cli.shards.problems import (
    Expected,
    FieldSet,
    KeyBatch,
    Kind,
    Problem,
    ShardResult,
    ShardTask,
    Tick,
    listed,
    repeat_kind,
)
from atdata_cli.shards.reader import Located, Shard
from atdata_cli.shards.repeats import KeyLog, Repeat
from atdata_cli.shards.shardcheck import check_shard
from atdata_cli.shards.transfer import TransferProgress
from atdata_cli.shards.workers import run_in_processes
from atdata_cli.sources.base import Files
from atdata_cli.sources.formats import is_tar

__all__ = ["Kind", "Problem", "VerifyReport", "verify"]

# Starting processes costs about as much as checking this many bytes.
_WORTH_PROCESSES = 256 << 20
_MOST_PROBLEMS = 100_000
_MOST_SETS = 4096
# A field that more than this share of the samples have is one that all should have.
_USUAL = 0.99
_NUMBERED = re.compile(r"(.*?)(\d+)((?:-of-\d+)?\.[A-Za-z].*)", re.DOTALL)
# An update gives a changed shard's name another tail.
_OF_UPDATES = re.compile(r"shard-\d+-[0-9a-f]+\.tar(?:\.gz)?")
_OURS = re.compile(r"(shard-)(\d+)(?:-[0-9a-f]+)?(\.tar(?:\.gz)?)")
_LONGEST_NAME = 255  # of a file


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found.

    Attributes
    ----------
    problems : in order of shard and offset; those of a shard or dataset as a whole come first. If there are more
        than anybody reads (100,000; 10,000 of one shard), a last one of kind ``more`` says how many.
    shards, samples, bytes : what was read; bytes as stored.
    failure : why a shard could not be read, if nothing is wrong with what could: then nobody knows of the rest.
    """

    problems: Sequence[Problem]
    shards: int
    samples: int
    bytes: int
    failure: AtdataError | None = None


def verify(
    located: Located, files: Files, *, jobs: int | None = None, progress: TransferProgress | None = None
) -> VerifyReport:
    """Read every byte of a dataset and list everything that is wrong with it.

    Parameters
    ----------
    jobs : processes; by default as many as there are processors, or one where there is little to read.
    progress : told how far it is.

    Raises
    ------
    AtdataError : the work itself failed: no room for temporary files, a process died. What is wrong with the
        dataset, also that a shard cannot be read, is in the report.
    """
    parts = {
        folder: Expected(manifest.encoding, manifest.schema)
        for folder, manifest in located.parts.items()
        if manifest.encoding
    }
    series = _series(located)
    tasks = _tasks(located)
    sizes = [shard.size for shard in located.shards]
    if progress is not None and None not in sizes:
        progress.total = sum(size or 0 for size in sizes)
    findings = _Findings(located.shards, series, progress)
    with contextlib.closing(findings):
        _run(tasks, parts, files, jobs, findings.take)
        problems = findings.finish()
    if located.manifest is not None:
        problems += _manifest_problems(located, files)
        problems += _unknown_shards(located, files)
    problems += _gaps(located, files)
    return _report(located, findings, problems)


def _report(located: Located, findings: _Findings, problems: list[Problem]) -> VerifyReport:
    order = {shard.url: index for index, shard in enumerate(located.shards)}
    # What concerns no shard of the dataset comes first.
    problems.sort(key=lambda problem: (order.get(problem.shard, -1), -1 if problem.offset is None else problem.offset))
    omitted = findings.omitted + max(0, len(problems) - _MOST_PROBLEMS)
    del problems[_MOST_PROBLEMS:]
    if omitted:
        problems.append(Problem("more", located.url, None, None, f"{omitted} more problems are not listed"))
    failure = findings.failure if all(problem.kind == "unreadable" for problem in problems) else None
    return VerifyReport(tuple(problems), findings.shards, findings.samples, findings.bytes, failure)


# --- running ---


def _tasks(located: Located) -> list[ShardTask]:
    folders = [folder for folder, part in located.parts.items() for _ in part.shards]
    return [
        ShardTask(
            index,
            shard.url,
            shard.size,
            shard.row,
            folders[index] if index < len(folders) else None,
            shard.sha256,
        )
        for index, shard in enumerate(located.shards)
    ]


def _run(
    tasks: Sequence[ShardTask],
    parts: Mapping[str, Expected],
    files: Files,
    jobs: int | None,
    take: Callable[[Tick | KeyBatch | ShardResult], None],
) -> None:
    if jobs is None:
        size = sum(_WORTH_PROCESSES if task.size is None else task.size for task in tasks)
        jobs = usable_cores() if size >= _WORTH_PROCESSES else 1
    jobs = min(jobs, len(tasks))
    if jobs > 1:
        make_work = functools.partial(_worker, parts, files)
        # Closed, so that no worker outlives an error or Ctrl-C.
        with contextlib.closing(run_in_processes(make_work, tasks, jobs, preload=__name__)) as messages:
            for message in messages:
                take(message)
        return
    work = _worker(parts, files)
    for task in tasks:
        take(work(task, take))


def _worker(parts: Mapping[str, Expected], files: Files) -> Callable[[ShardTask, Callable[[Any], None]], ShardResult]:
    def work(task: ShardTask, emit: Callable[[Any], None]) -> ShardResult:
        return check_shard(task, files, None if task.part is None else parts.get(task.part), emit)

    return work


# --- putting together ---


class _Findings:
    """Puts together what the shards' checks say."""

    def __init__(self, shards: Sequence[Shard], series: Sequence[str], progress: TransferProgress | None) -> None:
        self._shards = shards
        self._series = series
        self._progress = progress
        self._problems: list[Problem] = []
        self._keys = KeyLog(series)
        self._sets: dict[str, dict[tuple[str, ...], list[tuple[int, FieldSet]]]] = defaultdict(dict)
        self.omitted = self.shards = self.samples = self.bytes = 0
        self.failure: AtdataError | None = None

    def close(self) -> None:
        self._keys.close()

    def take(self, message: Tick | KeyBatch | ShardResult) -> None:
        """Take in one message."""
        if isinstance(message, Tick):
            self.samples += message.samples
            self.bytes += message.bytes
        elif isinstance(message, KeyBatch):
            self._keys.add(message)
        else:
            self._take_result(message)
        if self._progress is not None:
            self._progress.samples, self._progress.bytes = self.samples, self.bytes
            self._progress.shards = self.shards

    def _take_result(self, result: ShardResult) -> None:
        self.shards += 1
        self._list(result.problems)
        self.omitted += result.omitted
        self.failure = self.failure or result.failure
        sets = self._sets[self._series[result.shard]]
        for fields, seen in result.sets.items():
            if fields in sets or len(sets) < _MOST_SETS:
                sets.setdefault(fields, []).append((result.shard, seen))

    def _list(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            if len(self._problems) < _MOST_PROBLEMS:
                self._problems.append(problem)
            else:
                self.omitted += 1

    def finish(self) -> list[Problem]:
        """Everything that is wrong with shards and between them."""
        self._list(map(self._repeated, self._keys.repeats()))
        self._compare_fields()
        # The parts of a split sample lack each other's fields, which is said once.
        split = {problem.key for problem in self._problems if problem.kind == "split-sample"}
        return [problem for problem in self._problems if problem.kind != "missing-field" or problem.key not in split]

    # --- keys ---

    def _repeated(self, repeat: Repeat) -> Problem:
        key, place, first = repeat
        kind = repeat_kind(place.fields, first.fields)
        if key.startswith("\0"):  # an unsafe one, see the shard's check
            key = bytes.fromhex(key[1:]).decode("utf-8", "surrogateescape")
        detail = f"the key was there before, at byte {first.offset}"
        if first.shard != place.shard:
            detail += f" of {self._shards[first.shard].url}"
        return Problem(kind, self._shards[place.shard].url, key, place.offset, detail)

    # --- fields ---

    def _compare_fields(self) -> None:
        """Without a manifest: find samples without a field that nearly all samples of their series have."""
        for sets in self._sets.values():
            having: Counter[str] = Counter()
            total = 0
            for fields, seen in sets.items():
                samples = sum(some.samples for _, some in seen)
                total += samples
                having.update(dict.fromkeys(fields, samples))
            usual = {name for name, samples in having.items() if total > samples > _USUAL * total}
            for fields, seen in sets.items():
                missing = usual.difference(fields)
                if missing:
                    self._missing(missing, seen)

    def _missing(self, missing: set[str], seen: Sequence[tuple[int, FieldSet]]) -> None:
        detail = f"without {listed(missing)}, which nearly all others have"
        for shard, some in seen:
            url = self._shards[shard].url
            self._list(Problem("missing-field", url, key, offset, detail) for key, offset in some.examples)
            self.omitted += some.samples - len(some.examples)


# --- the dataset as a whole ---


def _numbered(url: str, *, ours: bool = False) -> tuple[str, str, str] | None:
    """A shard's URL as what comes before its number, the number, and what comes after."""
    name = basename(url)
    match = (_OURS if ours else _NUMBERED).fullmatch(name) if len(name) <= _LONGEST_NAME else None
    return (url[: len(url) - len(name)] + match[1], match[2], match[3]) if match else None


def _series(located: Located) -> list[str]:
    """For each shard, which others its samples belong together with.

    With a manifest all do. Other people's ``train-000000.tar`` and ``val-000000.tar`` may lie in one folder, and
    they may have the same keys.
    """
    if located.manifest is not None:
        return [""] * len(located.shards)
    named = []
    for shard in located.shards:
        parsed = _numbered(shard.url)
        named.append(parsed[0] + "#" + parsed[2] if parsed else parent(shard.url))
    return named


def _gaps(located: Located, files: Files) -> list[Problem]:
    """Numbers that are left out between the first and the last of a row of shards.

    Where samples were rejected, they may be all of one shard's; the manifest names the others.
    """
    if located.manifest is not None and located.manifest.rejected:
        return []
    rows: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for shard in located.shards:
        parsed = _numbered(shard.url, ours=located.manifest is not None)
        if parsed is not None:
            head, digits, ending = parsed
            rows[head, ending][int(digits)] = len(digits)
    problems = []
    for (head, ending), numbers in rows.items():
        for before, after in itertools.pairwise(sorted(numbers)):
            if after == before + 1:
                continue
            width = numbers[before]
            first = f"{head}{before + 1:0{width}d}{ending}"
            # A pattern may leave out shards that are there.
            if located.manifest is None and _exists(files, first):
                continue
            last = f"{before + 1:0{width}d} to {after - 1:0{width}d}" if after > before + 2 else "its number"
            problems.append(Problem("shard-gap", first, None, None, f"no shard has {last}"))
    return problems


def _exists(files: Files, url: str) -> bool:
    try:
        return files.info(url) is not None
    except AtdataError:
        return False


def _unknown_shards(located: Located, files: Files) -> list[Problem]:
    """Shards in the dataset's folders that no manifest names."""
    known = {folder + row.name for folder, part in located.parts.items() for row in part.shards}
    known |= {folder + name for folder, part in located.parts.items() for name in part.replaced}
    known.update(located.manifest.replaced if located.manifest is not None else ())
    folders = {"", *located.parts}
    problems = []
    try:
        updating = files.info(join(located.url, f"{STATE}/job.json")) is not None
        for relative, info in files.walk(located.url):
            folder = relative[: len(relative) - len(basename(relative))]
            if updating and _OF_UPDATES.fullmatch(basename(relative)):
                continue  # readers of the manifest of now are not concerned
            if info.kind == "file" and folder in folders and is_tar(relative) and relative not in known:
                problems.append(Problem("unknown-shard", info.url, None, None, "the manifest does not name it"))
    except AtdataError:
        return []  # a place that cannot be listed (a web server) shows nothing besides the manifest
    return sorted(problems, key=lambda problem: problem.shard)


def _manifest_problems(located: Located, files: Files) -> list[Problem]:
    assert located.manifest is not None
    problems: list[Problem] = []
    for folder, part in located.parts.items():
        url = join(located.url, folder + MANIFEST)
        details = [*_sums(part), *_repeated(part)]
        if part.encoding == "msgpack":
            try:
                RowCheck(part.schema)
            except DataError as error:
                details.append(error.message)
        problems += [Problem("damaged-manifest", url, None, None, detail) for detail in details]
    if located.manifest.splits is not None:
        problems += _split_problems(located, files)
    return problems


def _sums(part: Manifest) -> Iterator[str]:
    for what in ("samples", "bytes"):
        total = sum(getattr(row, what) for row in part.shards)
        if total != getattr(part, what):
            yield f"it says {getattr(part, what)} {what}, its shards have {total}"


def _repeated(part: Manifest) -> Iterator[str]:
    for name, times in Counter(row.name for row in part.shards).items():
        if times > 1:
            yield f"it names {name!a} {times} times"


def _split_problems(located: Located, files: Files) -> Iterator[Problem]:
    """What the root manifest says of its splits' manifests."""
    assert located.manifest is not None
    root = join(located.url, MANIFEST)
    for split, row in (located.manifest.splits or {}).items():
        part = located.parts[f"{split}/"]
        url = join(located.url, row.manifest)
        try:
            with files.open(url) as reader:
                digest = hashlib.sha256(reader.read()).hexdigest()
        except AtdataError as error:
            yield Problem("unreadable", url, None, None, error.message)
            continue
        if digest != row.sha256:
            yield Problem("hash", url, None, None, f"the SHA-256 is {digest}, the root manifest says {row.sha256}")
        said = (row.samples, row.bytes, row.payload, row.shards)
        found = (part.samples, part.bytes, part.payload, len(part.shards))
        if said != found:
            detail = f"samples, bytes, payload and shards of {split!a} are {found}, it says {said}"
            yield Problem("damaged-manifest", root, None, None, detail)
