"""What a scan costs in S3: a shard of small members is read in few large requests, large members are jumped over."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from atdata_cli import S3DataStore, inspect_dataset
from atdata_cli.shards.scan import DatasetInfo
from tests.servers.proxy import Exchange, Faults, faulty
from tests.servers.seaweed import S3Server

MIB = 1 << 20
BLOCK = 4 * MIB
AHEAD = 256 << 10


def put_tar(store: S3DataStore, name: str, sizes: list[int]) -> int:
    """Make a shard of members of these sizes; its own size."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, size in enumerate(sizes):
            info = tarfile.TarInfo(f"{number:06d}.bin")
            info.size = size
            tar.addfile(info, io.BytesIO(os.urandom(size)))
    sink = store.create(name)
    sink.write(out.getvalue())
    sink.commit()
    return len(out.getvalue())


@pytest.fixture
def scan(s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Scans what is at a name of the bucket: what is found, and the requests for content, with their answers."""
    with _watched(s3_server) as (faults, endpoint):
        for name, value in {**s3_server.credentials, "AWS_ENDPOINT_URL": endpoint}.items():
            monkeypatch.setenv(name, value)

        def scanned(name: str) -> tuple[DatasetInfo, list[Exchange]]:
            faults.seen.clear()
            info = inspect_dataset(f"s3://{s3_bucket}/{name}")
            return info, [one for one in faults.seen if one.method == "GET" and "list-type" not in one.path]

        yield scanned


@contextmanager
def _watched(server: S3Server) -> Iterator[tuple[Faults, str]]:
    faults = Faults()
    with faulty(server.endpoint, faults) as endpoint:
        yield faults, endpoint


def test_small_members_are_read_in_large_blocks(scan, store):
    size = put_tar(store, "small.tar", [15_000] * 1400)
    info, gets = scan("small.tar")
    assert (info.samples, info.bytes) == (1400, size)
    *blocks, last, example = [len(one.answer) for one in gets]
    assert len(blocks) == size // BLOCK
    assert min(blocks) >= BLOCK
    assert sum(blocks) + last == size
    assert example <= BLOCK + AHEAD


def test_large_members_are_jumped_over(scan, store):
    size = put_tar(store, "large.tar", [12 * MIB] * 6)
    info, gets = scan("large.tar")
    assert (info.samples, info.bytes) == (6, size)
    # One a member, one for the end, and two to see where the first sample, the example, ends.
    assert len(gets) == 6 + 1 + 2
    assert max(len(one.answer) for one in gets) <= BLOCK + AHEAD
    assert sum(len(one.answer) for one in gets) < size // 2


def test_shards_are_scanned_at_the_same_time(scan, store):
    for number in range(8):
        put_tar(store, f"many/shard-{number:06d}.tar", [1000] * 50)
    info, gets = scan("many/shard-{000000..000007}.tar")
    assert (info.samples, len(info.shards)) == (400, 8)
    assert len(gets) == 8 + 1
