"""What a PDS does to those who upload: limits, its own and those of its patience, and sessions that end."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from pathlib import Path

import httpx
import pytest

from atdata_cli.atproto.records import ENTRY
from atdata_cli.atproto.sessionfile import SessionFile
from tests.cli.conftest import Cli
from tests.contract.test_session_expiry import expire
from tests.servers.faults import FaultyProxy, Request, Status, Truncate
from tests.servers.pds import Account, run_pds
from tests.servers.proxy import Exchange, Faults, faulty

UPLOAD = "local.atdata-cli.upload"
MIB = 1 << 20


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """24 files of 100 kB: one shard each."""
    return make(tmp_path / "big", 24, 100_000)


def make(folder: Path, count: int, size: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:02d}.bin").write_bytes(random.Random(number).randbytes(size))
    return folder


def is_upload(request: Request) -> bool:
    return "uploadBlob" in request.path and int(request.headers["content-length"]) < MIB


def limited(seconds: float) -> Status:
    """The answer of a server that takes no more for now."""
    reset = str(int(time.time() + seconds))
    return Status(429, headers=(("ratelimit-limit", "10"), ("ratelimit-remaining", "0"), ("ratelimit-reset", reset)))


def finished(account: Account) -> None:
    """One entry of 24 shards, and nothing beside it."""
    [entry] = account.records(ENTRY)
    cids = {shard["blob"]["ref"]["$link"] for shard in entry["value"]["storage"]["blobs"]}
    assert len(cids) == 24
    assert set(account.blobs()) == cids
    assert account.records(UPLOAD) == []


def test_rate_limits_are_waited_for_or_told(cli: Cli, big, pds_account):
    line = ["write", big, f"@{pds_account.handle}/big", "--max-count", "1"]
    with FaultyProxy(pds_account.pds_url) as proxy:
        env = {**pds_account.env, "ATDATA_PDS_URL": proxy.url}
        proxy.when(limited(3600), where=is_upload, skip=16)
        told = cli(*line, env=env)
        told.failed(5, "takes no more uploadBlob requests until", "its limit of 10 is reached", "same command again")
        assert pds_account.records(ENTRY) == []
        alive = len(pds_account.blobs())
        assert alive >= 8
        proxy.heal()
        before = len(proxy.log)
        proxy.when(limited(4), where=is_upload, skip=2, times=1)
        ran = cli(*line, "-v", env=env)
        assert ran.code == 0, ran.err
        assert "trying again in" in ran.err
        assert len([one for one in proxy.log[before:] if is_upload(one) and one.status == 200]) == 24 - alive
    finished(pds_account)


@pytest.mark.parametrize(("after", "size"), [(0, 5000), (5, 5000), (5, 0)])
def test_an_answer_that_is_cut_is_asked_for_again(cli: Cli, pds_account, after, size):
    """A longer one is sent compressed and without its length, so that only its JSON tells."""
    record = {"$type": ENTRY, "name": "x" * size}
    body = {"repo": pds_account.did, "collection": ENTRY, "record": record, "validate": False}
    pds_account.xrpc("com.atproto.repo.createRecord", body)
    with FaultyProxy(pds_account.pds_url) as proxy:
        env = {"ATDATA_PDS_URL": proxy.url, "XDG_STATE_HOME": "state"}
        # An account's document names the server itself: only the login's session goes through the proxy.
        password = pds_account.password.encode()
        login = cli("login", pds_account.handle, "--pds", proxy.url, "--password-stdin", stdin=password, env=env)
        assert login.code == 0, login.err
        proxy.when(Truncate(after), contains="listRecords", times=1)
        ran = cli("inspect", f"@{pds_account.handle}", "-v", env=env)
        assert ran.code == 0, ran.err
        assert "trying again in" in ran.err
        proxy.when(Truncate(after), contains="listRecords")
        ran = cli("inspect", f"@{pds_account.handle}", "--retries", "1", env=env)
        ran.failed(5, "listRecords", "ended early", "try again")
        assert len([one for one in proxy.log if "listRecords" in one.path]) >= 4


def test_the_limits_of_a_real_server(cli: Cli, big, pds_server, tmp_path):
    with run_pds(tmp_path / "pds", plc_url=pds_server.plc_url, rate_limits=True) as pds:
        account = pds.account()
        body = {"identifier": account.did, "password": "wrong"}
        for _ in range(40):
            answer = httpx.post(f"{pds.url}/xrpc/com.atproto.server.createSession", json=body, timeout=60)
            if answer.status_code == 429:
                break
        assert answer.status_code == 429
        line = ["write", big, f"@{account.handle}/big", "--max-count", "1"]
        cli(*line, "--retries", "0", env=account.env).failed(5, "createSession", "until")


def test_a_session_that_expires(cli: Cli, big, pds_account, pds_server, monkeypatch, tmp_path):
    """Before the run, and in the middle of it."""
    state = {"XDG_STATE_HOME": str(tmp_path / "state"), "ATDATA_PDS_URL": pds_account.pds_url}
    env = {**state, "ATDATA_PLC_URL": pds_account.plc_url}
    login = cli("login", pds_account.handle, "--password-stdin", stdin=pds_account.password.encode(), env=env)
    assert login.code == 0, login.err
    monkeypatch.setenv("XDG_STATE_HOME", state["XDG_STATE_HOME"])
    [file] = SessionFile.all()
    old = expire(file, pds_server)
    refused: list[str] = []

    def expired(exchange: Exchange) -> None:
        if "uploadBlob" in exchange.path and exchange.body and len(refused) < 3:
            refused.append(exchange.path)
            exchange.status, exchange.answer = 400, json.dumps({"error": "ExpiredToken", "message": "expired"}).encode()
            exchange.answer_headers = {"Content-Type": "application/json"}

    with faulty(pds_account.pds_url, Faults(request=expired)) as url:
        tokens = file.read()
        assert tokens is not None
        file.write(dataclasses.replace(tokens, pds_url=url))
        ran = cli("write", big, f"@{pds_account.handle}/big", "--max-count", "1", env=env)
        assert len(refused) == 3
    assert ran.code == 0, ran.err
    finished(pds_account)
    fresh = file.read()
    assert fresh is not None
    assert fresh.access != old
    for secret in (old, fresh.access, fresh.refresh, pds_account.password):
        assert secret not in login.out + login.err + ran.out + ran.err


def test_a_server_that_takes_five_mebibytes(cli: Cli, pds_server, tmp_path):
    large = make(tmp_path / "large", 12, MIB)
    with run_pds(tmp_path / "pds", plc_url=pds_server.plc_url, blob_limit=5 * MIB) as pds:
        account = pds.account()
        target = f"@{account.handle}/large"
        planned = cli("write", large, target, "-n", "--json", env=account.env)
        assert planned.code == 0, planned.err
        assert account.blobs() == []
        wrote = cli("write", large, target, env=account.env)
        assert wrote.code == 0, wrote.err
        assert wrote.lines == [shard["url"] for shard in planned.document["shards"]]
        assert len(wrote.lines) == 3
        # A shard of 12 MiB from the disk: made anew, which comes to the same samples in the same shards.
        assert cli("write", large, "ready").code == 0
        moved = cli("publish", "ready", f"@{account.handle}/copied", "--blobs", env=account.env)
        assert moved.code == 0, moved.err
        assert "in 3 shards" in moved.err
        assert "re-sharded: 1 shard over the server's limit of 5.0 MiB" in moved.err
        assert set(account.blobs()) == {line.rpartition("/")[2] for line in wrote.lines}
        assert account.records(UPLOAD) == []
        assert cli("inspect", f"@{account.handle}/copied", "--verify", env=account.env).code == 0
