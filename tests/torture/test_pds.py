"""``kill -9`` on the way into a PDS, at every request: the same command again finishes, and sends nothing twice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.servers.faults import FaultyProxy, Hold, Request
from tests.servers.pds import Account
from tests.torture.conftest import longer
from tests.torture.runs import Tool

SHARDS = 24
ENTRY, LABEL, SCHEMA = (f"science.alt.dataset.{kind}" for kind in ("entry", "label", "schema"))
UPLOAD = "local.atdata-cli.upload"
# Of a run that nobody kills: a login, what is there, 24 uploads of which every eighth is followed by a record that ties
# them, schema, entry and label, and the removal of those records.
REQUESTS = 50


def is_upload(request: Request) -> bool:
    """What finds out how large a blob may be announces one, and sends none."""
    return "uploadBlob" in request.path and int(request.headers["content-length"]) < 1 << 20


def killed_at(path: str, number: int, after: int) -> tuple[str, int, int]:
    """At the so many-th request to a method, when so many bytes of its body have come."""
    return path, number, after


POINTS = [
    killed_at("uploadBlob", 13, 50_000),
    killed_at("putRecord", 2, 0),  # the blobs are there, and nothing holds them
    killed_at("putRecord", 5, 0),  # the schema is there, and no entry
    killed_at("deleteRecord", 2, 0),  # all is there, and more
    *longer(*(killed_at("", number, after) for number in range(1, REQUESTS + 1) for after in (0, 20_000))),
]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pds") / "big"
    folder.mkdir()
    for number in range(SHARDS):
        (folder / f"{number:02d}.bin").write_bytes(random.Random(number).randbytes(100_000))
    return folder


@pytest.mark.parametrize("point", POINTS, ids=str)
@pytest.mark.parametrize("command", ["write", *longer("publish")])
def test_killed(tool: Tool, pds_account: Account, source: Path, command: str, point: tuple[str, int, int]) -> None:
    tool.secrets.add(ACCOUNT_PASSWORD=pds_account.password)
    path, number, after = point
    hold = Hold(after)
    with FaultyProxy(pds_account.pds_url) as proxy:
        tool.env = {**pds_account.env, "ATDATA_PDS_URL": proxy.url}
        target = f"@{pds_account.handle}/big"
        line = ["write", source, target, "--max-count", "1"]
        if command == "publish":
            assert tool("write", source, "ready", "--max-count", "1").code == 0
            line = ["publish", "ready", target, "--blobs"]
        if path == "uploadBlob":
            proxy.when(hold, where=is_upload, skip=number - 1)
        else:
            proxy.when(hold, contains=path, skip=number - 1)
        run = tool.start(*line)
        while not hold.arrived.wait(0.02) and run.process.poll() is None:
            pass
        run.kill()
        killed = run.wait()
        assert killed.code == (-9 if hold.arrived.is_set() else 0), killed.err
        proxy.heal()
        alive = set(pds_account.blobs())
        assert alive >= held_by_ties(pds_account)

        before = len(proxy.log)
        again = tool(*line)
        assert again.code == 0, again.err
        sent = [one for one in proxy.log[before:] if is_upload(one)]
        assert len(sent) <= SHARDS - len(alive)
        assert {one.status for one in sent} <= {200}

        uris = again.lines if command == "write" else tool("resolve", target, "--canonical").lines
        assert len(uris) == SHARDS
        assert set(pds_account.blobs()) == {uri.rpartition("/")[2] for uri in uris}
        assert pds_account.records(UPLOAD) == []
        assert [len(pds_account.records(kind)) for kind in (ENTRY, LABEL, SCHEMA)] == [1, 1, 1]
        finished = len(proxy.log)
        third = tool(*line, "--exit-unchanged")
        assert third.code == 9, third.err
        assert [one for one in proxy.log[finished:] if is_upload(one)] == []
        assert tool("inspect", target, "--verify").code == 0


def held_by_ties(account: Account) -> set[str]:
    return {blob["ref"]["$link"] for tie in account.records(UPLOAD) for blob in tie["value"]["blobs"]}
