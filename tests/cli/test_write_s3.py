"""``atdata-cli write`` to and from a real S3 server."""

from __future__ import annotations

import hashlib
import json
import urllib.request

import msgpack

from atdata_cli import S3DataStore
from tests.cli.conftest import rows
from tests.cli.test_write import manifest_of, tree


def objects(store: S3DataStore, prefix: str) -> dict[str, bytes]:
    """All objects below a prefix, by relative name."""
    return {item.name.removeprefix(f"{prefix}/"): store.read(item.name) for item in store.list(prefix)}


def test_disk_and_s3_get_the_same_bytes(cli, s3_env, s3_bucket, store, rows_file, photos, tmp_path):
    for source, options in (("rows.jsonl", ["--max-count", "600"]), ("photos", ["--split", "a=0.5,b=0.5"])):
        ran = cli("write", source, f"s3://{s3_bucket}/{source}", *options, env=s3_env)
        assert ran.code == 0, ran.err
        assert ran.lines
        assert all(line.startswith(f"s3://{s3_bucket}/{source}/") for line in ran.lines)
        assert cli("write", source, f"out-{source}", *options).code == 0
        assert objects(store, source) == tree(tmp_path / f"out-{source}")
        again = cli("write", source, f"s3://{s3_bucket}/{source}", *options, env=s3_env)
        assert (again.code, again.lines) == (0, ran.lines)
        assert "unchanged" in again.err


def test_presigned_urls_of_what_was_written_open_without_credentials(cli, s3_env, s3_bucket, store, rows_file):
    ran = cli("write", "rows.jsonl", f"s3://{s3_bucket}/p", env=s3_env)
    (url,) = ran.lines
    with urllib.request.urlopen(store.read_url(url)) as answer:
        assert (
            hashlib.sha256(answer.read()).hexdigest()
            == json.loads(store.read("p/manifest.json"))["shards"][0]["sha256"]
        )


def test_sources_in_s3(cli, s3_env, s3_bucket, rows_file, photos, tmp_path, s3_server):
    from tests.servers.seaweed import filesystem

    remote = filesystem(s3_server)
    remote.put(str(rows_file), f"{s3_bucket}/in/rows.jsonl")
    remote.put(str(photos), f"{s3_bucket}/in/photos", recursive=True)
    for source, options in (
        (f"s3://{s3_bucket}/in/rows.jsonl", []),
        (f"s3://{s3_bucket}/in/photos", ["--max-count", "8"]),
    ):
        name = source.rpartition("/")[2]
        ran = cli("write", source, f"from-{name}", *options, env=s3_env)
        assert ran.code == 0, ran.err
        assert cli("write", name, f"local-{name}", *options).code == 0
        assert tree(tmp_path / f"from-{name}") == tree(tmp_path / f"local-{name}")
    # Without credentials only the sources are read: this bucket is not public.
    assert cli("write", "rows.jsonl", f"s3://{s3_bucket}/signed", "--no-sign-request", env=s3_env).code == 0
    source = f"s3://{s3_bucket}/in/rows.jsonl"
    cli("write", source, f"s3://{s3_bucket}/unsigned", "--no-sign-request", env=s3_env).failed(4, source)
    # A dataset in S3 is a source like any other.
    assert cli("write", "local-photos", f"s3://{s3_bucket}/again", env=s3_env).code == 0
    assert cli("write", f"s3://{s3_bucket}/again", "back", env=s3_env).code == 0
    assert manifest_of(tmp_path / "back")["samples"] == 30


def test_embedding_across_stores_stays_in_its_folder(cli, s3_env, s3_bucket, s3_server, photos, tmp_path):
    from tests.servers.seaweed import filesystem

    remote = filesystem(s3_server)
    remote.pipe(f"{s3_bucket}/secret.jpg", b"secret")
    remote.put(str(photos / "cat" / "02.jpg"), f"{s3_bucket}/t/img/02.jpg")
    remote.pipe(f"{s3_bucket}/t/good.jsonl", b'{"image": "img/02.jpg", "n": 1}\n')
    remote.pipe(f"{s3_bucket}/t/bad.jsonl", b'{"image": "../secret.jpg"}\n')
    ran = cli("write", f"s3://{s3_bucket}/t/good.jsonl", "out", "--embed", "image", env=s3_env)
    assert ran.code == 0, ran.err
    assert manifest_of(tmp_path / "out")["fields"].keys() == {"jpg", "json"}
    cli("write", f"s3://{s3_bucket}/t/bad.jsonl", "bad", "--embed", "image", env=s3_env).failed(
        1, "bad.jsonl:1", "outside"
    )


def test_errors_of_the_store_are_told_apart(cli, s3_env, s3_bucket, rows_file, tmp_path):
    target = f"s3://{s3_bucket}/x"
    cli("write", "rows.jsonl", "s3://no-such-bucket-here/x", env=s3_env).failed(3, "no-such-bucket-here")
    cli("write", "rows.jsonl", target, env={**s3_env, "AWS_SECRET_ACCESS_KEY": "wrong" * 8}).failed(4, target)
    cli("write", "rows.jsonl", target, env={**s3_env, "AWS_ACCESS_KEY_ID": "nobody"}).failed(4, target)
    nothing = {"AWS_ENDPOINT_URL": s3_env["AWS_ENDPOINT_URL"], "AWS_EC2_METADATA_DISABLED": "true"}
    cli("write", "rows.jsonl", target, env=nothing).failed(4, target)
    nobody = {**s3_env, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    cli("write", "rows.jsonl", target, "--retries", "0", env=nobody).failed(5, target)
    cli("write", "rows.jsonl", "s3://", env=s3_env).failed(2)
    for ran in (cli("write", "rows.jsonl", target, "-v", env={**s3_env, "AWS_SECRET_ACCESS_KEY": "hush" * 10}),):
        assert "hush" not in ran.err + ran.out


def test_errors_of_sources_in_s3_are_told_apart_too(cli, s3_env, s3_bucket):
    source = f"s3://{s3_bucket}/rows.jsonl"
    cli("write", source, "out", env=s3_env).failed(3, source)
    cli("write", source, "out", env={**s3_env, "AWS_SECRET_ACCESS_KEY": "wrong" * 8}).failed(4, source)
    nobody = {**s3_env, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    cli("write", source, "out", "--retries", "0", env=nobody).failed(5, "cannot be reached")
    ended = {"AWS_SESSION_TOKEN": "hush", "AWS_CREDENTIAL_EXPIRATION": "2020-01-01T00:00:00Z"}
    cli("write", source, "out", env={**s3_env, **ended}).failed(4, "expired")


def test_the_library_example_runs_as_written(s3_server, s3_bucket):
    dataset = [{"__key__": f"{number}", "id": number, "text": "x"} for number in range(10)]
    credentials = s3_server.credentials
    store = S3DataStore(credentials, bucket=s3_bucket)
    urls = store.write_shards(dataset, prefix="training/v1")
    assert urls == [f"s3://{s3_bucket}/training/v1/shard-000000.tar"]
    assert urls.checksums[urls[0]] == hashlib.sha256(store.read("training/v1/shard-000000.tar")).hexdigest()
    assert store.supports_streaming()


def test_memory_filesystem_and_plugins_take_the_same_bytes(rows_file, tmp_path):
    from atdata_cli import LocalStore, open_source, open_store

    source = open_source(str(rows_file))
    memory, prefix = open_store("memory://somewhere/rows")
    memory.write_shards(source, prefix=prefix, name="rows")
    LocalStore(tmp_path).write_shards(open_source(str(rows_file)), prefix="rows", name="rows")
    written = {item.name.removeprefix(f"{prefix}/"): memory.read(item.name) for item in memory.list(prefix)}
    assert written == tree(tmp_path / "rows")
    assert msgpack.unpackb(msgpack.packb(rows(1)[0])) == rows(1)[0]
