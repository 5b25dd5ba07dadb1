"""What the page shows of the samples: some of them whole, the values of more of them as charts.

Reading is bounded whatever the dataset: the beginnings of some shards, evenly spaced over all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from math import ceil
from typing import Protocol

from atdata_cli.errors import AtdataError
from atdata_cli.report.columns import Columns
from atdata_cli.report.members import Member, decode
from atdata_cli.report.previews import Preview, Room, preview
from atdata_cli.shards.reader import Located, Shard
from atdata_cli.shards.scan import DatasetInfo
from atdata_cli.sources.base import Files, Reject, Sample, size_of
from atdata_cli.sources.tars import TarSource

__all__ = ["Card", "Finding", "Gathered", "Problem", "gather"]

GALLERY = 24
SAMPLES = 2000
_SHARDS = 8
_BYTES = 128 << 20  # of payload, unless the gallery alone takes more
_AHEAD = 8  # shards
_MOST_FIELDS = 40  # of one sample in the gallery


class Problem(Protocol):
    """Something wrong with a dataset, as a check of its bytes reports it."""

    @property
    def kind(self) -> str:
        """What went wrong, in a word or two."""

    @property
    def shard(self) -> str | None:
        """URL or name of the shard."""

    @property
    def key(self) -> str | None:
        """The sample."""

    @property
    def offset(self) -> int | None:
        """Where in the shard, in bytes."""

    @property
    def detail(self) -> str:
        """What exactly."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A :class:`Problem` that turned up while samples were read for the page."""

    kind: str
    shard: str | None
    key: str | None
    offset: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Card:
    """One sample of the gallery.

    Attributes
    ----------
    key, shard : where it is; the shard as URL.
    previews : of its fields.
    hidden : how many more fields it has.
    """

    key: str
    shard: str
    previews: Sequence[Preview]
    hidden: int = 0


@dataclass(slots=True)
class Gathered:
    """What was read.

    Attributes
    ----------
    samples, shards : how many, of how many shards.
    cards : the gallery.
    columns : the values.
    sizes : bytes of each sample read, as stored.
    findings : what was wrong.
    """

    samples: int = 0
    shards: int = 0
    cards: list[Card] = field(default_factory=list)
    columns: Columns = field(default_factory=Columns)
    sizes: list[int] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Part:
    """The beginning of one shard: how many samples, and which of them go into the gallery."""

    shard: Shard
    samples: int
    shown: frozenset[int]


def gather(info: DatasetInfo, located: Located, files: Files) -> Gathered:
    """Read some samples. A shard that cannot be read is a finding, not an error."""
    found = Gathered()
    room = Room()
    if not info.shards:
        return found
    for part, begun in _begun_ahead(_parts(info, located), files):
        found.shards += 1
        try:
            first = begun.first.result()
            with closing(begun.samples) as samples:  # type: ignore[type-var]
                whole = chain(() if first is None else (first,), samples)
                for number, sample in enumerate(islice(whole, part.samples)):
                    _take(found, sample, part.shard.url, room if number in part.shown else None)
        except AtdataError as error:
            found.findings.append(Finding("unreadable shard", part.shard.url, None, None, error.message))
        found.findings.extend(_rejected(part.shard.url, begun.source.rejects))
    return found


@dataclass(frozen=True, slots=True)
class _Begun:
    """A shard whose first sample is being read in another thread."""

    source: TarSource
    samples: Iterator[Sample]
    first: Future[Sample | None]


def _begun_ahead(parts: Iterator[_Part], files: Files) -> Iterator[tuple[_Part, _Begun]]:
    """Each part, while the next ones are already opened and read from: far away that takes a while."""
    with ThreadPoolExecutor(_AHEAD, "report") as pool:

        def begin(part: _Part) -> tuple[_Part, _Begun]:
            source = TarSource(files, [part.shard.input])
            samples = source.samples()
            return part, _Begun(source, samples, pool.submit(next, samples, None))

        waiting = deque(map(begin, islice(parts, _AHEAD)))
        while waiting:
            yield waiting.popleft()
            waiting.extend(map(begin, islice(parts, 1)))


def _parts(info: DatasetInfo, located: Located) -> Iterator[_Part]:
    average = info.samples / len(info.shards)
    wanted = min(len(info.shards), max(_SHARDS, ceil(GALLERY / max(average, 1))), GALLERY)
    places = [number * len(info.shards) // wanted for number in range(wanted)]
    most = max(GALLERY, min(SAMPLES, _BYTES * info.samples // max(info.payload, 1)))
    left, left_shown = most, GALLERY
    for done, place in enumerate(places):
        # Even parts; what a small shard cannot fill goes to the ones after it.
        samples = min(info.shards[place].samples, ceil(left / (wanted - done)))
        shown = min(samples, ceil(left_shown / (wanted - done)))
        left -= samples
        left_shown -= shown
        if samples:
            yield _Part(located.shards[place], samples, frozenset(n * samples // shown for n in range(shown)))


def _take(found: Gathered, sample: Sample, shard: str, room: Room | None) -> None:
    """Take one sample in; into the gallery too, if there is *room* given."""
    fields = decode(sample)
    found.samples += 1
    found.sizes.append(sum(size_of(value) for value in sample.fields.values()))
    found.columns.add(fields)
    problems = [(name, value.problem) for name, value in fields.items() if isinstance(value, Member) and value.problem]
    if room is not None:
        shown = [preview(name, value, room) for name, value in islice(fields.items(), _MOST_FIELDS)]
        found.cards.append(Card(sample.key, shard, shown, max(0, len(fields) - _MOST_FIELDS)))
        known = {name for name, _ in problems}
        problems += [(p.name, p.problem) for p in shown if p.problem and p.name not in known]
    found.findings.extend(
        Finding("unreadable field", shard, sample.key, None, f"{name}: {problem}") for name, problem in problems
    )


def _rejected(shard: str, rejects: Sequence[Reject]) -> Iterator[Finding]:
    for reject in rejects:
        yield Finding("not a sample", shard, reject.key, None, f"{reject.where}: {reject.reason}")
