"""Verifying what the installed command wrote, on disk and in S3; and in little memory, whatever comes."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest

from atdata_cli import S3DataStore
from tests.cli.conftest import COMMAND, environment, rows
from tests.measure import peak
from tests.servers.seaweed import S3Server
from tests.unit.verified import STRIDE, dataset, found, packed, report, samples, shard


def write(tmp_path: Path, *arguments: str | Path) -> None:
    (tmp_path / "home").mkdir(exist_ok=True)
    line = [COMMAND, "write", *arguments]
    env = environment(tmp_path / "home", {"PYTHONPATH": os.environ.get("PYTHONPATH", "")})
    subprocess.run(list(map(str, line)), check=True, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(1000)), encoding="utf-8")
    return path


@pytest.mark.parametrize("options", [[], ["--encoding", "files"], ["--compress", "gz"], ["--split", "a=0.5,b=0.5"]])
def test_what_write_wrote(tmp_path: Path, table: Path, options: list[str]) -> None:
    write(tmp_path, table, tmp_path / "out", "--max-count", "300", *options)
    result = report(tmp_path / "out", 2)
    assert result.problems == ()
    assert result.samples == 1000


def test_what_write_wrote_by_a_schema(tmp_path: Path, table: Path) -> None:
    properties = {
        "id": {"type": "integer", "minimum": 0},
        "text": {"type": "string", "pattern": "café"},
        "maybe": {"type": "string"},
        "never": {"type": "number"},
    }
    for number, schema in enumerate([properties, {name: properties[name] for name in ("id", "maybe")}]):
        (tmp_path / "schema.json").write_text(json.dumps({"type": "object", "properties": schema}))
        nulls = [json.dumps({k: v for k, v in row.items() if v is not None}) for row in rows(200)]
        table.write_text("\n".join(nulls))
        write(tmp_path, table, tmp_path / f"out{number}", "--schema", "schema.json")
        assert report(tmp_path / f"out{number}").problems == ()


@pytest.fixture
def s3_env(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The normal AWS variables, here and in workers."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.mark.parametrize("jobs", [1, 2])
def test_s3(tmp_path: Path, s3_env: None, s3_server: S3Server, s3_bucket: str, jobs: int) -> None:
    store = S3DataStore(s3_server.credentials, bucket=s3_bucket)
    names = [f"shard-{number:06d}.tar" for number in range(4)]
    place = dataset(tmp_path / "d", {name: samples(2 * number, 2 * number + 1) for number, name in enumerate(names)})
    for path in place.iterdir():
        put(store, f"d/{path.name}", path.read_bytes())
    url = f"s3://{s3_bucket}/d"
    assert found(url, jobs) == []
    # Where a header is damaged, its size leads on, which a request of its own finds out.
    put(store, f"d/{names[1]}", (place / names[1]).read_bytes().replace(b"0003.jpg", b"0003.jpq"))
    put(store, "d/shard-000009.tar", b"")
    store.delete(f"d/{names[2]}")
    assert found(url, jobs) == [
        ("unknown-shard", "shard-000009.tar", None, None),
        ("hash", names[1], None, None),
        ("bad-checksum", names[1], "0003", STRIDE),
        ("missing-shard", names[2], None, None),
    ]


def put(store: S3DataStore, name: str, data: bytes) -> None:
    sink = store.create(name)
    sink.write(data)
    sink.commit()


def test_a_shard_that_cannot_be_read(tmp_path: Path) -> None:
    place = dataset(tmp_path / "d", {"shard-000000.tar": samples(0), "shard-000001.tar": samples(1)})
    (place / "shard-000000.tar").unlink()
    (place / "shard-000000.tar").mkdir()
    assert found(place) == [("unreadable", "shard-000000.tar", None, None)]


HOSTILE = """
import sys
from atdata_cli.refs import parse
from atdata_cli.shards.reader import locate
from atdata_cli.shards.verify import verify
from atdata_cli.stores.inputs import StoreFiles

files = StoreFiles()
report = verify(locate(parse(sys.argv[1]), files), files, jobs=1)
print(len(report.problems))
"""


def verified(path: Path) -> tuple[int, int]:
    """Problems, and the most memory that verifying took, in bytes."""
    memory, problems = peak(path.with_suffix(".peak"), sys.executable, "-c", HOSTILE, path)
    return int(problems), memory


def headers(count: int, name: Callable[[int], str]) -> Iterator[bytes]:
    for number in range(count):
        yield tarfile.TarInfo(name(number)).tobuf(tarfile.USTAR_FORMAT)


def test_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    shapes: dict[str, Callable[[int], str]] = {
        "keys in no order": lambda number: f"{number * 7919 % 150_011:08d}.txt",
        "one key again and again": lambda number: "ab"[number % 2] + ".txt",
        "fields without end": lambda number: f"a.{number}",
        "other fields every time": lambda number: f"{number // 2:08d}.{number}",
        "no fields": lambda number: f"{number:08d}",
        "unsafe names": lambda number: f"../{number:08d}.txt",
    }
    for shape in shapes.values():
        with path.open("wb") as file:
            file.writelines(headers(150_000, shape))
            file.write(bytes(10240))
        assert verified(path)[1] < 300 << 20
    with gzip.open(path, "wb", compresslevel=1) as bomb:
        info = tarfile.TarInfo("a.bin")
        info.size = 1 << 29
        bomb.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(1 << 9):
            bomb.write(bytes(1 << 20))
        bomb.write(bytes(1024))
    assert verified(path)[1] < 300 << 20
    with path.open("wb") as file:  # a hole
        info.size = 2 << 30
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2 << 30)
    problems, memory = verified(path)
    assert (problems, memory < 300 << 20) == (1, True)


def test_memory_of_packed_samples(tmp_path: Path) -> None:
    bombs = [
        ("a", b"\x81\xa1n\xdd\x00\xff\xff\xff" + b"\x80" * 0xFFFFFF),  # 17 million empty maps
        ("b", msgpack.packb({"n": [[]] * 1_900_000})),
        ("c", msgpack.packb({"n": 1})),
    ]
    problems, memory = verified(shard(tmp_path, packed(bombs)))
    assert (problems, memory < 300 << 20) == (0, True)
