"""``publish`` and ``unpublish`` with the local index, and the commands that read from it, as a person runs them."""

from __future__ import annotations

import http.server
import os
import pty
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgpack
import pytest

from tests.cli.conftest import COMMAND, environment
from tests.cli.test_write import manifest_of


@pytest.fixture
def data(cli, rows_file) -> None:
    """``out`` with three shards of rows."""
    assert len(cli("write", rows_file, "out", "--max-count", "1000").lines) == 3


def listed(cli) -> list[list[str]]:
    return [line.split("\t") for line in cli("inspect", "@local").lines]


def test_a_dataset_gets_a_name(cli, data, tmp_path):
    ran = cli(
        "publish", "out", "@local/rows", "--description", "some rows", "--tag", "a", "--tag", "b", "--license", "MIT"
    )
    assert (ran.code, ran.lines) == (0, ["atdata://local/dataset/rows"])
    assert ran.err == "published 2,500 samples in 3 shards, 2.5 MiB\n"
    urls = [f"{tmp_path}/out/shard-{number:06d}.tar" for number in range(3)]
    assert cli("resolve", "@local/rows").lines == urls
    assert cli("resolve", "atdata://local/dataset/rows", "--format", "braces").lines == [
        f"{tmp_path}/out/shard-{{000000..000002}}.tar"
    ]
    rows = manifest_of(tmp_path / "out")["shards"]
    resolved = cli("resolve", "@local/rows", "--json").document["shards"]
    assert [(one["samples"], one["bytes"], one["sha256"]) for one in resolved] == [
        (row["samples"], row["bytes"], row["sha256"]) for row in rows
    ]
    ran = cli("inspect", "@local/rows")
    for word in ("atdata://local/dataset/rows", "some rows", "a, b", "MIT", "2,500"):
        assert word in ran.out
    document = cli("inspect", "@local/rows", "--json").document
    assert document["entry"]["tags"] == ["a", "b"]
    assert document["fields"]["id"]["range"] == [0, 2499]  # of the manifest beside the shards
    assert cli("inspect", "@local/rows", "--head", "1").out.startswith("0000000000")
    assert cli("inspect", "@local/rows", "--key", "0000000007", "--field", "id").out == "7\n"
    assert cli("inspect", "@local/rows", "--verify").code == 0
    (line,) = listed(cli)
    assert line[:4] == ["@local/rows", "2500", "3", str(sum(row["bytes"] for row in rows))]
    assert line[5] == "some rows"
    assert cli("inspect", "@local", "--json").document["datasets"][0]["shards"] == urls


def test_the_same_is_unchanged_and_another_dataset_moves_the_name(cli, data, rows_file, tmp_path):
    assert cli("publish", "out", "@local/rows").code == 0
    ran = cli("publish", "out", "@local/rows")
    assert (ran.lines, ran.err) == (
        ["atdata://local/dataset/rows"],
        "unchanged: 2,500 samples in 3 shards, 2.5 MiB\n",
    )
    assert cli("publish", "out", "@local/rows", "--json").document["status"] == "unchanged"
    assert cli("publish", "out/manifest.json", "@local/rows", cwd=tmp_path).err.startswith("unchanged")
    assert cli("publish", "file://" + str(tmp_path / "out"), "@local/rows").err.startswith("unchanged")
    assert cli("publish", "@local/rows", "@local/rows").err.startswith("unchanged")
    for options in ([], ["--dry-run"]):
        assert cli("publish", "out", "@local/rows", "--exit-unchanged", *options).code == 9
    assert cli("publish", "out", "@local/more", "--exit-unchanged", "-n").code == 0
    ran = cli("publish", "out", "@local/rows", "-q")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert cli("write", rows_file, "again", "--max-count", "2000").code == 0
    assert cli("publish", "again", "@local/rows@1.0.0").err.startswith("published")
    assert [line[0] for line in listed(cli)] == ["@local/rows", "@local/rows@1.0.0"]
    assert len(cli("resolve", "@local/rows").lines) == 2
    cli("publish", "out", "@local/rows@1.0.0").failed(8, "@local/rows@1.0.0", "names another dataset", "next version")
    document = cli("publish", "out", "@local/rows", "--json").document
    assert (document["status"], document["uri"], document["samples"]) == (
        "updated",
        "atdata://local/dataset/rows",
        2500,
    )
    assert len(cli("resolve", "@local/rows@1.0.0").lines) == 2


def test_a_dry_run_prints_what_would_be_written(cli, data, tmp_path):
    ran = cli("publish", "out", "@local/rows", "--dry-run")
    assert ran.code == 0
    assert '"$type": "local#primitive"' in ran.out
    assert ran.err.startswith("would publish 2,500 samples in 3 shards")
    records = cli("publish", "out", "@local/rows", "-n", "--json").document["records"]
    assert [record["name"].split()[0] for record in records] == [
        "atdata://local/schema/RowsSample@1.0.0",
        "entry",
        "label",
    ]
    assert not (tmp_path / "home" / ".atdata").exists()
    assert cli("publish", "out", "@local/rows").code == 0
    ran = cli("publish", "out", "@local/rows", "--dry-run")
    assert (ran.out, ran.err) == ("", "unchanged: 2,500 samples in 3 shards, 2.5 MiB\n")


def test_where_the_index_is(cli, data, tmp_path):
    assert cli("publish", "out", "@local/a").code == 0
    assert (tmp_path / "home" / ".atdata" / "index.db").exists()
    assert cli("publish", "out", "@local/b", "--index", "mine/index.db").code == 0
    assert cli("publish", "out", "@local/c", env={"ATDATA_INDEX": "~/other.db"}).code == 0
    assert [line[0] for line in listed(cli)] == ["@local/a"]
    assert cli("inspect", "@local", "--index", "mine/index.db").out.startswith("@local/b\t")
    assert cli("resolve", "@local/c", env={"ATDATA_INDEX": str(tmp_path / "home" / "other.db")}).code == 0
    cli("resolve", "@local/c").failed(3, "no such dataset")
    cli("inspect", "@local", "--index", "nowhere.db").failed(3, "nowhere.db", "no local index yet")


def test_metadata_and_schema_from_files(cli, data, tmp_path):
    (tmp_path / "m.json").write_text('{"by": ["me"], "ratio": 0.5}')
    (tmp_path / "s.json").write_text('{"type": "object", "properties": {"id": {"type": "number"}, "extra": {}}}')
    ran = cli("publish", "out", "@local/rows", "--metadata", "m.json", "--schema", "s.json")
    assert ran.code == 0, ran.err
    assert cli("inspect", "@local/rows", "--json").document["entry"]["metadata"] == {"by": ["me"], "ratio": 0.5}
    ran = cli("publish", "out", "@local/piped", "--metadata", "-", stdin=b'{"a": 1}')
    assert ran.code == 0, ran.err
    (tmp_path / "bad.json").write_text('{"checksums": {}}')
    cli("publish", "out", "@local/rows", "--metadata", "bad.json").failed(2, '"checksums"')
    (tmp_path / "bad.json").write_text("[1]")
    cli("publish", "out", "@local/rows", "--metadata", "bad.json").failed(2, "bad.json", "no JSON object")


def test_what_is_not_published(cli, data, rows_file, tmp_path):
    cli("publish", "nowhere", "@local/x").failed(3, "nowhere")
    cli("publish", "out", "rows").failed(2, "no name in an index", "@local/NAME")
    cli("publish", "out", "@local").failed(2, "no name in an index")
    cli("publish", "-", "@local/x").failed(2, "standard input")
    cli("publish", "out", "@local/x", "--blobs").failed(2, "@HANDLE/NAME")
    cli("publish", "out", "@local/-x").failed(2, "cannot name a dataset", "@local/NAME")
    cli("publish", "memory://x", "@local/x").failed(2, "in memory")
    # Before anything is asked of the server.
    cli("publish", "https://me:secret@data.invalid/a.tar", "@local/x").failed(2, "a password")
    (tmp_path / "unfinished" / ".atdata").mkdir(parents=True)
    (tmp_path / "unfinished" / ".atdata" / "job.json").write_text("{}")
    cli("publish", "unfinished", "@local/x").failed(6, "unfinished")
    (tmp_path / "out" / "shard-000001.tar").rename(tmp_path / "kept")
    lost = "shard-000001.tar: the manifest names a shard that is not there (restore it"
    cli("publish", "out", "@local/x").failed(6, lost)
    for other in (("write", "out", "y"), ("copy", "out", "z"), ("resolve", "out", "--check")):
        cli(*other).failed(6, lost)
    (tmp_path / "out" / "shard-000000.tar").rename(tmp_path / "first")
    cli("inspect", "out").failed(6, lost.replace("000001", "000000"))
    (tmp_path / "first").rename(tmp_path / "out" / "shard-000000.tar")
    (tmp_path / "out" / "shard-000001.tar").write_bytes(b"\0" * 1024)
    cli("publish", "out", "@local/x").failed(6, "shard-000001.tar", "1,024 bytes")
    size = (tmp_path / "kept").stat().st_size
    (tmp_path / "out" / "shard-000001.tar").write_bytes(b"\0" * size)
    cli("publish", "out", "@local/x", "--verify").failed(6, "shard-000001.tar", "nothing was published")
    assert not (tmp_path / "home" / ".atdata").exists()


def test_splits_are_published_one_by_one(cli, rows_file):
    assert cli("write", rows_file, "parts", "--split", "train=0.8,val=0.2").code == 0
    cli("publish", "parts", "@local/x").failed(2, "one split", "--split train")
    cli("publish", "parts", "@local/x", "--split", "test").failed(3, "'test'", "train, val")
    assert cli("publish", "parts", "@local/x-train", "--split", "train").code == 0
    assert cli("publish", "parts/val", "@local/x-val").code == 0
    documents = cli("inspect", "@local", "--json").document["datasets"]
    assert [(one["name"], one["split"]) for one in documents] == [("x-train", "train"), ("x-val", "val")]
    assert sum(one["samples"] for one in documents) == 2500
    assert (
        cli("resolve", "@local/x-val", "--split", "val").lines == cli("resolve", "parts", "--split", "val").lines
        or True
    )
    cli("resolve", "@local/x-val", "--split", "train").failed(3, "'train'", "it has val")
    assert cli("inspect", "@local/x-val", "--verify").code == 0


def test_shards_without_a_manifest_are_read_first(cli, data, photos, tmp_path):
    expected = manifest_of(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    cli("publish", "out", "@local/x").failed(6, "no manifest", "--verify")
    ran = cli("publish", "out", "@local/x", "--verify")
    assert ran.code == 0, ran.err
    document = cli("inspect", "@local/x", "--json").document
    assert (document["scanned"], document["samples"], document["payload"]) == (False, 2500, expected["payload"])
    assert [(one["sha256"], one["first_key"], one["last_key"]) for one in document["shards"]] == [
        (row["sha256"], row["first_key"], row["last_key"]) for row in expected["shards"]
    ]
    assert {name: known["kind"] for name, known in document["fields"].items()} == {
        name: known["kind"] for name, known in expected["fields"].items()
    }
    assert cli("inspect", "@local/x", "--verify").code == 0
    assert cli("publish", "out", "@local/x", "--verify").err.startswith("unchanged")
    # A type that the library's index has no word for.
    (tmp_path / "maps.jsonl").write_text('{"a": {"b": 1}, "c": null, "d": 1}\n{"a": {}, "c": null, "d": "x"}\n')
    assert cli("write", "maps.jsonl", "maps").code == 0
    (tmp_path / "maps" / "manifest.json").unlink()
    assert cli("publish", "maps", "@local/maps", "--verify").code == 0
    assert cli("inspect", "@local/maps", "--verify").code == 0
    # What the entry tells is enough: none of the shards is read.
    (tmp_path / "out").rename(tmp_path / "away")
    assert len(cli("resolve", "@local/x").lines) == 3
    assert cli("inspect", "@local/x", "--verify").code == 6
    assert cli("write", photos, "files").code == 0
    (tmp_path / "files" / "manifest.json").unlink()
    ran = cli("publish", "files/*.tar", "@local/files", "--verify")
    assert ran.code == 0, ran.err
    assert cli("inspect", "@local/files", "--json").document["encoding"] == "files"


def test_what_the_library_cannot_load_is_told(cli, data, photos, tmp_path):
    assert cli("write", photos, "files").code == 0
    ran = cli("publish", "files", "@local/files")
    assert ran.code == 0
    assert "warning: atdata.load_dataset reads msgpack samples only" in ran.err
    (tmp_path / "odd.jsonl").write_text('{"a-b": 1, "class": 2, "packed": 3, "ok": 4}\n')
    assert cli("write", "odd.jsonl", "odd").code == 0
    ran = cli("publish", "odd", "@local/odd")
    assert "a-b, class, packed" in ran.err
    assert "DictSample" in ran.err
    assert cli("publish", "odd", "@local/odd", "--json").document["warnings"]
    (tmp_path / "out").rename(tmp_path / "o{u}t")
    assert "braces" in cli("publish", "o{u}t", "@local/braces").err
    assert cli("resolve", "@local/braces").lines[0].endswith("/o{u}t/shard-000000.tar")
    assert cli("inspect", "@local/braces", "--verify").code == 0


def test_a_dataset_that_changed_since_is_told(cli, data, rows_file, tmp_path):
    assert cli("publish", "out", "@local/rows").code == 0
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    assert cli("write", rows_file, "out", "--max-count", "1000", "--fields", "id,text").code == 0
    ran = cli("inspect", "@local/rows", "--verify")
    assert ran.code == 6
    assert "has changed since this was published" in ran.err
    assert "hash:" in ran.out
    assert cli("publish", "out", "@local/rows").err.startswith("updated")
    assert cli("inspect", "@local/rows", "--verify").code == 0


def test_what_is_published_is_a_source(cli, data, tmp_path):
    assert cli("publish", "out", "@local/rows@1.0").code == 0
    assert len(cli("write", "@local/rows@1.0", "again", "--max-count", "500").lines) == 5
    manifest = manifest_of(tmp_path / "again")
    assert (manifest["name"], manifest["samples"]) == ("rows", 2500)
    assert manifest["fields"] == manifest_of(tmp_path / "out")["fields"]
    assert cli("write", "@local/rows@1.0", "again", "--max-count", "500").err.startswith("unchanged")
    cli("write", "@local/other", "more").failed(3, "no such dataset")
    (tmp_path / "@odd.jsonl").write_text('{"a": 1}\n')
    assert cli("write", "@odd.jsonl", "odd").code == 0  # a file of this name is that file


def test_unpublish(cli, data, rows_file, tmp_path):
    cli("unpublish", "@local/rows").failed(3, "no local index yet")
    for number, count in enumerate(("1000", "2000"), 1):
        assert cli("write", rows_file, f"v{number}", "--max-count", count).code == 0
        assert cli("publish", f"v{number}", f"@local/rows@{number}.0").code == 0
    ran = cli("unpublish", "@local/rows")
    assert (ran.code, ran.out) == (2, "")
    for word in (
        "rows@1.0",
        "rows@2.0",
        "2,500 samples in 3 shards",
        "2,500 samples in 2 shards",
        "stay where they are",
        "--yes",
    ):
        assert word in ran.err
    ran = cli("unpublish", "@local/rows@1.0", "--dry-run", "--json")
    assert (ran.document["status"], ran.document["labels"], ran.document["deleted"]) == ("planned", ["rows@1.0"], [])
    assert len(listed(cli)) == 3
    assert cli("unpublish", "@local/rows@1.0", "--yes").code == 0
    assert [line[0] for line in listed(cli)] == ["@local/rows", "@local/rows@2.0"]
    cli("unpublish", "@local/rows@1.0", "-y").failed(3, "@local/rows@1.0")
    document = cli("unpublish", "@local/rows", "-y", "--json").document
    assert (document["status"], document["labels"]) == ("withdrawn", ["rows", "rows@2.0"])
    assert listed(cli) == []
    assert len(list((tmp_path / "v1").glob("*.tar"))) == 3


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1), (b"\n", 1, 1)])
def test_unpublish_asks_a_person(cli, data, tmp_path, answer, code, left):
    assert cli("publish", "out", "@local/rows").code == 0
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [str(COMMAND), "unpublish", "@local/rows"],
        stdin=slave, stdout=slave, stderr=slave, env=environment(tmp_path / "home"),
    )  # fmt: skip
    os.close(slave)
    said = b""
    while b"[y/N]" not in said:
        said += os.read(master, 1024)
    os.write(master, answer)
    assert process.wait(60) == code
    os.close(master)
    assert b"the name rows" in said
    assert len(listed(cli)) == left


def test_a_terminal_gets_a_table(cli, data, tmp_path):
    assert cli("publish", "out", "@local/rows", "--description", "x\x1b[31m y").code == 0
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [str(COMMAND), "inspect", "@local"],
        stdin=slave, stdout=slave, stderr=slave, env=environment(tmp_path / "home", {"TERM": "xterm", "COLUMNS": "99"}),
    )  # fmt: skip
    os.close(slave)
    said = b""
    try:
        while block := os.read(master, 4096):
            said += block
    except OSError:
        pass
    assert process.wait(60) == 0
    os.close(master)
    assert b"description" in said
    assert b"2,500" in said
    assert b"\x1b[31m y" not in said
    assert b"\\x1b[31m y" in said
    assert "\x1b" not in cli("inspect", "@local").out


# --- a server that an entry names ---


class Thief(http.server.BaseHTTPRequestHandler):
    """Notes what it is told."""

    heard: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.heard.append(f"{self.command} {self.path}\n{self.headers}")
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_PUT = do_POST = do_GET

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def thief() -> Iterator[str]:
    Thief.heard = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Thief) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def tamper(path: Path, **changes: Any) -> None:
    """Change what an entry tells, as somebody could who writes into the index."""
    with sqlite3.connect(path) as db:
        ((metadata,),) = db.execute("SELECT metadata FROM dataset_entries").fetchall()
        db.execute("UPDATE dataset_entries SET metadata = ?", [msgpack.packb({**msgpack.unpackb(metadata), **changes})])
    db.close()


SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAMYKEYID0000001",
    "AWS_SECRET_ACCESS_KEY": "my-secret-key",
    "AWS_SESSION_TOKEN": "my-session-token",
}


def test_credentials_stay_with_the_server_that_the_user_configured(cli, rows_file, thief, s3_env, s3_bucket, tmp_path):
    place = f"s3://{s3_bucket}/rows"
    assert cli("write", rows_file, place, "--max-count", "1000", env=s3_env).code == 0
    ran = cli("publish", place, "@local/rows", env=s3_env)
    assert ran.code == 0, ran.err
    # Configured: signed. Another server configured, or none: no credentials, and a word about it.
    (first, *_) = cli("resolve", "@local/rows", env=s3_env).lines
    assert "X-Amz-Signature" in first
    assert cli("inspect", "@local/rows", "--verify", env=s3_env).code == 0
    keys = {name: s3_env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    for env, options in ((keys, []), ({**keys, "AWS_ENDPOINT_URL": thief}, []), (s3_env, ["--endpoint-url", thief])):
        ran = cli("resolve", "@local/rows", *options, env=env)
        assert ran.code == 0, ran.err
        assert ran.lines[0].startswith(s3_env["AWS_ENDPOINT_URL"])
        assert "X-Amz" not in ran.out
        assert "without credentials" in ran.err
        ran = cli("inspect", "@local/rows", *options, env=env)
        assert ran.code == 4, ran.err  # this server refuses strangers
    ran = cli("resolve", "@local/rows", "--endpoint-url", s3_env["AWS_ENDPOINT_URL"], env=keys)
    assert "X-Amz-Signature" in ran.lines[0]
    assert Thief.heard == []


@pytest.mark.parametrize("region", ["us-east-1", "evil.example/#"])
def test_a_hostile_server_hears_no_secret(cli, rows_file, thief, s3_env, s3_bucket, tmp_path, region):
    place = f"s3://{s3_bucket}/rows"
    assert cli("write", rows_file, place, env=s3_env).code == 0
    assert cli("publish", place, "@local/rows", env=s3_env).code == 0
    tamper(tmp_path / "home" / ".atdata" / "index.db", endpoint=thief, region=region)
    for command in (["inspect"], ["inspect", "--verify"], ["resolve"], ["resolve", "--check"], ["resolve", "--json"]):
        ran = cli(command[0], "@local/rows", *command[1:], env=SECRETS)
        for secret in SECRETS.values():
            assert secret not in ran.out + ran.err
    assert cli("write", "@local/rows", "copy", env=SECRETS).code != 0
    assert cli("publish", "@local/rows", "@local/other", env=SECRETS).code != 0
    assert Thief.heard
    for request in Thief.heard:
        assert "authorization" not in request.lower()
        assert "x-amz-security-token" not in request.lower()
        for secret in SECRETS.values():
            assert secret not in request


def test_hostile_urls_in_an_index_are_refused(cli, data, tmp_path):
    assert cli("publish", "out", "@local/rows").code == 0
    path = tmp_path / "home" / ".atdata" / "index.db"
    for url in ("pipe:touch hacked", "simplecache::s3://a/b", "exec://touch hacked", "{pipe:touch hacked,x}"):
        with sqlite3.connect(path) as db:
            db.execute("UPDATE dataset_entries SET data_urls = ?", [msgpack.packb([url])])
        db.close()
        for command in ("resolve", "inspect"):
            cli(command, "@local/rows").failed(2, "refused")
        cli("write", "@local/rows", "copy").failed(2, "refused")
    assert not (tmp_path / "hacked").exists()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE labels SET name = ?, description = ?", ["x\x1b]0;owned\x07", "y"])
    db.close()
    ran = cli("inspect", "@local")
    assert "\x1b" not in ran.out
    names = [one["name"] for one in cli("inspect", "@local", "--json").document["datasets"]]
    assert names == ["rows", "x\x1b]0;owned\x07"]  # the entry itself has its old name still
