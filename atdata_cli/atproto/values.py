"""The values of a record: read strictly by type, and checked before they are sent.

Reading raises ``ValueError``, which :class:`reading` turns into the one error of a damaged record; checking raises
:class:`UsageError`, with the path of the value and what to do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from atdata_cli.errors import IntegrityError, UsageError

__all__ = [
    "LARGEST_INTEGER",
    "MAX_RECORD_BYTES",
    "blob_cid",
    "blob_sha256",
    "check_at_uri",
    "check_datetime",
    "check_plain",
    "check_tags",
    "check_text",
    "check_uri",
    "compact",
    "each",
    "given",
    "read_cid",
    "read_count",
    "read_list",
    "read_member",
    "read_object",
    "read_optional",
    "read_optional_text",
    "read_text",
    "reading",
    "sha256_in",
]

LARGEST_INTEGER = (1 << 53) - 1
"""Integers of records are those that JavaScript has."""

MAX_RECORD_BYTES = 153_600
"""Largest JSON body of a request to a personal data server; one byte more is answered with 413."""

_MAX_DEPTH = 64
_RAW_SHA256 = bytes((0x01, 0x55, 0x12, 0x20))  # CID version 1, raw bytes, SHA-256, 32 bytes
_CID_HINT = "a blob's begins with bafkrei and has 59 letters: copy it whole, as resolve --canonical prints it"
_Value = TypeVar("_Value")


@contextmanager
def reading(value: Any, kind: str, uri: str) -> Iterator[None]:
    """Read a record of the collection *kind*: every ``ValueError`` becomes the one error of a damaged record."""
    if not isinstance(value, dict) or value.get("$type") != kind:
        raise IntegrityError(f"this record is no {kind}", url=uri, hint=f"name a record of {kind}")
    try:
        yield
    except ValueError as error:
        raise IntegrityError(
            f"the record is damaged: {error}", url=uri, hint="its publisher has to publish it again"
        ) from error


def read_object(value: Any) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise ValueError(f"{_shown(value)} is no JSON object")  # noqa: TRY004 - every damage is one error
    return value


def read_member(value: Any, name: str) -> dict[str, Any]:
    """The JSON object under *name*."""
    found = read_object(value).get(name)
    if not isinstance(found, dict):
        raise ValueError(f'"{name}" is {_absent(found)}')  # noqa: TRY004
    return found


def read_text(value: Any, name: str) -> str:
    """The text under *name*."""
    found = read_object(value).get(name)
    if not isinstance(found, str):
        raise ValueError(f'"{name}" is {_absent(found)}')  # noqa: TRY004
    return found


def read_optional_text(value: Any, name: str) -> str | None:
    """The text under *name*, or None."""
    return None if read_object(value).get(name) is None else read_text(value, name)


def read_count(value: Any, name: str) -> int:
    """The number under *name*, which counts something."""
    found = read_object(value).get(name)
    if type(found) is not int or not 0 <= found <= LARGEST_INTEGER:
        raise ValueError(f'"{name}" is {_absent(found)}')
    return found


def read_list(value: Any, name: str) -> list[Any]:
    """The JSON array under *name*."""
    found = read_object(value).get(name)
    if not isinstance(found, list):
        raise ValueError(f'"{name}" is {_absent(found)}')  # noqa: TRY004
    return found


def each(value: Any, name: str, read: Callable[[Any], _Value]) -> tuple[_Value, ...]:
    """The items of the array under *name*, each taken by *read*."""
    return tuple(map(read, read_list(value, name)))


def read_optional(value: Any, name: str, read: Callable[[Any], _Value]) -> _Value | None:
    """The value under *name* as *read* takes it, or None."""
    found = read_object(value).get(name)
    return None if found is None else read(found)


def read_cid(value: Any) -> str:
    """A content identifier."""
    if not isinstance(value, str) or not re.fullmatch("[a-zA-Z0-9]{8,120}", value):
        raise ValueError(f"{_shown(value)} is no CID")
    return value


def _absent(value: Any) -> str:
    return "missing" if value is None else _shown(value)


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def given(**values: Any) -> dict[str, Any]:
    """What is not None."""
    return {name: value for name, value in values.items() if value is not None}


def compact(value: Any) -> bytes:
    """JSON as it is sent: no spaces, UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")


def check_text(value: str | None, where: str, limit: int, *, least: int = 0) -> None:
    """A text of at most *limit* bytes, or None."""
    if value is None:
        return
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise UsageError(f"{where} is not valid Unicode") from error
    if size > limit:
        raise UsageError(f"{where} has {size:,} bytes, and at most {limit:,} are allowed", hint="shorten it")
    if size < least:
        raise UsageError(f"{where} is empty")


def check_tags(tags: Sequence[str]) -> None:
    """Tags as entries and schemas have them."""
    if len(tags) > 30:
        raise UsageError(f"there are {len(tags)} tags, and at most 30 are allowed", hint="leave some out")
    for number, tag in enumerate(tags):
        check_text(tag, f"tags[{number}]", 150, least=1)


def check_uri(uri: str, where: str, limit: int) -> None:
    """A URI of at most *limit* bytes."""
    from atproto_client.models import string_formats

    check_text(uri, where, limit)
    _check_format(string_formats.Uri, uri, where)


def check_at_uri(uri: str, where: str) -> None:
    """``at://AUTHORITY/COLLECTION/KEY``. By parts: the SDK's own pattern has no DIDs with a port."""
    from atproto_client.models import string_formats

    check_text(uri, where, 500)
    authority, _, rest = uri.removeprefix("at://").partition("/")
    collection, _, key = rest.partition("/")
    if not uri.startswith("at://"):
        raise UsageError(f"{where} is no AT-URI: {uri!r}")
    _check_format(string_formats.AtIdentifier, authority, where)
    _check_format(string_formats.Nsid, collection, where)
    _check_format(string_formats.RecordKey, key, where)


def check_datetime(text: str) -> None:
    """A date and time with its zone."""
    from atproto_client.models import string_formats

    _check_format(string_formats.DateTime, text, "createdAt")


def _check_format(kind: Any, text: str, where: str) -> None:
    """One of the SDK's string formats."""
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(kind).validate_python(text, context={"strict_string_format": True})
    except ValidationError as error:
        raise UsageError(f"{where}: {_shown(text)} is not in the form that the lexicon asks for") from error


def check_plain(value: Any, where: str) -> None:
    """What a record may hold freely: JSON without floats, with integers that JavaScript has, and no reserved keys."""
    for path, part in _walk(value, where, 0):
        if isinstance(part, float):
            raise UsageError(f"{path} is {part}: records hold no floating-point numbers", hint="write it as text")
        if isinstance(part, int) and abs(part) > LARGEST_INTEGER:
            raise UsageError(f"{path} is {part}: records hold no integers beyond 2^53-1", hint="write it as text")
        if isinstance(part, str):
            check_text(part, path, MAX_RECORD_BYTES)


def _walk(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    """All leaves with their paths."""
    if depth > _MAX_DEPTH:
        raise UsageError(f"{path[:80]} is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        for key, part in value.items():
            if not isinstance(key, str) or key in {"$type", "$link", "$bytes"}:
                raise UsageError(f"{path} has a key {key!r}, which has a meaning of its own in a record")
            check_text(key, f"a key of {path}", MAX_RECORD_BYTES)
            yield from _walk(part, f"{path}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _walk(part, f"{path}[{number}]", depth + 1)
    elif value is None or isinstance(value, bool | int | float | str):
        yield path, value
    else:
        raise UsageError(f"{path} is of the type {type(value).__name__}, which JSON does not have")


def blob_cid(sha256: str) -> str:
    """The CID of a blob, from the SHA-256 of its bytes in hex."""
    import libipld

    return str(libipld.encode_cid(_RAW_SHA256 + bytes.fromhex(sha256)))


def blob_sha256(cid: str) -> str:
    """The SHA-256, hex, of the bytes that a blob's CID names.

    Raises
    ------
    UsageError : it is no CID of a blob.
    """
    import libipld

    try:
        decoded = libipld.decode_cid(cid)
    except ValueError as error:
        raise UsageError(f"{cid[:100]!r} is no CID", hint=_CID_HINT) from error
    digest = decoded["hash"]
    if (decoded["version"], decoded["codec"], digest["code"], digest["size"]) != tuple(_RAW_SHA256):
        raise UsageError(f"{cid[:100]!r} is no CID of a blob: it must name raw bytes by their SHA-256", hint=_CID_HINT)
    return bytes(digest["digest"]).hex()


def sha256_in(cid: str) -> str | None:
    """:func:`blob_sha256`; None for what is no CID of a blob, or is not written in base32."""
    try:
        return blob_sha256(cid) if cid.startswith("b") else None
    except UsageError:
        return None
