"""Publishing a dataset in an account's own repository: schema, entry and labels, in this order.

Each step can be repeated, and a run that broke off is finished by the next: a record's key is made before it is sent,
and it is put only where there is none (or only the version that was read), so that a retry or a second run cannot
duplicate or overwrite anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from atdata_cli.atproto.records import (
    ENTRY,
    LABEL,
    SCHEMA,
    EntryRecord,
    LabelRecord,
    Record,
    SchemaRecord,
    encoded,
    new_tid,
    next_version,
    same_content,
)
from atdata_cli.atproto.session import ABSENT, Session
from atdata_cli.atproto.storage import Storage, StorageBlobs
from atdata_cli.atproto.transport import BlobMissingError, SwapError
from atdata_cli.errors import IntegrityError, OccupiedError, TemporaryError
from atdata_cli.indexes.base import Publication, Published
from atdata_cli.indexes.entryrecord import entry_record, storage_of
from atdata_cli.indexes.facts import RESERVED
from atdata_cli.indexes.labels import Label, labels_of, later_than, named_key, newest
from atdata_cli.indexes.samplerecord import schema_record
from atdata_cli.indexes.typemap import loading_problems

__all__ = ["StoredEntry", "check_of_version", "entries_of", "publish"]

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as it is stored.

    Attributes
    ----------
    uri, cid : of its record.
    record : what it says.
    """

    uri: str
    cid: str
    record: EntryRecord


def entries_of(session: Session, name: str | None = None) -> Iterator[StoredEntry]:
    """All entries, or those of one name; damaged ones are left out."""
    for uri, cid, value in session.list_records(ENTRY):
        try:
            record = EntryRecord.from_json(value, uri=uri)
        except IntegrityError:
            continue
        if name is None or record.name == name:
            yield StoredEntry(uri, cid, record)


def check_of_version(session: Session, name: str, version: str | None) -> Callable[[str], None] | None:
    """What looks at each blob of a dataset before it is sent, where its version is taken: None where it is not.

    Equal data have equal blobs, so the first other one tells that the dataset is another.

    Returns
    -------
    Takes a CID; raises OccupiedError for one that the version does not have.

    Raises
    ------
    OccupiedError : what has this version has no blobs here at all.
    """
    label = newest(label for label in labels_of(session, name) if label.record.version == version)
    if version is None or label is None:
        return None
    taken = label
    entry = next((one for one in entries_of(session) if taken.leads_to(session, one.uri)), None)
    if entry is None or not isinstance(entry.record.storage, StorageBlobs):
        raise _taken(taken)
    known = {shard.blob.cid for shard in entry.record.storage.shards}

    def check(cid: str) -> None:
        if cid not in known:
            raise _taken(taken)

    return check


def _taken(label: Label) -> OccupiedError:
    return OccupiedError(
        f"{label.target} names another dataset already, or says something else of it",
        url=label.record.dataset_uri,
        hint="a version stays what it is: publish under another one, or unpublish this one first",
    )


def _uri(session: Session, collection: str, key: str) -> str:
    return f"at://{session.did}/{collection}/{key}"


def publish(
    session: Session,
    publication: Publication,
    *,
    dry_run: bool = False,
) -> Published:
    """Write what is missing.

    Parameters
    ----------
    session : of the account, logged in.
    dry_run : look only.

    Raises
    ------
    UsageError : the records would break a limit, or say what others must not see; nothing was sent.
    OccupiedError : the version names another dataset, or another run was faster and has published another one.
    """
    for _ in range(_ATTEMPTS):
        with suppress(_SameError):
            return _publish(session, publication, dry_run=dry_run)
    return _publish(session, publication, dry_run=dry_run)


def _publish(session: Session, publication: Publication, *, dry_run: bool) -> Published:
    plan = _Plan.of(session, publication)
    if dry_run or plan.is_done:
        return plan.result("unchanged" if plan.is_done else "planned")
    return _Run(session, plan).publish()


@dataclass(frozen=True, slots=True)
class _Plan:
    """What there is, and what is to be written.

    Attributes
    ----------
    publication : with what the entry so far said where the publisher says nothing.
    labels : of the name, as they are.
    schema : what the dataset's schema record says.
    schema_uri : of the same schema, if the repository has it.
    entry : what the entry says; refers to a schema yet to be written if there is none.
    there : the same entry, if the repository has it.
    lost : what of the schema no record holds.
    """

    session: Session
    publication: Publication
    labels: Sequence[Label]
    schema: SchemaRecord
    schema_uri: str
    schema_there: bool
    entry: EntryRecord
    there: StoredEntry | None
    warnings: Sequence[str]

    @classmethod
    def of(cls, session: Session, publication: Publication) -> _Plan:
        storage = storage_of(publication, session.did)
        schema, lost = schema_record(publication)
        encoded(schema)
        _check_labels(publication, session)
        labels = labels_of(session, publication.name)
        known = list(entries_of(session, publication.name))
        so_far = _so_far(session, labels, known)
        schema_uri, schema = _stored_schema(session, schema)
        there = bool(schema_uri)
        schema_uri = schema_uri or _uri(session, SCHEMA, named_key(schema.name, schema.version))
        entry = _entry(publication, storage, schema_uri, so_far)
        encoded(entry)
        same = _same(session, labels, known, entry) if there else None
        plan = cls(
            session=session,
            publication=publication,
            labels=labels,
            schema=schema,
            schema_uri=schema_uri,
            schema_there=there,
            entry=entry,
            there=same,
            warnings=[*_lost(lost), *loading_problems(publication, _joined(publication))],
        )
        plan.check_version()
        return plan

    def check_version(self) -> None:
        """Refuse to make a version mean something else."""
        label = self.label(self.publication.version)
        if self.publication.version is None or label is None:
            return
        if self.there is None or not label.leads_to(self.session, self.there.uri):
            raise _taken(label)

    def label(self, version: str | None) -> Label | None:
        """The label of one version that counts."""
        return newest(label for label in self.labels if label.record.version == version)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to do."""
        return self.there is not None and not any(True for _ in self.labels_to_put(self.there.uri))

    def labels_to_put(self, uri: str) -> Iterator[tuple[Label | None, str, LabelRecord]]:
        """Labels that are yet to lead to an entry: what is there, the key, what it shall say; the plain one last."""
        version = self.publication.version
        if version is not None and self.label(version) is None:
            yield None, named_key(self.publication.name, version), self._label(uri, version)
        plain = self.label(None)
        if plain is None or not self._leads(plain, uri) or not self._leads(newest(self.labels), uri):
            yield plain, plain.key if plain else named_key(self.publication.name, None), self._label(uri, None)

    def _leads(self, label: Label | None, uri: str) -> bool:
        return label is not None and label.leads_to(self.session, uri)

    def _label(self, uri: str, version: str | None) -> LabelRecord:
        return LabelRecord(
            name=self.publication.name, dataset_uri=uri, created_at=later_than(self.labels), version=version
        )

    def records(self, entry_uri: str) -> Iterator[tuple[str, Record]]:
        """All records to write, in order."""
        if not self.schema_there:
            yield self.schema_uri, self.schema
        if self.there is None:
            yield entry_uri, self.entry
        for _, key, record in self.labels_to_put(entry_uri):
            yield _uri(self.session, LABEL, key), record

    def result(self, status: Any) -> Published:
        """What comes of it."""
        uri = self.there.uri if self.there else _uri(self.session, ENTRY, new_tid())
        records = [] if status == "unchanged" else [(where, record.as_json()) for where, record in self.records(uri)]
        return Published(uri, status, records, self.warnings)


def _check_labels(publication: Publication, session: Session) -> None:
    for version in {publication.version, None}:
        encoded(
            LabelRecord(
                name=publication.name,
                dataset_uri=_uri(session, ENTRY, new_tid()),
                created_at=later_than(()),
                version=version,
            )
        )


def _lost(lost: Sequence[str]) -> Sequence[str]:
    if not lost:
        return ()
    named = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
    return [f"records hold no fractions and no very large integers: the published schema goes without {named}"]


def _joined(publication: Publication) -> Sequence[str]:
    """The URLs that the reference library would join into one; of blobs it opens each by itself."""
    urls = [shard.url for shard in publication.shards]
    return [] if publication.blobs or urls[0].startswith("at:") else urls


def _so_far(session: Session, labels: Sequence[Label], known: Sequence[StoredEntry]) -> EntryRecord | None:
    """The entry that the name leads to, if it is one of this repository."""
    last = newest(labels)
    if last is None:
        return None
    return next((one.record for one in known if last.leads_to(session, one.uri)), None)


def _same(
    session: Session, labels: Sequence[Label], known: Sequence[StoredEntry], entry: EntryRecord
) -> StoredEntry | None:
    """The same entry, if it is there; of several that which the name leads to: a run that was late removes its own."""
    last = newest(labels)
    same = [one for one in known if same_content(one.record, entry)]
    named = [one for one in same if last is not None and last.leads_to(session, one.uri)]
    return next(iter(named or same), None)


def _entry(publication: Publication, storage: Storage, schema_uri: str, so_far: EntryRecord | None) -> EntryRecord:
    """The entry; what the publisher does not say stays as it is."""
    if so_far is None:
        return entry_record(publication, storage, schema_uri)
    said = {name: value for name, value in (so_far.metadata or {}).items() if name not in RESERVED}
    filled = replace(
        publication,
        description=so_far.description if publication.description is None else publication.description,
        tags=so_far.tags if publication.tags is None else publication.tags,
        license=so_far.license if publication.license is None else publication.license,
        metadata=said if publication.metadata is None else publication.metadata,
    )
    return replace(
        entry_record(filled, storage, schema_uri),
        metadata_schema_ref=so_far.metadata_schema_ref,
        content_metadata=so_far.content_metadata,
    )


def _stored_schema(session: Session, schema: SchemaRecord) -> tuple[str, SchemaRecord]:
    """The URI of the same schema in the repository, if it is there; else the record with the next free version."""
    versions = []
    for uri, _, value in session.list_records(SCHEMA):
        try:
            record = SchemaRecord.from_json(value, uri=uri)
        except IntegrityError:
            continue
        if record.name != schema.name:
            continue
        if _meaning(record) == _meaning(schema):
            return uri, record
        versions.append(record.version)
    return "", replace(schema, version=next_version(versions))


def _meaning(record: SchemaRecord) -> tuple[Any, ...]:
    """What makes two schemas the same: not the order in which fields are required."""
    required = record.schema.get("required")
    listed = sorted(map(str, required)) if isinstance(required, list | tuple) else []
    return {**record.schema, "required": listed}, record.arrays or {}


class _SameError(OccupiedError):
    """Another run was faster, and has published the same: what it has left to do is planned anew."""


class _Run:
    """Writes what a plan says."""

    def __init__(self, session: Session, plan: _Plan) -> None:
        self._session = session
        self._plan = plan
        self._written: list[tuple[str, Mapping[str, Any]]] = []

    def publish(self) -> Published:
        plan = self._plan
        entry = plan.entry
        if plan.there is None:
            if not plan.schema_there:
                entry = replace(entry, schema_ref=self._put_schema())
            uri = _uri(self._session, ENTRY, new_tid())
            self._put(uri, entry)
            made = True
        else:
            uri, made = plan.there.uri, False
        try:
            for there, key, record in plan.labels_to_put(uri):
                self._put(_uri(self._session, LABEL, key), record, replacing=there)
        except SwapError as changed:
            self._give_way(changed, uri, entry, made=made)
        self._read_back(uri, entry)
        return Published(uri, "updated" if plan.labels else "published", self._written, plan.warnings)

    def _put(self, uri: str, record: Record, *, replacing: Label | None = None) -> None:
        encoded(record)
        collection, _, key = uri.removeprefix(f"at://{self._session.did}/").partition("/")
        try:
            self._session.put_record(collection, key, record.as_json(), replacing.cid if replacing else ABSENT)
        except BlobMissingError as error:
            raise TemporaryError(
                "the server has lost a blob since it was uploaded",
                url=uri,
                hint="the same command again uploads what is missing",
            ) from error
        self._written.append((uri, record.as_json()))

    def _read_back(self, uri: str, entry: EntryRecord) -> None:
        found = self._session.get_record(ENTRY, uri.rpartition("/")[2])
        if found is None or not same_content(EntryRecord.from_json(found[0], uri=uri), entry):
            raise TemporaryError("the server does not give back the entry that it took", url=uri)

    def _put_schema(self) -> str:
        """Write the schema under the next free version: of two runs with one name, the second takes the one after."""
        uri, schema = self._plan.schema_uri, self._plan.schema
        for _ in range(_ATTEMPTS):
            uri = _uri(self._session, SCHEMA, named_key(schema.name, schema.version))
            try:
                self._put(uri, schema)
            except SwapError:
                stored, schema = _stored_schema(self._session, schema)
                if stored:
                    return stored
            else:
                return uri
        raise OccupiedError("other runs keep publishing schemas of this name", url=uri, hint="try again later")

    def _give_way(self, changed: SwapError, uri: str, entry: EntryRecord, *, made: bool) -> None:
        """Another run moved the label first: leave nothing behind, and say so."""
        last = newest(labels_of(self._session, self._plan.publication.name))
        if last is not None and last.leads_to(self._session, uri):
            return
        winner = None if last is None else self._entry_of(last)
        for label, _ in self._written:
            if f"/{LABEL}/" in label:  # that of a version
                self._session.delete_record(LABEL, label.rpartition("/")[2])
        if made:
            self._session.delete_record(ENTRY, uri.rpartition("/")[2])
        raise (_SameError if winner is not None and same_content(winner, entry) else OccupiedError)(
            f"another run published {self._plan.publication.name} at the same time, and was faster",
            url=last.record.dataset_uri if last else uri,
            hint="look at what it published; the same command again replaces it",
        ) from changed

    def _entry_of(self, label: Label) -> EntryRecord | None:
        """What a label leads to, if it is an entry of this repository."""
        known = entries_of(self._session, label.record.name)
        return next((one.record for one in known if label.leads_to(self._session, one.uri)), None)
