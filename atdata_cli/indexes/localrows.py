"""The rows of the local index, as the reference library has them: entries, labels, schemas."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atdata_cli.errors import IntegrityError, UsageError
from atdata_cli.indexes.base import Entry, EntryShard, Withdrawal
from atdata_cli.indexes.facts import with_facts
from atdata_cli.indexes.typemap import json_schema_of
from atdata_cli.refs import LOCAL_INDEX, expand_all

__all__ = [
    "SCHEMA_URI",
    "Label",
    "Row",
    "all_labels",
    "entry_of",
    "label_of",
    "labels_named",
    "labels_to",
    "loaded",
    "newest_label",
    "packed",
    "row_of",
    "rows_named",
    "rows_without_label",
    "target_of",
    "uri_of",
    "withdrawal_of",
]

SCHEMA_URI = "atdata://local/schema/"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of ``dataset_entries``."""

    cid: str
    name: str
    schema_ref: str
    urls: Sequence[str]
    metadata: Mapping[str, Any]
    created_at: str | None


@dataclass(frozen=True, slots=True)
class Label:
    """A row of ``labels``; the plain one has the version ``""``."""

    name: str
    version: str
    cid: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name


def all_labels(db: sqlite3.Connection) -> list[Label]:
    """By name and version."""
    return _labels(db, "SELECT name, version, cid FROM labels ORDER BY name, version")


def labels_named(db: sqlite3.Connection, name: str) -> list[Label]:
    """All of one name, the newest first: the reference library takes that one, whatever its version."""
    query = "SELECT name, version, cid FROM labels WHERE name = ? ORDER BY created_at DESC, rowid DESC"
    return _labels(db, query, [name])


def labels_to(db: sqlite3.Connection, cid: str) -> list[Label]:
    """All that lead to one entry, by name and version."""
    return _labels(db, "SELECT name, version, cid FROM labels WHERE cid = ? ORDER BY name, version", [cid])


def newest_label(db: sqlite3.Connection, name: str) -> Label | None:
    """The one that a name stands for."""
    return next(iter(labels_named(db, name)), None)


def label_of(db: sqlite3.Connection, name: str, version: str) -> Label | None:
    """The one of a version."""
    found = _labels(db, "SELECT name, version, cid FROM labels WHERE name = ? AND version = ?", [name, version])
    return next(iter(found), None)


def _labels(db: sqlite3.Connection, query: str, values: Sequence[Any] = ()) -> list[Label]:
    return [Label(str(name), str(version), str(cid)) for name, version, cid in db.execute(query, values)]


def row_of(db: sqlite3.Connection, cid: str) -> Row | None:
    """The entry with a CID."""
    return next(iter(_rows(db, "WHERE cid = ?", cid)), None)


def rows_named(db: sqlite3.Connection, name: str) -> list[Row]:
    """The entries that were written under a name, whatever labels say; the newest first."""
    return _rows(db, "WHERE name = ? ORDER BY created_at DESC, rowid DESC", name)


def rows_without_label(db: sqlite3.Connection) -> list[Row]:
    """The entries of names that no label has."""
    return _rows(db, "WHERE name NOT IN (SELECT name FROM labels)")


def _rows(db: sqlite3.Connection, which: str, *values: str) -> list[Row]:
    query = f"SELECT cid, name, schema_ref, data_urls, metadata, created_at FROM dataset_entries {which}"  # noqa: S608 - *which* is ours
    return [_parsed(found) for found in db.execute(query, values)]


def _parsed(found: Sequence[Any]) -> Row:
    cid, name, schema_ref, data_urls, metadata, created_at = found
    urls = _unpacked(data_urls, cid)
    known = {} if metadata is None else _unpacked(metadata, cid)
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls) or not isinstance(known, dict):
        raise IntegrityError(
            f"the entry {cid} in the local index is damaged", hint="unpublish it, and publish the dataset again"
        )
    return Row(str(cid), str(name), str(schema_ref), urls, known, created_at)


def _unpacked(data: Any, cid: Any) -> Any:
    import msgpack

    try:
        return msgpack.unpackb(data)
    except (TypeError, ValueError, msgpack.exceptions.UnpackException) as error:
        raise IntegrityError(
            f"the entry {cid} in the local index is damaged: {error}",
            hint="unpublish it, and publish the dataset again",
        ) from error


def loaded(text: Any) -> dict[str, Any]:
    """A schema's record; empty if it is none."""
    try:
        record = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def entry_of(db: sqlite3.Connection, row: Row, name: str, version: str | None) -> Entry:
    """An entry as it was found under a name."""
    checksums = row.metadata.get("checksums")
    known = checksums if isinstance(checksums, dict) else {}
    # The library writes a dataset that it did not copy as one brace pattern; what have checksums are names.
    urls = list(row.urls) if known.keys() >= set(row.urls) else expand_all(row.urls)
    entry = Entry(
        uri=uri_of(name, version),
        key=row.cid,
        name=name,
        version=version,
        shards=tuple(map(EntryShard, urls)),
        schema=_own_schema(row.metadata) or _schema_at(db, row.schema_ref),
        schema_ref=row.schema_ref,
        created_at=row.created_at,
    )
    return with_facts(entry, row.metadata)


def _own_schema(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    schema = metadata.get("schema")
    return schema if isinstance(schema, dict) and isinstance(schema.get("properties"), dict) else None


def _schema_at(db: sqlite3.Connection, schema_ref: str) -> Mapping[str, Any] | None:
    name, at, version = schema_ref.removeprefix(SCHEMA_URI).rpartition("@")
    if not at or not schema_ref.startswith(SCHEMA_URI):
        return None
    query = "SELECT schema_json FROM schemas WHERE name = ? AND version = ?"
    found = db.execute(query, [name, version]).fetchone()
    return None if found is None else json_schema_of(loaded(found[0]))


def withdrawal_of(db: sqlite3.Connection, name: str, version: str | None) -> Withdrawal:
    """What goes with a name, or with one version of it; nothing, if there is none."""
    if version is None:
        going = sorted(labels_named(db, name), key=lambda label: label.version)
        written = [row.cid for row in rows_named(db, name)]
    else:
        label = label_of(db, name, version)
        going, written = [] if label is None else [label], []
    needed = {label.cid for label in all_labels(db) if label not in going}
    cids = [cid for cid in dict.fromkeys([label.cid for label in going] + written) if cid not in needed]
    rows = [row for cid in cids if (row := row_of(db, cid)) is not None]
    return Withdrawal(
        target=target_of(name, version),
        labels=tuple(map(str, going)),
        entries=tuple(entry_of(db, row, name, version) for row in rows),
        keys=tuple(row.cid for row in rows),
    )


def target_of(name: str, version: str | None) -> str:
    """How a person names it."""
    return f"@{LOCAL_INDEX}/{name}" + (f"@{version}" if version else "")


def uri_of(name: str, version: str | None) -> str:
    """How it is named from now on."""
    return f"atdata://{LOCAL_INDEX}/dataset/{name}" + (f"@{version}" if version else "")


def packed(value: Any) -> bytes:
    """As the library keeps URLs and metadata.

    Raises
    ------
    UsageError : it has no form for this value.
    """
    import msgpack

    try:
        packed: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"this cannot be kept in the index: {error}") from error
    return packed
