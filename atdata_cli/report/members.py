"""A sample's fields as values to look at, whichever way they are stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atdata_cli.samples.codec import bytes_to_array, unpack_rows
from atdata_cli.samples.schema import member_kind
from atdata_cli.shards.scan import is_packed
from atdata_cli.sources.base import Sample, Value, content

__all__ = ["LARGEST", "Member", "decode", "load"]

# Nothing larger is read for the page.
LARGEST = 16 << 20

# Numbers as text, as in ".cls" members; longer ones are names.
_WHOLE = re.compile(rb"\s*-?[0-9]{1,18}\s*")

_MAGIC: tuple[tuple[bytes, bytes, str], ...] = (  # how it begins, what stands at byte 8, its kind
    (b"\x89PNG\r\n\x1a\n", b"", "image"),
    (b"\xff\xd8\xff", b"", "image"),
    (b"GIF8", b"", "image"),
    (b"II*\0", b"", "image"),
    (b"MM\0*", b"", "image"),
    (b"RIFF", b"WEBP", "image"),
    (b"RIFF", b"WAVE", "audio"),
    (b"OggS", b"", "audio"),
    (b"fLaC", b"", "audio"),
    (b"ID3", b"", "audio"),
    (b"\xff\xfb", b"", "audio"),
)


@dataclass(frozen=True, slots=True)
class Member:
    """A value that is bytes.

    Attributes
    ----------
    kind : ``image``, ``audio``, ``text`` or another of ``member_kind``'s.
    value : the bytes, or the blob that reads them.
    problem : why it is not what its name says, if it is not.
    """

    kind: str
    value: Value
    problem: str | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.value) if isinstance(self.value, bytes) else self.value.size

    def head(self, limit: int) -> bytes:
        """The first *limit* bytes."""
        if isinstance(self.value, bytes):
            return self.value[:limit]
        with self.value.open() as reader:
            return reader.read(limit)


def decode(sample: Sample) -> dict[str, Any]:
    """A sample's fields: numbers, text, lists, maps and arrays as such, all else as :class:`Member`.

    Large members are left unread.
    """
    if not is_packed(sample):
        return {name: _member(name, value) for name, value in sample.fields.items()}
    packed = Member("msgpack", sample.fields["msgpack"])
    if packed.size > LARGEST:
        return {"msgpack": packed}
    rows = unpack_rows([content(packed.value)])
    if not rows:
        return {"msgpack": Member("bytes", packed.value, "it is no msgpack map of a sample's fields")}
    return {name: _packed(value) for name, value in rows[0].items()}


def load(name: str, value: Any) -> Any:
    """*value* as :func:`decode` gave it, or what it is once read, if it was left unread and is not too large."""
    if isinstance(value, Member) and not isinstance(value.value, bytes) and value.size <= LARGEST:
        return _member(name, content(value.value))
    return value


def _packed(value: Any) -> Any:
    if isinstance(value, bytes):
        return Member(_sniffed(value) or "bytes", value)
    # Image and audio columns of Parquet files by Hugging Face's datasets.
    if isinstance(value, Mapping) and value.keys() == {"bytes", "path"} and isinstance(value["bytes"], bytes):
        return Member(_sniffed(value["bytes"]) or member_kind(str(value["path"])), value["bytes"])
    return value


def _member(name: str, value: Value) -> Any:
    kind = member_kind(name)
    if not isinstance(value, bytes):
        return Member(kind, value)
    if kind == "integer":
        return int(value) if _WHOLE.fullmatch(value) else _text(value)
    if kind == "text":
        return _text(value)
    if kind == "json":
        return _json(value)
    if kind == "ndarray":
        array = bytes_to_array(value)
        return Member("bytes", value, _not_npy(name)) if array is None else array
    return Member((_sniffed(value) or kind) if kind == "bytes" else kind, value)


def _not_npy(name: str) -> str | None:
    return "it is no array that can be read" if name.lower().endswith("npy") else None


def _text(value: bytes) -> Any:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return Member("bytes", value, "it is no UTF-8 text")


def _json(value: bytes) -> Any:
    import orjson

    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        return Member("text", value, f"it is no JSON: {error}")


def _sniffed(value: bytes) -> str | None:
    """``image`` or ``audio`` if the bytes begin like one."""
    for start, inner, kind in _MAGIC:
        if value.startswith(start) and value[8:12].startswith(inner):
            return kind
    return None
