"""A given JSON Schema: what it converts, what it refuses, and what it never does."""

import json

import numpy as np
import pytest

from atdata_cli.errors import UsageError
from atdata_cli.samples.check import RowSchema
from atdata_cli.samples.codec import Unencodable


def schema(**properties):
    return RowSchema.parse(json.dumps({"type": "object", "properties": properties}).encode(), url="s.json")


NDARRAY = "https://alt.science/schemas/atdata-ndarray-bytes/1.0.0#/$defs/ndarray"


def test_values_become_what_the_schema_says():
    row_schema = schema(
        raw={"type": "string", "format": "byte"}, x={"$ref": NDARRAY, "dtype": "float32"}, n={"type": "integer"}
    )
    row = row_schema.apply({"n": 1, "x": [[1, 2]], "raw": "aGk=", "other": 5})
    assert list(row) == ["raw", "x", "n"]
    assert (row["raw"], row["n"]) == (b"hi", 1)
    assert (row["x"].dtype, row["x"].shape) == (np.dtype("f4"), (1, 2))
    assert row_schema.apply({"n": 1}) == {"raw": None, "x": None, "n": 1}
    assert row_schema.apply({"raw": b"as it is"})["raw"] == b"as it is"


@pytest.mark.parametrize(
    ("declared", "value", "words"),
    [
        ({"type": "integer"}, "1", "field a must be integer"),
        ({"type": "string", "format": "byte"}, "no base64!", "not base64"),
        ({"type": "string", "format": "byte"}, 5, "base64"),
        ({"$ref": NDARRAY, "dtype": "uint8"}, [1, 300], "300"),
        ({"$ref": NDARRAY, "dtype": "uint8"}, [-1], "-1"),
        ({"$ref": NDARRAY}, [[1], [1, 2]], "field 'a'"),
        ({"$ref": NDARRAY}, "text", "numbers"),
        ({"$ref": NDARRAY, "dtype": "garbage"}, [1], "garbage"),
        ({"$ref": NDARRAY, "dtype": "O"}, [1], "numbers"),
        ({"$ref": NDARRAY, "dtype": ["f4"]}, [1], "field 'a'"),
    ],
)
def test_rows_that_do_not_fit_are_told(declared, value, words):
    with pytest.raises(Unencodable, match="a") as refused:
        schema(a=declared).apply({"a": value})
    assert words in str(refused.value)


def test_missing_fields_are_named():
    row_schema = RowSchema({"type": "object", "properties": {"a": {}, "zz": {}}, "required": ["a", "zz"]})
    with pytest.raises(Unencodable, match="the row has no 'zz'"):
        row_schema.apply({"a": 1})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"type": "array", "properties": {"a": {}}}',
        b'{"properties": {}}',
        b'{"properties": {"a": 5}}',
        b'{"properties": {"a": {"type": 5}}}',
        b'{"properties": {"a": {"type": {"x": 1}}}}',
        b'{"properties": {"a": {"type": ["integer", 5]}}}',
        b'{"properties": {"a": {"pattern": "("}}}',
        b'{"properties": {"a": {"minLength": "x"}}}',
        b'{"schema": 5}',
        b'{"schema": {"properties": []}}',
    ],
)
def test_what_is_no_schema_is_a_usage_error(text):
    with pytest.raises(UsageError) as refused:
        RowSchema.parse(text, url="s.json")
    assert refused.value.url == "s.json"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/x", "https://127.0.0.1:9/x", "FILE", "data:,{}", "ftp://127.0.0.1:9/x"]
)
def test_a_schema_never_makes_us_read_anything(url, tmp_path):
    (tmp_path / "other.json").write_text('{"type": "integer"}')
    url = url.replace("FILE", (tmp_path / "other.json").as_uri())
    with pytest.raises(UsageError, match=r"nothing is fetched|cannot be used"):
        schema(a={"$ref": url})


def test_names_in_a_schema_are_no_code(tmp_path):
    mark = tmp_path / "ran"
    hostile = f'x"]); open({str(mark)!r}, "w"); ("\n'
    row_schema = schema(**{hostile: {"type": "string", "enum": [hostile], "title": hostile}})
    assert row_schema.apply({hostile: hostile}) == {hostile: hostile}
    with pytest.raises(Unencodable):
        row_schema.apply({hostile: "other"})
    assert not mark.exists()


def test_the_schema_of_a_manifest_is_taken_from_it():
    text = json.dumps({"format": "atdata-manifest", "schema": {"properties": {"a": {"type": "integer"}}}})
    assert RowSchema.parse(text.encode(), url="m.json").fields == ("a",)


def test_types_of_csv_columns():
    types = schema(
        a={"type": "integer"},
        b={"type": ["number", "null"]},
        c={},
        d={"type": ["integer", "string"]},
        e={"$ref": NDARRAY},
    ).csv_types()
    assert types == {"a": "integer", "b": "number", "c": "string", "d": "string", "e": "string"}
