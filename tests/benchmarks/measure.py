"""Runs programs as whole processes and tells what they took."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Command = Sequence[str] | str
"""Arguments, or a line for the shell."""

RUNNER = str(Path(__file__).with_name("runner.py"))
LONGEST = 300
"""Seconds after which a run counts as failed: nobody may watch."""


class RunFailed(Exception):
    """A program failed, or took too long."""


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes
    ----------
    seconds : wall time, from the start of the process to its end.
    stored : the same until the disk has all that it wrote.
    cpu : seconds of processor time, of all its processes.
    rss : peak resident memory in bytes, of the largest of its processes.
    """

    seconds: float
    stored: float
    cpu: float
    rss: int


@dataclass
class Contender:
    """A program that is measured, and what is promised of it.

    Attributes
    ----------
    name : for the table.
    command : given the fresh place that a run writes to, what is run.
    env : beside a minimal environment.
    slower : its wall time over that of the contest's first, at least.
    seconds : its median wall time, at most.
    rss : its peak memory in bytes, at most.
    failure : why it does not run, or ran no further.
    runs : filled as they finish.
    """

    name: str
    command: Callable[[str], Command]
    env: Mapping[str, str] = field(default_factory=dict)
    slower: float | None = None
    seconds: float | None = None
    rss: int | None = None
    failure: str | None = None
    runs: list[Run] = field(default_factory=list)

    def median(self) -> float:
        """The median wall time in seconds."""
        return statistics.median(run.seconds for run in self.runs)

    def median_stored(self) -> float:
        """The median wall time until the disk has all, in seconds."""
        return statistics.median(run.stored for run in self.runs)

    def median_cpu(self) -> float:
        """The median processor time in seconds."""
        return statistics.median(run.cpu for run in self.runs)

    def peak(self) -> int:
        """The largest of the peak memories, in bytes."""
        return max(run.rss for run in self.runs)

    def ratio(self, first: Contender) -> float:
        """How much longer it takes than *first*: the median over the rounds, in each of which both ran in turn."""
        pairs = zip(self.runs, first.runs, strict=False)
        return statistics.median(mine.seconds / theirs.seconds for mine, theirs in pairs)

    def stored_ratio(self, first: Contender) -> float:
        """The same of the time until the disk has all."""
        pairs = zip(self.runs, first.runs, strict=False)
        return statistics.median(mine.stored / theirs.stored for mine, theirs in pairs)

    def run(self, place: str) -> None:
        """Run it once more, unless it failed before."""
        if self.failure is not None:
            return
        try:
            self.runs.append(run(self.command(place), self.env))
        except RunFailed as error:
            self.failure = str(error)


def run(command: Command, env: Mapping[str, str]) -> Run:
    """Run one program to its end.

    Raises
    ------
    RunFailed : it failed, or took too long.
    """
    arguments = ["bash", "-o", "pipefail", "-c", command] if isinstance(command, str) else list(command)
    with tempfile.TemporaryDirectory() as home:
        task = json.dumps([arguments, minimal({"HOME": home, **env}), LONGEST])
        done = subprocess.run(
            [sys.executable, "-IS", RUNNER], input=task, stdout=subprocess.PIPE, text=True, check=True
        )
    told = json.loads(done.stdout)
    if told["code"] != 0:
        said = told["errors"].strip().splitlines()
        why = f"killed after {LONGEST} s" if told["seconds"] >= LONGEST else f"exit {told['code']}"
        raise RunFailed(f"{why}: {said[-1][-300:] if said else ''}")
    return Run(told["seconds"], told["stored"], told["cpu"], told["rss"])


def minimal(env: Mapping[str, str]) -> dict[str, str]:
    """An environment that does not depend on who runs the benchmarks."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **env}
