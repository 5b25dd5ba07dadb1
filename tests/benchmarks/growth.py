"""How cost grows with rows, the size of members, the number of shards, and jobs."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks import corpora
from tests.benchmarks.contests import MEMORY, OURS, Setting
from tests.benchmarks.measure import Contender
from tests.benchmarks.plots import Panel, draw

_RUNS = 3
_LONG = 10.0  # seconds: what takes longer is not repeated

# Bytes of a member, and how many: enough to outlast the start, little enough to make in seconds.
_SIZES = ((100, 50_000), (1_000, 50_000), (10_000, 30_000), (10**5, 5_000), (10**6, 500), (10**7, 50), (10**8, 5))
_ROWS = (10**4, 10**5, 10**6, 10**7)
_SHARDS = (1, 10, 100, 1_000, 10_000)
_SHARDED_ROWS = 100_000


@dataclass(frozen=True)
class Point:
    """One measured size.

    Attributes
    ----------
    x : the size.
    contender : what was run.
    samples, payload : what it wrote: samples, and bytes that were read for it.
    """

    x: int
    contender: Contender
    samples: int
    payload: int


@dataclass
class Growth:
    """One way to grow.

    Attributes
    ----------
    name : for the file of its plot.
    title : what grows, for people.
    axis : the same in few words.
    points : by size.
    """

    name: str
    title: str
    axis: str
    points: list[Point] = field(default_factory=list)

    def table(self) -> str:
        """All points."""
        lines = [
            f"### {self.title}",
            "",
            f"![wall time and peak memory](plots/{self.name}.svg)",
            "",
            f"| {self.axis} | wall, s | CPU, s | samples/s | MB/s | peak RSS, MB | |",
            "| ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        ]
        return "\n".join([*lines, *map(_line, self.points), ""])

    def plot(self) -> str:
        """Wall time and peak memory."""
        done = [point for point in self.points if point.contender.runs]
        times = [(float(point.x), point.contender.median()) for point in done]
        peaks = [(float(point.x), point.contender.peak() / 1e6) for point in done]
        return draw(
            [
                Panel("wall time", self.axis, "seconds", times),
                Panel("peak RSS of a process", self.axis, "MB", peaks, is_log=False, limit=MEMORY / 1e6),
            ]
        )


def _line(point: Point) -> str:
    contender = point.contender
    if not contender.runs:
        return f"| {point.x:,} | | | | | | not run: {contender.failure} |"
    seconds = contender.median()
    cells = [
        f"{point.x:,}",
        f"{seconds:.2f}",
        f"{contender.median_cpu():.2f}",
        f"{point.samples / seconds:,.0f}",
        f"{point.payload / seconds / 1e6:,.0f}",
        f"{contender.peak() / 1e6:.0f}",
        contender.failure or "",
    ]
    return "| " + " | ".join(cells) + " |"


def by_rows(setting: Setting) -> Growth:
    """JSON lines to msgpack shards."""
    growth = Growth("rows", "rows: JSON lines to msgpack shards", "rows")
    for count in _ROWS:
        source = corpora.rows_file(setting.work, count)
        _measure(setting, growth, count, [str(source)], samples=count, payload=source.stat().st_size)
        if count > corpora.ROWS:
            source.unlink()
    return growth


def by_member_size(setting: Setting) -> Growth:
    """Files to shards."""
    growth = Growth("members", "size of members: files to shards", "bytes of a member")
    for size, count in _SIZES:
        source = corpora.sized_folder(setting.work, size, count)
        _measure(setting, growth, size, [str(source)], samples=count, payload=size * count)
        shutil.rmtree(source)
    return growth


def by_shards(setting: Setting) -> Growth:
    """The same rows in more and more shards."""
    growth = Growth("shards", f"number of shards: {_SHARDED_ROWS:,} rows", "shards")
    source = corpora.rows_file(setting.work, _SHARDED_ROWS)
    for count in _SHARDS:
        options = ["--max-count", str(_SHARDED_ROWS // count)]
        _measure(setting, growth, count, [str(source), *options], samples=_SHARDED_ROWS, payload=source.stat().st_size)
    return growth


def by_jobs(setting: Setting) -> Growth:
    """The same rows with more and more processes."""
    growth = Growth("jobs", f"jobs: {corpora.ROWS:,} rows", "jobs")
    source = corpora.rows_file(setting.work)
    for count in range(1, (os.cpu_count() or 1) + 1):
        options = ["--jobs", str(count)]
        _measure(setting, growth, count, [str(source), *options], samples=corpora.ROWS, payload=source.stat().st_size)
    return growth


def _measure(setting: Setting, growth: Growth, x: int, arguments: Sequence[str], *, samples: int, payload: int) -> None:
    """Add a point."""
    contender = Contender(f"{growth.axis}: {x:,}", lambda out: [OURS, "write", *arguments[:1], out, *arguments[1:]])
    for _ in range(_RUNS):
        out = tempfile.mkdtemp(prefix="out-", dir=setting.work)
        contender.run(out)
        shutil.rmtree(out)
        if contender.failure or contender.runs[-1].seconds > _LONG:
            break
    told = contender.failure or f"{contender.median():.2f} s, {contender.peak() / 1e6:.0f} MB"
    print(f"  {contender.name}: {told}", file=sys.stderr, flush=True)
    growth.points.append(Point(x, contender, samples, payload))


GROWTHS: Mapping[str, Callable[[Setting], Growth]] = {
    "growth-rows": by_rows,
    "growth-members": by_member_size,
    "growth-shards": by_shards,
    "growth-jobs": by_jobs,
}


def save_plot(growth: Growth, folder: Path) -> None:
    """Write its plot beside the results."""
    if any(point.contender.runs for point in growth.points):
        folder.mkdir(exist_ok=True)
        (folder / f"{growth.name}.svg").write_text(growth.plot())
