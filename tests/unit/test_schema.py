"""Statistics and schemas: the same whatever the cut."""

import collections
import datetime
import json
import math

import fastjsonschema
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atdata_cli.samples.codec import Unencodable
from atdata_cli.samples.schema import (
    FieldStats,
    MemberStats,
    json_schema,
    member_kind,
    member_schema,
    merge_stats,
    observe_rows,
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, math.inf, math.nan]),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
)
ARRAYS = st.sampled_from(
    [np.zeros((2, 3), "f4"), np.zeros((2, 4), "f4"), np.zeros(3, "i8"), np.zeros((), "u1"), np.array(["ab"])]
)


def row_of(values):
    """The fields of a row come in their known order."""
    return dict(zip(("a", "b"), values, strict=True))


def observed(rows, cuts=()):
    """The manifest's text about *rows*, taken in parts and merged."""
    total: dict[str, FieldStats] = {}
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        part: dict[str, FieldStats] = {}
        observe_rows(part, ("a", "b"), rows[start:stop])
        merge_stats(total, part)
    described = {name: seen.as_json() for name, seen in total.items()}
    return orjson.dumps([described, json_schema(total, len(rows))], option=orjson.OPT_SORT_KEYS)


@given(st.data(), st.lists(st.tuples(VALUES, VALUES | ARRAYS).map(row_of), max_size=12))
def test_the_manifest_does_not_tell_how_the_rows_were_cut(data, rows):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    assert observed(rows, cuts) == observed(rows)


def test_equal_numbers_of_both_kinds_give_one_range():
    for column in ([1, 1.0], [1.0, 1]):
        stats = FieldStats()
        for value in column:
            stats.observe([value])
        assert json.dumps(stats.as_json()["range"]) == "[1, 1]"
        together = FieldStats()
        together.observe(column)
        assert together.as_json() == stats.as_json()


@given(st.lists(st.tuples(st.none() | st.lists(st.integers(0, 9)), SCALARS).map(row_of), min_size=1))
def test_rows_fit_the_schema_that_was_inferred_from_them(rows):
    total: dict[str, FieldStats] = {}
    observe_rows(total, ("a", "b"), rows)
    schema = json_schema(total, len(rows))
    validate = fastjsonschema.compile(schema, formats={"byte": ".*"})  # older ones refuse what they do not know
    for row in rows:
        if not isinstance(row["b"], bytes):  # JSON has none
            validate(row)


@pytest.mark.parametrize(
    ("column", "kind", "declared"),
    [
        ([1, 2], "integer", "integer"),
        ([1, 2.5], "number", "number"),
        ([1, None], "integer", ["integer", "null"]),
        (["a", 1], "mixed", ["integer", "string"]),
        (["a", 1, None], "mixed", ["integer", "string", "null"]),
        ([True], "boolean", "boolean"),
        ([None], "null", "null"),
        ([{"x": 1}], "object", "object"),
        ([[1], []], "array", "array"),
        ([datetime.date(2024, 1, 1)], "string", "string"),
        ([np.float32(1)], "number", "number"),
        ([np.datetime64("2024-01-01T00:00:00", "ns")], "string", "string"),
        ([collections.OrderedDict(a=1)], "object", "object"),
        ([collections.namedtuple("Point", "x y")(1, 2)], "array", "array"),
        ([b"x", bytearray(b"x"), memoryview(b"x")], "bytes", "string"),
    ],
)
def test_kinds(column, kind, declared):
    stats = FieldStats()
    stats.observe(column)
    assert stats.kind == kind
    assert stats.as_schema()["type"] == declared
    assert stats.values == len(column)


def test_what_the_manifest_tells_of_a_field():
    stats = FieldStats()
    stats.observe([[1, 2], [3], None, []])
    assert stats.as_json() == {
        "kind": "array",
        "samples": 3,
        "nulls": 1,
        "length": [0, 2],
        "items": {"kind": "integer", "range": [1, 3]},
    }
    assert stats.as_schema() == {"type": ["array", "null"], "items": {"type": "integer"}}


def test_shapes_and_dtypes_of_arrays():
    stats = FieldStats()
    stats.observe([np.zeros((2, 3), "f4"), np.zeros((5, 3), "f4")])
    assert (stats.as_json()["dtypes"], stats.as_json()["shape"]) == (["float32"], [None, 3])
    assert stats.as_schema()["dtype"] == "float32"
    stats.observe([np.zeros(3, "f8")])
    assert (stats.as_json()["dtypes"], stats.as_json()["shape"]) == (["float32", "float64"], None)
    assert "dtype" not in stats.as_schema()


@pytest.mark.parametrize("value", [{1: 2}, {None: 2}, [{1: 2}], [[{1: 2}]]])
def test_maps_with_keys_that_are_no_text_are_refused(value):
    with pytest.raises(Unencodable, match="keys"):
        FieldStats().observe([value])


def test_fields_that_some_samples_lack_are_not_required():
    total: dict[str, FieldStats] = {}
    observe_rows(total, ("a", "b"), [{"a": 1, "b": None}])
    observe_rows(total, ("a",), [{"a": 2}])
    assert json_schema(total, 2)["required"] == ["a"]


@given(st.lists(st.integers(0, 1 << 40), min_size=1), st.data())
def test_member_statistics_merge(sizes, data):
    cut = data.draw(st.integers(0, len(sizes)))
    parts = (MemberStats(), MemberStats(), MemberStats())
    for size in sizes[:cut]:
        parts[0].observe(size)
    for size in sizes[cut:]:
        parts[1].observe(size)
    for size in sizes:
        parts[2].observe(size)
    parts[0].merge(parts[1])
    assert parts[0] == parts[2]
    assert parts[2].as_json("jpg") == {
        "kind": "image",
        "samples": len(sizes),
        "bytes": sum(sizes),
        "size": [min(sizes), max(sizes)],
    }


def test_kinds_of_members_by_their_names():
    assert [member_kind(name) for name in ("JPG", "seg.png", "npy", "weird", "")] == [
        "image",
        "image",
        "ndarray",
        "bytes",
        "bytes",
    ]
    stats = {"jpg": MemberStats(2), "txt": MemberStats(1)}
    assert member_schema(stats, 2)["required"] == ["jpg"]
