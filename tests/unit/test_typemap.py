"""The type mapping by itself; ``tests/e2e/test_local_index_reference.py`` runs each row of it with the library."""

from __future__ import annotations

import keyword
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atdata_cli.indexes.typemap import fields_of, json_schema_of, loading_problems, local_fields, schema_name
from atdata_cli.refs import valid_name
from tests.unit.test_local_index import publication

BYTES = {"type": "string", "format": "byte", "contentEncoding": "base64"}
NDARRAY = {"$ref": "https://alt.science/schemas/atdata-ndarray-bytes/1.0.0#/$defs/ndarray"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rows", "RowsSample"),
        ("my-photos.v1", "MyPhotosV1Sample"),
        ("2024_data", "Dataset2024DataSample"),
        ("None", "NoneSample"),
        ("x-", "XSample"),
        ("a..b__C", "ABCSample"),
    ],
)
def test_names_of_schemas(name, expected):
    assert schema_name(name) == expected


@given(st.from_regex("[A-Za-z0-9][A-Za-z0-9._-]{0,40}", fullmatch=True))
def test_every_dataset_name_makes_an_identifier(name):
    assert valid_name(name)
    assert schema_name(name).isidentifier()
    assert not keyword.iskeyword(schema_name(name))


def declared(schema: Any, required: list[str] | None = None) -> tuple[str, bool]:
    """Type and optionality of a field of which only a schema is known."""
    document = {"properties": {"x": schema}, "required": ["x"] if required is None else required}
    (field,) = local_fields(publication(fields={}, schema=document))
    described = field["fieldType"]
    kind = described["$type"].removeprefix("local#")
    if "items" in described:
        kind += " of " + (described["items"].get("primitive") or described["items"]["$type"].removeprefix("local#"))
    return described.get("primitive") or described.get("dtype") or kind, field["optional"]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, ("str", False)),
        ({"type": "integer"}, ("int", False)),
        ({"type": "number"}, ("float", False)),
        ({"type": ["integer", "number"]}, ("float", False)),
        ({"type": "boolean"}, ("bool", False)),
        (BYTES, ("bytes", False)),
        ({"type": "string", "format": "byte"}, ("bytes", False)),
        ({"type": ["string", "null"], "format": "byte"}, ("bytes", True)),
        ({"type": ["integer", "null"]}, ("int", True)),
        ({"type": "null"}, ("str", True)),
        ({"type": "object"}, ("str", False)),
        ({"type": ["string", "integer"]}, ("str", False)),
        ({}, ("str", False)),
        (True, ("str", False)),
        ({"type": 7}, ("str", False)),
        ({"type": [None, 1]}, ("str", False)),
        ({"anyOf": [{"type": "integer"}]}, ("str", False)),
        ({"$ref": "#/definitions/other"}, ("str", False)),
        (NDARRAY, ("ndarray", False)),
        ({**NDARRAY, "dtype": "float32"}, ("float32", False)),
        ({**NDARRAY, "dtype": 7}, ("ndarray", False)),
        ({"type": "array"}, ("array", False)),
        ({"type": "array", "items": {"type": "string"}}, ("array of str", False)),
        ({"type": "array", "items": {"type": "array"}}, ("array of array", False)),
        ({"type": "array", "items": {"type": ["string", "integer"]}}, ("array", False)),
        ({"type": "array", "items": [{"type": "string"}]}, ("array", False)),
        ({"type": "array", "items": True}, ("array", False)),
    ],
)
def test_what_a_schema_declares(schema, expected):
    assert declared(schema) == expected


def test_what_is_not_required_is_optional_but_never_an_array():
    assert declared({"type": "integer"}, []) == ("int", True)
    assert declared(NDARRAY, []) == ("ndarray", False)


def test_what_is_in_the_data_decides():
    schema = {
        "properties": {"x": {"type": "integer"}, "y": NDARRAY, "never": {"type": "string"}},
        "required": ["never"],
    }
    known = {
        "x": {"kind": "ndarray", "samples": 10, "nulls": 10, "dtypes": ["int8"]},
        "y": {"kind": "bytes", "samples": 20, "nulls": 0},
        "z": {"kind": "object", "samples": 19, "nulls": 0},
        "w": {"kind": "ndarray", "samples": 20, "nulls": 0, "dtypes": ["int8", "int16"]},
        "v": {"kind": "ndarray", "samples": 20, "nulls": 0, "dtypes": ["text"]},
    }
    fields = local_fields(publication(fields=known, schema=schema))
    assert [(field["name"], field["fieldType"], field["optional"]) for field in fields] == [
        ("never", {"$type": "local#primitive", "primitive": "str"}, False),
        ("v", {"$type": "local#ndarray"}, False),
        ("w", {"$type": "local#ndarray"}, False),
        ("x", {"$type": "local#ndarray", "dtype": "int8"}, False),
        ("y", {"$type": "local#primitive", "primitive": "bytes"}, False),
        ("z", {"$type": "local#primitive", "primitive": "str"}, True),
    ]


def test_files_are_bytes():
    known = {"jpg": {"kind": "image", "samples": 20}, "json": {"kind": "json", "samples": 5}}
    fields = local_fields(publication(fields=known, schema={}, encoding="files"))
    assert [(field["name"], field["fieldType"]["primitive"], field["optional"]) for field in fields] == [
        ("jpg", "bytes", False), ("json", "bytes", True),
    ]  # fmt: skip


def test_deep_lists_end():
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(2000):
        schema = {"type": "array", "items": schema}
    assert declared(schema) == ("array of array", False)


def test_schemas_of_the_index_are_read():
    fields = [
        {"name": "a", "fieldType": {"$type": "local#primitive", "primitive": "float"}, "optional": True},
        {"name": "b", "fieldType": {"$type": "science.alt.dataset.schemaType#ndarray", "dtype": "float32"}},
        {"name": "c", "fieldType": {"$type": "x#array", "items": {"$type": "local#primitive", "primitive": "bytes"}}},
        {"name": "d", "fieldType": {"$type": "local#dataframe"}},
        {"name": "e", "fieldType": {"$type": "local#ref", "ref": "x"}},
        {"name": "f", "fieldType": {"$type": "local#primitive", "primitive": ["x"]}},
        {"name": 7}, "text", {"fieldType": 1}, {"name": "g", "fieldType": "x"},
    ]  # fmt: skip
    assert json_schema_of({"fields": fields}) == {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {
            "a": {"type": ["number", "null"]},
            "b": {**NDARRAY, "dtype": "float32"},
            "c": {"type": "array", "items": BYTES},
            "d": BYTES,
            "e": {},
            "f": {},
            "g": {},
        },
        "required": ["b", "c", "d", "e", "f", "g"],
    }
    plain = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
    record = {"schemaType": "jsonSchema", "schema": {"$type": "t", "arrayFormatVersions": {}, **plain}}
    assert json_schema_of(record) == plain
    assert json_schema_of({"schema": {"schemaBody": plain}}) == plain
    for nothing in ({}, {"fields": 1}, {"schema": []}, {"schema": {"properties": []}}, {"schema": {"schemaBody": 1}}):
        assert json_schema_of(nothing) is None


def test_what_was_written_comes_back():
    known = {
        "a": {"kind": "string", "samples": 20, "nulls": 0},
        "b": {"kind": "integer", "samples": 10, "nulls": 10},
        "c": {"kind": "ndarray", "samples": 20, "nulls": 0, "dtypes": ["float32"]},
        "d": {"kind": "bytes", "samples": 20, "nulls": 0},
    }
    read = json_schema_of({"fields": local_fields(publication(fields=known, schema={}))})
    assert read is not None
    assert {name: field["kind"] for name, field in fields_of(read, 20).items()} == {
        name: field["kind"] for name, field in known.items()
    }
    assert fields_of(read, 20)["c"]["dtypes"] == ["float32"]
    assert fields_of({"properties": 7}, 1) == fields_of({}, 1) == {}


def test_arrays_that_some_samples_lack_are_told():
    known = {"x": {"kind": "ndarray", "samples": 10, "nulls": 0}, "y": {"kind": "ndarray", "samples": 10, "nulls": 10}}
    (problem,) = loading_problems(publication(fields=known, schema={}), ["/a.tar"])
    assert "lack the array x" in problem
