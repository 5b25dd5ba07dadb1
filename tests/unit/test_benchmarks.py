"""The benchmarks themselves: what a run is said to have taken, and what the page says of it."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from contextlib import nullcontext

import pytest

from tests.benchmarks.contests import Contest
from tests.benchmarks.measure import Contender, Run, RunFailed, run
from tests.benchmarks.plots import Panel, draw
from tests.benchmarks.report import Results


def test_peak_memory_and_processor_time_are_those_of_the_program_and_its_workers() -> None:
    here = bytearray(200 << 20)
    here[:: 1 << 12] = b"x" * len(here[:: 1 << 12])  # resident, here
    small = run([sys.executable, "-IS", "-c", "pass"], {})
    assert small.rss < 100 << 20
    busy = "import os, time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    # A worker whose parent has ended: nobody waits for it but the runner.
    orphan = f"import os, time; pid = os.fork()\nif pid == 0:\n  x = bytearray(150 << 20); exec({busy!r})"
    worked = run([sys.executable, "-IS", "-c", orphan], {})
    assert worked.cpu >= 0.3
    assert worked.rss > 150 << 20
    with pytest.raises(RunFailed, match="exit 3"):
        run("exit 3", {})


def test_the_page_names_what_was_not_measured_and_what_was_missed() -> None:
    contest = Contest(
        "a task",
        [
            _measured("ours", 2.0, seconds=1.0),
            _measured("slow | peer", 8.0, slower=3),
            Contender("absent", lambda _: [], slower=2, failure="not installed: no wheel"),
            _measured("tar", 2.0, slower=1 / 1.25),
        ],
        lambda: nullcontext(""),
    )
    page = Results("## Machine\n", [contest]).markdown()
    assert "| a task | itself: ours | ≤ 1 s | 2 s | **missed** |  |" in page
    assert r"| a task | slow \| peer | 3 × faster | 4 × faster | kept | 4 × faster |" in page
    assert "| a task | absent | 2 × faster |  | not measured |  |" in page
    assert "not measured (not installed: no wheel)" in page
    assert "| a task | tar | ≤ 0.8 × its time" not in page
    assert "| a task | tar | ≤ 1.25 × its time | 1 × its time | kept | 1 × its time |" in page


def test_a_plot_is_small_and_well_formed() -> None:
    points = [(10.0**power, 3.0 * 7**power) for power in range(5)]
    text = draw([Panel("a < b", "rows", "s", points), Panel("RSS", "rows", "MB", points, is_log=False, limit=300)])
    assert len(text) < 10_000
    assert len(ET.fromstring(text).findall(".//{*}polyline")) == 2


def _measured(name: str, took: float, *, slower: float | None = None, seconds: float | None = None) -> Contender:
    made = Contender(name, lambda _: [], slower=slower, seconds=seconds)
    made.runs += [Run(took, took, 1.0, 10**8)] * 3
    return made
