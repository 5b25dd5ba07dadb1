"""From ``write`` through ``publish`` to training code, over a real PDS: data in S3, and in the PDS itself."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atdata_cli.atproto.records import ENTRY, LABEL, SCHEMA
from tests.cli.conftest import COMMAND, Cli, environment
from tests.e2e.test_reference import ROW_TYPE, json_rows, reference
from tests.servers.pds import Account, run_pds

__all__ = ["reference"]

UPLOAD = "local.atdata-cli.upload"

READ = """
import json, sys, hashlib, webdataset
url = sys.stdin.read().strip()
dataset = webdataset.WebDataset(url, shardshuffle=False)
def hashes(sample):
    return {name: hashlib.sha256(value).hexdigest() for name, value in sample.items() if not name.startswith("__")}
print(json.dumps([[sample["__key__"], hashes(sample)] for sample in dataset]))
"""


def read_elsewhere(
    url: str, home: Path, env: Mapping[str, str] | None = None, opener: str = ""
) -> list[tuple[str, dict[str, str]]]:
    """(key, field to SHA-256) of all samples, as webdataset reads them in another process, without credentials."""
    ran = subprocess.run(
        [sys.executable, "-c", opener + READ],
        input=url,
        capture_output=True,
        text=True,
        env=environment(home, env),
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return [(key, fields) for key, fields in json.loads(ran.stdout)]


def hashes(folder: Path) -> list[tuple[str, dict[str, str]]]:
    """The same of the folder of photos that was written."""
    expected: dict[str, dict[str, str]] = {}
    for path in sorted(folder.rglob("*.*")):
        key, _, field = str(path.relative_to(folder)).partition(".")
        expected.setdefault(key, {})[field] = hashlib.sha256(path.read_bytes()).hexdigest()
    return sorted(expected.items())


def public(account: Account) -> dict[str, str]:
    """What somebody else needs to find this server, which is in no directory of the network."""
    return {"ATDATA_PLC_URL": account.plc_url, "ATDATA_PDS_URL": account.pds_url}


def no_secrets(texts: Iterable[str], *secrets: str) -> None:
    for text in texts:
        for secret in secrets:
            assert secret not in text


def test_atmosphere_index_with_data_in_s3(cli: Cli, photos, s3_env, s3_server, s3_bucket, pds_account, tmp_path):
    me = {**s3_env, **pds_account.env}
    place = f"s3://{s3_bucket}/train/v1"
    assert cli("write", photos, place, "--max-count", "8", env=s3_env).code == 0
    target = f"@{pds_account.handle}/photos"
    refused = cli("publish", place, target, env=me)
    refused.failed(2, "nobody else can reach")
    planned = cli("publish", place, target, "--allow-local-url", "--dry-run", env=me)
    assert planned.code == 0, planned.err
    assert pds_account.records(ENTRY) == []
    options = ["--allow-local-url", "--description", "cats", "--tag", "a", "--tag", "b", "--license", "MIT"]
    done = cli("publish", place, target, *options, env=me)
    assert done.code == 0, done.err
    [uri] = done.lines
    assert uri.startswith(f"at://{pds_account.did}/{ENTRY}/")
    again = cli("publish", place, target, "--allow-local-url", "--json", env=me)
    assert (again.document["status"], again.document["uri"]) == ("unchanged", uri)

    [entry] = pds_account.records(ENTRY)
    storage = entry["value"]["storage"]
    assert (storage["bucket"], storage["endpoint"], storage["region"]) == (s3_bucket, s3_server.endpoint, "us-east-1")
    assert [shard["key"] for shard in storage["shards"]] == [f"train/v1/shard-{n:06d}.tar" for n in range(4)]
    assert entry["value"]["size"] == {"samples": 30, "shards": 4, "bytes": sum(r for r in sizes(cli, place, s3_env))}

    # Whoever may read the bucket: by name, by handle or DID, by the entry's URI.
    reader = {**public(pds_account), **s3_env}
    for ref in (target, f"@{pds_account.did}/photos", uri, f"at://{pds_account.handle}/photos",
                      f"atdata://{pds_account.handle}/dataset/photos"):  # fmt: skip
        resolved = cli("resolve", ref, "--format", "wds", env=reader)
        assert resolved.code == 0, resolved.err
        assert read_elsewhere(resolved.lines[0], tmp_path) == hashes(photos)
    assert cli("inspect", target, "--verify", env=reader).code == 0
    listed = cli("inspect", f"@{pds_account.handle}", "--json", env=public(pds_account))
    assert listed.code == 0, listed.err
    assert "photos" in listed.out
    # The endpoint that the record names is not asked with the credentials of somebody who configured none for it.
    elsewhere = {**reader, "AWS_ENDPOINT_URL": "https://s3.example.org"}
    asked = cli("resolve", target, env=elsewhere)
    assert asked.code == 0, asked.err
    assert s3_server.key not in asked.out
    assert "Signature" not in asked.out
    assert "without credentials" in asked.err

    # New data under the old name; the old shards stay, the label moves.
    (photos / "cat" / "00.jpg").write_bytes(b"new")
    assert cli("write", photos, f"s3://{s3_bucket}/train/v2", "--name", "photos", env=s3_env).code == 0
    moved = cli("publish", f"s3://{s3_bucket}/train/v2", f"{target}@2.0.0", "--allow-local-url", env=me)
    assert moved.code == 0, moved.err
    resolved = cli("resolve", target, "--format", "wds", env=reader)
    assert read_elsewhere(resolved.lines[0], tmp_path) == hashes(photos)
    assert len(pds_account.records(LABEL)) == 2
    assert len(pds_account.records(SCHEMA)) == 1

    gone = cli("unpublish", target, env=me)
    assert gone.code == 2  # nobody to ask
    gone = cli("unpublish", target, "--yes", env=me)
    assert gone.code == 0, gone.err
    assert pds_account.records(ENTRY) == []
    assert pds_account.records(LABEL) == []
    cli("resolve", target, env=reader).failed(3)
    runs = [planned, done, again, moved, gone, refused, listed]
    no_secrets([run.out + run.err for run in runs], pds_account.password, s3_server.secret, s3_server.key)
    no_secrets([json.dumps(entry)], pds_account.password, s3_server.secret, s3_server.key)


def sizes(cli: Cli, place: str, env: Mapping[str, str]) -> list[int]:
    return [shard["bytes"] for shard in cli("inspect", place, "--json", env=env).document["shards"]]


def test_atmosphere_index_with_data_in_the_pds(cli: Cli, photos, s3_env, s3_bucket, pds_account, tmp_path):
    me = pds_account.env
    target = f"@{pds_account.handle}/photos"
    anonymous = cli("write", photos, target, env=public(pds_account))
    anonymous.failed(4, "not logged in")
    line = ["write", photos, target, "--max-count", "8", "--license", "MIT", "--tag", "cats"]
    planned = cli(*line, "-n", env=me)
    assert planned.code == 0, planned.err
    assert '\n  "license": "MIT"' in planned.err
    assert pds_account.records(ENTRY) == pds_account.records(UPLOAD) == pds_account.blobs() == []
    wrote = cli(*line, env=me)
    assert planned.lines == wrote.lines
    assert wrote.code == 0, wrote.err
    assert all(line.startswith(f"at://{pds_account.did}/blob/bafkrei") for line in wrote.lines)
    [entry] = pds_account.records(ENTRY)
    assert entry["uri"] in wrote.err
    assert wrote.lines == [
        f"at://{pds_account.did}/blob/{one['blob']['ref']['$link']}" for one in entry["value"]["storage"]["blobs"]
    ]
    assert (entry["value"]["license"], entry["value"]["tags"]) == ("MIT", ["cats"])
    again = cli("write", photos, target, "--max-count", "8", "--json", env=me)
    assert again.code == 0, again.err
    assert again.document["status"] == "unchanged"
    assert again.document["entry"] == {"uri": entry["uri"], "status": "unchanged"}
    [warning] = again.document["warnings"]
    assert warning.startswith("atdata.load_dataset reads msgpack samples only")
    assert again.err.count(warning) == 1
    assert [shard["url"] for shard in again.document["shards"]] == wrote.lines

    reader = public(pds_account)
    for ref in (target, entry["uri"]):
        resolved = cli("resolve", ref, "--format", "wds", env=reader)
        assert resolved.code == 0, resolved.err
        assert read_elsewhere(resolved.lines[0], tmp_path) == hashes(photos)
    assert cli("inspect", target, "--verify", env=reader).code == 0

    # Training code may also use the blobs' own URLs.
    canonical = cli("resolve", target, "--canonical", "--format", "wds", env=reader)
    opener = "import atdata_cli.webdataset\n"
    assert read_elsewhere(canonical.lines[0], tmp_path, reader, opener) == hashes(photos)

    # The same shards from S3 and from disk are in the PDS already.
    place = f"s3://{s3_bucket}/photos"
    assert cli("write", photos, place, "--max-count", "8", env=s3_env).code == 0
    copied = cli("publish", place, f"@{pds_account.handle}/copied", "--blobs", env={**s3_env, **me})
    assert copied.code == 0, copied.err
    assert "copied" in cli("inspect", f"@{pds_account.handle}", env=reader).out
    assert len(pds_account.blobs()) == 4
    resolved = cli("resolve", f"@{pds_account.handle}/copied", "--format", "wds", env=reader)
    assert read_elsewhere(resolved.lines[0], tmp_path) == hashes(photos)

    # The blobs stay while one of both entries does.
    kept = cli("unpublish", target, "--yes", env=me)
    assert kept.code == 0, kept.err
    assert "stay" in kept.err
    assert len(pds_account.blobs()) == 4
    gone = cli("unpublish", f"@{pds_account.handle}/copied", "--yes", env=me)
    assert gone.code == 0, gone.err
    assert "4 blobs" in gone.err
    assert pds_account.blobs() == []
    no_secrets([r.out + r.err for r in (anonymous, wrote, again, copied, kept, gone)], pds_account.password)


def test_what_cannot_be_written_is_told_before_the_upload(cli: Cli, rows_file, pds_account):
    me = pds_account.env
    target = f"@{pds_account.handle}/rows"
    cli("write", rows_file, target, "--max-count", "3", env=me).failed(2, "834 shards are too many", "fit")
    cli("write", rows_file, target, "--split", "a=0.5,b=0.5", env=me).failed(2, "one split")
    cli("write", rows_file, target, "--compress", "gz", env=me).failed(2, "compress")
    cli("write", rows_file, target, "--description", "x" * 5001, env=me).failed(2, "description")
    cli("write", rows_file, "out", "--license", "MIT", env=me).failed(2, "--license")
    cli("write", rows_file, "@local/rows", env=me).failed(2, "DEST", "publish")
    cli("write", rows_file, "@somebody.test/rows", env=me).failed(4, "not logged in as")
    assert cli("write", rows_file, "out", "--max-count", "3").code == 0
    cli("publish", "out", target, "--blobs", env=me).failed(2, "834 shards are too many", "fit")
    cli("publish", "out", target, env=me).failed(2, "path on this machine", "--blobs")
    assert pds_account.blobs() == []
    assert pds_account.records(ENTRY) == []


def test_an_entry_that_cannot_be_followed_is_listed_and_withdrawn(cli: Cli, rows_file, pds_account):
    """The reference library publishes paths of its own machine as URLs."""
    me, account = pds_account.env, f"@{pds_account.handle}"
    assert cli("write", rows_file, f"{account}/rows@1.0", env=me).code == 0
    [good] = pds_account.records(ENTRY)
    shard = {"url": "/data/shard-000000.tar", "checksum": {"algorithm": "sha256", "digest": "00" * 32}}
    storage = {"$type": "science.alt.dataset.storageHttp", "shards": [shard]}
    evil = {**good["value"], "name": "evil", "storage": storage}
    body = {"repo": pds_account.did, "collection": ENTRY, "record": evil, "validate": False}
    pds_account.xrpc("com.atproto.repo.createRecord", body)
    listed = cli("inspect", account, env=me)
    assert [line.split("\t")[0] for line in listed.lines] == [
        f"{account}/{name}" for name in ("evil", "rows", "rows@1.0")
    ]
    [warning] = listed.err.splitlines()
    assert warning.startswith(f"warning: {account}/evil: this entry names what is not followed: a path on")
    told = cli("inspect", account, "--json", env=me).document["datasets"]
    assert [(one["name"], one["problem"] is None, len(one["shards"])) for one in told[:2]] == [
        ("evil", False, 0),
        ("rows", True, 1),
    ]
    cli("resolve", f"{account}/evil", env=me).failed(6, "not followed", "its publisher")
    gone = cli("unpublish", f"{account}/evil", "--yes", env=me)
    assert gone.code == 0, gone.err
    assert "not followed" in gone.err
    assert [record["uri"] for record in pds_account.records(ENTRY)] == [good["uri"]]
    for command in ("resolve", "unpublish"):
        cli(command, f"{account}/rows@9", env=me).failed(3, "no version '9'", "there are 1.0")


def test_a_revoked_password_and_rate_limits(cli: Cli, rows_file, pds_server, tmp_path):
    with run_pds(tmp_path / "pds", plc_url=pds_server.plc_url, rate_limits=True) as pds:
        account = pds.account()
        password = account.app_password("ci")
        me = {**account.env, "ATDATA_PASSWORD": password}
        target = f"@{account.handle}/rows"
        wrote = cli("write", rows_file, target, "--max-count", "500", env=me)
        assert wrote.code == 0, wrote.err
        account.xrpc("com.atproto.server.revokeAppPassword", {"name": "ci"})
        refused = cli("write", rows_file, target, "--max-count", "400", env=me)
        refused.failed(4, f"{account.handle}: wrong handle or password (")
        no_secrets([wrote.err + wrote.out, refused.err + refused.out], password, account.password)
        assert len(account.records(ENTRY)) == 1
        assert cli("inspect", target, "--verify", env=public(account)).code == 0


LOAD = """
import atdata.atmosphere
from atdata.atmosphere.client import Atmosphere
from atdata.atmosphere.labels import LabelLoader
from atdata.atmosphere.records import DatasetLoader

pds, handle = sys.argv[1:3]
# The library asks the public directory, which knows nothing of a test server.
atdata.atmosphere._resolve_pds_endpoint = lambda did: pds
Atmosphere._resolve_pds_endpoint = lambda self, did: pds
client = Atmosphere(base_url=pds)

def uri_of(name):
    return LabelLoader(client).resolve(handle, name)

def entry_of(name):
    return DatasetLoader(client).get_typed(uri_of(name))
"""


def test_the_reference_library_loads_what_is_in_the_pds(cli: Cli, reference, pds_account, tmp_path):
    rows = json_rows(1003)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    count = 217
    columns = {
        "image": pa.array([np.arange(12, dtype=np.float32) * n for n in range(count)], pa.list_(pa.float32())),
        "maybe": pa.array([None if n % 3 else [n + 0.5] for n in range(count)], pa.list_(pa.float64())),
        "words": pa.array([["a", "b"][: n % 3] for n in range(count)], pa.list_(pa.string())),
        "raw": pa.array([bytes([n % 256]) * (n % 50) for n in range(count)], pa.binary()),
        "label": pa.array([f"naïve {n}" for n in range(count)]),
        "large": pa.array([2**64 - 1 - n for n in range(count)], pa.uint64()),
    }
    pq.write_table(pa.table(columns), tmp_path / "arrays.parquet")
    for source, more in (("rows.jsonl", ["--description", "d"]), ("arrays.parquet", [])):
        target = f"@{pds_account.handle}/{Path(source).stem}"
        ran = cli("write", source, target, "--max-count", "250", *more, env=pds_account.env)
        assert ran.code == 0, ran.err
    script = """
rows, arrays = entry_of("rows"), entry_of("arrays")
assert (rows.name, rows.description, rows.size.samples, rows.size.shards) == ("rows", "d", 1003, 5)
assert rows.metadata.custom["encoding"] == "msgpack"
counts = [
    check_rows(atdata.load_dataset(uri_of("rows"), split="train", atmosphere=client)),
    check_rows(atdata.load_dataset(uri_of("rows"), Row, split="train", atmosphere=client)),
    check_rows(DatasetLoader(client).to_dataset(uri_of("rows"), Row)),
]

def expected(n):
    return {
        "image": np.arange(12, dtype=np.float32) * n,
        "maybe": None if n % 3 else np.array([n + 0.5]),
        "words": ["a", "b"][: n % 3],
        "raw": bytes([n % 256]) * (n % 50),
        "label": f"naïve {n}",
        "large": 2**64 - 1 - n,
    }

# The type is made from the schema record: no class of this script is involved.
loaded = atdata.load_dataset(uri_of("arrays"), split="train", atmosphere=client)
assert loaded.sample_type.__name__ == "ArraysSample", loaded.sample_type
count = 0
for n, row in enumerate(loaded.ordered()):
    assert vars(row).keys() == expected(n).keys()
    for name, value in expected(n).items():
        assert same(value, getattr(row, name)), (n, name, value, getattr(row, name))
    count += 1
done([*counts, count])
"""
    arguments = [pds_account.pds_url, pds_account.did]
    assert reference(ROW_TYPE + LOAD + script, *arguments) == [1003] * 3 + [count]


def test_a_killed_write_goes_on_and_leaves_nothing(cli: Cli, pds_account, tmp_path):
    folder = tmp_path / "big"
    folder.mkdir()
    for number in range(48):
        (folder / f"{number:02d}.bin").write_bytes(random.Random(number).randbytes(1 << 20))
    target = f"@{pds_account.handle}/big"
    arguments = ["write", "big", target, "--max-size", "2200K"]
    home = tmp_path / "home"
    env = environment(home, pds_account.env)
    process = subprocess.Popen([str(COMMAND), *arguments], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (ties := pds_account.records(UPLOAD)):
        assert time.monotonic() < deadline
        assert process.poll() is None, "it was done before it could be killed"
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert pds_account.records(ENTRY) == []
    alive = set(pds_account.blobs())
    assert {blob["ref"]["$link"] for tie in ties for blob in tie["value"]["blobs"]} <= alive
    again = cli(*arguments, env=pds_account.env)
    assert again.code == 0, again.err
    assert len(again.lines) == 24
    cids = {line.rpartition("/")[2] for line in again.lines}
    assert alive <= cids
    assert set(pds_account.blobs()) == cids
    assert pds_account.records(UPLOAD) == []
    assert len(pds_account.records(ENTRY)) == len(pds_account.records(LABEL)) == 1
    # And from there to a disk, every byte checked.
    copied = cli("copy", target, tmp_path / "here", env=public(pds_account))
    assert copied.code == 0, copied.err
    samples = read_elsewhere(cli("resolve", tmp_path / "here", "--format", "wds").lines[0], tmp_path)
    assert samples == hashes(folder)


def test_a_server_that_restarts_in_the_middle(pds_server, tmp_path):
    folder = tmp_path / "big"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02d}.bin").write_bytes(random.Random(number).randbytes(1 << 20))
    with run_pds(tmp_path / "pds", plc_url=pds_server.plc_url) as pds:
        account = pds.account()
        process = subprocess.Popen(
            [str(COMMAND), "write", "big", f"@{account.handle}/big", "--max-size", "1200K"],
            cwd=tmp_path,
            env=environment(tmp_path, account.env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 120
        while not account.records(UPLOAD):
            assert time.monotonic() < deadline
            assert process.poll() is None, "it was done before the server could stop"
            time.sleep(0.02)
        pds.restart()
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        assert len(out.splitlines()) == 40
        assert set(account.blobs()) == {line.rpartition("/")[2] for line in out.splitlines()}
        assert account.records(UPLOAD) == []
        assert len(account.records(ENTRY)) == len(account.records(LABEL)) == len(account.records(SCHEMA)) == 1


def test_nothing_large_is_imported_before_the_first_upload(cli: Cli, photos, pds_account, tmp_path):
    assert cli("write", photos, "out").code == 0
    program = (
        "import sys; sys.argv = ['atdata-cli', *sys.argv[1:]]\n"
        "from atdata_cli.cli.app import main\n"
        "try: main()\n"
        "finally: print(sorted({'numpy', 'webdataset'} & set(sys.modules)), file=sys.stderr)"
    )
    me = f"@{pds_account.handle}"
    for line in (["publish", "out", f"{me}/photos", "--blobs"], ["inspect", f"{me}/photos"], ["inspect", me]):
        ran = subprocess.run(
            [sys.executable, "-c", program, *line],
            cwd=tmp_path,
            env=environment(tmp_path / "home", pds_account.env),
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stderr.endswith("[]\n"), ran.stderr


def test_what_the_reference_library_publishes_is_read(cli: Cli, reference, pds_account, tmp_path):
    script = """
from atproto import Client
from atdata.atmosphere.client import Atmosphere
from atdata.atmosphere.labels import LabelPublisher
from atdata.atmosphere.records import DatasetPublisher
from atdata.atmosphere.schema import SchemaPublisher

pds, handle = sys.argv[1:3]
client = Client(pds)
# Its own login wants a profile that a bare PDS does not have.
session = client.login(handle, os.environ["ATDATA_PASSWORD"], fetch_bsky_profile=False)
atmosphere = Atmosphere(_client=client)
atmosphere._session = {"did": client.me.did if client.me else sys.argv[3], "handle": handle}
dataset = atdata.write_samples(make(90), "theirs/data.tar", maxcount=40)
schema = SchemaPublisher(atmosphere).publish(Sample)
blobs = [open(path, "rb").read() for path in dataset.list_shards()]
metadata = {"split": "train", "model": "x"}
entry = DatasetPublisher(atmosphere).publish_with_blobs(
    blobs, str(schema), name="theirs", description="d", tags=["t"], license="MIT", metadata=metadata,
    content_metadata={"lens": "50 mm"},
)
LabelPublisher(atmosphere).publish("theirs", str(entry), version="0.1.0")
done([str(entry), len(blobs)])
"""
    arguments = [pds_account.pds_url, pds_account.handle, pds_account.did]
    uri, shards = reference(script, *arguments, env=pds_account.env)
    reader = public(pds_account)
    target = f"@{pds_account.handle}/theirs"
    told = cli("inspect", target, "--json", env=reader)
    assert told.code == 0, told.err
    assert told.document["samples"] == 90
    assert len(told.document["shards"]) == shards == 3
    assert cli("inspect", f"{target}@0.1.0", "--verify", env=reader).code == 0
    resolved = cli("resolve", uri, "--format", "wds", env=reader)
    assert [key for key, _ in read_elsewhere(resolved.lines[0], tmp_path)] != []
    # Their samples in our shards, under our label; their entry stays.
    ours = cli("write", target, f"@{pds_account.handle}/ours", "--max-count", "30", env=pds_account.env)
    assert ours.code == 0, ours.err
    assert len(ours.lines) == 3
    moved = cli("publish", target, target, "--blobs", "--verify", "--license", "CC0-1.0", env=pds_account.env)
    assert moved.code == 0, moved.err
    entries = {record["uri"]: record["value"] for record in pds_account.records(ENTRY)}
    assert len(entries) == 3
    mine = entries[moved.lines[0]]
    assert (mine["description"], mine["license"], mine["contentMetadata"]) == ("d", "CC0-1.0", {"lens": "50 mm"})
    assert mine["storage"] == entries[uri]["storage"]
