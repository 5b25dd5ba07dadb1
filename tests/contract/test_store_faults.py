"""Stores when the network, the server or the disk fails in the middle: they repeat it, or say so and leave nothing.

Many faults of single requests are in ``test_s3.py``; here connections fail while bodies are on their way.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from atdata_cli import LocalStore
from atdata_cli.errors import AtdataError, TemporaryError
from atdata_cli.stores.s3 import S3DataStore
from atdata_cli.stores.testing import pattern
from tests.contract.test_s3 import make_store, unfinished
from tests.servers.faults import Fault, FaultyProxy, Lost, Reset, ResetAnswer, Slow, Status, Truncate
from tests.servers.seaweed import S3Server

MIB = 1 << 20
DATA = pattern(12 * MIB + 5)  # three parts of 5 MiB


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def behind(s3_server: S3Server, s3_bucket: str, proxy: FaultyProxy) -> S3DataStore:
    """The bucket, behind the proxy."""
    return make_store(s3_server, s3_bucket, endpoint_url=proxy.url, options={"part_size": "5M", "retries": "2"})


def put(store: S3DataStore | LocalStore, name: str, data: bytes = DATA) -> None:
    sink = store.create(name)
    try:
        for at in range(0, len(data), MIB):
            sink.write(data[at : at + MIB])
        sink.commit()
    except BaseException:
        sink.abort()
        raise


PASSING: list[Fault] = [
    Reset(),
    Reset(3 * MIB),
    Lost(),
    Status(503, "SlowDown"),
    Status(503, "SlowDown", (("Retry-After", "0"),), read_body=False),
    Status(500, "InternalError"),
    Slow(20 * MIB),
]


@pytest.mark.parametrize("fault", PASSING, ids=str)
@pytest.mark.parametrize("place", ["partNumber=2", "uploadId", "a.bin"])
def test_uploads_survive_what_passes(proxy, behind, fault, place):
    proxy.when(fault, method="PUT", contains=place, times=2)
    put(behind, "a.bin")
    assert behind.read("a.bin") == DATA
    assert unfinished(behind) == []
    assert [one for one in proxy.log if one.fault]


@pytest.mark.parametrize("fault", [Reset(), Lost(), Status(503, "SlowDown"), Status(500, "InternalError")], ids=str)
def test_completing_survives_what_passes(proxy, behind, fault):
    """Also when the server has completed the upload and nobody heard of it."""
    proxy.when(fault, method="POST", contains="uploadId", times=2)
    put(behind, "a.bin")
    assert behind.read("a.bin") == DATA
    assert unfinished(behind) == []


@pytest.mark.parametrize("fault", [Reset(3 * MIB), Status(503, "SlowDown"), Status(500, read_body=False)], ids=str)
def test_uploads_give_up_on_what_stays_and_leave_nothing(proxy, behind, fault):
    proxy.when(fault, method="PUT", contains="partNumber=2")
    with pytest.raises(TemporaryError) as caught:
        put(behind, "a.bin")
    assert caught.value.url == behind.url("a.bin")
    # It was tried, and tried again twice; s3fs repeats what is refused as too much by itself, too.
    assert len([one for one in proxy.log if one.fault]) >= 3
    proxy.heal()
    assert behind.stat("a.bin") is None
    assert unfinished(behind) == []
    put(behind, "a.bin")
    assert behind.read("a.bin") == DATA


@pytest.mark.parametrize("size", [1000, 12 * MIB])
def test_a_short_outage(proxy, s3_server, s3_bucket, size):
    store = make_store(s3_server, s3_bucket, endpoint_url=proxy.url, options={"part_size": "5M", "retries": "6"})
    put(store, "before.bin", b"x")
    down = proxy.down_for(1.5)
    put(store, "a.bin", pattern(size))
    down.join()
    assert store.read("a.bin") == pattern(size)
    assert unfinished(store) == []


@pytest.mark.parametrize("fault", [ResetAnswer(MIB), Truncate(MIB), ResetAnswer(), Status(503, "SlowDown")], ids=str)
def test_reads_survive_what_passes(proxy, behind, fault):
    put(behind, "a.bin")
    proxy.when(fault, method="GET", contains="a.bin", times=2)
    with behind.open("a.bin") as file:
        assert file.read() == DATA
    assert len([one for one in proxy.log if one.fault]) == 2


@pytest.mark.parametrize("fault", [Lost(), Reset(), Status(503, "SlowDown")], ids=str)
def test_small_objects_with_a_condition(proxy, behind, fault):
    """The winner is told that it won, also if the answer that said so was lost."""
    proxy.when(fault, method="PUT", times=1)
    assert behind.put_if_absent("job.json", b"mine")
    assert not behind.put_if_absent("job.json", b"other")
    info = behind.stat("job.json")
    assert info is not None
    assert info.version is not None
    assert behind.replace_if_unchanged("job.json", b"next", info.version)
    assert behind.read("job.json") == b"next"


def test_other_uploads_go_on_when_one_fails(proxy, behind):
    proxy.when(Status(503, "SlowDown"), method="PUT", contains="bad.bin?")
    good, bad = behind.create("good.bin"), behind.create("bad.bin")
    with pytest.raises(TemporaryError):
        _write_both(good, bad)
    bad.abort()
    good.write(DATA[len(DATA) // 2 :])
    good.commit()
    assert behind.read("good.bin") == DATA
    assert unfinished(behind) == []


def _write_both(good, bad) -> None:
    good.write(DATA[: len(DATA) // 2])
    for _ in range(20):
        bad.write(DATA)
    bad.commit()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB, where this user may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk):
    store = LocalStore(small_disk)
    put(store, "there.bin", pattern(MIB))
    with pytest.raises(AtdataError, match=os.strerror(errno.ENOSPC)) as caught:
        put(store, "deep/a.bin")
    assert "free some space" in (caught.value.hint or "")
    assert [item.name for item in store.list("")] == ["there.bin"]
    assert store.leftovers("") == []
    assert sorted(path.name for path in small_disk.iterdir()) == ["there.bin"]
    put(store, "deep/a.bin", pattern(MIB))
    assert store.read("deep/a.bin") == pattern(MIB)
