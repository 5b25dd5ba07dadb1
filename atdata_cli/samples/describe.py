"""A field's entry in ``manifest.json`` in a person's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atdata_cli.words import human_bytes

__all__ = ["described_kind", "described_range"]


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
