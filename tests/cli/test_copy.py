"""``atdata-cli copy``, run as a person or a script would."""

from __future__ import annotations

import json

import pytest

from tests.cli.test_write import manifest_of, tree
from tests.cli.test_write_s3 import objects


@pytest.fixture
def ds(cli, rows_file, tmp_path):
    assert cli("write", "rows.jsonl", "ds", "--max-count", "1000", "-q").code == 0
    return tmp_path / "ds"


def test_urls_on_stdout_and_a_summary_on_stderr(cli, ds, tmp_path):
    ran = cli("copy", "ds", "out/copy")
    assert (ran.code, ran.lines) == (0, [f"out/copy/shard-{n:06d}.tar" for n in range(3)])
    assert ran.err.startswith("copied 3 shards, ")
    assert ran.err.endswith(", out/copy/manifest.json\n")
    assert tree(tmp_path / "out/copy") == tree(ds)
    again = cli("copy", "ds/", "out/copy/")
    assert (again.code, again.lines) == (0, ran.lines)
    assert again.err.startswith("unchanged, 0 copied: 3 shards, ")
    quiet = cli("copy", "ds", "quiet", "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_json(cli, ds):
    planned = cli("copy", "ds", "out", "--json", "--dry-run").document
    ran = cli("copy", "ds", "out", "--json")
    again = cli("copy", "ds", "out", "--json")
    manifest = manifest_of(ds)
    assert (planned["status"], ran.document["status"], again.document["status"]) == ("planned", "copied", "unchanged")
    assert planned["copied"] == ran.document["copied"] == {"shards": 3, "bytes": manifest["bytes"]}
    assert again.document["copied"] == {"shards": 0, "bytes": 0}
    assert ran.document["samples"] == 2500
    assert ran.document["manifest"] == "out/manifest.json"
    assert ran.document["shards"] == [
        {"url": f"out/{row['name']}", "bytes": row["bytes"], "sha256": row["sha256"], "copied": True}
        for row in manifest["shards"]
    ]
    assert planned["shards"] == ran.document["shards"]
    assert ran.err == ""


def test_a_dry_run_says_what_would_be_copied(cli, ds, tmp_path):
    ran = cli("copy", "ds", "out", "-n")
    assert ran.code == 0
    assert ran.err.startswith("would copy 3 shards, ")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "shard-000000.tar").write_bytes(b"x")
    cli("copy", "ds", "out", "-n").failed(8, "out/shard-000000.tar")
    cli("copy", "ds", "out").failed(8, "out/shard-000000.tar")


def test_shards_without_a_manifest(cli, ds, tmp_path):
    ran = cli("copy", "ds/shard-{000001..000002}.tar", "out")
    assert (ran.code, ran.lines) == (0, ["out/shard-000001.tar", "out/shard-000002.tar"])
    assert "there is no manifest" in ran.err
    assert tree(tmp_path / "out").keys() == {"shard-000001.tar", "shard-000002.tar"}


def test_a_damaged_shard(cli, ds, tmp_path):
    shard = ds / "shard-000001.tar"
    data = bytearray(shard.read_bytes())
    data[5000] ^= 1
    shard.write_bytes(data)
    cli("copy", "ds", "out", "--jobs", "1").failed(6, "ds/shard-000001.tar", "SHA-256")
    assert not (tmp_path / "out" / "shard-000001.tar").exists()
    cli("inspect", "out").failed(6, "unfinished")
    ran = cli("copy", "ds", "out2", "--json", "-j", "1")
    assert (ran.code, ran.out) == (6, "")
    assert json.loads(ran.err.splitlines()[-1])["error"]["url"] == "ds/shard-000001.tar"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ds"], 2, []),
        (["ds", "-"], 2, ["standard output"]),
        (["-", "out"], 2, ["standard input"]),
        (["ds", "ds/inner"], 2, ["inside"]),
        (["ds", "./ds"], 2, ["inside"]),
        (["ds", "out.tar"], 2, ["out.tar"]),
        (["ds", "@alice.example.com/x"], 2, ["publish"]),
        (["ds", "https://example.org/x"], 2, ["read"]),
        (["rows.jsonl", "out"], 2, ["not a shard"]),
        (["nothing", "out"], 3, ["nothing"]),
        (["nothing-*.tar", "out"], 3, ["nothing-*.tar"]),
        (["home", "out"], 3, ["no shards"]),
        (["pipe:cat ds", "out"], 2, ["pipe"]),
    ],
)
def test_what_cannot_be(cli, ds, arguments, code, words, tmp_path):
    ran = cli("copy", *arguments)
    if words:
        ran.failed(code, *words)
    assert ran.code == code
    assert not (tmp_path / "out").exists()


def test_to_s3_and_back_and_over_http(cli, ds, s3_env, s3_bucket, store, tmp_path):
    url = f"s3://{s3_bucket}/v1"
    ran = cli("copy", "ds", url, env=s3_env)
    assert (ran.code, ran.lines) == (0, [f"{url}/shard-{n:06d}.tar" for n in range(3)])
    assert objects(store, "v1") == tree(ds)
    assert cli("copy", f"{url}/manifest.json", f"s3://{s3_bucket}/v2", env=s3_env).code == 0
    assert objects(store, "v2") == tree(ds)
    assert cli("copy", url, "back", env=s3_env).code == 0
    assert tree(tmp_path / "back") == tree(ds)
    signed = [store.read_url(f"{url}/shard-{n:06d}.tar") for n in range(3)]
    ran = cli("copy", f"{{{','.join(signed)}}}", "signed")
    assert ran.code == 0, ran.err
    assert "Signature" not in ran.out + ran.err
    expected = tree(ds)
    del expected["manifest.json"]
    assert tree(tmp_path / "signed") == expected
    assert cli("copy", url, url, env=s3_env).code == 2


def test_source_and_destination_on_different_servers(cli, ds, s3_env, s3_server, s3_bucket, store):
    """The source is there only for those who reach it by the options for it."""
    assert cli("copy", "ds", f"s3://{s3_bucket}/x", env=s3_env).code == 0
    nobody = {**s3_env, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    ran = cli("copy", f"s3://{s3_bucket}/x", "here", "--source-endpoint-url", s3_env["AWS_ENDPOINT_URL"], env=nobody)
    assert ran.code == 0, ran.err
    ran = cli("copy", "here", f"s3://{s3_bucket}/y", "--endpoint-url", s3_env["AWS_ENDPOINT_URL"], env=nobody)
    assert ran.code == 0, ran.err
    assert objects(store, "y") == tree(ds)
    # Reached in two ways it may be two places.
    ran = cli(
        *("copy", f"s3://{s3_bucket}/x", f"s3://{s3_bucket}/x"),
        *("--source-endpoint-url", s3_env["AWS_ENDPOINT_URL"].replace("127.0.0.1", "localhost")),
        env=s3_env,
    )
    assert ran.code == 0, ran.err
    assert "unchanged" in ran.err
    ran = cli("copy", f"s3://{s3_bucket}/x", "there", "--source-no-sign-request", env=s3_env)
    ran.failed(4, f"s3://{s3_bucket}/x")


def test_by_name_in_the_local_index(cli, ds, tmp_path):
    assert cli("publish", "ds", "@local/rows").code == 0
    ran = cli("copy", "@local/rows", "out")
    assert ran.code == 0, ran.err
    assert tree(tmp_path / "out") == tree(ds)
    # Without the manifest the index still tells what the shards are.
    (ds / "manifest.json").unlink()
    assert cli("copy", "@local/rows", "out2").code == 0
    expected = tree(tmp_path / "out")
    del expected["manifest.json"]
    assert tree(tmp_path / "out2") == expected
    assert "unchanged" in cli("copy", "@local/rows", "out2").err
    shard = ds / "shard-000001.tar"
    shard.write_bytes(b"\0" + shard.read_bytes()[1:])
    cli("copy", "@local/rows", "out3").failed(6, "shard-000001.tar")
