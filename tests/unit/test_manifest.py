"""Manifests: stable text, and no trust in what others wrote."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atdata_cli.errors import IntegrityError
from atdata_cli.shards.manifest import Manifest, ShardRow, SplitRow

URL = "s3://bucket/prefix/manifest.json"
ROW = ShardRow("shard-000000.tar", 2, 10240, "ab" * 32, "a", "b")
MANIFEST = Manifest(
    name="photos",
    samples=2,
    bytes=10240,
    payload=12,
    encoding="files",
    job="cd" * 32,
    shards=(ROW,),
    fields={"jpg": {"kind": "image"}},
    options={"max_count": 5},
)
ROOT = Manifest(
    name="photos",
    samples=2,
    bytes=10240,
    payload=12,
    encoding="files",
    job="cd" * 32,
    splits={"train": SplitRow("train/manifest.json", "ef" * 32, 2, 10240, 12, 1)},
)


@pytest.mark.parametrize("manifest", [MANIFEST, ROOT])
def test_a_manifest_is_read_as_it_was_written(manifest):
    text = manifest.dumps()
    assert Manifest.loads(text, url=URL) == manifest
    assert Manifest.loads(text, url=URL).dumps() == text
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert text.endswith(b"}\n")


def test_unknown_fields_are_ignored():
    document = json.loads(MANIFEST.dumps())
    document["new"] = {"a": 1}
    document["shards"][0]["crc"] = "x"
    assert Manifest.loads(json.dumps(document).encode(), url=URL) == MANIFEST


def broken(manifest, path, value):
    document = json.loads(manifest.dumps())
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    if value is KeyError:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return json.dumps(document).encode()


SHARD = ("shards", 0)
SPLIT = ("splits", "train")


@pytest.mark.parametrize(
    ("manifest", "path", "value"),
    [
        *((MANIFEST, (name,), KeyError) for name in ("name", "samples", "bytes", "payload", "encoding", "job")),
        *((MANIFEST, ("samples",), value) for value in (-1, 1.5, "2", True, None, [], 1 << 63, 10**30, 1e300)),
        *((MANIFEST, ("shards",), value) for value in (None, 5, "x", {}, [5], [None], [[]], [{}])),
        *((MANIFEST, (name,), [1]) for name in ("options", "fields", "schema", "job", "name", "compression", "split")),
        *((MANIFEST, ("fields", "jpg"), value) for value in (None, 5, "x", [])),
        *(
            (MANIFEST, ("fields", "jpg"), {name: value})
            for name, values in {
                "kind": (5, None),
                "samples": (-1, "1", 1.5),
                "size": (5, [1], [1, 2, 3], ["a", "b"], [1, None], "ab"),
                "range": (None, {}, [True, 1]),
                "length": ([[], []],),
                "shape": (5, "x", [1.5], ["a"]),
                "dtypes": ("f4", [4]),
                "items": ([], {"kind": 1}, {"items": {"range": 3}}),
            }.items()
            for value in values
        ),
        *((MANIFEST, ("splits",), value) for value in ([], "x", 5, {"a": 5}, {"a": {}})),
        *(
            (MANIFEST, (*SHARD, "name"), value)
            for value in ("../../x", "/x", "a/b", "..", ".hidden", "", "a\\b", "a\nb", "a\x1b[31m", 5, None, "\ud800")
        ),
        *((MANIFEST, (*SHARD, name), value) for name in ("samples", "bytes") for value in (-1, "1", None, 1e30)),
        *((MANIFEST, (*SHARD, name), value) for name in ("sha256", "first_key", "last_key") for value in (5, None)),
        *((ROOT, (*SPLIT, name), -1) for name in ("samples", "bytes", "payload", "shards", "manifest", "sha256")),
        *(
            (ROOT, ("splits", name), json.loads(ROOT.dumps())["splits"]["train"])
            for name in ("../x", "..", "/x", "a/b", "", "\x1b[31m", "manifest.json", "shard-000000.tar", "x" * 65)
        ),
    ],
)
def test_damage_is_told(manifest, path, value):
    with pytest.raises(IntegrityError) as told:
        Manifest.loads(broken(manifest, path, value), url=URL)
    assert told.value.url == URL
    assert told.value.message.isprintable()
    assert len(told.value.message) < 300


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"5",
        b"{}",
        b"[" * 100_000,
        b'{"format": "atdata-manifest"}',
        b'{"format": "atdata-manifest", "version": 1}',
        b'{"format": "atdata-manifest", "version": 2}',
        b'{"format": "atdata-manifest", "version": []}',
        b'{"format": ["atdata-manifest"], "version": 1}',
        MANIFEST.dumps()[:-20],
    ],
)
def test_what_is_no_manifest_of_ours_is_told(text):
    with pytest.raises(IntegrityError):
        Manifest.loads(text, url=URL)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.sampled_from([MANIFEST, ROOT]), st.data(), JSON)
def test_any_value_anywhere_is_read_or_told(manifest, data, value):
    document = json.loads(manifest.dumps())
    target = document
    while True:
        name = data.draw(st.sampled_from(sorted(target) if isinstance(target, dict) else range(len(target))))
        inner = target[name]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            target[name] = value
            break
        target = inner
    try:
        read = Manifest.loads(json.dumps(document).encode(), url=URL)
    except IntegrityError:
        return
    assert all("/" not in row.name and row.bytes >= 0 for row in read.shards)
    assert Manifest.loads(read.dumps(), url=URL) == read
