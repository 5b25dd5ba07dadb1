"""Records of the AT Protocol: the reference library's own, verbatim, and every limit of the lexicons."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atdata_cli.atproto.records import (
    ENTRY,
    EntryRecord,
    LabelRecord,
    SchemaRecord,
    Size,
    decode_metadata,
    encode_metadata,
    encoded,
    new_tid,
    next_version,
    now,
    room_for_shards,
    same_content,
)
from atdata_cli.atproto.storage import (
    MAX_BLOB_BYTES,
    Blob,
    BlobShard,
    Checksum,
    HttpShard,
    S3Shard,
    StorageBlobs,
    StorageExternal,
    StorageHttp,
    StorageS3,
)
from atdata_cli.errors import IntegrityError, UsageError

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
URI = f"at://{DID}/{ENTRY}/3n2vib7i4gc2u"
CID = "bafkreiaj4dviwkeqe7zfyx7z2gqp5txh5ocuxv6nf7jtikl2cdjplpv4b4"
SHA = "09e0ea8b289027f25c5ff9d1a0fecee7eb854bd7cd2fd334297a10d2f5bebc0f"

# As the reference library 0.7.0b1 writes them, the DID shortened.
THEIR_SCHEMA = json.loads(
    '{"$type":"science.alt.dataset.schema","name":"ImgSample","version":"1.0.0","schemaType":"jsonSchema",'
    '"atdataSchemaVersion":1,"createdAt":"2026-11-22T11:12:42.418468+00:00","schema":{"$type":'
    '"science.alt.dataset.schema#jsonSchemaFormat","$schema":"http://json-schema.org/draft-07/schema#","type":"object",'
    '"required":["image","label","score","n","ok","raw","tags"],"properties":{"n":{"type":"integer"},"ok":{"type":'
    '"boolean"},"opt":{"type":"string"},"raw":{"type":"string","format":"byte","contentEncoding":"base64"},"tags":'
    '{"type":"array","items":{"type":"string"}},"image":{"$ref":'
    '"https://alt.science/schemas/atdata-ndarray-bytes/1.0.0#/$defs/ndarray"},"label":{"type":"string"},"score":'
    '{"type":"number"}},"arrayFormatVersions":{"ndarrayBytes":"1.0.0"}}}'
)
THEIR_ENTRY = json.loads(
    '{"$type":"science.alt.dataset.entry","name":"mini","schemaRef":'
    '"at://did:plc:x/science.alt.dataset.schema/3n2vib7hnrk2u","description":"d","tags":["t1"],"license":"MIT",'
    '"createdAt":"2026-11-22T11:12:42.435383+00:00","storage":{"$type":"science.alt.dataset.storageBlobs","blobs":'
    '[{"blob":{"$type":"blob","ref":{"$link":"bafkreiaj4dviwkeqe7zfyx7z2gqp5txh5ocuxv6nf7jtikl2cdjplpv4b4"},"size":20480,'
    '"mimeType":"application/x-tar"},"checksum":{"algorithm":"sha256","digest":'
    '"09e0ea8b289027f25c5ff9d1a0fecee7eb854bd7cd2fd334297a10d2f5bebc0f"}}]},"metadata":{"split":"train","custom":'
    '{"foo":1},"createdBy":"me"}}'
)
THEIR_LABEL = json.loads(
    '{"$type":"science.alt.dataset.label","name":"mini","datasetUri":'
    '"at://did:plc:x/science.alt.dataset.entry/3n2vib7i4gc2u","createdAt":"2026-11-22T11:12:42.452215+00:00",'
    '"version":"1.0.0"}'
)


def entry(**changes: Any) -> EntryRecord:
    storage = StorageBlobs((BlobShard(Blob(CID, 20480), Checksum.sha256(SHA)),))
    record = EntryRecord(
        name="mini", schema_ref=f"at://{DID}/science.alt.dataset.schema/3n2v", storage=storage, created_at=now()
    )
    return dataclasses.replace(record, **changes)


def schema(**changes: Any) -> SchemaRecord:
    body = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {"a": {}}}
    return dataclasses.replace(SchemaRecord(name="Mini", version="1.0.0", schema=body, created_at=now()), **changes)


def label(**changes: Any) -> LabelRecord:
    return dataclasses.replace(LabelRecord(name="mini", dataset_uri=URI, created_at=now()), **changes)


def refused(record: Any, *words: str) -> str:
    with pytest.raises(UsageError) as caught:
        encoded(record)
    for word in words:
        assert word in f"{caught.value.message} {caught.value.hint}", (word, caught.value.message)
    return caught.value.message


def test_the_records_of_the_reference_library_are_read():
    found = EntryRecord.from_json(THEIR_ENTRY, uri=URI)
    assert (found.name, found.description, found.tags, found.license) == ("mini", "d", ("t1",), "MIT")
    assert found.storage == StorageBlobs((BlobShard(Blob(CID, 20480, "application/x-tar"), Checksum("sha256", SHA)),))
    assert found.metadata == {"split": "train", "createdBy": "me", "foo": 1}
    read = SchemaRecord.from_json(THEIR_SCHEMA, uri=URI)
    assert (read.name, read.version, read.arrays) == ("ImgSample", "1.0.0", {"ndarrayBytes": "1.0.0"})
    assert read.schema["required"] == ["image", "label", "score", "n", "ok", "raw", "tags"]
    assert read.as_json() == THEIR_SCHEMA
    assert LabelRecord.from_json(THEIR_LABEL, uri=URI).as_json() == THEIR_LABEL


@pytest.mark.parametrize(
    "storage",
    [
        StorageBlobs((BlobShard(Blob(CID, 1)), BlobShard(Blob(CID, 2), Checksum.sha256(SHA)))),
        StorageS3("bucket", (S3Shard("a/é 1.tar", Checksum.sha256(SHA)),), "eu-west-1", "https://s3.example.org"),
        StorageS3("bucket", (S3Shard("a.tar", Checksum.sha256(SHA)),)),
        StorageHttp((HttpShard("https://example.org/a.tar", Checksum("blake3", "00ff")),)),
    ],
)
def test_what_is_written_is_read_back(storage):
    record = entry(
        storage=storage,
        description="naïve 🐈",
        tags=("a", "b"),
        license="MIT",
        size=Size(3, 4, 5),
        metadata={"split": "train", "shards": [[1, "k"]], "ratio": 0.5, "raw": b"\x00"},
        metadata_schema_ref=URI,
        content_metadata={"lens": {"mm": 50, "names": ["a", None, True]}},
    )
    sent = json.loads(encoded(record))
    assert EntryRecord.from_json(sent, uri=URI) == record
    assert list(sent["metadata"]) == ["$bytes"]
    assert sent["size"] == {"samples": 3, "bytes": 4, "shards": 5}
    for other in (schema(description="x", arrays={"ndarrayBytes": "1.0.0"}), label(version="1.0.0", description="y")):
        assert type(other).from_json(json.loads(encoded(other)), uri=URI) == other


def test_the_deprecated_storage_and_old_blobs_are_read_and_never_written():
    urls = ["https://example.org/{000..009}.tar", "s3://b/x.tar"]
    old = THEIR_ENTRY | {"storage": {"$type": "science.alt.dataset.storageExternal", "urls": urls}}
    found = EntryRecord.from_json(old, uri=URI)
    assert found.storage == StorageExternal(tuple(urls))
    refused(entry(storage=found.storage), "deprecated", "storageHttp")
    bare = {"$type": "blob", "ref": {"$link": CID}, "mimeType": "application/x-tar", "size": 1}
    legacy = {"cid": CID, "mimeType": "application/x-tar"}
    old["storage"] = {"$type": "science.alt.dataset.storageBlobs", "blobs": [bare, {"blob": legacy}]}
    assert EntryRecord.from_json(old, uri=URI).storage == StorageBlobs(
        (BlobShard(Blob(CID, 1)), BlobShard(Blob(CID, 0)))
    )


def test_a_blob_reference_has_exactly_four_keys():
    assert Blob(CID, 7).as_json() == {
        "$type": "blob",
        "ref": {"$link": CID},
        "mimeType": "application/x-tar",
        "size": 7,
    }


@pytest.mark.parametrize(
    "damage",
    [
        {"name": 3},
        {"name": None},
        {"storage": "x"},
        {"storage": {"$type": "science.alt.dataset.storageTape"}},
        {"storage": {"$type": "science.alt.dataset.storageS3", "bucket": "b", "shards": [{"key": "k"}]}},
        {"storage": {"$type": "science.alt.dataset.storageS3", "bucket": "b", "shards": [1]}},
        {"storage": {"$type": "science.alt.dataset.storageHttp", "shards": {"url": "x"}}},
        {"storage": {"$type": "science.alt.dataset.storageBlobs", "blobs": [{"blob": {"ref": {"$link": "../x"}}}]}},
        {"storage": {"$type": "science.alt.dataset.storageExternal", "urls": [None]}},
        {"size": {"samples": -1}},
        {"size": {"bytes": True}},
        {"size": 5},
        {"tags": "x"},
        {"metadata": 7},
        {"metadata": {"$bytes": "%%%"}},
        {"metadata": {"$bytes": "kgEC"}},
        {"metadata": {"$bytes": "wQ"}},
        {"contentMetadata": []},
        {"license": ["MIT"]},
    ],
)
def test_a_damaged_record_is_one_error(damage):
    with pytest.raises(IntegrityError) as caught:
        EntryRecord.from_json(THEIR_ENTRY | damage, uri=URI)
    assert caught.value.url == URI


@pytest.mark.parametrize("value", [None, [], "x", {}, {"$type": "app.bsky.feed.post"}, THEIR_LABEL])
def test_another_record_is_no_entry(value):
    with pytest.raises(IntegrityError, match=r"is no science\.alt\.dataset\.entry"):
        EntryRecord.from_json(value, uri=URI)


def test_a_schema_of_another_kind_is_not_read():
    for change in ({"schemaType": "avro"}, {"atdataSchemaVersion": 2}, {"schema": 1}):
        with pytest.raises(IntegrityError):
            SchemaRecord.from_json(THEIR_SCHEMA | change, uri=URI)


@given(
    st.dictionaries(
        st.text(max_size=20), st.none() | st.text(max_size=30) | st.integers(-9, 9) | st.floats(allow_nan=False)
    )
)
def test_metadata_need_no_padding(metadata):
    metadata.pop("pad", None)
    packed = encode_metadata(metadata)
    assert len(packed) % 3 == 0
    # The reference library's way of reading, on what a server makes of it: no padding.
    text = base64.b64encode(packed).decode()
    assert not text.endswith("=")
    assert {k: v for k, v in msgpack.unpackb(base64.b64decode(text), raw=False).items() if k != "pad"} == metadata
    assert decode_metadata({"$bytes": text}) == metadata


@pytest.mark.parametrize("size", range(1, 7))
def test_metadata_of_others_may_lack_padding(size):
    packed = msgpack.packb({"k": "v" * size})
    assert decode_metadata({"$bytes": base64.b64encode(packed).decode().rstrip("=")}) == {"k": "v" * size}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (lambda: entry(name=""), ["name is empty"]),
        (lambda: entry(name="é" * 101), ["name has 202 bytes", "200", "shorten"]),
        (lambda: entry(name="a\ud800"), ["Unicode"]),
        (lambda: entry(description="é" * 2501), ["description has 5,002 bytes", "5,000"]),
        (lambda: entry(license="x" * 201), ["license"]),
        (lambda: entry(tags=["x"] * 31), ["31 tags", "30"]),
        (lambda: entry(tags=["é" * 76]), ["tags[0] has 152 bytes", "150"]),
        (lambda: entry(tags=["ok", ""]), ["tags[1]"]),
        (lambda: entry(schema_ref="https://x"), ["schemaRef", "AT-URI"]),
        (lambda: entry(schema_ref=f"at://{DID}/science.alt.dataset.schema/a@1.0.0"), ["schemaRef"]),
        (lambda: entry(schema_ref=f"at://{DID}/science.alt.dataset.schema/{'x' * 500}"), ["schemaRef", "500"]),
        (lambda: entry(schema_ref=f"at://{DID}/science.alt.dataset.schema/.."), ["schemaRef"]),
        (lambda: entry(schema_ref=f"at://{DID}/nope/x"), ["schemaRef"]),
        (lambda: entry(schema_ref="at://did:PLC:x/science.alt.dataset.schema/x"), ["schemaRef"]),
        (lambda: entry(created_at="2026-11-22 11:12:42"), ["createdAt"]),
        (lambda: entry(created_at="2026-11-22T11:12:42"), ["createdAt"]),
        (lambda: entry(size=Size(shards=0)), ["size.shards"]),
        (lambda: entry(size=Size(samples=-1)), ["size.samples"]),
        (lambda: entry(size=Size(bytes=2**53)), ["size.bytes"]),
        (lambda: entry(metadata={"x": "y" * 100_000}), ["metadata", "100,000"]),
        (lambda: entry(metadata={"x": 2**64}), ["metadata"]),
        (lambda: entry(metadata={"x": {1, 2}}), ["metadata"]),
        (lambda: entry(metadata_schema_ref="x"), ["metadataSchemaRef"]),
        (lambda: entry(content_metadata={"a": [1.0]}), ["contentMetadata.a[0]", "floating"]),
        (lambda: entry(content_metadata={"a": 2**53}), ["contentMetadata.a", "2^53-1"]),
        (lambda: entry(content_metadata={"a": -(2**53)}), ["2^53-1"]),
        (lambda: entry(content_metadata={"a": {"$link": "x"}}), ["$link"]),
        (lambda: entry(content_metadata={1: 2}), ["key 1"]),
        (lambda: entry(content_metadata={"a": b"x"}), ["bytes"]),
        (lambda: entry(content_metadata={"a": "\ud800"}), ["Unicode"]),
        (lambda: entry(storage=StorageBlobs(())), ["no shards"]),
        (lambda: entry(storage=StorageHttp(())), ["no shards"]),
        (
            lambda: entry(storage=StorageBlobs((BlobShard(Blob(CID, MAX_BLOB_BYTES + 1)),))),
            ["52,428,801", "--max-size"],
        ),
        (lambda: entry(storage=StorageBlobs((BlobShard(Blob(CID, 1, "application/gzip")),))), ["gzip", "--compress"]),
        (lambda: entry(storage=StorageS3("", (S3Shard("k", Checksum.sha256(SHA)),))), ["bucket is empty"]),
        (lambda: entry(storage=StorageS3("b" * 256, (S3Shard("k", Checksum.sha256(SHA)),))), ["bucket", "255"]),
        (
            lambda: entry(storage=StorageS3("b", (S3Shard("é" * 513, Checksum.sha256(SHA)),))),
            ["shards[0].key", "1,024"],
        ),
        (lambda: entry(storage=StorageS3("b", (S3Shard("k", Checksum.sha256("xyz")),))), ["digest"]),
        (lambda: entry(storage=StorageS3("b", (S3Shard("k", Checksum("", "00")),))), ["algorithm"]),
        (lambda: entry(storage=StorageS3("b", (S3Shard("k", Checksum("x" * 21, "00")),))), ["algorithm", "20"]),
        (lambda: entry(storage=StorageS3("b", (S3Shard("k", Checksum("x", "00" * 65)),))), ["digest", "128"]),
        (lambda: entry(storage=StorageS3("b", (S3Shard("k", Checksum.sha256(SHA)),), "r" * 51)), ["region"]),
        (lambda: entry(storage=StorageS3("b", (S3Shard("k", Checksum.sha256(SHA)),), None, "nope")), ["endpoint"]),
        (lambda: entry(storage=StorageHttp((HttpShard("no uri", Checksum.sha256(SHA)),))), ["shards[0].url"]),
        (lambda: entry(storage=StorageHttp((HttpShard("https://x/" + "y" * 2000, Checksum.sha256(SHA)),))), ["2,000"]),
        (lambda: schema(name="x" * 101), ["schema's name", "100"]),
        (lambda: schema(version="1.0"), ["semantic version"]),
        (lambda: schema(version="01.0.0"), ["semantic version"]),
        (lambda: schema(description="x" * 5001), ["description"]),
        (lambda: schema(schema={"type": "object", "properties": {}}), ["$schema"]),
        (lambda: schema(schema=schema().schema | {"type": "array"}), ["object"]),
        (
            lambda: schema(schema=schema().schema | {"properties": {"a": {"minimum": 0.5}}}),
            ["schema.properties.a.minimum"],
        ),
        (lambda: schema(metadata={"x": 1.5}), ["metadata.x"]),
        (lambda: label(name=""), ["name"]),
        (lambda: label(version="x" * 51), ["version", "50"]),
        (lambda: label(description="x" * 5001), ["description"]),
        (lambda: label(dataset_uri="at://nobody"), ["datasetUri"]),
    ],
)
def test_every_limit_is_checked_before_anything_is_sent(record, words):
    refused(record(), *words)


def test_what_is_at_a_limit_passes():
    encoded(entry(name="é" * 100, description="x" * 5000, license="x" * 200, tags=["é" * 75] * 30))
    encoded(entry(content_metadata={"a": 2**53 - 1, "b": -(2**53) + 1, "c": True}))
    encoded(entry(storage=StorageBlobs((BlobShard(Blob(CID, MAX_BLOB_BYTES)),))))
    encoded(entry(schema_ref="at://did:web:localhost%3A2583/science.alt.dataset.schema/3n2v"))
    encoded(label(version="x" * 50, dataset_uri=f"at://alice.test/{ENTRY}/a._:~-Z"))


def many(count: int) -> EntryRecord:
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]
    shards = tuple(
        S3Shard(f"a/prefix/of/usual/length/shard-{number:06d}.tar", Checksum.sha256(digest))
        for number, digest in enumerate(digests)
    )
    rows = [[10_000, f"{number * 10_000:010d}"] for number in range(count)]
    return entry(storage=StorageS3("bucket", shards), metadata={"encoding": "msgpack", "shards": rows})


def test_too_many_shards_tell_how_many_fit():
    message = refused(many(1500), "1,500 shards are too many", "shards fit", "larger")
    assert "153,088" in message
    room = room_for_shards(many(1500))
    encoded(many(room))
    refused(many(room + 15))
    with pytest.raises(UsageError) as caught:
        encoded(many(1500))
    assert re.search(rf"about {room:,} shards fit", str(caught.value.hint))


def test_record_keys_sort_by_time():
    keys = [new_tid() for _ in range(200)]
    assert all(re.fullmatch("[234567abcdefghij][234567abcdefghijklmnopqrstuvwxyz]{12}", key) for key in keys)
    assert [key[:11] for key in keys] == sorted(key[:11] for key in keys)
    assert len(set(keys)) == len(keys)
    # A key of the specification's era stands where its time is.
    assert keys[0] > "3jxtb5w2hkt2m"


def test_the_next_version():
    assert next_version([]) == "1.0.0"
    assert next_version(["1.0.0", "1.10.2", "1.9.9", "what", "v2", "1.10.2-rc.1"]) == "1.10.3"


def test_content_is_compared_without_time():
    assert same_content(entry(created_at="2026-01-01T00:00:00Z"), entry())
    assert not same_content(entry(name="other"), entry())
    assert not same_content(label(), entry())
