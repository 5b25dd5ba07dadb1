"""The schema record of a dataset: its JSON Schema in the form in which the reference library makes a class of it.

A server gives records back with their properties in another order, and the library makes a class whose fields stand in
that order: an optional field before a required one is an error there. Since every sample that this program packs has
every field, null or not, all fields of packed samples are required.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atdata_cli.atproto.records import SchemaRecord, now
from atdata_cli.atproto.values import LARGEST_INTEGER
from atdata_cli.indexes.base import Publication
from atdata_cli.samples.schema import DRAFT_07, JSON_TYPES, NDARRAY_REF

__all__ = ["schema_record"]

_BYTES = JSON_TYPES["bytes"]
_BY_KIND: Mapping[str, Mapping[str, Any]] = {**JSON_TYPES, "null": {"type": "null"}}
_ARRAY_FORMATS: Mapping[str, str] = {"ndarrayBytes": "1.0.0"}
_LONGEST_NAME = 100
_MAX_DEPTH = 64


def schema_record(publication: Publication, version: str = "1.0.0") -> tuple[SchemaRecord, Sequence[str]]:
    """The record, and what of the dataset's schema no record can hold.

    Where the data are known, their kind decides; the schema adds what it says (ranges, descriptions, items).
    """
    lost: list[str] = []
    declared = publication.schema.get("properties")
    declared = declared if isinstance(declared, Mapping) else {}
    names = sorted({*declared, *publication.fields})
    if publication.encoding == "files":
        properties: dict[str, Any] = {name: dict(_BYTES) for name in names}
        required = [name for name in publication.schema.get("required", []) if name in properties]
    else:
        properties = {
            name: _property(declared.get(name), publication.fields.get(name, {}), f"properties.{name}", lost)
            for name in names
        }
        required = names
    others = {key: part for key, part in publication.schema.items() if key not in ("properties", "required", "type")}
    body = {
        **_cleaned(others, "", lost),
        "$schema": DRAFT_07,
        "type": "object",
        "properties": properties,
        "required": sorted(required),
    }
    arrays = any("$ref" in described for described in properties.values())
    record = SchemaRecord(
        name=publication.schema_name[:_LONGEST_NAME],
        version=version,
        schema=body,
        created_at=now(),
        arrays=_ARRAY_FORMATS if arrays else None,
    )
    return record, lost


def _property(declared: Any, known: Mapping[str, Any], path: str, lost: list[str]) -> dict[str, Any]:
    kind = known.get("kind")
    if kind == "ndarray" or _is_array(declared):
        return _array(declared if _is_array(declared) else {}, known)
    described = _cleaned(declared, path, lost) if isinstance(declared, Mapping) else {}
    # The library takes any $ref for one of its array formats, and an "items" that is no object for an error.
    described.pop("$ref", None)
    _mend_items(described)
    if not isinstance(described.get("type"), str | list):
        described |= _BY_KIND.get(str(kind), {})
    return described


def _mend_items(described: dict[str, Any]) -> None:
    items = described.get("items")
    if not isinstance(items, dict):
        described.pop("items", None)
        return
    if not _is_array(items):
        items.pop("$ref", None)
    _mend_items(items)


def _is_array(declared: Any) -> bool:
    ref = declared.get("$ref") if isinstance(declared, Mapping) else None
    return isinstance(ref, str) and ref.endswith("#/$defs/ndarray")


def _array(declared: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"$ref": NDARRAY_REF}
    dtypes = known.get("dtypes") or [declared.get("dtype")]
    if len(dtypes) == 1 and isinstance(dtypes[0], str) and dtypes[0] != "text":
        described["dtype"] = dtypes[0]
    shape = known["shape"] if "shape" in known else declared.get("shape")
    if isinstance(shape, list):
        described["shape"] = shape
    return described


def _cleaned(schema: Mapping[str, Any], path: str, lost: list[str]) -> dict[str, Any]:
    """A schema without the keywords whose values no record can hold: fractions and very large integers."""
    cleaned = {}
    for key, part in schema.items():
        where = f"{path}.{key}" if path else key
        value = _whole(part, where, lost)
        if value is _LOST:
            lost.append(where)
        else:
            cleaned[key] = value
    return cleaned


_LOST = object()


def _whole(value: Any, path: str, lost: list[str]) -> Any:
    if isinstance(value, Mapping):
        return _cleaned(value, path, lost)
    if isinstance(value, list | tuple):
        items = [_whole(item, f"{path}[{number}]", lost) for number, item in enumerate(value)]
        return _LOST if any(item is _LOST for item in items) else items
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= LARGEST_INTEGER else _LOST
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        return _LOST
    return value
