"""From references to shards: what an entry tells, and what it must not make this program do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atdata_cli import LocalStore
from atdata_cli.errors import AtdataError, IntegrityError, NotFoundError, UsageError
from atdata_cli.indexes.atmosphere import AtmosphereIndex
from atdata_cli.indexes.base import Entry, EntryShard
from atdata_cli.indexes.lookup import Found, _is_amazon, _of_entry, _same_server, lookup
from atdata_cli.indexes.registry import IndexOptions, open_index
from atdata_cli.refs import parse
from atdata_cli.stores.inputs import StoreFiles
from atdata_cli.stores.registry import StoreOptions

PUBLIC = parse("@alice.example.org/rows")
LOCAL = parse("@local/rows")


def entry(*urls: str, **changes: Any) -> Entry:
    made = Entry(uri="at://x", key="k", name="rows", version=None, shards=tuple(map(EntryShard, urls)))
    return replace(made, **changes)


def found(one: Entry, reference: Any = PUBLIC, files: StoreFiles | None = None, **arguments: Any) -> Found:
    arguments = {"with_manifest": False, **arguments}
    return _of_entry(reference, one, files or StoreFiles(), **arguments)


@pytest.mark.parametrize(
    "url",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "passwd",
        "memory://x/y.tar",
        "sftp://host/x.tar",
        "gs://b/x.tar",
        "ftp://h/x.tar",
    ],
)
def test_other_people_s_entries_name_public_places_only(url):
    with pytest.raises(IntegrityError, match="no public place"):
        found(entry("https://example.org/0.tar", url))
    assert found(entry(url), LOCAL).located.shards[0].url == url


@pytest.mark.parametrize("url", ["pipe:cat x", "https://a::pipe:cat x", "PIPE:x", " pipe:x", "shell:x"])
@pytest.mark.parametrize("reference", [PUBLIC, LOCAL])
def test_commands_are_refused_everywhere(url, reference):
    with pytest.raises(AtdataError):
        found(entry(url), reference)


def test_an_entry_without_shards():
    with pytest.raises(NotFoundError, match="names no shards"):
        found(entry())


def test_what_an_entry_tells_is_as_good_as_a_manifest():
    shards = [EntryShard(f"https://h/{number}.tar", "ab" * 32, 1024, 5, "a", "b") for number in range(2)]
    schema = {
        "properties": {
            "x": {"type": "integer"},
            "y": {"type": ["string", "null"]},
            "z": {"$ref": "#/ndarray", "dtype": "f4"},
        },
        "required": ["x", "y"],
    }
    whole = entry(samples=10, bytes=2048, payload=99, encoding="msgpack", schema=schema, split="train", job="j")
    located = found(replace(whole, shards=shards)).located
    assert located.manifest is not None
    assert (located.manifest.samples, located.manifest.payload, located.manifest.split) == (10, 99, "train")
    assert located.manifest.fields == {
        "x": {"kind": "integer", "samples": 10},
        "y": {"kind": "string"},
        "z": {"kind": "ndarray", "dtypes": ["f4"], "shape": None},
    }
    assert [shard.row and shard.row.name for shard in located.shards] == ["0.tar", "1.tar"]
    for lacking in ({"payload": None}, {"samples": None}, {"shards": [shards[0], replace(shards[1], sha256=None)]}):
        located = found(replace(whole, **{"shards": shards, **lacking})).located
        assert located.manifest is None
        assert located.shards[0].expected_sha256 == "ab" * 32


def test_the_manifest_beside_the_shards_is_used_if_it_names_them(tmp_path: Path):
    urls = LocalStore(tmp_path).write_shards([{"a": number} for number in range(30)], prefix="out", maxcount=10)
    said = [EntryShard(url, urls.checksums[url]) for url in urls]
    one = found(entry(shards=said), LOCAL, with_manifest=True)
    assert one.warnings == []
    assert one.located.manifest is not None
    assert one.located.manifest.samples == 30
    for other in (said[:2], [replace(said[0], sha256="00" * 32), *said[1:]], said[::-1]):
        changed = found(entry(shards=other), LOCAL, with_manifest=True)
        assert "has changed since this was published" in changed.warnings[0]
        assert changed.located.manifest is None
        assert [shard.url for shard in changed.located.shards] == [shard.url for shard in other]
    (tmp_path / "out" / "manifest.json").write_text('{"format": "atdata-manifest", "version": 99}')
    assert "cannot be used" in found(entry(shards=said), LOCAL, with_manifest=True).warnings[0]
    (tmp_path / "out" / "manifest.json").unlink()
    assert found(entry(shards=said), LOCAL, with_manifest=True).warnings == []


@pytest.mark.parametrize(
    "endpoint",
    [
        "file:///etc",
        "https://user:pass@host",
        "ftp://host",
        "https://",
        "http://host:x",
        "https://[::1",
        "",
        "host:9000",
    ],
)
def test_what_is_no_server_is_refused(endpoint):
    with pytest.raises(IntegrityError, match="names a server that is none"):
        found(entry("s3://bucket/k.tar", endpoint=endpoint))


@pytest.mark.parametrize(
    ("mine", "named", "same"),
    [
        (None, "https://s3.amazonaws.com", True),
        (None, "https://s3.eu-central-1.amazonaws.com", True),
        (None, "https://s3.dualstack.eu-central-1.amazonaws.com/", True),
        (None, "https://s3-eu-west-1.amazonaws.com:443", True),
        (None, "http://s3.amazonaws.com", False),  # not encrypted
        (None, "https://s3.amazonaws.com:8443", False),
        (None, "https://s3.amazonaws.com.evil.example", False),
        (None, "https://evil-s3.amazonaws.com", False),
        (None, "https://ec2-1-2-3-4.compute.amazonaws.com", False),  # anybody's
        (None, "https://abc.execute-api.us-east-1.amazonaws.com", False),
        (None, "https://s3.a.b.c.amazonaws.com", False),
        ("https://minio.example", "https://minio.example/", True),
        ("https://minio.example", "https://MINIO.example:443", True),
        ("http://minio.example", "https://minio.example", False),
        ("https://minio.example", "https://minio.example:9000", False),
        ("https://minio.example", "https://minio.example/other", False),
        ("https://minio.example", "https://minio.example.evil.example", False),
        ("https://minio.example", "https://s3.amazonaws.com", False),
    ],
)
def test_whose_server_it_is(mine, named, same):
    assert _same_server(mine, named) is same
    if mine is None:
        assert _is_amazon(named) is same


def test_how_the_bucket_of_an_entry_is_reached():
    mine = StoreOptions(endpoint_url="https://mine.example", region="here", options={"retries": "1"})
    files = StoreFiles(mine)
    assert found(entry("s3://a/k.tar"), files=files).warnings == []
    assert found(entry("s3://b/k.tar", endpoint="https://mine.example/"), files=files).warnings == []
    other = found(entry("s3://c/k.tar", endpoint="https://other.example", region="there"), files=files)
    assert "without credentials" in other.warnings[0]
    assert found(entry("s3://d/k.tar", endpoint="https://other.example", region="x/#"), files=files).warnings
    assert [files.options_for(f"s3://{bucket}/x") for bucket in "abe"] == [mine] * 3
    assert files.options_for("s3://c/x") == StoreOptions(
        endpoint_url="https://other.example", region="there", anonymous=True, options={"retries": "1"}
    )
    assert files.options_for("s3://d/x").region == "us-east-1"
    # One bucket's name on two servers in one command.
    for again in (entry("s3://c/k.tar"), entry("s3://a/k.tar", endpoint="https://other.example")):
        with pytest.raises(UsageError, match="two places"):
            found(again, files=files)
    with pytest.raises(UsageError, match="two places"):
        lookup("s3://c/k.tar", files)
    assert found(entry("https://h/k.tar", endpoint="https://other.example"), files=files).warnings == []


def test_kinds_of_references(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = StoreFiles()
    urls = LocalStore(tmp_path).write_shards([{"a": 1}], prefix="out")
    assert lookup("out", files).entry is None
    assert [shard.url for shard in lookup("out/*.tar", files).located.shards] == ["out/shard-000000.tar"]
    assert urls == [str(tmp_path / "out" / "shard-000000.tar")]
    with pytest.raises(UsageError, match="whole index"):
        lookup("@local", files)
    options = IndexOptions(file=str(tmp_path / "index.db"))
    with pytest.raises(NotFoundError, match="no local index yet"):
        lookup("@local/rows", files, options)
    assert open_index("local", options) is not None


def test_a_strangers_record_names_no_account_of_this_machine():
    index = AtmosphereIndex("alice.example.com")
    index.__dict__["_reader"] = SimpleNamespace(pds_url="https://pds.example.com")
    for did in ("did:web:localhost%3A22", "did:web:127.0.0.1"):
        with pytest.raises(IntegrityError, match="an account on this machine"):
            index._other(did)
