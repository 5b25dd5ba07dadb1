"""Runs programs as whole processes and tells what they took."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Command = Sequence[str] | str
"""Arguments, or a line for the shell."""


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes
    ----------
    seconds : wall time, from the start of the process to its end.
    cpu : seconds of processor time, of all its processes.
    rss : peak resident memory in bytes, of the largest of its processes.
    """

    seconds: float
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
    slower : its median wall time over that of the contest's first, at least.
    seconds : its median wall time, at most.
    rss : its peak memory in bytes, at most.
    runs : filled as they finish.
    """

    name: str
    command: Callable[[str], Command]
    env: Mapping[str, str] = field(default_factory=dict)
    slower: float | None = None
    seconds: float | None = None
    rss: int | None = None
    runs: list[Run] = field(default_factory=list)

    def median(self) -> float:
        """The median wall time in seconds."""
        return statistics.median(run.seconds for run in self.runs)

    def run(self, place: str) -> None:
        """Run it once more."""
        self.runs.append(run(self.command(place), self.env))


def run(command: Command, env: Mapping[str, str]) -> Run:
    """Run one program to its end.

    What earlier programs left to be written to the disk is written first, so that nobody pays for another.

    Raises
    ------
    RuntimeError : it failed.
    """
    arguments = ["bash", "-o", "pipefail", "-c", command] if isinstance(command, str) else list(command)
    with tempfile.TemporaryFile() as errors:
        os.sync()
        start = time.perf_counter()
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=minimal(env)
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            raise RuntimeError(f"{command}: exit {process.returncode}: {errors.read().decode()[-2000:]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def minimal(env: Mapping[str, str]) -> dict[str, str]:
    """An environment that does not depend on who runs the benchmarks."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LANG": "C.UTF-8", **env}
