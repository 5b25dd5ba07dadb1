"""A field's entry in ``manifest.json``, and its schema, in a person's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atdata_cli.words import human_bytes

__all__ = ["described_kind", "described_range", "described_schema"]

_ELSEWHERE = ("anyOf", "oneOf", "allOf", "enum", "const")  # what tells of a value where no type does


def described_kind(known: Mapping[str, Any]) -> str:
    """What kind of values a field has: ``integer``, ``float32 array``, ``list of string``."""
    kind = str(known.get("kind", "?"))
    if kind == "ndarray":
        return f"{'/'.join(known.get('dtypes', ()))} array"
    if kind == "array":
        return f"list of {known['items'].get('kind', '?')}" if "items" in known else "list"
    return kind


def described_range(known: Mapping[str, Any]) -> str:
    """Sizes, shape, range or lengths, whichever is known; empty if none is."""
    if "size" in known:
        low, high = known["size"]
        return human_bytes(low) if low == high else f"{human_bytes(low)} … {human_bytes(high)}"
    if known.get("shape") is not None:
        return " × ".join("?" if side is None else str(side) for side in known["shape"]) or "scalar"
    if "range" in known:
        low, high = known["range"]
        return f"{low:g} … {high:g}" if isinstance(low, float) else f"{low} … {high}"
    if "length" in known:
        low, high = known["length"]
        return f"length {low}" if low == high else f"length {low} … {high}"
    return ""


def described_schema(name: str, schema: Mapping[str, Any]) -> str:
    """What a draft-07 schema says of a field: ``integer``, ``string|null``, ``base64 string, optional``.

    Parameters
    ----------
    name : of the field.
    schema : of a sample; given by ``--schema``, it may be any JSON.
    """
    properties, required = schema.get("properties"), schema.get("required")
    declared = properties.get(name) if isinstance(properties, Mapping) else None
    types = _types(declared if isinstance(declared, Mapping) else {})
    return types if isinstance(required, list) and name in required else f"{types}, optional"


def _types(declared: Mapping[str, Any]) -> str:
    if isinstance(declared.get("$ref"), str):
        return str(declared["$ref"]).rpartition("/")[2]
    types = declared.get("type")
    if types is None:
        return next((keyword for keyword in _ELSEWHERE if keyword in declared), "any")
    text = "|".join(map(str, types)) if isinstance(types, list) else str(types)
    return f"base64 {text}" if declared.get("contentEncoding") == "base64" else text
