"""From ``resolve`` on a private bucket to WebDataset and ``atdata`` in processes without credentials; ``s3:`` there."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import webdataset

from atdata_cli import S3DataStore
from tests.cli.conftest import environment
from tests.cli.test_write import manifest_of
from tests.e2e.conftest import members
from tests.servers import reference
from tests.servers.seaweed import DOMAIN

# webdataset leaves what it reads to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

ROOT = Path(__file__).parents[2]

# Prints what a reader sees: key, fields and hash of every sample.
SEE = """
import hashlib, json, sys
def see(samples):
    for sample in samples:
        fields = {k: hashlib.sha256(v).hexdigest() for k, v in sample.items() if not k.startswith("__")}
        print(json.dumps([sample["__key__"], fields]))
"""
READ = SEE + "import webdataset\nsee(webdataset.WebDataset(sys.argv[1], shardshuffle=False))"


def hashed(samples: list[tuple[str, dict[str, bytes]]]) -> list[Any]:
    return [[key, {name: hashlib.sha256(data).hexdigest() for name, data in sample.items()}] for key, sample in samples]


def read(script: str, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, python: str = "") -> list[Any]:
    """What a script prints, run in a process with nothing but PATH and HOME, or with what *env* adds."""
    ran = subprocess.run(
        [python or sys.executable, "-c", script, *arguments],
        cwd=cwd,
        env=environment(cwd / "home", env),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.fixture
def written(cli, s3_env, s3_bucket, tmp_path) -> list[Any]:
    """A dataset of four shards, on disk in ``out`` and in S3 at ``p``; what its readers must see."""
    for number in range(30):
        folder = tmp_path / "photos" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02d}.jpg").write_bytes(os.urandom(number * 997))
        (folder / f"{number:02d}.json").write_text(json.dumps({"n": number}))
    for dest in ("out", f"s3://{s3_bucket}/p"):
        assert cli("write", "photos", dest, "--max-count", "8", env=s3_env).code == 0
    return hashed(members(sorted((tmp_path / "out").glob("*.tar"))))


def test_one_string_streams_a_private_bucket_to_who_has_no_credentials(cli, s3_env, s3_bucket, written, tmp_path):
    ran = cli("resolve", f"s3://{s3_bucket}/p", "--format", "wds", "--check", "--expires", "15m", env=s3_env)
    assert (ran.code, ran.err) == (0, "")
    (text,) = ran.lines
    assert text.count(",") == 3
    assert len(written) == 30
    assert read(READ, text, cwd=tmp_path) == written
    assert read(READ, text, cwd=tmp_path, env={"WDS_SECURE": "1"}) == written
    by_atdata = SEE + (
        "import atdata, webdataset\n"
        "dataset = atdata.Dataset[atdata.DictSample](sys.argv[1])\n"
        "assert dataset.list_shards() == sys.argv[2:], dataset.list_shards()\n"
        "stages = webdataset.tariterators.tar_file_expander(\n"
        "    {'url': url, 'stream': stream} for url, stream in dataset.source.shards)\n"
        "see(webdataset.tariterators.group_by_keys(stages))\n"
    )
    inside = text[1:-1].split(",")
    assert read(by_atdata, text, *inside, cwd=tmp_path, python=reference.python()) == written


def test_one_string_of_paths_that_need_care(cli, written, tmp_path):
    odd = "{a},b::c \\ ${HOME}"
    (tmp_path / "out").rename(tmp_path / odd)
    text = cli("resolve", odd, "--format", "wds").out.removesuffix("\n")
    assert read(READ, text, cwd=tmp_path) == written
    shards = [f"./{odd}/shard-{number:06d}.tar" for number in range(4)]
    script = "import atdata, json, sys\nprint(json.dumps(atdata.Dataset(sys.argv[1]).list_shards()))"
    assert read(script, text, cwd=tmp_path, python=reference.python()) == [shards]
    one = cli("resolve", f"{odd}/shard-000000.tar", "--format", "wds").out.removesuffix("\n")
    assert read(READ, one, cwd=tmp_path) == written[:8]


def test_typed_samples_stream_into_the_reference_library(cli, s3_env, s3_bucket, tmp_path):
    expected = [{"id": number, "text": f"naïve {number}", "tags": ["a"] * (number % 3)} for number in range(2500)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in expected))
    assert cli("write", "rows.jsonl", f"s3://{s3_bucket}/r", "--max-count", "1000", env=s3_env).code == 0
    text = cli("resolve", f"s3://{s3_bucket}/r", "--format", "wds", env=s3_env).out.strip()
    script = (
        "import atdata, json, sys\n"
        "for sample in atdata.Dataset[atdata.DictSample](sys.argv[1]).ordered(batch_size=None):\n"
        "    print(json.dumps(sample.to_dict()))\n"
    )
    assert read(script, text, cwd=tmp_path, python=reference.python()) == expected


def test_urls_are_told_with_their_end_and_never_elsewhere(cli, s3_env, s3_bucket, written, tmp_path):
    place = f"s3://{s3_bucket}/p"
    told = cli("resolve", place, "--json", "--expires", "90s", "-v", env=s3_env)
    assert "X-Amz-Signature" not in told.err
    manifest = manifest_of(tmp_path / "out")
    for shard, row in zip(told.document["shards"], manifest["shards"], strict=True):
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(shard["url"]).query))
        assert (query["X-Amz-Algorithm"], query["X-Amz-Expires"]) == ("AWS4-HMAC-SHA256", "90")
        assert shard["canonical"] == f"{place}/{row['name']}"
        assert shard["sha256"] == row["sha256"]
        assert shard["expires"].endswith("Z")
    assert cli("resolve", place, "-o", "urls", env=s3_env).out == ""
    assert (tmp_path / "urls").stat().st_mode & 0o777 == 0o600
    assert len((tmp_path / "urls").read_text().splitlines()) == 4
    assert cli("resolve", place, "--canonical", env=s3_env).lines == [s["canonical"] for s in told.document["shards"]]
    assert cli("resolve", place, "--canonical", "--format", "braces", env=s3_env).lines == [
        f"{place}/shard-{{000000..000003}}.tar"
    ]


def test_check_reads_what_is_there_as_anybody_with_the_url(cli, s3_env, s3_bucket, written, store):
    place = f"s3://{s3_bucket}/p"
    assert len(cli("resolve", place, "--check", env=s3_env).lines) == 4
    assert len(cli("resolve", place, "--check", "--canonical", env=s3_env).lines) == 4
    store.delete("p/shard-000002.tar")
    ran = cli("resolve", place, "--check", env=s3_env)
    ran.failed(6, f"{place}/shard-000002.tar")
    assert "X-Amz" not in ran.err
    cli("resolve", place, "--check", "--canonical", env=s3_env).failed(6, f"{place}/shard-000002.tar")
    sink = store.create("p/shard-000002.tar")
    sink.write(b"no tar")
    sink.commit()
    cli("resolve", f"{place}/*.tar", "--check", env=s3_env).failed(6, f"{place}/shard-000002.tar")
    # A private bucket refuses who signs nothing.
    for command in ("resolve", "inspect"):
        cli(command, f"{place}/shard-000000.tar", "--no-sign-request", env=s3_env).failed(4, place)


def test_failures_of_the_store_are_told_apart(cli, s3_env, s3_bucket):
    place = f"s3://{s3_bucket}/p"
    cli("resolve", place, env=s3_env).failed(3, place)
    cli("resolve", "s3://no-such-bucket-here/p", env=s3_env).failed(3)
    cli("resolve", place, env={**s3_env, "AWS_SECRET_ACCESS_KEY": "wrong" * 8}).failed(4)
    cli("resolve", place, env={**s3_env, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}).failed(5)
    expired = {**s3_env, "AWS_SESSION_TOKEN": "hush-hush", "AWS_CREDENTIAL_EXPIRATION": "2020-01-01T00:00:00Z"}
    ran = cli("resolve", place, "-v", env=expired)
    ran.failed(4, "expired")
    assert "hush" not in ran.err


def test_urls_of_both_styles_reach_the_server(s3_server, s3_bucket, store):
    sink = store.create("a b,{c}+é.tar")
    sink.write(b"content")
    sink.commit()
    url = store.read_url(store.url("a b,{c}+é.tar"))
    assert urllib.parse.urlsplit(url).path.startswith(f"/{s3_bucket}/")
    assert subprocess.run(["curl", "-sf", url], capture_output=True, check=True).stdout == b"content"
    # By name, which only the server's own address book would resolve: here the connection goes to its address.
    port = urllib.parse.urlsplit(s3_server.endpoint).port
    virtual = S3DataStore(
        s3_server.credentials,
        bucket=s3_bucket,
        endpoint_url=f"http://{DOMAIN}:{port}",
        options={"addressing": "virtual"},
    )
    parts = urllib.parse.urlsplit(virtual.read_url(virtual.url("a b,{c}+é.tar")))
    assert parts.netloc == f"{s3_bucket}.{DOMAIN}:{port}"
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", f"{parts.path}?{parts.query}", headers={"Host": parts.netloc})
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"content")
    connection.close()


# -- import atdata_cli.webdataset

OWN = SEE + "import atdata_cli.webdataset, webdataset\nsee(webdataset.WebDataset(sys.argv[1], shardshuffle=False))"

WORKERS = '''
"""Reads shards in worker processes, as a DataLoader does, after the parent has read one."""
import hashlib, json, multiprocessing, sys
import atdata_cli.webdataset
import webdataset

def see(url):
    found = []
    for sample in webdataset.WebDataset(url, shardshuffle=False):
        fields = {k: hashlib.sha256(v).hexdigest() for k, v in sample.items() if not k.startswith("__")}
        found.append([sample["__key__"], fields])
    return found

if __name__ == "__main__":
    method, text = sys.argv[1:]
    urls = webdataset.shardlists.expand_urls(text)
    see(urls[0])
    with multiprocessing.get_context(method).Pool(2) as pool:
        for shard in pool.map(see, urls, chunksize=1):
            for sample in shard:
                print(json.dumps(sample))
'''


def own_env(s3_env: Mapping[str, str]) -> dict[str, str]:
    return {**s3_env, "PYTHONPATH": str(ROOT)}


def test_canonical_urls_open_in_training_code(cli, s3_env, s3_bucket, written, tmp_path):
    text = cli("resolve", f"s3://{s3_bucket}/p", "--canonical", "--format", "wds", env=s3_env).out.strip()
    assert read(OWN, text, cwd=tmp_path, env=own_env(s3_env)) == written
    assert read(OWN, f"s3://{s3_bucket}/p/shard-{{000000..000003}}.tar", cwd=tmp_path, env=own_env(s3_env)) == written
    cached = OWN.replace("shardshuffle=False", "shardshuffle=False, cache_dir='cache'")
    (tmp_path / "cache").mkdir()
    for _ in range(2):
        assert read(cached, text, cwd=tmp_path, env=own_env(s3_env)) == written
    assert len(list((tmp_path / "cache").rglob("*.tar"))) == 4
    by_atdata = (
        "import atdata_cli.webdataset, atdata, json, sys\n"
        "for url, stream in atdata.Dataset[atdata.DictSample](sys.argv[1]).source.shards:\n"
        "    print(json.dumps(len(stream.read())))\n"
    )
    sizes = [path.stat().st_size for path in sorted((tmp_path / "out").glob("*.tar"))]
    assert read(by_atdata, text, cwd=tmp_path, env=own_env(s3_env), python=reference.python()) == sizes


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_open_them_too(cli, s3_env, s3_bucket, written, tmp_path, method):
    text = cli("resolve", f"s3://{s3_bucket}/p", "--canonical", "--format", "wds", env=s3_env).out.strip()
    script = tmp_path / "train.py"
    script.write_text(WORKERS)
    ran = subprocess.run(
        [sys.executable, str(script), method, text],
        env=environment(tmp_path / "home", own_env(s3_env)),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert [json.loads(line) for line in ran.stdout.splitlines()] == written


def test_a_large_shard_arrives_whole(s3_bucket, s3_server, store, monkeypatch):
    from atdata_cli.webdataset import open_s3

    for name, value in s3_server.credentials.items():
        monkeypatch.setenv({"AWS_ENDPOINT": "AWS_ENDPOINT_URL"}.get(name, name), value)
    data = os.urandom((17 << 20) + 123)
    sink = store.create("large.tar")
    sink.write(data)
    sink.commit()
    with webdataset.gopen(f"s3://{s3_bucket}/large.tar") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(10240):
            digest.update(chunk)
    assert digest.digest() == hashlib.sha256(data).digest()
    with pytest.raises(ValueError, match="reading only"):
        open_s3(f"s3://{s3_bucket}/large.tar", "wb")
