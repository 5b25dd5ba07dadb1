"""Writes to S3 over a network that fails at random: the same result, or exit 5 and then the same result.

Every request may be reset, refused, slowed down, cut off, lost on its way back or delivered twice; the same seed gives
the same failures as far as requests come in the same order. ``tests/e2e/test_faults.py`` has each failure by itself.
"""

from __future__ import annotations

import random
import time

import pytest

from atdata_cli.stores.testing import pattern
from tests.cli.test_write import tree
from tests.cli.test_write_s3 import objects
from tests.e2e.test_interrupts import uploads
from tests.servers.faults import Fault, Lost, Reset, ResetAnswer, Slow, Status, Truncate, Twice
from tests.torture.conftest import JOBS, longer
from tests.torture.runs import Tool

MIB = 1 << 20
FAULTS: list[Fault] = [
    Reset(),
    Reset(after=MIB),
    ResetAnswer(),
    ResetAnswer(after=100),
    Truncate(after=30),
    Truncate(after=0),
    Lost(),
    Twice(),
    Slow(rate=4 * MIB),
    Status(500, "InternalError"),
    Status(503, "SlowDown"),
    Status(503, "SlowDown", (("Retry-After", "0"),), read_body=False),
    Status(429),
]
ARGUMENTS = ("--max-count", "4", "-o", "part_size=5M", "--no-progress")
RUNS = 6


@pytest.fixture
def whole(tool: Tool) -> dict[str, bytes]:
    """Three shards of two parts each, and what has to come out in the end."""
    folder = tool.folder / "src"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02d}.bin").write_bytes(pattern(1_600_000 + number, seed=number))
    assert tool("write", "src", "whole", *ARGUMENTS[:2]).code == 0
    return tree(tool.folder / "whole")


def check(tool, proxy, store, server, whole, dest, run) -> list[int]:
    """Run until it is done; how the runs ended."""
    codes = []
    for _ in range(RUNS):
        ran = run()
        codes.append(ran.code)
        assert ran.code in (0, 5), ran.err
        tool.secrets.check_objects(store, dest)
        if ran.code == 0:
            break
        assert "again" in ran.err.splitlines()[-1], ran.err
        checked = tool("inspect", f"s3://{store.bucket}/{dest}", "--verify", env={"AWS_ENDPOINT_URL": server.endpoint})
        assert checked.code in (3, 6) or objects(store, dest).get("manifest.json") == whole["manifest.json"]
    proxy.heal()
    if codes[-1] == 5:
        codes.append(run().code)
    assert codes[-1] == 0
    assert objects(store, dest) == whole
    assert uploads(server, store.bucket) == []
    return codes


@pytest.mark.timeout(900)
@pytest.mark.parametrize("jobs", JOBS, ids=lambda jobs: "-".join(jobs) or "-")
@pytest.mark.parametrize("seed", [1, *longer(*range(2, 26))])
def test_every_request_may_fail(tool, proxy, store, s3_server, whole, seed, jobs):
    chance = random.Random(seed)
    share = chance.choice([0.05, 0.1, 0.2, 0.3])
    for fault in FAULTS:
        proxy.when(fault, where=lambda _: chance.random() < share / len(FAULTS))
    dest = f"s3://{store.bucket}/out"
    retries = str(chance.choice([1, 2, 4]))
    behind = {"AWS_ENDPOINT_URL": proxy.url}
    codes = check(
        tool,
        proxy,
        store,
        s3_server,
        whole,
        "out",
        lambda: tool("write", "src", dest, *ARGUMENTS, *jobs, "--retries", retries, "--timeout", "20", env=behind),
    )
    print(f"seed {seed}: {share:.0%} of requests, --retries {retries}: {codes}")


@pytest.mark.torture
@pytest.mark.timeout(900)
@pytest.mark.parametrize("begins", [0.0, 0.3, 0.6])
def test_an_outage_of_half_a_minute(tool, proxy, store, s3_server, whole, begins):
    """With the patience that everybody has by default."""
    dest, behind = f"s3://{store.bucket}/out", {"AWS_ENDPOINT_URL": proxy.url}
    proxy.when(Slow(rate=10 * MIB), method="PUT", contains=".tar")  # long enough to be hit in the middle
    down = None

    def run():
        nonlocal down
        running = tool.start("write", "src", dest, *ARGUMENTS, env=behind)
        if down is None:
            time.sleep(1 + 3 * begins)
            down = proxy.down_for(30)
        return running.wait()

    print(check(tool, proxy, store, s3_server, whole, "out", run))
    assert down is not None
    down.join()


@pytest.mark.parametrize("every", [1, *longer(2, 3)])
def test_every_request_comes_twice(tool, proxy, store, s3_server, whole, every):
    """A network that repeats by itself; a put with a condition then meets itself."""
    proxy.when(Twice(), every=every)
    dest, behind = f"s3://{store.bucket}/out", {"AWS_ENDPOINT_URL": proxy.url}
    check(tool, proxy, store, s3_server, whole, "out", lambda: tool("write", "src", dest, *ARGUMENTS, env=behind))
