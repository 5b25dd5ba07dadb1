"""Runs at the same time, of one job and of several, whole and killed: one right dataset, and whoever loses says so."""

from __future__ import annotations

import random
import time

import pytest

from tests.cli.test_write import tree
from tests.e2e.test_interrupts import uploads
from tests.servers.faults import Slow
from tests.torture.conftest import JOBS, longer
from tests.torture.runs import Tool
from tests.torture.test_kill import LIMIT, S3, UPDATE, Disk, rows


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tool: Tool) -> Disk | S3:
    if request.param == "disk":
        return Disk(tool)
    return S3(tool, *(request.getfixturevalue(name) for name in ("proxy", "s3_server", "store")))


def whole(tool: Tool, name: str, *arguments: str, base: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """What a run that is alone comes to."""
    Disk(tool).put(name, base or {})
    ran = tool("write", "rows.jsonl", name, *arguments)
    assert ran.code == 0, ran.err
    return tree(tool.folder / name)


def check_end(place: Disk | S3, tool: Tool, line: tuple[str, ...], right: dict[str, bytes]) -> None:
    """Once more, and all is as if there had been one run."""
    ran = tool(*line)
    assert ran.code == 0, ran.err
    assert place.held("out") == right
    place.check_clean("out")
    assert tool("inspect", line[2], "--verify").code == 0


@pytest.mark.timeout(900)
@pytest.mark.parametrize("jobs", JOBS, ids=lambda jobs: "-".join(jobs) or "-")
@pytest.mark.parametrize("updates", [False, True])
@pytest.mark.parametrize("turn", [0, *longer(*range(1, 6))])
@pytest.mark.parametrize("runs", [2, *longer(8)])
def test_identical_runs(place, tool, runs, turn, updates, jobs):
    """One of them may be killed; the others do not need it."""
    rows(tool.folder, False)
    base = whole(tool, "base", *LIMIT) if updates else {}
    rows(tool.folder, True)
    right = whole(tool, "right", *LIMIT, *UPDATE, base=base)
    place.put("out", base)
    line = ("write", "rows.jsonl", place.dest("out"), *LIMIT, *UPDATE, *jobs)
    chance = random.Random(f"{turn} {runs}")
    racers = []
    for number in range(runs):
        kills = place.tool.kill_at(chance.randrange(2_000_000)) if number == 0 and turn else {}
        racers.append(tool.start(*line, env=kills))
        time.sleep(chance.choice([0, 0, 0.05, 0.3]))
    ended = [racer.wait() for racer in racers]
    # Whoever comes while marks are being removed may be told to try again.
    assert {ran.code for ran in ended} <= {0, 5, -9}, [ran.err for ran in ended]
    assert 0 in {ran.code for ran in ended[1:]} | {ended[0].code}
    check_end(place, tool, line, right)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("updates", [False, True])
@pytest.mark.parametrize("turn", [0, *longer(*range(1, 8))])
def test_different_runs(place, tool, turn, updates):
    """One wins, the other is told; both again, one after the other, and the second replaces what the first made."""
    rows(tool.folder, False)
    base = whole(tool, "base", *LIMIT) if updates else {}
    place.put("out", base)
    lines = [
        ("write", "rows.jsonl", place.dest("out"), "--max-count", count, *(UPDATE if updates else ()))
        for count in ("150", "250")
    ]
    racers = []
    for line in lines:
        racers.append(tool.start(*line))
        time.sleep(turn * 0.08)
    ended = [racer.wait() for racer in racers]
    codes = sorted(ran.code for ran in ended)
    if updates:
        assert codes in ([0, 0], [0, 5], [0, 8]), [ran.err for ran in ended]  # one after the other, if it comes to that
    else:
        assert codes == [0, 8], [ran.err for ran in ended]
    assert tool("inspect", lines[0][2], "--verify").code == 0
    for ran in ended:
        if ran.code:
            assert "(" in ran.err.splitlines()[-1]  # what to do
    won = [line for line, ran in zip(lines, ended, strict=True) if ran.code == 0][-1]
    if not updates:
        check_end(place, tool, won, whole(tool, "alone", *won[3:]))


def test_abort_takes_unfinished_uploads_away_but_none_of_another_dataset(tool, proxy, store, s3_server, s3_bucket):
    """A dataset may lie in a folder of another one's prefix."""
    (tool.folder / "src").mkdir()
    for number in range(4):
        (tool.folder / "src" / f"{number}.bin").write_bytes(random.Random(number).randbytes(6_000_000))
    behind = {"AWS_ENDPOINT_URL": proxy.url}
    proxy.when(Slow(rate=1 << 20), method="PUT", contains="partNumber")
    line = ("write", "src", f"s3://{s3_bucket}/out", "-o", "part_size=5M")
    nested = ("write", "src", f"s3://{s3_bucket}/out/nested", "-o", "part_size=5M")
    runs = [tool.start(*one, env=behind) for one in (line, nested)]
    deadline = time.monotonic() + 60
    while len(uploads(s3_server, s3_bucket)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for run in runs:
        run.kill()
        run.wait()
    planned = tool("abort", f"s3://{s3_bucket}/out", "-n")
    done = tool("abort", f"s3://{s3_bucket}/out")
    assert done.lines == planned.lines == [f"s3://{s3_bucket}/out/shard-000000.tar"]
    assert [one["Key"] for one in uploads(s3_server, s3_bucket)] == ["out/nested/shard-000000.tar"]
    assert [item.name for item in store.list("out")] == ["out/nested/.atdata/job.json"]
    assert tool(*nested).code == 0
    assert uploads(s3_server, s3_bucket) == []
