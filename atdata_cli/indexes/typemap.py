"""One type mapping: what is in the fields, as JSON Schema has it, and as the local index of the reference library.

The library makes a class of a schema in its index. A field's type decides there only whether bytes are turned into an
array; everything else arrives as it was packed, whatever the type says.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from atdata_cli.indexes.base import Publication
from atdata_cli.samples.schema import DRAFT_07, JSON_TYPES, MAX_ITEM_DEPTH, NDARRAY_REF

__all__ = ["fields_of", "json_schema_of", "loading_problems", "local_fields", "schema_name"]

_PRIMITIVES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "bytes": "bytes"}
_BYTES = JSON_TYPES["bytes"]
_SCHEMAS: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "bytes": _BYTES,
}
# Attributes of the library's own class, which a field of that name would hide or inherit.
_TAKEN = frozenset({"packed", "as_wds", "from_data", "from_bytes", "_ensure_good", "_abc_impl"})
_NAMED = 5  # odd names that a warning lists


def schema_name(name: str) -> str:
    """The name of a dataset's schema: an identifier in CamelCase, ``my-photos.v1`` → ``MyPhotosV1Sample``."""
    camel = "".join(word[0].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9]+", name))
    return f"{'' if camel[:1].isalpha() else 'Dataset'}{camel}Sample"


def local_fields(publication: Publication) -> list[dict[str, Any]]:
    """The ``fields`` of a schema in the local index.

    What is known from the data decides; the schema tells what is not. Optional fields come last, as they get a default
    in the class that the library makes. Arrays are never optional: the library would leave them packed.
    """
    known = publication.fields
    properties = publication.schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    names = sorted({*known, *properties})
    fields = [_local_field(name, known.get(name, {}), properties.get(name, {}), publication) for name in names]
    return sorted(fields, key=lambda field: bool(field["optional"]))


def _local_field(name: str, known: Mapping[str, Any], declared: Any, publication: Publication) -> dict[str, Any]:
    if publication.encoding == "files":
        kind, declared = "bytes", _BYTES
    else:
        kind = known.get("kind") or _kind(declared)
    described = _local_type(kind, declared, known.get("dtypes"))
    return {
        "name": name,
        "fieldType": described,
        "optional": kind != "ndarray" and _may_be_none(name, known, declared, publication),
    }


def _may_be_none(name: str, known: Mapping[str, Any], declared: Any, publication: Publication) -> bool:
    if known:
        return bool(known.get("nulls")) or known.get("samples", 0) != publication.samples
    required = publication.schema.get("required")
    return _nullable(declared) or not isinstance(required, list) or name not in required


def _local_type(kind: str, declared: Any, dtypes: Sequence[str] | None = None, depth: int = 0) -> dict[str, Any]:
    if kind == "ndarray":
        named = dtypes or _texts(declared.get("dtype") if isinstance(declared, Mapping) else None)
        # Without one name for all of them the library is told none.
        one = named[0] if len(named) == 1 and named[0] != "text" else None
        return {"$type": "local#ndarray", "dtype": one} if one else {"$type": "local#ndarray"}
    if kind == "array":
        items = _items(declared) if depth < MAX_ITEM_DEPTH else None
        inner = {"items": _local_type(_kind(items), items, depth=depth + 1)} if items else {}
        return {"$type": "local#array", **inner}
    return {"$type": "local#primitive", "primitive": _PRIMITIVES.get(kind, "str")}


def _items(declared: Any) -> Mapping[str, Any] | None:
    """What a list holds, if that is of one kind."""
    items = declared.get("items") if isinstance(declared, Mapping) else None
    if not isinstance(items, Mapping) or _kind(items) in ("mixed", "null"):
        return None
    return items


def _texts(value: Any) -> Sequence[str]:
    return [value] if isinstance(value, str) else []


def _types(declared: Any) -> set[str]:
    """The JSON types that a property may have, as far as it says so plainly."""
    if not isinstance(declared, Mapping):
        return set()
    named = declared.get("type")
    return {name for name in (named if isinstance(named, list) else [named]) if isinstance(name, str)}


def _nullable(declared: Any) -> bool:
    return "null" in _types(declared)


def _kind(declared: Any) -> str:
    """The kind of field, in a manifest's words, that a JSON Schema describes."""
    if not isinstance(declared, Mapping):
        return "mixed"
    ref = declared.get("$ref")
    if isinstance(ref, str):
        return "ndarray" if "ndarray" in ref.lower() else "mixed"
    types = _types(declared)
    rest = types - {"null"}
    if rest == {"integer", "number"}:
        return "number"
    if len(rest) != 1:
        return "null" if types else "mixed"
    kind = rest.pop()
    if kind == "string" and (declared.get("format") == "byte" or declared.get("contentEncoding") == "base64"):
        return "bytes"
    return kind


def json_schema_of(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The JSON Schema of a sample, from the ``schema_json`` of a local index; None if it is of no form that is known.

    Two forms are: ``fields``, and the record of the AT Protocol (``"schemaType": "jsonSchema"``), whose schema may be
    nested in ``schemaBody``.
    """
    if isinstance(record.get("fields"), list):
        return _from_fields(record["fields"])
    schema = record.get("schema")
    if isinstance(schema, dict):
        schema = schema.get("schemaBody", schema)
    if not isinstance(schema, dict) or not isinstance(schema.get("properties"), dict):
        return None
    return {name: value for name, value in schema.items() if name not in ("$type", "arrayFormatVersions")}


def _from_fields(fields: Iterable[Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required = []
    for field in fields:
        if not isinstance(field, Mapping) or not isinstance(field.get("name"), str):
            continue
        described = _json_type(field.get("fieldType"))
        if field.get("optional") is True and isinstance(described.get("type"), str):
            described = {**described, "type": [described["type"], "null"]}
        else:
            required.append(field["name"])
        properties[field["name"]] = described
    return {"$schema": DRAFT_07, "type": "object", "properties": properties, "required": sorted(required)}


def _json_type(described: Any, depth: int = 0) -> dict[str, Any]:
    if not isinstance(described, Mapping) or depth > MAX_ITEM_DEPTH:
        return {}
    kind = str(described.get("$type", "")).rpartition("#")[2]
    if kind == "primitive":
        primitive = described.get("primitive")
        return dict(_SCHEMAS.get(primitive, {})) if isinstance(primitive, str) else {}
    if kind == "ndarray":
        dtype = described.get("dtype")
        return {"$ref": NDARRAY_REF} | ({"dtype": dtype} if isinstance(dtype, str) else {})
    if kind == "array":
        items = _json_type(described.get("items"), depth + 1)
        return {"type": "array"} | ({"items": items} if items else {})
    if kind in ("structured", "sparse", "arrow_tensor", "safetensors", "dataframe"):
        return dict(_BYTES)  # the library keeps each in a format of its own
    return {}


def fields_of(schema: Mapping[str, Any], samples: int) -> dict[str, dict[str, Any]]:
    """What a schema tells of the fields, as a manifest has it: their kinds."""
    properties = schema.get("properties")
    required = schema.get("required")
    fields: dict[str, dict[str, Any]] = {}
    for name, declared in (properties if isinstance(properties, Mapping) else {}).items():
        known: dict[str, Any] = {"kind": _kind(declared)}
        dtype = declared.get("dtype") if isinstance(declared, Mapping) else None
        if known["kind"] == "ndarray" and isinstance(dtype, str):
            known |= {"dtypes": [dtype], "shape": None}
        if isinstance(required, list) and name in required and not _nullable(declared):
            known["samples"] = samples
        fields[name] = known
    return fields


def loading_problems(publication: Publication, urls: Sequence[str]) -> Iterator[str]:
    """Why ``atdata.load_dataset`` could not load it with a class of its own, told to the publisher.

    Parameters
    ----------
    urls : as the entry has them.
    """
    if publication.encoding == "files":
        yield "atdata.load_dataset reads msgpack samples only, and these are files: webdataset.WebDataset reads them"
        return
    names = {*publication.fields, *publication.schema.get("properties", {})}
    odd = sorted(name for name in names if not _loads_as_attribute(name))
    if odd:
        listed = ", ".join(odd[:_NAMED]) + (f" and {len(odd) - _NAMED} more" if len(odd) > _NAMED else "")
        yield (
            f"a class cannot have fields of these names: {listed}. "
            "atdata.load_dataset(REF, atdata.DictSample) reads them, a typed one does not"
        )
    partial = sorted(
        name
        for name, known in publication.fields.items()
        if known.get("kind") == "ndarray" and known.get("samples", 0) + known.get("nulls", 0) != publication.samples
    )
    if partial:
        yield f"some samples lack the array {partial[0]}: a typed atdata.load_dataset stops there"
    if not _joins(urls):
        yield "atdata.load_dataset cannot open shards with braces, or differing parts with commas, in their names"


def _loads_as_attribute(name: str) -> bool:
    import unicodedata

    if not name.isidentifier() or keyword.iskeyword(name) or name in _TAKEN or name.startswith("__"):
        return False
    return unicodedata.normalize("NFKC", name) == name  # as Python's parser has it


def _joins(urls: Sequence[str]) -> bool:
    """Whether the library finds these shards again in the one brace pattern that it makes of several.

    It puts what they begin and end with in common around braces with what differs, and escapes nothing.
    """
    if any("{" in url or "}" in url for url in urls):
        return False
    if len(urls) < 2:
        return True
    head = _common_start(urls)
    tail = _common_start([url[::-1] for url in urls])
    tail = min(tail, min(map(len, urls)) - head)
    differing = [url[head : len(url) - tail] for url in urls]
    return head + tail > 0 and all(differing) and not any("," in part for part in differing)


def _common_start(texts: Sequence[str]) -> int:
    """How many characters all of them begin with: as many as the first and the last in order do."""
    first, last = min(texts), max(texts)
    return next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
