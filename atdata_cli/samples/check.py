"""A JSON Schema given with ``--schema``: which fields a row has, how its values are converted, whether they fit."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from atdata_cli.errors import UsageError
from atdata_cli.samples.codec import Unencodable, explain

__all__ = ["RowSchema"]

_CSV_TYPES = ("integer", "number", "boolean", "string")
Converter = Callable[[Any], Any]


class RowSchema:
    """A draft-07 object schema, compiled.

    JSON has no bytes and no arrays: a ``format: byte`` field takes base64 text, an ndarray field takes nested lists
    of numbers, of the ``dtype`` beside its ``$ref``; everything else is checked as JSON Schema says.

    Attributes
    ----------
    document : the schema, as it goes into the manifest.
    fields : its properties, in their order.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.fields = tuple(document["properties"])
        self._converters: dict[str, Converter] = {}
        for name, schema in document["properties"].items():
            converter = _converter(schema)
            if converter is not None:
                self._converters[name] = converter
        self._validate = _compile(document, set(self._converters))

    @classmethod
    def parse(cls, text: bytes, *, url: str) -> RowSchema:
        """Read the schema file, a JSON Schema of type object.

        Raises
        ------
        UsageError : it is not JSON, or describes no object with properties.
        """
        import orjson

        try:
            document = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise UsageError(f"the schema is not JSON: {error}", url=url, hint="mend the schema") from error
        if isinstance(document, dict) and "schema" in document and "properties" not in document:
            document = document["schema"]  # a manifest, or a schema record: both carry the schema inside
        properties = document.get("properties") if isinstance(document, dict) else None
        if not isinstance(properties, dict) or not properties or document.get("type", "object") != "object":
            raise UsageError(
                'a JSON Schema of "type": "object" with "properties" is needed',
                url=url,
                hint="the schema in another dataset's manifest.json is one",
            )
        if not all(isinstance(schema, dict) for schema in properties.values()):
            raise UsageError("every property of the schema must be an object", url=url, hint="mend the schema")
        try:
            return cls(document)
        except Exception as error:  # the compiler raises errors of every kind for a malformed schema
            raise UsageError(
                f"the schema cannot be used: {explain(error)}", url=url, hint="mend the schema: draft-07 JSON Schema"
            ) from error

    def csv_types(self) -> dict[str, str]:
        """Of the fields with a plain type: what a cell's text is to become."""
        types = {}
        for name, schema in self.document["properties"].items():
            declared = schema.get("type", "string")
            plain = [kind for kind in ([declared] if isinstance(declared, str) else declared) if kind != "null"]
            types[name] = plain[0] if len(plain) == 1 and plain[0] in _CSV_TYPES else "string"
        return types

    def apply(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with converted values; fields that the schema does not know are left out.

        Raises
        ------
        Unencodable : the row does not fit; the message names the field.
        """
        checked = {name: row[name] for name in self.fields if name in row}
        self._validate(checked)
        for name, convert in self._converters.items():
            if checked.get(name) is not None:
                try:
                    checked[name] = convert(checked[name])
                except (ValueError, TypeError, OverflowError) as error:
                    raise Unencodable(f"field {name!r}: {error}") from error
        return {name: checked.get(name) for name in self.fields}


def _compile(document: Mapping[str, Any], converted: set[str]) -> Callable[[Any], None]:
    import fastjsonschema

    plain = dict(document)
    plain["properties"] = {name: {} if name in converted else schema for name, schema in document["properties"].items()}
    plain.pop("$id", None)  # nothing is ever fetched, so a base URL has no use
    # The compiler gives any other scheme to urllib, which opens these.
    handlers = dict.fromkeys(("http", "https", "ftp", "file", "data", ""), _no_fetch)
    validate = fastjsonschema.compile(plain, handlers=handlers, use_default=False)

    def check(row: Any) -> None:
        try:
            validate(row)
        except fastjsonschema.JsonSchemaValueException as error:
            if error.rule == "required" and isinstance(error.value, dict):
                missing = ", ".join(repr(name) for name in error.rule_definition if name not in error.value)
                raise Unencodable(f"{_named(error.name or '')} has no {missing}") from error
            raise Unencodable(_named(error.message)) from error

    return check


def _named(text: str) -> str:
    """What the compiler says of ``data``, which is a row."""
    return text.replace("data.", "field ", 1).replace("data", "the row", 1)


def _no_fetch(uri: str) -> Any:
    raise UsageError(f"the schema refers to {uri}, and nothing is fetched", hint="copy the definition into the file")


def _converter(schema: Mapping[str, Any]) -> Converter | None:
    if "ndarray" in str(schema.get("$ref", "")):
        dtype = schema.get("dtype")
        return lambda value: _to_array(value, dtype)
    if schema.get("format") == "byte":
        return _to_bytes
    return None


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise TypeError("bytes are given as base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64 text") from error


def _to_array(value: Any, dtype: str | None) -> Any:
    import numpy as np

    array = np.asarray(value, dtype=dtype)
    if array.dtype.kind not in "biufc":
        raise ValueError("not an array of numbers")
    return array
