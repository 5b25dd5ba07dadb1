"""From ``write`` through ``publish`` to training code, over a real PDS: data in S3, and in the PDS itself."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from atdata_cli.atproto.records import ENTRY, LABEL, SCHEMA
from tests.cli.conftest import Cli, environment
from tests.servers.pds import Account

READ = """
import json, sys, hashlib, webdataset
url = sys.stdin.read().strip()
dataset = webdataset.WebDataset(url, shardshuffle=False)
def hashes(sample):
    return {name: hashlib.sha256(value).hexdigest() for name, value in sample.items() if not name.startswith("__")}
print(json.dumps([[sample["__key__"], hashes(sample)] for sample in dataset]))
"""


def read_elsewhere(url: str, home: Path, env: Mapping[str, str] | None = None) -> list[tuple[str, dict[str, str]]]:
    """(key, field to SHA-256) of all samples, as webdataset reads them in another process, without credentials."""
    ran = subprocess.run(
        [sys.executable, "-c", READ],
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
    for reference in (target, f"@{pds_account.did}/photos", uri, f"at://{pds_account.handle}/photos",
                      f"atdata://{pds_account.handle}/dataset/photos"):  # fmt: skip
        resolved = cli("resolve", reference, "--format", "wds", env=reader)
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
