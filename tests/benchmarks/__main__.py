"""``python -m tests.benchmarks``: us and our peers, side by side on this machine."""

from __future__ import annotations

import argparse
import compileall
import sys
import tempfile
import traceback
from contextlib import ExitStack
from pathlib import Path

import atdata_cli
from tests.benchmarks.contests import CONTESTS, Contest, Setting
from tests.benchmarks.growth import GROWTHS, save_plot
from tests.benchmarks.report import Results, contest_table, setup, show

_RUNS = {"startup": 20, "manifest": 10, "imports": 3, "dry-run": 3, "memory": 1, "memory-s3": 1}
_PLOTS = "plots"


def main() -> None:
    """Parse the command line, run the contests, print the tables, and write them down if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    choices = [*CONTESTS, *GROWTHS]
    parser.add_argument("--only", action="append", choices=choices, help="run this one; may be repeated")
    parser.add_argument("--skip", action="append", default=[], choices=choices, help="leave this one out")
    parser.add_argument("--runs", type=int, help="runs of each contender (5; more of what is short, fewer of the rest)")
    parser.add_argument("--work", type=Path, help="folder for corpora, kept for the next time (a temporary one)")
    parser.add_argument("--scale", type=int, default=1, help="inputs of the memory contests: 1 is 2,000,000 rows, 4 GB")
    parser.add_argument("--results", type=Path, help="write the tables to this file, and plots beside it")
    options = parser.parse_args()
    wanted = [name for name in options.only or choices if name not in options.skip]
    # As pip does when it installs, whatever PYTHONDONTWRITEBYTECODE says: what users have is compiled.
    compileall.compile_dir(Path(atdata_cli.__file__).parent, quiet=1)
    with ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="atdata-benchmarks-")))
        work.mkdir(parents=True, exist_ok=True)
        setting = Setting(work.absolute(), options.scale)
        results = Results(setup(setting.work))
        show(results.setup)
        for name in wanted:
            try:
                _measure(name, setting, options.runs, results, options.results)
            except Exception:  # nobody watches: the others are still worth having
                traceback.print_exc()
                stack.callback(sys.exit, 1)
            if options.results is not None:
                options.results.write_text(results.markdown())
    sys.exit(results.failed)


def _measure(name: str, setting: Setting, runs: int | None, results: Results, file: Path | None) -> None:
    if name in GROWTHS:
        print(f"\n{name}", file=sys.stderr)
        growth = GROWTHS[name](setting)
        results.growths.append(growth)
        if file is not None:
            save_plot(growth, file.parent / _PLOTS)
        show(growth.table())
        return
    with CONTESTS[name](setting) as contest:
        results.contests.append(contest)
        _compete(contest, runs or _RUNS.get(name, 5))
        show(contest_table(contest))


def _compete(contest: Contest, runs: int) -> None:
    """Contenders take turns, A B A B …, so that a busy minute of the machine is everybody's."""
    print(f"\n{contest.title}", file=sys.stderr)
    for number in range(runs + contest.warm_up):
        if number == 1 and contest.warm_up:
            print("  (that was to warm up)", file=sys.stderr)
            for contender in contest.contenders:
                contender.runs.clear()
        for contender in contest.contenders:
            if contender.failure is None:
                with contest.place() as place:
                    contender.run(place)
            if contender.failure is not None:
                told = contender.failure
            else:
                told = f"{contender.runs[-1].seconds:.3f} s, {contender.runs[-1].cpu:.3f} s of CPU"
            print(f"  {contender.name}: {told}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
