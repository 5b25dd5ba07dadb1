"""Exact detection of duplicate keys, in bounded memory."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Mapping, Sequence
from typing import IO

from atdata_cli.errors import AtdataError

__all__ = ["UniqueKeys"]

# Keys kept in memory before they go to disk: some 20 MB with their places.
_IN_MEMORY = 100_000
# One byte a slot. A fuller filter asks the disk more often; it never gives a wrong answer.
_FILTER_SLOTS = 1 << 25
_CACHE_KIB = 32 * 1024


class UniqueKeys:
    """Remembers every key that it has been given, and where it came from first.

    The last keys are in a dictionary, older ones in a private temporary SQLite table, written in sorted
    batches. A one-probe filter answers for most new keys that the table cannot know them. As long as all
    keys come in strictly ascending order nothing has to be looked up, and batches only go to a log, from
    which the table is made when it is needed. The operating system removes both files when the process ends,
    however it ends.

    Keys must be valid UTF-8, as ``check_key`` makes sure; places may be any text.

    Parameters
    ----------
    in_memory : how many keys are kept in memory.
    """

    def __init__(self, in_memory: int = _IN_MEMORY) -> None:
        self._limit = in_memory
        self._recent: dict[str, str] = {}
        self._highest = ""
        self._ascending = True
        self._log: IO[bytes] | None = None
        self._table: _KeyTable | None = None

    def add(self, key: str, place: str) -> str | None:
        """Remember one key; where it came from first if it is a repeat, else None."""
        if key > self._highest:
            self._highest = key
        else:
            first = self._first_place(key)
            if first is not None:
                return first
        self._recent[key] = place
        if len(self._recent) >= self._limit:
            self._spill()
        return None

    def add_many(self, keys: Sequence[str], places: Sequence[str]) -> list[tuple[int, str]]:
        """Remember some hundreds or thousands of keys.

        Parameters
        ----------
        keys : in the order of the input.
        places : for each key, where it comes from.

        Returns
        -------
        For each key that is a repeat, of an earlier call or of this one: its index and the first one's place.
        """
        if not keys:
            return []
        repeats: list[tuple[int, str]] = []
        if keys[0] > self._highest and all(map(operator.lt, keys, keys[1:])):
            self._recent.update(zip(keys, places, strict=True))
            self._highest = keys[-1]
        else:
            for index, (key, place) in enumerate(zip(keys, places, strict=True)):
                first = self._first_place(key)
                if first is None:
                    self._recent[key] = place
                else:
                    repeats.append((index, first))
            self._highest = max(self._highest, max(keys))
        if len(self._recent) >= self._limit:
            self._spill()
        return repeats

    def _first_place(self, key: str) -> str | None:
        """Where a key came from that is not above all others, if it has been seen."""
        self._ascending = False
        place = self._recent.get(key)
        if place is None and (self._table is not None or self._log is not None):
            place = self._older().place(key)
        return place

    def _spill(self) -> None:
        # Files, and so places, may have names that are not UTF-8, and neither log nor table takes those.
        if not all(map(str.isascii, self._recent.values())):
            for key, place in self._recent.items():
                self._recent[key] = place.encode("utf-8", "backslashreplace").decode()
        if self._ascending:
            self._append_to_log()
        else:
            self._older().add(self._recent)
        self._recent.clear()

    def _append_to_log(self) -> None:
        import orjson

        line = orjson.dumps(self._recent, option=orjson.OPT_APPEND_NEWLINE)
        try:
            if self._log is None:
                import tempfile

                self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object
                weakref.finalize(self, self._log.close)
            self._log.write(line)
        except OSError as error:
            raise _no_room(error) from error

    def _older(self) -> _KeyTable:
        """The table with all keys that are no longer in memory."""
        if self._table is None:
            self._table = _KeyTable()
        if self._log is not None:
            import orjson

            self._log.seek(0)  # also writes what is still buffered
            for line in self._log:
                self._table.add(orjson.loads(line))
            self._log.close()
            self._log = None
        return self._table


class _KeyTable:
    """Keys on disk. No key may be added twice."""

    def __init__(self) -> None:
        import sqlite3

        self._failed = sqlite3.OperationalError
        self._filter = bytearray(_FILTER_SLOTS)
        # An empty name is a private database in a temporary file that has no name in any folder
        # (https://www.sqlite.org/inmemorydb.html); the cache is written out only when it is full.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._database.close)
        self._database.execute("PRAGMA page_size = 16384")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._database.execute("CREATE TABLE keys (key TEXT PRIMARY KEY, place TEXT NOT NULL) WITHOUT ROWID")

    def place(self, key: str) -> str | None:
        # str hashes are salted for each process: nobody can prepare keys that meet in one slot.
        if not self._filter[hash(key) & (_FILTER_SLOTS - 1)]:
            return None
        row = self._database.execute("SELECT place FROM keys WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def add(self, places: Mapping[str, str]) -> None:
        """Add keys with their places."""
        seen = self._filter
        for key in places:
            seen[hash(key) & (_FILTER_SLOTS - 1)] = 1
        try:
            self._database.execute("BEGIN")
            # In order of key, so that each page of the tree is fetched and written at most once.
            self._database.executemany("INSERT INTO keys VALUES (?, ?)", sorted(places.items()))
            self._database.execute("COMMIT")
        except self._failed as error:
            raise _no_room(error) from error


def _no_room(error: Exception) -> AtdataError:
    return AtdataError(
        f"cannot keep the keys in a temporary file: {error}",
        hint="set TMPDIR to a folder on a disk with more free space",
    )
