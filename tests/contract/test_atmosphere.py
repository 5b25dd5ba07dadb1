"""The atmosphere index on a real PDS: what is written, read back and withdrawn, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from atdata_cli.atproto.records import ENTRY, LABEL, SCHEMA
from atdata_cli.atproto.session import Session
from atdata_cli.errors import AuthError, NotFoundError, OccupiedError, UsageError
from atdata_cli.indexes.atmosphere import AtmosphereIndex
from atdata_cli.indexes.base import EntryShard, Index, Publication
from atdata_cli.shards.reader import Located
from atdata_cli.stores.inputs import StoreFiles
from tests.servers.pds import Account, PDSServer
from tests.unit.test_records import THEIR_ENTRY, THEIR_LABEL, THEIR_SCHEMA

SCHEMA_BODY = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {"text": {"type": "string"}, "score": {"type": ["number", "null"], "minimum": 0.5}},
    "required": ["text"],
}
FIELDS = {"text": {"kind": "string", "samples": 6}, "score": {"kind": "number", "samples": 4, "nulls": 2}}


def publication(url: str = "s3://bucket/p/shard-{:06d}.tar", count: int = 2, **changes: Any) -> Publication:
    shards = tuple(
        EntryShard(
            url.format(number), hashlib.sha256(b"%d" % number).hexdigest(), 10240 + number, 3, f"{number * 3:010d}", "z"
        )
        for number in range(count)
    )
    made = Publication(
        name="mini",
        located=Located("x", ()),
        files=StoreFiles(),
        shards=shards,
        schema=SCHEMA_BODY,
        schema_name="MiniSample",
        encoding="msgpack",
        samples=3 * count,
        bytes=sum(shard.bytes or 0 for shard in shards),
        payload=7,
        fields=FIELDS,
        split="train",
        job="ab" * 32,
        endpoint="https://s3.example.org",
        region="eu-west-1",
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def index(pds_account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path) -> AtmosphereIndex:
    """The index of an account that is logged in."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name, value in pds_account.env.items():
        monkeypatch.setenv(name, value)
    return AtmosphereIndex(pds_account.handle)


@pytest.fixture
def anybody(index: AtmosphereIndex, pds_account: Account, monkeypatch: pytest.MonkeyPatch) -> AtmosphereIndex:
    """The same for somebody without credentials."""
    monkeypatch.delenv("ATDATA_PASSWORD")
    return AtmosphereIndex(pds_account.did)


def counts(account: Account) -> tuple[int, int, int]:
    return len(account.records(SCHEMA)), len(account.records(ENTRY)), len(account.records(LABEL))


def test_it_is_an_index(index):
    assert isinstance(index, Index)


def test_what_is_published_is_found_without_credentials(index, pds_account, monkeypatch):
    done = index.publish(publication(description="naïve", tags=["a"], license="MIT", metadata={"made": {"by": 0.5}}))
    assert done.status == "published"
    assert done.uri.startswith(f"at://{pds_account.did}/{ENTRY}/")
    assert [uri.split("/")[3] for uri, _ in done.records] == [SCHEMA, ENTRY, LABEL]
    assert "minimum" in done.warnings[0]
    assert counts(pds_account) == (1, 1, 1)
    monkeypatch.delenv("ATDATA_PASSWORD")
    for authority in (pds_account.handle, pds_account.did):
        found = AtmosphereIndex(authority).find("mini")
        assert (found.uri, found.name, found.version) == (done.uri, "mini", None)
        assert (found.description, found.tags, found.license) == ("naïve", ("a",), "MIT")
        assert (found.samples, found.bytes, found.payload, found.split) == (6, 20481, 7, "train")
        assert (found.encoding, found.job, found.metadata) == ("msgpack", "ab" * 32, {"made": {"by": 0.5}})
        assert (found.endpoint, found.region) == ("https://s3.example.org", "eu-west-1")
        assert [(s.url, s.sha256, s.bytes, s.samples, s.first_key) for s in found.shards] == [
            (s.url, s.sha256, s.bytes, s.samples, s.first_key) for s in publication().shards
        ]
        assert found.schema is not None
        assert found.schema["required"] == ["score", "text"]
    assert AtmosphereIndex(pds_account.did).get(found.key).uri == done.uri
    assert [entry.uri for entry in AtmosphereIndex(pds_account.did).entries()] == [done.uri]


def test_twice_is_unchanged_and_what_changed_moves_the_label(index, pds_account):
    first = index.publish(publication(description="d", metadata={"a": 1}))
    before = pds_account.records(LABEL)
    again = index.publish(publication())
    assert (again.status, again.uri, again.records) == ("unchanged", first.uri, [])
    assert index.publish(publication(), dry_run=True).status == "unchanged"
    assert pds_account.records(LABEL) == before
    changed = index.publish(publication(count=3))
    assert changed.status == "updated"
    assert changed.uri != first.uri
    assert counts(pds_account) == (1, 2, 1)  # the schema is used again
    found = AtmosphereIndex(pds_account.did).find("mini")
    assert (found.uri, len(found.shards)) == (changed.uri, 3)
    assert (found.description, found.metadata) == ("d", {"a": 1})  # not said again, so kept
    # Back to what it was: the entry is there already.
    back = index.publish(publication())
    assert (back.status, back.uri) == ("updated", first.uri)
    assert counts(pds_account) == (1, 2, 1)
    without = index.publish(publication(description="", metadata={}))
    assert without.status == "updated"
    found = AtmosphereIndex(pds_account.did).find("mini")
    assert (found.description, found.metadata) == (None, {})


def test_a_changed_schema_gets_the_next_version(index, pds_account):
    index.publish(publication())
    schema = {**SCHEMA_BODY, "properties": {**SCHEMA_BODY["properties"], "more": {"type": "integer"}}}
    index.publish(publication(schema=schema))
    index.publish(publication(name="other", schema=schema))
    assert sorted(record["value"]["version"] for record in pds_account.records(SCHEMA)) == ["1.0.0", "1.0.1"]


def test_a_dry_run_says_what_it_would_write_and_writes_nothing(index, pds_account):
    planned = index.publish(publication(version="1.0.0"), dry_run=True)
    assert planned.status == "planned"
    assert [uri.split("/")[3] for uri, _ in planned.records] == [SCHEMA, ENTRY, LABEL, LABEL]
    assert counts(pds_account) == (0, 0, 0)
    done = index.publish(publication(version="1.0.0"))
    times = {"createdAt", "schemaRef", "datasetUri"}
    assert [{k: v for k, v in r.items() if k not in times} for _, r in done.records] == [
        {k: v for k, v in r.items() if k not in times} for _, r in planned.records
    ]
    written = {r["uri"]: r["value"] for c in (SCHEMA, ENTRY, LABEL) for r in pds_account.records(c)}
    assert written == dict(done.records)


def test_versions(index, pds_account, monkeypatch):
    one = index.publish(publication(version="1.0.0"))
    two = index.publish(publication(count=3, version="2.0.0"))
    assert counts(pds_account) == (1, 2, 3)
    anybody = AtmosphereIndex(pds_account.did)
    assert anybody.find("mini").uri == two.uri
    assert anybody.find("mini", "1.0.0").uri == one.uri
    assert anybody.find("mini", "2.0.0").version == "2.0.0"
    with pytest.raises(NotFoundError) as caught:
        anybody.find("mini", "3.0.0")
    assert "1.0.0, 2.0.0" in str(caught.value.hint)
    assert [(entry.name, entry.version, entry.uri) for entry in anybody.entries()] == [
        ("mini", None, two.uri),
        ("mini", "1.0.0", one.uri),
        ("mini", "2.0.0", two.uri),
    ]
    assert index.publish(publication(count=3, version="2.0.0")).status == "unchanged"
    with pytest.raises(OccupiedError):
        index.publish(publication(count=4, version="2.0.0"))
    # An older version published again under its own label: the plain name goes back to it.
    assert index.publish(publication(version="1.0.0")).status == "updated"
    assert anybody.find("mini").uri == one.uri
    assert counts(pds_account) == (1, 2, 3)


def test_more_labels_and_entries_than_a_page(index, pds_account):
    first = index.publish(publication(name="needle"))
    writes = [
        {
            "$type": "com.atproto.repo.applyWrites#create",
            "collection": LABEL,
            "value": THEIR_LABEL | {"name": f"hay-{number}", "datasetUri": first.uri},
        }
        for number in range(150)
    ]
    body = {"repo": pds_account.did, "validate": False, "writes": writes}
    pds_account.xrpc("com.atproto.repo.applyWrites", body)
    anybody = AtmosphereIndex(pds_account.did)
    assert anybody.find("needle").uri == first.uri
    assert anybody.find("hay-149", "1.0.0").uri == first.uri
    assert len(list(anybody.entries())) == 151
    assert index.publish(publication(name="needle")).status == "unchanged"


def test_what_the_reference_library_wrote_is_read(index, pds_account):
    def put(collection: str, value: dict[str, Any]) -> str:
        body = {"repo": pds_account.did, "collection": collection, "record": value, "validate": False}
        return str(pds_account.xrpc("com.atproto.repo.createRecord", body)["uri"])

    schema = put(SCHEMA, THEIR_SCHEMA)
    # A blob must be there; what else it says is verbatim.
    storage = {
        "$type": "science.alt.dataset.storageS3",
        "bucket": "theirs",
        "endpoint": "https://minio.example.org",
        "shards": [{"key": "a/b.tar", "checksum": {"algorithm": "none", "digest": ""}}],
    }
    entry = put(ENTRY, THEIR_ENTRY | {"schemaRef": schema, "storage": storage})
    unlabelled = AtmosphereIndex(pds_account.did).find("mini")
    assert unlabelled.uri == entry
    old = put(LABEL, {"$type": LABEL, "name": "mini", "datasetUri": entry, "createdAt": "2026-01-01T00:00:00Z"})
    put(LABEL, THEIR_LABEL | {"datasetUri": entry})
    found = AtmosphereIndex(pds_account.handle).find("mini")
    assert (found.version, found.split, found.endpoint) == ("1.0.0", "train", "https://minio.example.org")
    assert found.metadata == {"foo": 1, "createdBy": "me"}
    assert [(shard.url, shard.sha256) for shard in found.shards] == [("s3://theirs/a/b.tar", None)]
    assert found.schema is not None
    assert found.schema["properties"]["image"]["$ref"].endswith("ndarray")
    # Ours takes over the plain label where it is, and becomes the newest although theirs is of the future.
    done = index.publish(publication())
    assert done.status == "updated"
    assert done.records[-1][0] == old
    assert AtmosphereIndex(pds_account.did).find("mini").uri == done.uri


def test_the_deprecated_storage_and_http_are_read(index, pds_account):
    def put(name: str, storage: dict[str, Any]) -> None:
        value = THEIR_ENTRY | {"storage": storage, "name": name}
        body = {"repo": pds_account.did, "collection": ENTRY, "record": value, "validate": False}
        pds_account.xrpc("com.atproto.repo.createRecord", body)

    old = {"$type": "science.alt.dataset.storageExternal", "urls": ["https://e.org/{0..2}.tar", "s3://b/x.tar"]}
    put("old", old)
    put("local", old | {"urls": ["/etc/passwd"]})
    put("command", old | {"urls": ["pipe:cat /etc/passwd"]})
    put(
        "file",
        {
            "$type": "science.alt.dataset.storageHttp",
            "shards": [{"url": "file:///x", "checksum": {"algorithm": "x", "digest": "y"}}],
        },
    )
    anybody = AtmosphereIndex(pds_account.did)
    assert [shard.url for shard in anybody.find("old").shards] == [
        "https://e.org/0.tar",
        "https://e.org/1.tar",
        "https://e.org/2.tar",
        "s3://b/x.tar",
    ]
    for name in ("local", "command", "file"):
        with pytest.raises(Exception, match="not followed") as caught:
            anybody.find(name)
        assert caught.value.exit_code == 6
    listed = [(entry.name, len(entry.shards), entry.problem is None) for entry in anybody.entries()]
    assert listed == [("command", 0, False), ("file", 0, False), ("local", 0, False), ("old", 4, True)]
    for name in ("local", "command", "file"):
        index.withdraw(index.plan_withdrawal(name))
    assert [record["value"]["name"] for record in pds_account.records(ENTRY)] == ["old"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"url": "/data/shard-{:06d}.tar"}, "path on this machine"),
        ({"url": "gs://bucket/{}.tar"}, "'gs:'"),
        ({"url": "http://localhost:8000/{}.tar"}, "'localhost'"),
        ({"url": "https://127.0.0.1/{}.tar"}, "127.0.0.1"),
        ({"url": "https://127.1/{}.tar"}, "127.1"),
        ({"url": "https://[::1]:80/{}.tar"}, "::1"),
        ({"url": "https://192.168.1.4/{}.tar"}, "192.168.1.4"),
        ({"url": "https://nas/{}.tar"}, "nas"),
        ({"endpoint": "http://127.0.0.1:8333"}, "127.0.0.1"),
        ({"endpoint": "https://key:secret@s3.example.org"}, "public"),
        ({"url": "https://user:pw@example.org/{}.tar"}, "public"),
        ({"url": "https://example.org/{}.tar?X-Amz-Signature=abc"}, "public"),
        ({"description": "x" * 5001}, "description"),
        ({"tags": ["x"] * 31}, "tags"),
        ({"version": "1" * 51}, "version"),
        ({"count": 2000}, "2,000 shards"),
        ({"url": "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/blob/bafkreiaaaaaaaaaaaa{}"}, "another account"),
    ],
)
def test_what_is_refused_before_anything_is_sent(index, pds_account, changes, word):
    for dry_run in (True, False):
        with pytest.raises(UsageError) as caught:
            index.publish(publication(**changes), dry_run=dry_run)
        assert word in caught.value.message
        assert caught.value.hint
        assert "secret" not in str(caught.value)
    assert counts(pds_account) == (0, 0, 0)


def test_long_keys_are_left_out_before_shards_are_too_many(index, pds_account):
    long = publication(count=700)
    shards = [dataclasses.replace(shard, first_key="k" * 300) for shard in long.shards]
    done = index.publish(dataclasses.replace(long, shards=shards))
    found = AtmosphereIndex(pds_account.did).get(done.uri.rpartition("/")[2])
    assert [(shard.samples, shard.bytes, shard.first_key) for shard in found.shards[:2]] == [
        (3, 10240, None),
        (3, 10241, None),
    ]
    assert index.publish(dataclasses.replace(long, shards=shards)).status == "unchanged"


@pytest.mark.parametrize(
    "place", ["s3://bucket/train/v1/shard-{:06d}.tar", "https://data.example.org/v1/shard-{:06d}.tar"]
)
def test_as_many_shards_as_an_entry_has_room_for(index, pds_account, place):
    """800 fit where the keys of their samples are left out; of more it is told how many would."""
    done = index.publish(publication(place, count=800))
    found = AtmosphereIndex(pds_account.did).get(done.uri.rpartition("/")[2])
    assert [shard.url for shard in found.shards] == [place.format(number) for number in range(800)]
    with pytest.raises(UsageError, match="1,500 shards are too many") as caught:
        index.publish(publication(place, count=1500))
    most = int(re.search(r"about (\d+) shards fit", str(caught.value.hint))[1])  # type: ignore[index]
    assert len(index.publish(publication(place, count=most - 5)).records) == 2
    assert counts(pds_account)[1:] == (2, 1)


def test_what_the_reference_library_cannot_load_is_told(index):
    files = index.publish(publication(name="files", encoding="files", fields={"jpg": {"kind": "image"}}), dry_run=True)
    assert any("files" in warning for warning in files.warnings)
    odd = publication(fields={"my-field": {"kind": "string", "samples": 6}})
    assert any("my-field" in warning for warning in index.publish(odd, dry_run=True).warnings)


def test_loopback_is_published_if_it_shall_be(index, pds_account):
    done = index.publish(publication(endpoint="http://127.0.0.1:8333", allow_local_url=True))
    assert AtmosphereIndex(pds_account.did).get(done.uri.rpartition("/")[2]).endpoint == "http://127.0.0.1:8333"


def test_nobody_publishes_in_anothers_name(index, pds_server: PDSServer):
    other = pds_server.account()
    for authority in (other.handle, other.did):
        with pytest.raises(AuthError, match="not logged in as"):
            AtmosphereIndex(authority).publish(publication())
    assert counts(other) == (0, 0, 0)


def test_of_two_that_publish_at_once_one_is_told(index, pds_account):
    def run(count: int) -> str:
        try:
            return AtmosphereIndex(pds_account.handle).publish(publication(count=count)).uri
        except OccupiedError:
            return ""

    with ThreadPoolExecutor(6) as pool:
        uris = [uri for uri in pool.map(run, range(2, 8)) if uri]
    # Some may have come one after another; but the label is one, and leads to one of those that were told so.
    assert len(pds_account.records(LABEL)) == 1
    assert AtmosphereIndex(pds_account.did).find("mini").uri in uris
    assert len(pds_account.records(ENTRY)) == len(uris)
    assert len(pds_account.records(SCHEMA)) == 1


def test_the_same_at_once_is_published_once(index, pds_account):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: AtmosphereIndex(pds_account.handle).publish(publication()), range(4)))
    assert len(pds_account.records(LABEL)) == 1
    assert AtmosphereIndex(pds_account.did).find("mini").shards


def before_put(session: Session, collection: str, act: Callable[[], object], number: int = 0) -> None:
    """Let another run do something just before this one writes its first record of a collection, or a later one."""
    put, left = session.put_record, [number]

    def late(into: str, *rest: Any) -> Any:
        if into == collection:
            left[0] -= 1
            if left[0] == -1:
                act()
        return put(into, *rest)

    session.put_record = late  # type: ignore[method-assign]


@pytest.mark.parametrize("version", [None, "1.0.0"])
def test_the_same_from_a_run_that_was_faster_is_unchanged(index, pds_account, version):
    won = []
    faster = AtmosphereIndex(pds_account.handle)
    before_put(index.account, ENTRY, lambda: won.append(faster.publish(publication(version=version))))
    late = index.publish(publication(version=version))
    assert (late.status, late.uri) == ("unchanged", won[0].uri)
    assert counts(pds_account) == (1, 1, 1 if version is None else 2)


def test_a_run_that_was_late_leaves_no_version_behind(index, pds_account):
    faster = AtmosphereIndex(pds_account.handle)
    before_put(index.account, LABEL, lambda: faster.publish(publication(count=3)), 1)
    with pytest.raises(OccupiedError, match="was faster"):
        index.publish(publication(version="1.0.0"))
    assert counts(pds_account) == (1, 1, 1)


def test_withdrawing(index, pds_account):
    one = index.publish(publication(version="1.0.0"))
    two = index.publish(publication(count=3))
    index.publish(publication(count=3, name="other"))
    with pytest.raises(NotFoundError):
        index.plan_withdrawal("nothing")
    plan = index.plan_withdrawal("mini", "1.0.0")
    assert (list(plan.labels), [entry.uri for entry in plan.entries]) == (["mini@1.0.0"], [one.uri])
    index.withdraw(plan)
    assert counts(pds_account) == (1, 2, 2)
    plan = index.plan_withdrawal("mini")
    assert (list(plan.labels), [entry.uri for entry in plan.entries]) == (["mini"], [two.uri])
    index.publish(publication(count=4))
    with pytest.raises(OccupiedError, match="another run"):
        index.withdraw(plan)
    index.withdraw(index.plan_withdrawal("mini"))
    with pytest.raises(NotFoundError):
        AtmosphereIndex(pds_account.did).find("mini")
    assert [entry.name for entry in AtmosphereIndex(pds_account.did).entries()] == ["other"]
    assert counts(pds_account) == (1, 1, 1)
