"""From a publication to an entry record and back; labels; and what other people's records may say."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atdata_cli.atproto.records import LABEL, EntryRecord, LabelRecord, encoded, now
from atdata_cli.atproto.storage import Blob, BlobShard, Checksum, HttpShard, StorageBlobs, StorageHttp, StorageS3
from atdata_cli.atproto.values import blob_cid
from atdata_cli.errors import IntegrityError, UsageError
from atdata_cli.indexes.entryrecord import entry_of, entry_record, storage_of
from atdata_cli.indexes.labels import Label, age, later_than, named_key, newest
from tests.contract.test_atmosphere import publication
from tests.unit.test_records import CID, DID, SHA, URI, entry

OTHER = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"


def read(record: EntryRecord, **more: Any) -> Any:
    return entry_of(record, uri=URI, did=DID, **more)


@pytest.mark.parametrize("kind", ["s3", "https", "blobs"])
def test_there_and_back(kind):
    made = {
        "s3": publication(),
        "https": publication("https://example.org/a/{}.tar", endpoint=None, region=None),
        "blobs": publication(blobs=True, endpoint=None, region=None),
    }[kind]
    made = dataclasses.replace(made, description="d", tags=("t",), license="MIT", metadata={"k": [1, None]})
    record = entry_record(made, storage_of(made, DID), URI)
    encoded(record)
    found = read(record)
    assert (found.name, found.description, found.tags, found.license) == ("mini", "d", ("t",), "MIT")
    assert (found.samples, found.bytes, found.payload, found.encoding) == (6, 20481, 7, "msgpack")
    assert (found.split, found.job, found.metadata) == ("train", made.job, {"k": [1, None]})
    for shard, told in zip(found.shards, made.shards, strict=True):
        assert dataclasses.replace(shard, url=told.url, last_key=told.last_key) == told
    if kind == "blobs":
        assert [shard.url for shard in found.shards] == [
            f"at://{DID}/blob/{blob_cid(shard.sha256 or '')}" for shard in made.shards
        ]
        assert list(found.blob_refs) == [shard.url for shard in found.shards]
    else:
        assert [shard.url for shard in found.shards] == [shard.url for shard in made.shards]


def test_blobs_of_the_account_itself_are_published_as_they_are():
    url = f"at://{DID}/blob/{CID}"
    ref = {"$type": "blob", "ref": {"$link": CID}, "mimeType": "application/x-tar", "size": 20480}
    shards = [dataclasses.replace(publication(count=1).shards[0], url=url, sha256=SHA, bytes=20480)]
    for refs in ({url: ref}, {}):
        made = publication(shards=shards, blob_refs=refs)
        assert storage_of(made, DID) == StorageBlobs((BlobShard(Blob(CID, 20480), Checksum.sha256(SHA)),))
    with pytest.raises(UsageError, match="another account"):
        storage_of(made, OTHER)


def test_shards_in_several_places_are_refused():
    one, two = publication(count=2).shards
    for url in ("s3://other/x.tar", "https://example.org/x.tar"):
        with pytest.raises(UsageError, match="several"):
            storage_of(publication(shards=[one, dataclasses.replace(two, url=url)]), DID)
    with pytest.raises(IntegrityError, match="hash"):
        storage_of(publication(shards=[dataclasses.replace(one, sha256=None)]), DID)


LOCAL = (
    "localhost LOCALHOST. a.localhost minio nas.local 127.0.0.1 127.1 2130706433 0x7f.1 [::1] [::ffff:127.0.0.1] "
    "10.1.2.3 169.254.169.254 [fd00::1] 0.0.0.0"
).split()


@pytest.mark.parametrize("host", LOCAL)
def test_what_only_this_machine_or_its_network_reaches(host):
    with pytest.raises(UsageError, match="reach"):
        storage_of(publication(endpoint=f"http://{host}:9000"), DID)
    assert storage_of(publication(endpoint=f"http://{host}:9000", allow_local_url=True), DID)


@pytest.mark.parametrize(
    "host", ["s3.eu-west-1.amazonaws.com", "example.org", "1.1.1.1", "[2606:4700::1111]", "10.com"]
)
def test_what_everybody_reaches(host):
    assert storage_of(publication(endpoint=f"https://{host}"), DID)


@pytest.mark.parametrize(
    "storage",
    [
        StorageHttp((HttpShard("pipe:rm -rf /", Checksum.sha256(SHA)),)),
        StorageHttp((HttpShard("/etc/passwd", Checksum.sha256(SHA)),)),
        StorageHttp((HttpShard("file:///etc/passwd", Checksum.sha256(SHA)),)),
        StorageHttp((HttpShard("memory://x", Checksum.sha256(SHA)),)),
        StorageS3("../x", ()),
        StorageS3("a/b", ()),
    ],
)
def test_what_is_not_followed(storage):
    found = read(entry(storage=storage))
    assert found.problem is not None
    assert "not followed" in found.problem
    assert found.shards == ()


@pytest.mark.parametrize(
    "rows", [None, 1, [], [1], [[]], [["x", "k"]], [[-1, "k"]], [[True, "k"]], [[1, 2]], [[1, "k", "x"]]]
)
def test_odd_rows_of_shards_tell_nothing(rows):
    [shard] = read(entry(metadata={"shards": rows, "encoding": 7, "split": ["x"]})).shards
    assert (shard.samples, shard.first_key, shard.bytes, shard.sha256) == (None, None, 20480, SHA)


def test_the_hash_of_a_blob_is_in_its_cid():
    lying = StorageBlobs((BlobShard(Blob(CID, 1), Checksum.sha256("00" * 32)), BlobShard(Blob("bafyreiabc", 1))))
    assert [shard.sha256 for shard in read(entry(storage=lying)).shards] == [SHA, None]


def label(created_at: str, version: str | None = None) -> Label:
    return Label(
        f"at://{DID}/{LABEL}/x", "c", LabelRecord(name="n", dataset_uri=URI, created_at=created_at, version=version)
    )


def test_the_newest_label_counts_however_its_time_is_written():
    old, mid, new = "2026-01-01T10:00:00Z", "2026-01-01T12:30:00.5+02:00", "2026-01-01T10:31:00.000001Z"
    labels = [label(new), label(old), label(mid), label("yesterday"), label("2026-01-01T10:00:00")]
    assert newest(labels) == labels[0]
    assert newest(labels[1:]) == labels[2]
    assert newest([]) is None
    future = label("2126-01-01T00:00:00.9999Z")
    assert age(later_than([future, *labels])) > age(future.record.created_at)
    assert age(later_than(labels)) >= age(now()).replace(microsecond=0)


@given(st.text(), st.none() | st.text(min_size=1))
def test_the_key_of_a_name_is_a_tid(name, version):
    import re

    key = named_key(name, version)
    assert re.fullmatch("[234567abcdefghij][234567abcdefghijklmnopqrstuvwxyz]{12}", key)
    assert key == named_key(name, version)
    assert key < "3n"  # of the past
    assert key != named_key(name + "x", version)


def test_a_label_may_name_the_account_by_its_handle():
    class Me:
        did, handle = DID, "alice.test"

    for authority, leads in ((DID, True), ("alice.test", True), (OTHER, False)):
        one = dataclasses.replace(label(now()).record, dataset_uri=f"at://{authority}/{URI.partition(DID)[2][1:]}")
        assert Label("u", "c", one).leads_to(Me(), URI) is leads  # type: ignore[arg-type]
