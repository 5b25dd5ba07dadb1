"""Writes to S3 through a network and a server that fail: the same bytes as without, or exit 5 and then the same."""

from __future__ import annotations

import datetime
import re
import subprocess
from collections.abc import Iterator
from email.utils import format_datetime
from pathlib import Path

import pytest

from atdata_cli.stores.testing import pattern
from tests.cli.conftest import COMMAND, Cli, environment
from tests.cli.test_write import tree
from tests.cli.test_write_s3 import objects
from tests.e2e.test_interrupts import uploads
from tests.servers.faults import Fault, FaultyProxy, Hold, Lost, Reset, ResetAnswer, Slow, Status, Truncate
from tests.servers.proxy import Exchange, Faults, faulty
from tests.servers.seaweed import S3Server

MIB = 1 << 20
WAIT = 60
ARGUMENTS = ("--max-count", "6", "-o", "part_size=5M", "--no-progress")


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def env(s3_env: dict[str, str], proxy: FaultyProxy) -> dict[str, str]:
    return {**s3_env, "AWS_ENDPOINT_URL": proxy.url}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """18 samples of 1 MiB: with ARGUMENTS three shards of 6 MiB, two parts of an upload each."""
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(18):
        (folder / f"{number:02d}.bin").write_bytes(pattern(MIB, seed=number))
    return folder


@pytest.fixture
def undisturbed(cli: Cli, tmp_path: Path, source: Path) -> dict[str, bytes]:
    """What each of the writes has to come to."""
    assert cli("write", source, "whole", "--max-count", "6").code == 0
    return tree(tmp_path / "whole")


FAULTS: list[tuple[str, Fault]] = [
    ("PUT", Reset()),
    ("PUT", Reset(after=MIB)),
    ("PUT", Status(500, "InternalError")),
    ("PUT", Status(503, "SlowDown")),
    ("PUT", Status(429, headers=(("Retry-After", "1"),))),
    ("PUT", Lost()),
    ("PUT", Slow(rate=6 * MIB)),
    ("POST", Status(504)),
    ("POST", Lost()),
    ("POST", Truncate(after=30)),
    ("GET", Truncate(after=10)),
    ("HEAD", Status(503)),
]


@pytest.mark.parametrize(("method", "fault"), FAULTS, ids=str)
def test_what_passes_is_not_noticed(cli, source, env, proxy, store, s3_server, s3_bucket, undisturbed, method, fault):
    """Every third request of a kind fails; duplicates (of what was done, but not answered) are among them."""
    proxy.when(fault, method=method, every=3)
    ran = cli("write", source, f"s3://{s3_bucket}/p", *ARGUMENTS, env=env)
    assert ran.code == 0, ran.err
    assert [one for one in proxy.log if one.fault] or method == "HEAD"
    assert objects(store, "p") == undisturbed
    assert uploads(s3_server, s3_bucket) == []


@pytest.mark.parametrize("fault", [Status(503, "SlowDown"), Reset(after=MIB), Status(500, read_body=False)], ids=str)
def test_what_does_not_pass_is_5_and_the_next_run_goes_on(
    cli, source, env, proxy, store, s3_server, s3_bucket, undisturbed, fault
):
    target = f"s3://{s3_bucket}/p"
    proxy.when(fault, method="PUT", contains="shard-000002.tar?")
    ran = cli("write", source, target, *ARGUMENTS, "--retries", "1", env=env)
    ran.failed(5, "shard-000002.tar", "again")
    part = re.compile(r"partNumber=(\d)")
    tried = [part.search(one.path)[1] for one in proxy.requests("PUT", "shard-000002.tar?")]  # type: ignore[index]
    assert max(map(tried.count, "12")) == 2  # once, and once again
    assert uploads(s3_server, s3_bucket) == []
    cli("inspect", target, "--verify", env=env).failed(6, "unfinished")
    proxy.heal()
    before = len(proxy.log)
    ran = cli("write", source, target, *ARGUMENTS, env=env)
    assert ran.code == 0, ran.err
    assert objects(store, "p") == undisturbed
    sent = {one.path.partition("?")[0].rpartition("/")[2] for one in proxy.log[before:] if one.method == "PUT"}
    assert not sent & {"shard-000000.tar", "shard-000001.tar"}  # not a second time


def test_an_outage_of_some_seconds(source, env, proxy, store, s3_server, s3_bucket, undisturbed, tmp_path):
    hold = Hold(after=MIB)
    proxy.when(hold, method="PUT", contains="shard-000001.tar?", times=1)
    process = subprocess.Popen(
        [COMMAND, "write", source, f"s3://{s3_bucket}/p", *ARGUMENTS],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(tmp_path / "home", env),
    )
    assert hold.arrived.wait(WAIT)
    outage = proxy.down_for(4)
    hold.release.set()
    _, err = process.communicate(timeout=WAIT)
    outage.join()
    assert process.returncode == 0, err
    assert b"trying again in" in err  # nobody is left to wonder
    assert objects(store, "p") == undisturbed
    assert uploads(s3_server, s3_bucket) == []


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [(403, "AccessDenied", 4), (400, "InvalidRequest", 1), (404, "NoSuchBucket", 3), (405, "MethodNotAllowed", 1)],
)
def test_what_is_permanent_fails_at_once(cli, source, env, proxy, s3_bucket, status, code, exit_code):
    proxy.when(Status(status, code), method="PUT")
    ran = cli("write", source, f"s3://{s3_bucket}/p", *ARGUMENTS, env=env)
    ran.failed(exit_code)
    assert len(ran.err.splitlines()) == 1
    assert len(proxy.requests("PUT")) == 1


def test_no_retries(cli, source, env, proxy, s3_bucket):
    proxy.when(Status(503, "SlowDown", (("Retry-After", "60"),)), method="PUT")
    cli("write", source, f"s3://{s3_bucket}/p", *ARGUMENTS, "--retries", "0", env=env).failed(5, "again")
    assert len(proxy.requests("PUT")) == 1
    ran = cli("write", source, f"s3://{s3_bucket}/p", env={**env, "ATDATA_RETRIES": "many"})
    ran.failed(2, "ATDATA_RETRIES", "many")


def test_a_server_that_falls_silent(cli, source, env, proxy, s3_bucket):
    hold = Hold()
    proxy.when(hold, method="PUT")
    ran = cli("write", source, f"s3://{s3_bucket}/p", *ARGUMENTS, "--timeout", "1", "--retries", "1", env=env)
    ran.failed(5, "stopped answering", "again")
    assert len(proxy.requests("PUT")) == 2


def test_the_pace_of_the_server(cli, source, env, proxy, store, s3_bucket, undisturbed):
    """Ours would have given up: it is asked as often as it says."""
    soon = format_datetime(datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2), usegmt=True)
    proxy.when(Status(503, "SlowDown", (("Retry-After", "1"),)), method="PUT", contains="job.json", times=3)
    proxy.when(Status(429, headers=(("Retry-After", soon),)), method="PUT", contains="manifest.json", times=1)
    ran = cli("write", source, f"s3://{s3_bucket}/p", *ARGUMENTS, "--retries", "1", "-v", env=env)
    assert ran.code == 0, ran.err
    assert ran.err.count("trying again in 1.0 s") == 3
    assert objects(store, "p") == undisturbed


def test_a_lost_answer_leaves_no_upload(cli, source, s3_server, s3_env, store, s3_bucket, undisturbed):
    """Of an upload that was begun, but whose id never came, nothing else would tell."""
    lost: list[str] = []

    def lose(exchange: Exchange) -> None:
        if exchange.method == "POST" and exchange.path.endswith("?uploads") and exchange.path not in lost:
            lost.append(exchange.path)
            exchange.lost = True

    with faulty(s3_server.endpoint, Faults(answer=lose)) as url:
        ran = cli("write", source, f"s3://{s3_bucket}/p", *ARGUMENTS, env={**s3_env, "AWS_ENDPOINT_URL": url})
    assert ran.code == 0, ran.err
    assert len(lost) == 3
    assert objects(store, "p") == undisturbed
    assert uploads(s3_server, s3_bucket) == []


@pytest.mark.parametrize("fault", [ResetAnswer(after=MIB), Truncate(after=MIB), Status(503, "SlowDown")], ids=str)
def test_sources_in_s3_go_on_where_they_broke(cli, source, env, proxy, store, s3_bucket, undisturbed, tmp_path, fault):
    for file in source.iterdir():
        with file.open("rb") as data:
            store.put(f"source/{file.name}", data.read())
    proxy.when(fault, method="GET", contains="source/", where=lambda one: "range" in one.headers, every=3)
    ran = cli("write", f"s3://{s3_bucket}/source", "out", "--max-count", "6", env=env)
    assert ran.code == 0, ran.err
    assert len([one for one in proxy.log if one.fault]) >= 3
    assert tree(tmp_path / "out") == undisturbed


@pytest.mark.parametrize("status", [403, 400])
def test_sources_that_are_refused_are_asked_for_once(cli, source, env, proxy, store, s3_bucket, status):
    store.put("source/a.bin", b"data")
    proxy.when(Status(status, "AccessDenied" if status == 403 else "InvalidRequest"), method="GET", contains="a.bin")
    assert cli("write", f"s3://{s3_bucket}/source", "out", env=env).code in (1, 4)
    assert len(proxy.requests("GET", "a.bin")) == 1


def test_a_server_that_stops_to_read(cli, source, env, proxy, store, s3_bucket):
    """It has a part of a body, and takes no more of it: 18 MiB, more than what the system holds for a connection."""
    proxy.when(Hold(after=64 << 10), method="PUT", contains="shard-000000.tar", times=1)
    target = f"s3://{s3_bucket}/p"
    ran = cli("write", source, target, "--timeout", "2", "-o", "part_size=32M", env=env, timeout=60)
    assert ran.code == 0, ran.err
    assert len(proxy.requests("PUT", "shard-000000.tar")) == 2
    assert cli("inspect", target, "--verify", env=env).code == 0


@pytest.mark.parametrize(("status", "code", "exit_code"), [(503, "SlowDown", 5), (403, "AccessDenied", 4)])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_shards_that_cannot_be_read_are_not_called_wrong(
    cli, source, env, s3_env, proxy, s3_bucket, status, code, exit_code, jobs
):
    place = f"s3://{s3_bucket}/p"
    assert cli("write", source, place, *ARGUMENTS, env=s3_env).code == 0
    proxy.when(Status(status, code), method="GET", contains="shard-000001", times=100)
    ran = cli("inspect", place, "--verify", "--retries", "0", "-j", jobs, env=env)
    assert ran.code == exit_code, ran.err
    assert [line.split(":")[0] for line in ran.lines] == ["unreadable"]
    document = cli("inspect", place, "--verify", "--retries", "0", "-j", jobs, "--json", env=env)
    assert (document.code, len(document.document["problems"])) == (exit_code, 1)


def test_large_members_of_others_shards_as_json(cli, source, s3_env, store, s3_bucket):
    """Without a manifest the example of a field is a part of an open object."""
    place = f"s3://{s3_bucket}/p"
    assert cli("write", source, place, *ARGUMENTS, env=s3_env).code == 0
    for known in (True, False):
        described = cli("inspect", place, "--json", env=s3_env).document["fields"]["bin"]
        assert (described["samples"], described["size"]) == (18, [MIB, MIB])
        if known:
            store.delete("p/manifest.json")
