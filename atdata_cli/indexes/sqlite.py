"""The local index: the SQLite file of the reference library, in its own format and place.

What is published here, ``atdata.load_dataset("@local/NAME")`` finds. Names lead to entries through labels: equal URLs
and an equal schema make one entry, however many names it has.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from atdata_cli import config
from atdata_cli.errors import (
    AtdataError,
    AuthError,
    IntegrityError,
    NotFoundError,
    OccupiedError,
    TemporaryError,
    UsageError,
)
from atdata_cli.indexes.base import Entry, EntryShard, Publication, Published, Status, Withdrawal
from atdata_cli.indexes.facts import RESERVED, facts, with_facts
from atdata_cli.indexes.registry import IndexOptions
from atdata_cli.indexes.typemap import json_schema_of, loading_problems, local_fields
from atdata_cli.refs import LOCAL_INDEX, expand_braces

__all__ = ["LocalIndex"]

_BUSY_SECONDS = 60.0  # for which a writer waits for the others
_FIRST_VERSION = "1.0.0"
_SCHEMA_URI = "atdata://local/schema/"

# Columns, defaults and indexes as the reference library makes them.
_TABLES = """
CREATE TABLE IF NOT EXISTS dataset_entries (
    cid TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    schema_ref TEXT NOT NULL,
    data_urls BLOB NOT NULL,
    metadata BLOB,
    legacy_uuid TEXT,
    created_at TEXT DEFAULT (datetime('now'))
);
CREATE INDEX IF NOT EXISTS idx_entries_name ON dataset_entries(name);
CREATE TABLE IF NOT EXISTS schemas (
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    schema_json TEXT NOT NULL,
    created_at TEXT DEFAULT (datetime('now')),
    PRIMARY KEY (name, version)
);
CREATE TABLE IF NOT EXISTS lenses (
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    lens_json TEXT NOT NULL,
    created_at TEXT DEFAULT (datetime('now')),
    PRIMARY KEY (name, version)
);
CREATE TABLE IF NOT EXISTS labels (
    name TEXT NOT NULL,
    cid TEXT NOT NULL,
    version TEXT NOT NULL DEFAULT '',
    description TEXT,
    created_at TEXT DEFAULT (datetime('now')),
    PRIMARY KEY (name, version)
);
CREATE INDEX IF NOT EXISTS idx_labels_cid ON labels(cid);
"""

_ENTRY = "SELECT e.cid, e.name, e.schema_ref, e.data_urls, e.metadata, e.created_at FROM dataset_entries e "


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of ``dataset_entries``."""

    cid: str
    name: str
    schema_ref: str
    urls: Sequence[str]
    metadata: Mapping[str, Any]
    created_at: str | None


@dataclass(frozen=True, slots=True)
class _Label:
    """A row of ``labels``; the plain one has the version ``""``."""

    name: str
    version: str
    cid: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name


class LocalIndex:
    """The index on this machine.

    Parameters
    ----------
    authority : ``local``.
    options : ``file`` is its path, if not the usual one.
    """

    def __init__(self, authority: str = LOCAL_INDEX, options: IndexOptions | None = None) -> None:
        file = options.file if options is not None else None
        self.path = os.path.abspath(file or config.local_index())

    # -- finding

    def find(self, name: str, version: str | None = None) -> Entry:
        """The entry of the newest label of a name, or of that of a version.

        Where no label has the name, an entry may: the library looks there, too.
        """
        with self._reading() as db:
            label = _newest_label(db, name) if version is None else _label(db, name, version)
            row = None if label is None else _row(db, label.cid)
            if row is None and version is None:
                row = _one_row(db.execute(_ENTRY + "WHERE e.name = ? ORDER BY e.created_at DESC, e.rowid DESC", [name]))
            if row is None:
                raise self._no_such(name, version)
            return _entry(db, row, name, version or (label.version if label else "") or None)

    def get(self, key: str) -> Entry:
        """The entry with a CID."""
        with self._reading() as db:
            row = _row(db, key)
            if row is None:
                raise NotFoundError(f"there is no entry {key} in the local index", url=self.path)
            return _entry(db, row, row.name, None)

    def entries(self) -> Iterator[Entry]:
        """One a label, and the entries of names that no label has."""
        with self._reading() as db:
            labelled = [
                (label, row)
                for label in _labels(db, "SELECT name, version, cid FROM labels ORDER BY name, version")
                if (row := _row(db, label.cid)) is not None
            ]
            found = [_entry(db, row, label.name, label.version or None) for label, row in labelled]
            others = db.execute(f"{_ENTRY} WHERE e.name NOT IN (SELECT name FROM labels)").fetchall()  # noqa: S608 - constant
            found += [_entry(db, row, row.name, None) for row in map(_parsed, others)]
        return iter(sorted(found, key=lambda entry: (entry.name, entry.version or "")))

    def _no_such(self, name: str, version: str | None) -> NotFoundError:
        from difflib import get_close_matches

        with self._reading() as db:
            labels = _labels(db, "SELECT name, version, cid FROM labels ORDER BY created_at DESC, rowid DESC")
        versions = [label.version for label in labels if label.name == name and label.version]
        near = get_close_matches(name, {label.name for label in labels}, n=1)
        hint = "inspect @local lists what is there"
        if version is not None and any(label.name == name for label in labels):
            hint = f"it has {', '.join(versions[:8])}" if versions else "it has no versions"
        elif near:
            hint = f"did you mean @local/{near[0]}?"
        return NotFoundError("there is no such dataset in the local index", url=_target(name, version), hint=hint)

    # -- publishing

    def publish(self, publication: Publication, *, dry_run: bool = False) -> Published:
        """Write schema, entry and labels, as far as they are not there already, in one transaction."""
        if publication.blobs:
            raise UsageError("--blobs copies shards into a PDS, for an entry there", hint="publish to @HANDLE/NAME")
        with self._planning() if dry_run else self._writing() as db:
            plan = _Plan(db, publication)
            status = plan.status
            records = plan.records()
            if not dry_run:
                plan.write()
        warnings = [*plan.warnings, *loading_problems(publication, plan.urls)]
        return Published(
            _uri(publication.name, publication.version), "planned" if dry_run else status, records, warnings
        )

    # -- withdrawing

    def plan_withdrawal(self, name: str, version: str | None = None) -> Withdrawal:
        """What would go: of the plain name all its labels and entries, of a version that label."""
        with self._reading() as db:
            withdrawal = _withdrawal(db, name, version)
        if not withdrawal.labels and not withdrawal.entries:
            raise self._no_such(name, version)
        return withdrawal

    def withdraw(self, withdrawal: Withdrawal) -> None:
        """Delete labels and entries. Schemas stay: other programs may have made classes of them."""
        name, _, version = withdrawal.target.removeprefix(f"@{LOCAL_INDEX}/").partition("@")
        with self._writing() as db:
            now = _withdrawal(db, name, version or None)
            if (now.labels, now.keys) != (withdrawal.labels, withdrawal.keys):
                raise OccupiedError(
                    "the index has changed meanwhile", url=withdrawal.target, hint="look at it, and try again"
                )
            for label in withdrawal.labels:
                label_name, _, label_version = label.partition("@")
                db.execute("DELETE FROM labels WHERE name = ? AND version = ?", [label_name, label_version])
            db.executemany("DELETE FROM dataset_entries WHERE cid = ?", [[key] for key in withdrawal.keys])
            # An entry that another name still leads to is that name's now: the library also finds entries by name.
            if version == "":
                db.execute(
                    "UPDATE dataset_entries SET name = (SELECT l.name FROM labels l WHERE l.cid = dataset_entries.cid) "
                    "WHERE name = ? AND cid IN (SELECT cid FROM labels)",
                    [name],
                )

    # -- the file

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if not os.path.exists(self.path):
            raise NotFoundError(
                "there is no local index yet", url=self.path, hint="publish makes it; --index names another"
            )
        with self._errors(), closing(self._open_readable()) as db:
            db.execute("BEGIN")
            yield db

    def _open_readable(self) -> sqlite3.Connection:
        uri = f"file:{quote(self.path)}?mode=ro"
        db = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            db.execute("SELECT cid FROM dataset_entries LIMIT 1")
        except sqlite3.OperationalError as error:
            db.close()
            if _code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or self._has_log():
                raise
            # Where nothing can be written (a read-only container), SQLite cannot make the files that WAL needs.
            db = sqlite3.connect(f"{uri}&immutable=1", uri=True, isolation_level=None)
        return db

    def _has_log(self) -> bool:
        """Whether what was written last is not in the file yet."""
        try:
            return os.path.getsize(f"{self.path}-wal") > 0
        except OSError:
            return False

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)) as db:
                _prepare(db)
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                except BaseException:
                    db.execute("ROLLBACK")
                    raise
                db.execute("COMMIT")

    @contextmanager
    def _planning(self) -> Iterator[sqlite3.Connection]:
        """For a dry run: the index as it is, or an empty one."""
        if os.path.exists(self.path):
            with self._reading() as db:
                yield db
            return
        with closing(sqlite3.connect(":memory:")) as db:
            db.executescript(_TABLES)
            yield db

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._translated(error) from error
        except OSError as error:
            from atdata_cli.errors import from_os_error

            raise from_os_error(error, str(error.filename or self.path), doing="write to") from error

    def _translated(self, error: sqlite3.Error) -> AtdataError:
        code = _code(error)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return TemporaryError("another program holds the local index", url=self.path, hint="try again")
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return AuthError("the local index cannot be opened or written", url=self.path, hint="check owner and mode")
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return IntegrityError("this file is no index, or damaged", url=self.path, hint="name another with --index")
        if code == sqlite3.SQLITE_ERROR and "no such" in str(error):
            return UsageError(f"this database is no index: {error}", url=self.path, hint="name another with --index")
        return AtdataError(f"the local index fails: {error}", url=self.path)


def _code(error: sqlite3.Error) -> int:
    """The primary result code: https://www.sqlite.org/rescode.html."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _prepare(db: sqlite3.Connection) -> None:
    """WAL and the tables, as the reference library has them.

    Several programs may make one index at once, and SQLite does not wait for the others when it changes the mode.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                db.execute("PRAGMA journal_mode=WAL")
            present = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
            if not {"dataset_entries", "schemas", "labels", "lenses"} <= present:
                db.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
        except sqlite3.OperationalError as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if _code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


# --- what is written ---


class _Plan:
    """What publishing changes in an index, found in the transaction that then writes it."""

    def __init__(self, db: sqlite3.Connection, publication: Publication) -> None:
        self._db = db
        self._publication = publication
        self.warnings: list[str] = []
        self.urls = [shard.url for shard in publication.shards]
        self._schema, self._schema_is_new = _schema(db, publication)
        self._schema_ref = f"{_SCHEMA_URI}{self._schema['name']}@{self._schema['version']}"
        self._cid = _cid(self._schema_ref, self.urls)
        self._present = _row(db, self._cid)
        newest = _newest_label(db, publication.name)
        self._previous = None if newest is None else _row(db, newest.cid)
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
        known = _label(self._db, name, version) if version else _newest_label(self._db, name)
        return "published" if known is None else "updated"

    def _made_metadata(self) -> dict[str, Any]:
        """All that is told of the dataset; what the publisher says nothing about stays as it was."""
        publication = self._publication
        before = [row.metadata for row in (self._present, self._previous) if row is not None]
        said: dict[str, Any] = {}
        for name in ("description", "tags", "license"):
            value = getattr(publication, name)
            if value is None:
                value = next((metadata[name] for metadata in reversed(before) if metadata.get(name)), None)
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

    def _made_labels(self, newest: _Label | None) -> list[_Label]:
        """The labels that have to be written; the plain one last, so that it is the newest."""
        name, version = self._publication.name, self._publication.version
        made = []
        if version is not None:
            present = _label(self._db, name, version)
            if present is None:
                made.append(_Label(name, version, self._cid))
            elif present.cid != self._cid or not self._same_data():
                raise OccupiedError(
                    "this version names another dataset already",
                    url=_target(name, version),
                    hint="give the next version, or unpublish this one first",
                )
        plain = _label(self._db, name, "")
        # The library takes the newest label of a name, whatever its version.
        if made or plain is None or plain.cid != self._cid or newest is None or newest.cid != self._cid:
            made.append(_Label(name, "", self._cid))
        return made

    def _same_data(self) -> bool:
        before = self._present.metadata.get("checksums") if self._present is not None else None
        return not before or before == self._metadata["checksums"]

    def _check_others(self) -> None:
        """Tell of other names that lead to an entry which changes."""
        if self._present is None or self._same_entry:
            return
        query = "SELECT name, version, cid FROM labels WHERE cid = ? ORDER BY name, version"
        others = [label for label in _labels(self._db, query, [self._cid]) if label not in self._labels]
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
                [self._cid, self._entry_name, self._schema_ref, _packed(self.urls), _packed(self._metadata)],
            )
        elif not self._same_entry:
            db.execute("UPDATE dataset_entries SET metadata = ? WHERE cid = ?", [_packed(self._metadata), self._cid])
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
        raise UsageError("the samples have no fields, so the index cannot describe them")
    latest: tuple[int, int, int] | None = None
    query = "SELECT version, schema_json FROM schemas WHERE name = ? ORDER BY created_at DESC, rowid DESC"
    for version, text in db.execute(query, [publication.schema_name]):
        record = _loaded(text)
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


def _packed(value: Any) -> bytes:
    import msgpack

    try:
        packed: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"this cannot be kept in the index: {error}") from error
    return packed


# --- what is read ---


def _labels(db: sqlite3.Connection, query: str, values: Sequence[Any] = ()) -> list[_Label]:
    return [_Label(str(name), str(version), str(cid)) for name, version, cid in db.execute(query, values)]


def _label(db: sqlite3.Connection, name: str, version: str) -> _Label | None:
    found = _labels(db, "SELECT name, version, cid FROM labels WHERE name = ? AND version = ?", [name, version])
    return found[0] if found else None


def _newest_label(db: sqlite3.Connection, name: str) -> _Label | None:
    query = "SELECT name, version, cid FROM labels WHERE name = ? ORDER BY created_at DESC, rowid DESC LIMIT 1"
    found = _labels(db, query, [name])
    return found[0] if found else None


def _row(db: sqlite3.Connection, cid: str) -> _Row | None:
    return _one_row(db.execute(_ENTRY + "WHERE e.cid = ?", [cid]))


def _one_row(cursor: sqlite3.Cursor) -> _Row | None:
    found = cursor.fetchone()
    return None if found is None else _parsed(found)


def _parsed(found: Sequence[Any]) -> _Row:
    cid, name, schema_ref, data_urls, metadata, created_at = found
    urls = _unpacked(data_urls, cid)
    known = {} if metadata is None else _unpacked(metadata, cid)
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls) or not isinstance(known, dict):
        raise IntegrityError(f"the entry {cid} in the local index is damaged")
    return _Row(str(cid), str(name), str(schema_ref), urls, known, created_at)


def _unpacked(data: Any, cid: Any) -> Any:
    import msgpack

    try:
        return msgpack.unpackb(data)
    except (TypeError, ValueError, msgpack.exceptions.UnpackException) as error:
        raise IntegrityError(f"the entry {cid} in the local index is damaged: {error}") from error


def _loaded(text: Any) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _entry(db: sqlite3.Connection, row: _Row, name: str, version: str | None) -> Entry:
    checksums = row.metadata.get("checksums")
    known = checksums if isinstance(checksums, dict) else {}
    # The library writes a dataset that it did not copy as one brace pattern; what has a checksum is a name.
    urls = [shard for url in row.urls for shard in ([url] if url in known else expand_braces(url))]
    entry = Entry(
        uri=_uri(name, version),
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
    name, at, version = schema_ref.removeprefix(_SCHEMA_URI).rpartition("@")
    if not at or not schema_ref.startswith(_SCHEMA_URI):
        return None
    query = "SELECT schema_json FROM schemas WHERE name = ? AND version = ?"
    found = db.execute(query, [name, version]).fetchone()
    return None if found is None else json_schema_of(_loaded(found[0]))


def _withdrawal(db: sqlite3.Connection, name: str, version: str | None) -> Withdrawal:
    if version is None:
        labels = _labels(db, "SELECT name, version, cid FROM labels WHERE name = ? ORDER BY version", [name])
        named = [str(cid) for (cid,) in db.execute("SELECT cid FROM dataset_entries WHERE name = ?", [name])]
    else:
        label = _label(db, name, version)
        labels = [] if label is None else [label]
        named = []
    remaining = {label.cid for label in _labels(db, "SELECT name, version, cid FROM labels") if label not in labels}
    cids = [cid for cid in dict.fromkeys([label.cid for label in labels] + named) if cid not in remaining]
    rows = [row for cid in cids if (row := _row(db, cid)) is not None]
    return Withdrawal(
        target=_target(name, version),
        labels=tuple(map(str, labels)),
        entries=tuple(_entry(db, row, name, version) for row in rows),
        keys=tuple(row.cid for row in rows),
    )


def _target(name: str, version: str | None) -> str:
    return f"@{LOCAL_INDEX}/{name}" + (f"@{version}" if version else "")


def _uri(name: str, version: str | None) -> str:
    return f"atdata://{LOCAL_INDEX}/dataset/{name}" + (f"@{version}" if version else "")
