"""Datasets into a PDS over a network that fails: the same result, or exit 5 and then the same result.

Nothing is left over, and nothing is there twice. ``tests/e2e/test_pds_faults.py`` has what a PDS refuses,
``test_network_faults.py`` the same for S3. No upload breaks off here on its way to the server: the reference PDS
(0.4.217) may end for good when one does.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atdata_cli.atproto.records import ENTRY, LABEL, SCHEMA
from atdata_cli.atproto.values import blob_cid
from tests.servers.faults import (
    Fault,
    FaultyProxy,
    Hold,
    Lost,
    Request,
    Reset,
    ResetAnswer,
    Slow,
    Status,
    Truncate,
    Twice,
)
from tests.servers.pds import Account
from tests.torture.conftest import longer
from tests.torture.runs import Tool

SHARDS = 6
UPLOAD = "local.atdata-cli.upload"
BREAKS_OFF = Reset(after=100)
METHODS = ["uploadBlob", "putRecord", "getRecord", "listRecords", "deleteRecord", "listBlobs"]
FAULTS: list[Fault] = [
    Reset(),
    BREAKS_OFF,
    ResetAnswer(),
    ResetAnswer(after=20),
    Truncate(after=20),
    Truncate(after=0),
    Lost(),
    Twice(),
    Slow(rate=100_000),
    Status(500),
    Status(503, headers=(("Retry-After", "0"),), read_body=False),
    Status(502),
]
POINTS = [(method, fault) for method in METHODS for fault in FAULTS if (method, fault) != ("uploadBlob", BREAKS_OFF)]
SOME = [("uploadBlob", Lost()), ("putRecord", Twice()), ("listRecords", Status(503))]
RUNS = 6


@pytest.fixture
def proxy(pds_account: Account) -> Iterator[FaultyProxy]:
    with FaultyProxy(pds_account.pds_url) as proxy:
        yield proxy


@pytest.fixture(params=["write", *longer("publish")])
def line(request: Any, tool: Tool, pds_account: Account, proxy: FaultyProxy) -> list[str]:
    """What puts a dataset of six shards there; the same shards are in the folder ``whole``."""
    tool.secrets.add(ACCOUNT_PASSWORD=pds_account.password)
    tool.env = {**pds_account.env, "ATDATA_PDS_URL": proxy.url}
    folder = tool.folder / "src"
    folder.mkdir()
    for number in range(SHARDS):
        (folder / f"{number:02d}.bin").write_bytes(random.Random(number).randbytes(30_000))
    assert tool("write", "src", "whole", "--max-count", "1").code == 0
    target = f"@{pds_account.handle}/set"
    if request.param == "publish":
        return ["publish", "whole", target, "--blobs"]
    return ["write", "src", target, "--max-count", "1"]


def finish(tool: Tool, proxy: FaultyProxy, account: Account, line: list[str], *more: str) -> list[int]:
    """Run until it is done; how the runs ended."""
    codes = []
    while not codes or codes[-1] == 5:
        if len(codes) == RUNS:
            proxy.heal()
        assert len(codes) <= RUNS
        ran = tool(*line, *more)
        codes.append(ran.code)
        assert ran.code in (0, 5), ran.err
    proxy.heal()
    check(tool, account)
    again = tool(*line, "--exit-unchanged")
    assert again.code == 9, again.err
    return codes


def check(tool: Tool, account: Account) -> None:
    """One entry with all shards in order, and nothing beside it."""
    manifest = json.loads(Path(tool.folder / "whole" / "manifest.json").read_text())
    cids = [blob_cid(shard["sha256"]) for shard in manifest["shards"]]
    [entry] = account.records(ENTRY)
    assert [shard["blob"]["ref"]["$link"] for shard in entry["value"]["storage"]["blobs"]] == cids
    [label] = account.records(LABEL)
    assert label["value"]["datasetUri"] == entry["uri"]
    [schema] = account.records(SCHEMA)
    assert entry["value"]["schemaRef"] == schema["uri"]
    assert account.records(UPLOAD) == []
    assert set(account.blobs()) == set(cids)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", [*SOME, *longer(*(point for point in POINTS if point not in SOME))], ids=str)
def test_every_other_request_fails(tool, proxy, pds_account, line, point):
    """With the patience that everybody has by default, all is well."""
    method, fault = point
    proxy.when(fault, contains=method, every=2)
    assert finish(tool, proxy, pds_account, line) == [0]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", [("putRecord", Lost()), *longer(*POINTS)], ids=str)
def test_a_method_fails_until_it_is_mended(tool, proxy, pds_account, line, point):
    method, fault = point
    proxy.when(fault, contains=method, skip=1)
    first = tool(*line, "--retries", "1")
    harmless = isinstance(fault, Twice | Slow)
    assert first.code in ((0,) if harmless else (0, 5)), first.err
    proxy.heal()
    codes = finish(tool, proxy, pds_account, line)
    assert codes == [0]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, *longer(*range(2, 26))])
def test_every_request_may_fail(tool, proxy, pds_account, line, seed):
    chance = random.Random(seed)
    share = chance.choice([0.05, 0.1, 0.2, 0.3])

    def may_fail(request: Request, fault: Fault) -> bool:
        return not ("uploadBlob" in request.path and fault == BREAKS_OFF) and chance.random() < share / len(FAULTS)

    for fault in FAULTS:
        proxy.when(fault, where=lambda request, fault=fault: may_fail(request, fault))
    retries = str(chance.choice([1, 2, 4]))
    codes = finish(tool, proxy, pds_account, line, "--retries", retries, "--timeout", "20")
    print(f"seed {seed}: {share:.0%} of requests, --retries {retries}: {codes}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", ["putRecord", *longer("listRecords", "deleteRecord", "getRecord")])
@pytest.mark.parametrize("seconds", [2, *longer(10)])
def test_a_short_outage(tool, proxy, pds_account, line, method, seconds):
    hold = Hold()
    proxy.when(hold, contains=method, times=1)
    run = tool.start(*line)
    assert hold.arrived.wait(60)
    down = proxy.down_for(seconds)
    proxy.heal()
    done = run.wait()
    down.join()
    assert done.code == 0, done.err
    check(tool, pds_account)
