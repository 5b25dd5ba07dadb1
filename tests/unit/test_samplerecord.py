"""The schema record of a dataset: what the reference library can make a class of, and what no record can hold."""

from __future__ import annotations

from typing import Any

import pytest

from atdata_cli.atproto.records import encoded
from atdata_cli.errors import UsageError
from atdata_cli.indexes.samplerecord import schema_record
from atdata_cli.samples.schema import NDARRAY_REF
from tests.contract.test_atmosphere import publication

BYTES = {"type": "string", "format": "byte", "contentEncoding": "base64"}


def properties(declared: dict[str, Any], fields: dict[str, Any], **changes: Any) -> dict[str, Any]:
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": declared}
    record, _ = schema_record(publication(schema=schema, fields=fields, **changes))
    encoded(record)
    return dict(record.schema["properties"])


def test_every_row_of_the_type_mapping():
    declared = {
        "text": {"type": "string"},
        "n": {"type": "integer"},
        "x": {"type": "number"},
        "ok": {"type": "boolean"},
        "raw": BYTES,
        "maybe": {"type": ["string", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "mixed": {"type": "array"},
        "map": {"type": "object"},
        "nothing": {"type": "null"},
        "many": {"type": ["integer", "string"]},
        "image": {"$ref": NDARRAY_REF, "dtype": "float32", "shape": [3, None]},
    }
    fields = {
        name: {"kind": kind, "samples": 1}
        for name, kind in zip(
            declared,
            "string integer number boolean bytes string array array object null mixed ndarray".split(),
            strict=True,
        )
    }
    fields["image"] |= {"dtypes": ["float32"], "shape": [3, None]}
    assert properties(declared, fields) == declared


def test_all_fields_of_packed_samples_are_required():
    schema = {"properties": {"b": {}, "a": {"type": "string"}}, "required": ["a"]}
    record, lost = schema_record(publication(schema=schema, fields={"c": {"kind": "null"}, "b": {"kind": "mixed"}}))
    assert record.schema["required"] == ["a", "b", "c"]
    assert record.schema["properties"] == {"a": {"type": "string"}, "b": {}, "c": {"type": "null"}}
    assert (record.name, record.version, record.arrays, lost) == ("MiniSample", "1.0.0", None, [])


def test_members_of_files_are_bytes_and_required_where_all_have_them():
    schema = {"properties": {"jpg": BYTES, "json": BYTES}, "required": ["jpg", "gone"]}
    fields = {"jpg": {"kind": "image"}, "seg.png": {"kind": "image"}}
    record, _ = schema_record(publication(schema=schema, fields=fields, encoding="files"))
    assert record.schema["properties"] == {"jpg": BYTES, "json": BYTES, "seg.png": BYTES}
    assert record.schema["required"] == ["jpg"]


def test_an_array_is_one_whatever_a_schema_of_the_user_says_of_it():
    fields = {"a": {"kind": "ndarray", "dtypes": ["int8", "float32"], "shape": None}, "b": {"kind": "bytes"}}
    declared = {"a": {"description": "x"}, "b": {"$ref": NDARRAY_REF}}
    assert properties(declared, fields) == {"a": {"$ref": NDARRAY_REF}, "b": {"$ref": NDARRAY_REF}}


def test_what_the_reference_library_would_stumble_over_is_left_out():
    declared = {
        "ref": {"$ref": "#/definitions/sparse_tensor", "description": "d"},
        "tuple": {"type": "array", "items": [{"type": "string"}]},
        "any": {"type": "array", "items": True},
        "nested": {"type": "array", "items": {"type": "array", "items": {"$ref": "#/x"}}},
        "always": True,
    }
    assert properties(declared, {"ref": {"kind": "string"}, "always": {"kind": "integer"}}) == {
        "ref": {"description": "d", "type": "string"},
        "tuple": {"type": "array"},
        "any": {"type": "array"},
        "nested": {"type": "array", "items": {"type": "array", "items": {}}},
        "always": {"type": "integer"},
    }


def test_what_no_record_holds_is_told():
    declared = {"x": {"type": "number", "minimum": 0.5, "maximum": 2.0, "enum": [1, 1.5]}, "n": {"maximum": 2**64}}
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "properties": declared, "title": "T"}
    record, lost = schema_record(publication(schema=schema, fields={}))
    encoded(record)
    assert record.schema["properties"] == {"x": {"type": "number", "maximum": 2}, "n": {}}
    assert record.schema["title"] == "T"
    assert sorted(lost) == ["properties.n.maximum", "properties.x.enum", "properties.x.minimum"]


def test_a_field_whose_name_records_keep_for_themselves_is_refused():
    record, _ = schema_record(publication(schema={"properties": {"$link": {"type": "string"}}}, fields={}))
    with pytest.raises(UsageError, match=r"\$link"):
        encoded(record)
