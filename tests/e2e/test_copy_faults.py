"""Copies that are killed, interrupted, or read and write over connections that fail."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from atdata_cli import LocalStore, S3DataStore
from atdata_cli.stores.testing import pattern
from tests.cli.conftest import COMMAND, environment
from tests.cli.test_write import tree
from tests.cli.test_write_s3 import objects
from tests.e2e.test_interrupts import uploads
from tests.servers.faults import FaultyProxy, Hold, Lost, Reset, ResetAnswer, Status, Truncate
from tests.servers.seaweed import S3Server

MIB = 1 << 20
WAIT = 60  # seconds until a hanging program fails the test


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def ds(tmp_path: Path) -> Path:
    """Four shards of 6 MiB, which are two parts of an upload each."""
    samples = ({"__key__": f"{number:02d}", "bin": pattern(MIB, seed=number)} for number in range(24))
    LocalStore(tmp_path).write_shards(samples, prefix="ds", maxcount=6)
    return tmp_path / "ds"


@pytest.fixture
def env(s3_env: dict[str, str], proxy: FaultyProxy) -> dict[str, str]:
    """How the proxy is reached."""
    return {**s3_env, "AWS_ENDPOINT_URL": proxy.url}


def start(tmp_path: Path, env: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [COMMAND, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        env=environment(tmp_path / "home", env),
    )


def test_after_kill_9_finished_shards_are_not_sent_again(cli, ds, env, proxy, store, s3_bucket, tmp_path):
    target = f"s3://{s3_bucket}/copy"
    hold = Hold(after=MIB)
    proxy.when(hold, method="PUT", contains="shard-000002.tar?")
    process = start(tmp_path, env, "copy", "ds", target, "-j", "1", "-o", "part_size=5M")
    assert hold.arrived.wait(WAIT)
    process.kill()
    process.wait()
    proxy.heal()
    left = objects(store, "copy")
    assert {name for name in left if name.endswith(".tar")} == {"shard-000000.tar", "shard-000001.tar"}
    cli("copy", target, "elsewhere", env=env).failed(6, "unfinished")
    before = len(proxy.log)
    ran = cli("copy", "ds", target, "-o", "part_size=5M", env=env)
    assert ran.code == 0, ran.err
    assert "(2 of 4 are there already)" in ran.err
    sent = {one.path for one in proxy.log[before:] if one.method in ("PUT", "POST")}
    read = {one.path for one in proxy.log[before:] if one.method == "GET" and ".tar" in one.path}
    assert not [path for path in sent if "shard-000000.tar" in path or "shard-000001.tar" in path]
    assert [path for path in sent if "shard-000002.tar" in path]
    assert read == set()
    assert objects(store, "copy") == tree(ds)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_no_upload(cli, ds, env, proxy, store, s3_bucket, s3_server, tmp_path, sent):
    target = f"s3://{s3_bucket}/copy"
    hold = Hold()
    proxy.when(hold, method="PUT", contains="partNumber=2")
    process = start(tmp_path, env, "copy", "ds", target, "-j", "2", "-o", "part_size=5M")
    assert hold.arrived.wait(WAIT)
    assert uploads(s3_server, s3_bucket)
    process.send_signal(sent)
    proxy.heal()
    assert process.wait(timeout=WAIT) == {signal.SIGINT: 130, signal.SIGTERM: 143}[sent]
    assert uploads(s3_server, s3_bucket) == []
    assert all(data == tree(ds).get(name) for name, data in objects(store, "copy").items() if name[0] != ".")
    assert "manifest.json" not in objects(store, "copy")
    assert cli("copy", "ds", target, env=env).code == 0
    assert objects(store, "copy") == tree(ds)
    assert uploads(s3_server, s3_bucket) == []


@pytest.mark.parametrize(
    "fault", [Reset(MIB), Reset(), Status(503, "SlowDown"), Status(500, read_body=False), Lost()], ids=str
)
def test_failing_writes_are_repeated(cli, ds, env, proxy, store, s3_bucket, s3_server, fault):
    proxy.when(fault, method="PUT", contains="shard-000001.tar", times=2)
    proxy.when(fault, method="POST", contains="uploadId", times=1)
    ran = cli("copy", "ds", f"s3://{s3_bucket}/copy", "-o", "part_size=5M", env=env)
    assert ran.code == 0, ran.err
    assert [one for one in proxy.log if one.fault]
    assert objects(store, "copy") == tree(ds)
    assert uploads(s3_server, s3_bucket) == []


def test_a_server_that_stays_overloaded(cli, ds, env, proxy, store, s3_bucket, s3_server):
    target = f"s3://{s3_bucket}/copy"
    proxy.when(Status(503, "SlowDown"), method="PUT", contains="shard-000002.tar?")
    cli("copy", "ds", target, "-o", "part_size=5M", "-o", "retries=1", "-j", "1", env=env).failed(
        5, "shard-000002.tar", "SlowDown"
    )
    assert uploads(s3_server, s3_bucket) == []
    proxy.heal()
    ran = cli("copy", "ds", target, "-o", "part_size=5M", env=env)
    assert (ran.code, "(2 of 4 are there already)" in ran.err) == (0, True)
    assert objects(store, "copy") == tree(ds)


@pytest.mark.parametrize("fault", [ResetAnswer(MIB), Truncate(MIB), Reset(), Status(503, "SlowDown")], ids=str)
def test_failing_reads_go_on_where_they_broke(cli, ds, env, proxy, store, s3_bucket, s3_env, tmp_path, fault):
    assert cli("copy", "ds", f"s3://{s3_bucket}/ds", env=s3_env).code == 0
    proxy.when(fault, method="GET", contains="shard-00000", every=3, times=4)
    ran = cli("copy", f"s3://{s3_bucket}/ds", "out", env=env)
    assert ran.code == 0, ran.err
    assert len([one for one in proxy.log if one.fault]) >= 3
    assert tree(tmp_path / "out") == tree(ds)


def test_reads_over_http_go_on_where_they_broke(cli, ds, proxy, store, s3_bucket, s3_env, tmp_path):
    assert cli("copy", "ds", f"s3://{s3_bucket}/ds", env=s3_env).code == 0
    behind = S3DataStore(
        {**s3_env, "AWS_ENDPOINT": proxy.url},
        bucket=s3_bucket,  # the proxy passes the Host that was signed
    )
    signed = behind.read_url(f"s3://{s3_bucket}/ds/shard-000000.tar")
    proxy.when(Truncate(MIB), method="GET", where=lambda one: "0-0" not in one.headers.get("range", ""), times=2)
    ran = cli("copy", signed, "out")
    assert ran.code == 0, ran.err
    assert (tmp_path / "out/shard-000000.tar").read_bytes() == (ds / "shard-000000.tar").read_bytes()
    assert len([one for one in proxy.log if one.fault]) == 2


def test_an_outage_of_the_source(cli, ds, env, proxy, store, s3_bucket, s3_env, tmp_path):
    assert cli("copy", "ds", f"s3://{s3_bucket}/ds", env=s3_env).code == 0
    hold = Hold()
    proxy.when(hold, method="GET", contains="shard-000001.tar")
    process = start(tmp_path, env, "copy", f"s3://{s3_bucket}/ds", "out")
    assert hold.arrived.wait(WAIT)
    down = proxy.down_for(2)
    hold.release.set()
    down.join()
    assert process.wait(timeout=WAIT) == 0
    assert tree(tmp_path / "out") == tree(ds)


def test_two_copies_at_once_make_one(cli, ds, env, proxy, store, s3_bucket, tmp_path):
    """The second goes on with what the first has begun; both end well, or one says that the other is at it."""
    target = f"s3://{s3_bucket}/copy"
    runs = [start(tmp_path, env, "copy", "ds", target) for _ in range(2)]
    codes = sorted(process.wait(timeout=WAIT) for process in runs)
    assert codes in ([0, 0], [0, 5])
    assert {name: data for name, data in objects(store, "copy").items() if name[0] != "."} == tree(ds)
    assert threading.active_count() < 100
