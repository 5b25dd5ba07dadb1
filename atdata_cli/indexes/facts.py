"""What an entry tells besides where its shards are: the names that it goes under in an entry's ``metadata``.

A dataset in a PDS has no manifest, and one in S3 may lose it: with these facts its entry says what the manifest
would. ``split`` and ``checksums`` are the reference library's names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from atdata_cli.errors import UsageError
from atdata_cli.indexes.base import Entry, EntryShard, Publication

__all__ = ["RESERVED", "check_metadata", "facts", "with_facts"]

RESERVED = (
    "split checksums encoding compression samples bytes payload job shards schema description tags license endpoint "
    "region"
).split()
"""Names in an entry's metadata that its publisher cannot use."""

_TEXTS = ("split", "encoding", "compression", "job", "description", "license", "endpoint", "region")
_COUNTS = ("samples", "bytes", "payload")
_ENCODINGS = ("msgpack", "files")
_LARGEST = (1 << 63) - 1


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Refuse metadata of a publisher that uses a name that means something else.

    Raises
    ------
    UsageError : it does.
    """
    for name in metadata:
        if name in RESERVED:
            raise UsageError(f'the metadata may not have "{name}": an entry tells it by itself', hint="leave it out")


def facts(publication: Publication) -> dict[str, Any]:
    """What no field of a record has a place for, as the entry's metadata: the publisher's, and the manifest's.

    ``shards`` has a row a shard, in order: samples, bytes, first key, last key.
    """
    known: dict[str, Any] = {
        "split": publication.split,
        "encoding": publication.encoding,
        "compression": publication.compression,
        "payload": publication.payload,
        "job": publication.job,
        "shards": [[shard.samples, shard.bytes, shard.first_key, shard.last_key] for shard in publication.shards],
    }
    return {**(publication.metadata or {}), **{name: value for name, value in known.items() if value is not None}}


def with_facts(entry: Entry, metadata: Mapping[str, Any]) -> Entry:
    """*entry* with what its *metadata* tells; what the entry says itself wins.

    Metadata is another program's, or another person's: what is not of the type that it must have is left out.
    """
    told: dict[str, Any] = {name: metadata[name] for name in _TEXTS if isinstance(metadata.get(name), str)}
    told |= {name: metadata[name] for name in _COUNTS if _is_count(metadata.get(name))}
    if told.get("encoding", "msgpack") not in _ENCODINGS:
        del told["encoding"]
    tags = metadata.get("tags")
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        told["tags"] = tuple(tags)
    told = {name: value for name, value in told.items() if getattr(entry, name) in (None, ())}
    rest = {name: value for name, value in metadata.items() if name not in RESERVED}
    return replace(entry, **told, shards=_shards(entry.shards, metadata), metadata={**rest, **entry.metadata})


def _shards(shards: Sequence[EntryShard], metadata: Mapping[str, Any]) -> Sequence[EntryShard]:
    checksums, rows = metadata.get("checksums"), metadata.get("shards")
    if not isinstance(checksums, dict):
        checksums = {}
    if not isinstance(rows, list) or len(rows) != len(shards):
        rows = []
    return tuple(_shard(shard, checksums.get(shard.url), row) for shard, row in zip_longest(shards, rows))


def _shard(shard: EntryShard, checksum: Any, row: Any) -> EntryShard:
    told: dict[str, Any] = {}
    if isinstance(checksum, str) and re.fullmatch("[0-9a-f]{64}", checksum):
        told["sha256"] = checksum
    if isinstance(row, list) and len(row) >= 4:
        told |= {name: value for name, value in zip(("samples", "bytes"), row[:2], strict=True) if _is_count(value)}
        keys = zip(("first_key", "last_key"), row[2:4], strict=True)
        told |= {name: value for name, value in keys if isinstance(value, str) and value}
    return replace(shard, **{name: value for name, value in told.items() if getattr(shard, name) is None})


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST
