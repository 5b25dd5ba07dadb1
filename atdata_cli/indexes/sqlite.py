"""The local index: the SQLite file of the reference library, in its own format and place.

What is published here, ``atdata.load_dataset("@local/NAME")`` finds. Names lead to entries through labels: equal URLs
and an equal schema make one entry, however many names it has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from atdata_cli import config
from atdata_cli.errors import NotFoundError, OccupiedError, UsageError
from atdata_cli.indexes.base import Entry, Publication, Published, Withdrawal
from atdata_cli.indexes.localplan import Plan
from atdata_cli.indexes.localrows import (
    all_labels,
    entry_of,
    label_of,
    labels_named,
    newest_label,
    row_of,
    rows_named,
    rows_without_label,
    target_of,
    uri_of,
    withdrawal_of,
)
from atdata_cli.indexes.registry import IndexOptions
from atdata_cli.indexes.sqlitefile import IndexFile
from atdata_cli.indexes.typemap import loading_problems
from atdata_cli.refs import LOCAL_INDEX

__all__ = ["LocalIndex"]


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
        self._file = IndexFile(self.path)

    # -- finding

    def find(self, name: str, version: str | None = None) -> Entry:
        """The entry of the newest label of a name, or of that of a version.

        Where no label has the name, an entry may: the library looks there, too.
        """
        with self._file.reading() as db:
            label = newest_label(db, name) if version is None else label_of(db, name, version)
            row = None if label is None else row_of(db, label.cid)
            if row is None and version is None:
                row = next(iter(rows_named(db, name)), None)
            if row is None:
                raise self._no_such(name, version)
            return entry_of(db, row, name, version or (label.version if label else "") or None)

    def get(self, key: str) -> Entry:
        """The entry with a CID."""
        with self._file.reading() as db:
            row = row_of(db, key)
            if row is None:
                raise NotFoundError(
                    f"there is no entry {key} in the local index",
                    url=self.path,
                    hint="atdata-cli inspect @local lists what is there",
                )
            return entry_of(db, row, row.name, None)

    def entries(self) -> Iterator[Entry]:
        """One a label, and the entries of names that no label has."""
        with self._file.reading() as db:
            found = [
                entry_of(db, row, label.name, label.version or None)
                for label in all_labels(db)
                if (row := row_of(db, label.cid)) is not None
            ]
            found += [entry_of(db, row, row.name, None) for row in rows_without_label(db)]
        return iter(sorted(found, key=lambda entry: (entry.name, entry.version or "")))

    def _no_such(self, name: str, version: str | None) -> NotFoundError:
        from difflib import get_close_matches

        with self._file.reading() as db:
            versions = [label.version for label in labels_named(db, name)]
            near = get_close_matches(name, {label.name for label in all_labels(db)}, n=1)
        hint = "inspect @local lists what is there"
        if version is not None and versions:
            hint = "it has " + (", ".join(filter(None, versions[:8])) or "no versions")
        elif near:
            hint = f"did you mean @local/{near[0]}?"
        return NotFoundError("there is no such dataset in the local index", url=target_of(name, version), hint=hint)

    # -- publishing

    def publish(self, publication: Publication, *, dry_run: bool = False) -> Published:
        """Write schema, entry and labels, as far as they are not there already, in one transaction."""
        if publication.blobs:
            raise UsageError("--blobs copies shards into a PDS, for an entry there", hint="publish to @HANDLE/NAME")
        with self._file.planning() if dry_run else self._file.writing() as db:
            plan = Plan(db, publication)
            status = plan.status
            records = plan.records()
            if not dry_run:
                plan.write()
        warnings = [*plan.warnings, *loading_problems(publication, plan.urls)]
        return Published(
            uri_of(publication.name, publication.version), "planned" if dry_run else status, records, warnings
        )

    # -- withdrawing

    def plan_withdrawal(self, name: str, version: str | None = None) -> Withdrawal:
        """What would go: of the plain name all its labels and entries, of a version that label."""
        with self._file.reading() as db:
            withdrawal = withdrawal_of(db, name, version)
        if not withdrawal.labels and not withdrawal.entries:
            raise self._no_such(name, version)
        return withdrawal

    def withdraw(self, withdrawal: Withdrawal) -> None:
        """Delete labels and entries. Schemas stay: other programs may have made classes of them."""
        name, _, version = withdrawal.target.removeprefix(f"@{LOCAL_INDEX}/").partition("@")
        with self._file.writing() as db:
            now = withdrawal_of(db, name, version or None)
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
