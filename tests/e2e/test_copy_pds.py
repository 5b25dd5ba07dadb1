"""Copies from a PDS: every blob checked by its CID, over connections that fail, after a kill, to disk and to S3."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from atdata_cli.atproto.records import ENTRY
from atdata_cli.stores.testing import pattern
from tests.cli.conftest import COMMAND, Cli, environment
from tests.cli.test_write import tree
from tests.cli.test_write_s3 import objects
from tests.servers.faults import FaultyProxy, Hold, ResetAnswer, Status, Truncate
from tests.servers.pds import Account, PDSServer
from tests.servers.proxy import Exchange, Faults, faulty

MIB = 1 << 20


@pytest.fixture(scope="module")
def published(pds_server: PDSServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Account, dict[str, bytes]]:
    """An account with ``@…/ds``: four shards of 2 MiB, and these as files."""
    folder, account = tmp_path_factory.mktemp("ds"), pds_server.account()
    (folder / "src").mkdir()
    for number in range(8):
        (folder / "src" / f"{number}.bin").write_bytes(pattern(MIB, seed=number))
    for dest in ("ds", f"@{account.handle}/ds"):
        line = [COMMAND, "write", "src", dest, "--max-count", "2"]
        subprocess.run(line, cwd=folder, env=environment(folder, account.env), check=True, capture_output=True)
    return account, {name: data for name, data in tree(folder / "ds").items() if name.endswith(".tar")}


@contextmanager
def moved(account: Account, url: str) -> Iterator[dict[str, str]]:
    """Anybody's environment, in which the account's DID says that its server is at *url*."""

    def tell(exchange: Exchange) -> None:
        exchange.answer = exchange.answer.replace(account.pds_url.encode(), url.encode())

    with faulty(account.plc_url, Faults(answer=tell)) as plc_url:
        yield {"ATDATA_PDS_URL": url, "ATDATA_PLC_URL": plc_url}


def test_a_killed_copy_goes_on(cli: Cli, published, store, s3_bucket, s3_env, tmp_path):
    account, shards = published
    target = f"@{account.handle}/ds"
    with FaultyProxy(account.pds_url) as proxy, moved(account, proxy.url) as env:
        hold = Hold()
        proxy.when(hold, method="GET", contains="getBlob", skip=2)
        line = [str(COMMAND), "copy", target, "out", "-j", "1"]
        clean = environment(tmp_path / "home", env)
        process = subprocess.Popen(line, cwd=tmp_path, env=clean, stdout=subprocess.DEVNULL)
        assert hold.arrived.wait(60)
        process.kill()
        process.wait()
        proxy.heal()
        assert {name for name in tree(tmp_path / "out") if name.endswith(".tar")} == set(sorted(shards)[:2])
        cli("resolve", "out").failed(6, "unfinished")
        before = len(proxy.log)
        again = cli("copy", target, "out", env=env)
        assert again.code == 0, again.err
        assert "(2 of 4 are there already)" in again.err
        assert len([one for one in proxy.log[before:] if "getBlob" in one.path and one.method == "GET"]) == 2
        assert tree(tmp_path / "out") == shards
        asked = len(proxy.requests("GET", "getBlob"))
        assert cli("copy", target, "out", "--json", env=env).document["status"] == "unchanged"
        assert len(proxy.requests("GET", "getBlob")) == asked

        # By the entry's URI, to S3; one blob by itself.
        env = {**env, **s3_env}
        uri = account.records(ENTRY)[0]["uri"]
        copied = cli("copy", uri, f"s3://{s3_bucket}/copy", "--json", env=env)
        assert copied.code == 0, copied.err
        assert objects(store, "copy") == shards
        blob = cli("resolve", target, "--canonical", env=env).lines[3]
        assert cli("copy", blob, "one", env=env).code == 0
        assert tree(tmp_path / "one") == {"shard-000000.tar": shards["shard-000003.tar"]}


def test_connections_that_fail(cli: Cli, published, tmp_path):
    account, shards = published
    with FaultyProxy(account.pds_url) as proxy, moved(account, proxy.url) as env:
        for fault in (ResetAnswer(MIB), Truncate(MIB + 5), Status(503), ResetAnswer(0)):
            proxy.when(fault, method="GET", contains="getBlob", times=1)
        ran = cli("copy", f"@{account.handle}/ds", "out", env=env)
        assert ran.code == 0, ran.err
    assert tree(tmp_path / "out") == shards


def test_a_blob_that_is_not_what_its_cid_says(cli: Cli, published, tmp_path):
    account, shards = published
    damaged: list[str] = []

    def damage(exchange: Exchange) -> None:
        if exchange.method == "GET" and "getBlob" in exchange.path and not set(damaged) - {exchange.path}:
            damaged.append(exchange.path)
            exchange.answer = exchange.answer[:-700] + b"x" + exchange.answer[-699:]

    faults = Faults(answer=damage)
    with faulty(account.pds_url, faults) as url, moved(account, url) as env:
        ran = cli("copy", f"@{account.handle}/ds", "out", "-j", "1", env=env)
        assert (ran.code, ran.out) == (6, ""), ran.err
        assert damaged[0].rpartition("=")[2] in ran.err
        assert not (tmp_path / "out").exists() or not [name for name in tree(tmp_path / "out") if name.endswith(".tar")]
        faults.answer = lambda _: None
        assert cli("copy", f"@{account.handle}/ds", "out", env=env).code == 0
    assert tree(tmp_path / "out") == shards
