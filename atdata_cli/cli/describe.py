"""Values from data as text for people and for JSON: short, and harmless in a terminal."""

from __future__ import annotations

from typing import Any

from atdata_cli.cli.output import human_bytes
from atdata_cli.refs import printable
from atdata_cli.samples.schema import member_kind
from atdata_cli.sources.base import Value, size_of

__all__ = ["as_json", "as_member_json", "short", "short_member"]

LONGEST = 60
_WHOLE_BYTES = 4096  # larger values are told by their size alone
_TEXTS = {"text", "json", "integer"}


def short(value: Any) -> str:
    """A decoded value in one line."""
    if isinstance(value, str):
        return _cut(f'"{printable(value)}"')
    if isinstance(value, bytes):
        return f"{human_bytes(len(value))} of bytes"
    if type(value).__name__ == "ndarray":
        return f"{value.dtype.name} array of shape {list(value.shape)}"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return _cut(printable(repr(value)))


def short_member(name: str, value: Value) -> str:
    """A member in one line: text as text, everything else by its size."""
    size = size_of(value)
    if member_kind(name) in _TEXTS and isinstance(value, bytes):
        try:
            return _cut(printable(value.decode("utf-8")))
        except UnicodeDecodeError:
            pass
    return human_bytes(size)


def as_json(value: Any) -> Any:
    """A decoded value for JSON; bytes and arrays as objects that say what they are."""
    if isinstance(value, bytes):
        return _bytes_json(value)
    if type(value).__name__ == "ndarray":
        described = {"dtype": value.dtype.name, "shape": list(value.shape)}
        return described | ({"values": value.tolist()} if value.size <= _WHOLE_BYTES // 8 else {})
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {str(name): as_json(item) for name, item in value.items()}
    return value


def as_member_json(name: str, value: Value) -> Any:
    """A member for JSON: text as text, everything else as bytes."""
    if member_kind(name) in _TEXTS and isinstance(value, bytes) and len(value) <= _WHOLE_BYTES:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return _bytes_json(value)


def _bytes_json(value: Value) -> dict[str, Any]:
    import base64

    if not isinstance(value, bytes):
        return {"bytes": value.size}
    whole = {"base64": base64.b64encode(value).decode("ascii")} if len(value) <= _WHOLE_BYTES else {}
    return {"bytes": len(value), **whole}


def _cut(text: str) -> str:
    text = text.replace("\n", "\\n")
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
