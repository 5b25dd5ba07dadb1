"""The file of the local index: opened to read, to write in one transaction, or for a dry run; its errors as ours."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import quote

from atdata_cli.errors import (
    AtdataError,
    AuthError,
    IntegrityError,
    NotFoundError,
    TemporaryError,
    UsageError,
    from_os_error,
)

__all__ = ["IndexFile"]

_BUSY_SECONDS = 60.0  # for which a writer waits for the others

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


class IndexFile:
    """Where the local index is.

    Each block of :meth:`reading`, :meth:`writing` and :meth:`planning` is one transaction on a connection of its own.

    Parameters
    ----------
    path : absolute.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """See what is there; others may write meanwhile.

        Raises
        ------
        NotFoundError : there is no index.
        """
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
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Write, when the others have; makes the index if there is none. Nothing is written if the block fails.

        Raises
        ------
        TemporaryError : another program has held it for too long.
        """
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
    def planning(self) -> Iterator[sqlite3.Connection]:
        """For a dry run: the index as it is, or an empty one."""
        if os.path.exists(self.path) and os.path.getsize(self.path):
            with self.reading() as db:
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
        return AtdataError(
            f"the local index fails: {error}",
            url=self.path,
            hint="is it on a disk that is full, read-only or out of reach? --index names another file",
        )


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
