"""What verifying says of packed samples that do not decode, or do not fit the manifest's schema."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atdata_cli.samples.codec import array_to_bytes
from atdata_cli.samples.rowcheck import decode, skim
from tests.unit.verified import Found, dataset, found, packed, shard

NAME = "shard-000000.tar"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "x": {"type": ["number", "null"]},
        "t": {"type": "string"},
        "raw": {"type": "string", "format": "byte"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "image": {
            "$ref": "https://x/atdata-ndarray-bytes/1.0.0#/$defs/ndarray",
            "dtype": "float32",
            "shape": [2, None],
        },
        "small": {"type": "integer", "maximum": 9},
        "maybe": {"type": "string"},
    },
    "required": ["n", "x", "t", "raw", "tags", "image", "small"],
}
ROW: dict[str, Any] = {
    "n": 1,
    "x": 0.5,
    "t": "text",
    "raw": b"\0\1",
    "tags": ["a"],
    "image": array_to_bytes(np.zeros((2, 3), "f4")),
    "small": 3,
    "maybe": None,
}
GOOD: list[Any] = [
    ROW,
    ROW | {"x": None, "tags": [], "n": 1 << 63},
    ROW | {"x": 3, "image": array_to_bytes(np.zeros((2, 7), "f4"))},
    {name: value for name, value in ROW.items() if name != "maybe"},
    dict(reversed(ROW.items())),
    ROW | {"raw": bytes(3 << 20)},  # too large to be decoded whole
]
BAD: list[tuple[Any, str]] = [
    (ROW | {"n": "1"}, "schema"),
    (ROW | {"n": True}, "schema"),
    (ROW | {"n": None}, "schema"),
    (ROW | {"x": "?"}, "schema"),
    (ROW | {"t": b"bytes"}, "schema"),
    (ROW | {"raw": "text"}, "schema"),
    (ROW | {"tags": ["a", 1]}, "schema"),
    (ROW | {"image": b"no array"}, "schema"),
    (ROW | {"image": array_to_bytes(np.zeros((2, 3), "f8"))}, "schema"),
    (ROW | {"image": array_to_bytes(np.zeros((3, 2), "f4"))}, "schema"),
    (ROW | {"image": b""}, "schema"),
    (ROW | {"small": 10}, "schema"),
    (ROW | {"more": 1}, "schema"),
    ({name: value for name, value in ROW.items() if name != "t"}, "missing-field"),
    ({name: value for name, value in ROW.items() if name != "t"} | {"raw": bytes(3 << 20)}, "missing-field"),
    (ROW | {"t": 5, "raw": bytes(3 << 20)}, "schema"),
    (b"", "not-msgpack"),
    (b"\xc1", "not-msgpack"),
    (b"\x93\x01\x02\x03", "not-msgpack"),
    (msgpack.packb(ROW) + b"\0", "not-msgpack"),
    (msgpack.packb(ROW)[:-1], "not-msgpack"),
    (msgpack.packb(ROW | {"raw": bytes(3 << 20)})[:-1], "not-msgpack"),
    (msgpack.packb({1: 2}), "not-msgpack"),
    (msgpack.packb({b"n": 2}), "not-msgpack"),
    (b"\x81\xa1\xff\x01", "not-msgpack"),
    (b"\x91" * 100_000, "not-msgpack"),
    (b"\xdf\xff\xff\xff\xff" + b"\xa1a\xc0" * 9, "not-msgpack"),
]


def test_packed_samples(tmp_path: Path) -> None:
    rows = [(f"g{number:03d}", row) for number, row in enumerate(GOOD)]
    place = dataset(tmp_path / "good", {NAME: packed(rows)}, schema=SCHEMA)
    assert found(place) == []
    expected: list[Found] = []
    at = 0
    for number, (row, _) in enumerate(BAD):
        rows.insert(2 * number, (f"b{number:03d}", row))
    for member, (key, _) in zip(packed(rows), rows, strict=True):
        if key[0] == "b":
            expected.append((BAD[int(key[1:])][1], NAME, key, at))
        at += 512 + -(-len(member[1]) // 512) * 512
    place = dataset(tmp_path / "bad", {NAME: packed(rows)}, schema=SCHEMA)
    assert found(place) == expected
    place = dataset(
        tmp_path / "member", {NAME: [*packed([("a", ROW)]), ("b.json", b""), ("c.json", b"")]}, schema=SCHEMA
    )
    assert found(place) == [
        (kind, NAME, key, at) for key, at in (("b", 1024), ("c", 1536)) for kind in ("missing-field", "schema")
    ]


def test_packed_samples_without_a_manifest_must_decode(tmp_path: Path) -> None:
    path = shard(tmp_path, packed([("a", {"n": 1}), ("b", b"\xc1"), ("c", {"m": 2})]))
    assert found(path) == [("not-msgpack", "x.tar", "b", 1024)]
    # Where other fields are, the ending may mean anything.
    assert found(shard(tmp_path, [("a.msgpack", b"\xc1"), ("a.txt", b"")])) == []


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": [1]},
        {"properties": {"n": 5}},
        {"properties": {"n": {"type": "complex"}}},
        {"properties": {"n": {"type": [[]]}}},
        {"properties": {"n": {"$ref": "file:///etc/passwd"}}},
        {"properties": {"n": {"anyOf": [{"$ref": "http://127.0.0.1:1/x"}]}}},
        {"properties": {"n": {"minimum": "a"}}},
        {"properties": {}, "required": [1]},
        {"properties": {}, "required": "n"},
    ],
)
def test_a_schema_that_cannot_be_used(tmp_path: Path, schema: dict[str, Any]) -> None:
    place = dataset(tmp_path / "d", {NAME: packed([("a", {"n": 1})])}, schema=schema)
    assert found(place) == [("damaged-manifest", "manifest.json", None, None)]


def test_patterns_of_others_are_not_run(tmp_path: Path) -> None:
    schema = {"properties": {"t": {"type": "string", "pattern": "^(a+)+$"}}, "required": ["t"]}
    place = dataset(tmp_path / "d", {NAME: packed([("a", {"t": "a" * 60 + "!"})])}, schema=schema)
    assert found(place) == []


PACKED = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=300)
@given(st.dictionaries(st.text(max_size=5), PACKED), st.binary(max_size=4), st.integers(0, 400))
def test_skimming_agrees_with_decoding(row: dict[str, Any], piece: bytes, at: int) -> None:
    whole = msgpack.packb(row)
    assert skim(io.BytesIO(whole)) == {name: type(value) for name, value in row.items()}
    changed = whole[:at] + piece + whole[at + len(piece) :]
    (decoded,) = decode([changed])
    skimmed = skim(io.BytesIO(changed))
    if isinstance(skimmed, str):
        assert isinstance(decoded, str)
