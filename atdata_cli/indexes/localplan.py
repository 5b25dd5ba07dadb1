"""What publishing changes in the local index, found in the transaction that writes it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from atdata_cli.errors import OccupiedError, UsageError
from atdata_cli.indexes.base import Publication, Status
from atdata_cli.indexes.facts import RESERVED, facts
from atdata_cli.indexes.localrows import (
    SCHEMA_URI,
    Label,
    label_of,
    labels_to,
    loaded,
    newest_label,
    packed,
    row_of,
    target_of,
)
from atdata_cli.indexes.typemap import local_fields

__all__ = ["Plan"]

_FIRST_VERSION = "1.0.0"


class Plan:
    """What publishing changes in an index, found in the transaction that then writes it."""

    def __init__(self, db: sqlite3.Connection, publication: Publication) -> None:
        self._db = db
        self._publication = publication
        self.warnings: list[str] = []
        self.urls = [shard.url for shard in publication.shards]
        self._schema, self._schema_is_new = _schema(db, publication)
        self._schema_ref = f"{SCHEMA_URI}{self._schema['name']}@{self._schema['version']}"
        self._cid = _cid(self._schema_ref, self.urls)
        self._present = row_of(db, self._cid)
        newest = newest_label(db, publication.name)
        self._previous = None if newest is None else row_of(db, newest.cid)
        self._metadata = self._made_metadata()
        self._same_entry = self._present is not None and self._present.metadata == self._metadata
        self._labels = self._made_labels(newest)
        self._check_others()

    @property
    def status(self) -> Status:
        """What comes of it."""
        if self._same_entry and not self._labels:
            return "unchanged"
        name, version = self._publication.name, self._publication.version
        known = label_of(self._db, name, version) if version else newest_label(self._db, name)
        return "published" if known is None else "updated"

    def _made_metadata(self) -> dict[str, Any]:
        """All that is told of the dataset; what the publisher says nothing about stays as it was."""
        publication = self._publication
        before = [row.metadata for row in (self._present, self._previous) if row is not None]
        said: dict[str, Any] = {}
        for name in ("description", "tags", "license"):
            value = getattr(publication, name)
            if value is None:  # another program may have put anything there
                kind = list if name == "tags" else str
                value = next((old[name] for old in reversed(before) if isinstance(old.get(name), kind)), None)
            if value:
                said[name] = list(value) if name == "tags" else value
        kept = {} if publication.metadata is not None else {k: v for old in before for k, v in old.items()}
        known = {
            "checksums": {shard.url: shard.sha256 for shard in publication.shards if shard.sha256},
            "samples": publication.samples,
            "bytes": publication.bytes,
            # The library's types say less: it has none for maps and for mixed values.
            "schema": dict(publication.schema) or None,
            "endpoint": publication.endpoint,
            "region": publication.region,
        }
        told = {name: value for name, value in known.items() if value is not None}
        return {k: v for k, v in kept.items() if k not in RESERVED} | facts(publication) | told | said

    def _made_labels(self, newest: Label | None) -> list[Label]:
        """The labels that have to be written; the plain one last, so that it is the newest."""
        name, version = self._publication.name, self._publication.version
        made = []
        if version is not None:
            present = label_of(self._db, name, version)
            if present is None:
                made.append(Label(name, version, self._cid))
            elif present.cid != self._cid or not self._same_data():
                raise OccupiedError(
                    "this version names another dataset already",
                    url=target_of(name, version),
                    hint="give the next version, or unpublish this one first",
                )
        plain = label_of(self._db, name, "")
        # The library takes the newest label of a name, whatever its version.
        if made or plain is None or plain.cid != self._cid or newest is None or newest.cid != self._cid:
            made.append(Label(name, "", self._cid))
        return made

    def _same_data(self) -> bool:
        before = self._present.metadata.get("checksums") if self._present is not None else None
        return not before or before == self._metadata["checksums"]

    def _check_others(self) -> None:
        """Tell of other names that lead to an entry which changes."""
        if self._present is None or self._same_entry:
            return
        others = [label for label in labels_to(self._db, self._cid) if label not in self._labels]
        others = [label for label in others if (label.name, label.version) != (self._publication.name, "")]
        if others:
            names = ", ".join(map(str, others[:5]))
            what = "what is said of it" if self._same_data() else "its data"
            self.warnings.append(f"{names} names the same shards: {what} changes there, too")

    def records(self) -> list[tuple[str, dict[str, Any]]]:
        """What is new, as it is in the tables."""
        made: list[tuple[str, dict[str, Any]]] = []
        if self._schema_is_new:
            made.append((self._schema_ref, self._schema))
        if not self._same_entry:
            row = {"cid": self._cid, "name": self._entry_name, "schema_ref": self._schema_ref, "data_urls": self.urls}
            made.append((f"entry {self._cid}", {**row, "metadata": self._metadata}))
        made += [
            (f"label {label}", {"name": label.name, "cid": label.cid, "version": label.version})
            for label in self._labels
        ]
        return made

    @property
    def _entry_name(self) -> str:
        return self._publication.name if self._present is None else self._present.name

    def write(self) -> None:
        """Do it."""
        db = self._db
        if self._schema_is_new:
            row = [self._schema["name"], self._schema["version"], json.dumps(self._schema)]
            db.execute("INSERT INTO schemas (name, version, schema_json) VALUES (?, ?, ?)", row)
        if self._present is None:
            db.execute(
                "INSERT INTO dataset_entries (cid, name, schema_ref, data_urls, metadata) VALUES (?, ?, ?, ?, ?)",
                [self._cid, self._entry_name, self._schema_ref, packed(self.urls), packed(self._metadata)],
            )
        elif not self._same_entry:
            db.execute("UPDATE dataset_entries SET metadata = ? WHERE cid = ?", [packed(self._metadata), self._cid])
        description = self._metadata.get("description")
        for label in self._labels:
            # A replaced row is a new one, with SQLite's own time: so the library orders labels.
            db.execute(
                "INSERT OR REPLACE INTO labels (name, cid, version, description) VALUES (?, ?, ?, ?)",
                [label.name, label.cid, label.version, description],
            )


def _schema(db: sqlite3.Connection, publication: Publication) -> tuple[dict[str, Any], bool]:
    """The schema's record, and whether it is new: an equal one is used again, a changed one gets the next version."""
    fields = local_fields(publication)
    if not fields:
        raise UsageError(
            "the samples have no fields, so the index cannot describe them",
            hint="publish a dataset whose samples have fields",
        )
    latest: tuple[int, int, int] | None = None
    query = "SELECT version, schema_json FROM schemas WHERE name = ? ORDER BY created_at DESC, rowid DESC"
    for version, text in db.execute(query, [publication.schema_name]):
        record = loaded(text)
        if record.get("fields") == fields and record.get("version") == version:
            return record, False
        number = _semantic(version)
        latest = number if latest is None or (number or latest) > latest else latest
    version = _FIRST_VERSION if latest is None else f"{latest[0]}.{latest[1]}.{latest[2] + 1}"
    return {
        "name": publication.schema_name,
        "version": version,
        "fields": fields,
        "description": f"A sample of {publication.name}.",
        "createdAt": datetime.now(UTC).isoformat(),
    }, True


def _semantic(version: str) -> tuple[int, int, int] | None:
    parts = str(version).split(".")
    if len(parts) != 3 or not all(part.isdecimal() and len(part) < 10 for part in parts):
        return None
    return int(parts[0]), int(parts[1]), int(parts[2])


def _cid(schema_ref: str, urls: Sequence[str]) -> str:
    """The entry's CID: version 1, dag-cbor, SHA-256 of schema and URLs, as the reference library computes it."""
    import hashlib

    import libipld

    encoded = libipld.encode_dag_cbor({"schema_ref": schema_ref, "data_urls": list(urls)})
    return str(libipld.encode_cid(b"\x01\x71\x12\x20" + hashlib.sha256(encoded).digest()))
