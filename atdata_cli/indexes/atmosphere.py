"""The index of the AT Protocol: entries, schemas and labels as records in their author's own repository.

Anybody reads them without credentials; an account's own are written with its session. Records are as the lexicons of
``science.alt.dataset`` say, see ``atdata_cli.atproto.records``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property

from atdata_cli.atproto.identity import on_this_machine
from atdata_cli.atproto.ledger import UPLOAD, Tie, dead_runs, ties_of
from atdata_cli.atproto.records import ENTRY, LABEL, SCHEMA, EntryRecord, SchemaRecord
from atdata_cli.atproto.session import ANY, Session
from atdata_cli.atproto.storage import Blob, StorageBlobs
from atdata_cli.atproto.transport import SwapError
from atdata_cli.atproto.values import sha256_in
from atdata_cli.errors import AtdataError, IntegrityError, NotFoundError, OccupiedError
from atdata_cli.indexes.base import Entry, EntryShard, Publication, Published, Withdrawal
from atdata_cli.indexes.entryrecord import entry_of
from atdata_cli.indexes.labels import Label, age, labels_of, newest
from atdata_cli.indexes.publishing import StoredEntry, entries_of, publish
from atdata_cli.indexes.registry import IndexOptions
from atdata_cli.indexes.unfinished import unfinished
from atdata_cli.net import is_loopback
from atdata_cli.refs import Reference, parse

__all__ = ["AtmosphereIndex"]


class AtmosphereIndex:
    """What one account has published.

    Parameters
    ----------
    authority : its handle or DID.
    options : how the stores of shards are reached.
    """

    def __init__(self, authority: str, options: IndexOptions | None = None) -> None:
        self._authority = authority
        self._options = options or IndexOptions()
        self._schemas: dict[str, SchemaRecord | None] = {}
        self._others: dict[str, Session] = {}

    def __repr__(self) -> str:
        return f"AtmosphereIndex(@{self._authority})"

    @cached_property
    def _reader(self) -> Session:
        return Session.anonymous(self._authority)

    @cached_property
    def account(self) -> Session:
        """The session of this very account: nobody publishes in another's name.

        Raises
        ------
        AuthError : it is not logged in.
        """
        return Session.from_environment_or_file(self._authority)

    # -- writing

    def publish(self, publication: Publication, *, dry_run: bool = False) -> Published:
        """See :class:`atdata_cli.indexes.base.Index`."""
        if publication.blobs:
            from atdata_cli.indexes.blobs import publish_blobs

            return publish_blobs(self.account, publication, dry_run=dry_run, progress=self._options.progress)
        return publish(self.account, publication, dry_run=dry_run)

    def plan_withdrawal(self, name: str, version: str | None = None) -> Withdrawal:
        """See :class:`atdata_cli.indexes.base.Index`.

        With the plain name go all entries of this name that no label of another name leads to, and what uploads have
        left that must have ended; with a version its entry, unless another label leads there.
        """
        session = self.account
        labels = labels_of(session)
        entries = list(entries_of(session))
        ties = list(ties_of(session))
        uploads = [tie for tie in ties if tie.name == name and version is None]
        dead = dead_runs(uploads)
        left = [tie for tie in uploads if tie.run in dead]
        going = [label for label in labels if _named(label, name, version)]
        staying = [label for label in labels if label not in going]
        lost = [one for one in entries if any(label.leads_to(session, one.uri) for label in going)]
        if version is None:
            lost += [one for one in entries if one.record.name == name and one not in lost]
        lost = [one for one in lost if not any(label.leads_to(session, one.uri) for label in staying)]
        target = f"@{session.handle or session.did}/{name}" + (f"@{version}" if version else "")
        if not going and not lost and not left:
            raise self._no_such(name, version, [label for label in labels if label.record.name == name])
        return Withdrawal(
            target=target,
            labels=[label.target for label in going],
            entries=[self._entry(session, one) for one in lost],
            deleted=_deleted(session, lost, left, entries, ties),
            keys=[
                *(f"{label.uri} {label.cid}" for label in going),
                *(f"{one.uri} {one.cid}" for one in lost),
                *(f"at://{session.did}/{UPLOAD}/{tie.key}" for tie in left),
            ],
            warnings=unfinished([tie for tie in uploads if tie not in left]),
        )

    def plan_pruning(self, name: str) -> Withdrawal:
        """What would go of a name's entries, as nothing leads there any more; see :meth:`withdraw`.

        The newest stays: a run may be about to put its label.

        Raises
        ------
        NotFoundError : there is nothing of this name.
        """
        session = self.account
        # Whatever a label calls the account: it may have had another handle.
        named = {label.record.dataset_uri.rpartition("/")[2] for label in labels_of(session)}
        entries = list(entries_of(session))
        own = sorted((one for one in entries if one.record.name == name), key=_age)
        target = f"@{session.handle or session.did}/{name}"
        if not own:
            raise self._no_such(name, None, ())
        old = [one for one in own[:-1] if one.uri.rpartition("/")[2] not in named]
        return Withdrawal(
            target=target,
            labels=(),
            entries=[self._entry(session, one) for one in old],
            deleted=_deleted(session, old, (), entries, list(ties_of(session))),
            keys=[f"{one.uri} {one.cid}" for one in old],
        )

    def withdraw(self, withdrawal: Withdrawal) -> None:
        """See :class:`atdata_cli.indexes.base.Index`. Labels first, so that none leads nowhere."""
        session = self.account
        doomed = [(parse_record(key), cid) for key, _, cid in (text.partition(" ") for text in withdrawal.keys)]
        entries = {f"at://{session.did}/{ENTRY}/{key}" for (collection, key), _ in doomed if collection == ENTRY}
        labels = {key for (collection, key), _ in doomed if collection == LABEL}
        for label in labels_of(session):
            if label.key not in labels and any(label.leads_to(session, uri) for uri in entries):
                raise OccupiedError(
                    f"{label.target} leads to it by now", url=label.record.dataset_uri, hint="look at it again"
                )
        try:
            for (collection, key), cid in doomed:
                session.delete_record(collection, key, cid or ANY)
        except SwapError as error:
            raise OccupiedError(
                "another run changed it in the meantime: what is left was not touched",
                url=error.url,
                hint="the same command again withdraws what is there now",
            ) from error

    # -- reading

    def find(self, name: str, version: str | None = None) -> Entry:
        """See :class:`atdata_cli.indexes.base.Index`.

        By labels: of several, the newest counts. A name without any is looked for among the entries.
        """
        session = self._reader
        labels = labels_of(session, name)
        label = newest(label for label in labels if version in (None, label.record.version))
        if label is not None:
            return _followed(self._labelled(session, label))
        named = list(entries_of(session, name)) if version is None else []
        if named:
            return _followed(self._entry(session, max(named, key=_age)))
        raise self._no_such(name, version, labels)

    def _no_such(self, name: str, version: str | None, labels: Sequence[Label]) -> NotFoundError:
        """What to say where nothing is found; *labels* are those of the name."""
        versions = sorted({label.record.version for label in labels if label.record.version})
        return NotFoundError(
            f"there is no version {version!r}" if labels else f"@{self._authority} has published nothing of this name",
            url=f"@{self._authority}/{name}",
            hint=f"there are {', '.join(versions)}" if versions else f"inspect @{self._authority} lists what is there",
        )

    def get(self, key: str) -> Entry:
        """See :class:`atdata_cli.indexes.base.Index`."""
        return _followed(self._entry(self._reader, _stored(self._reader, key)))

    def entries(self) -> Iterator[Entry]:
        """See :class:`atdata_cli.indexes.base.Index`.

        What is damaged is left out. Entries that no label leads to are older versions, unless nothing of their name has
        a label.
        """
        session = self._reader
        known = {stored.uri: stored for stored in entries_of(session)}
        labels = labels_of(session)
        found = []
        for name, version in {(label.record.name, label.record.version) for label in labels}:
            label = newest(label for label in labels if _named(label, name, version, exactly=True))
            assert label is not None
            with suppress(NotFoundError, IntegrityError):
                found.append(self._labelled(session, label, known))
        labelled = {label.record.name for label in labels}
        for name in {stored.record.name for stored in known.values()} - labelled:
            last = max((one for one in known.values() if one.record.name == name), key=_age)
            found.append(self._entry(session, last))
        return iter(sorted(found, key=lambda entry: (entry.name, entry.version or "")))

    def _labelled(self, session: Session, label: Label, known: dict[str, StoredEntry] | None = None) -> Entry:
        """The entry that a label leads to; it may be another account's."""
        reference = _entry_reference(label)
        owner = session
        if reference.authority not in (session.did, session.handle):
            owner = self._other(reference.authority)
        stored = (known or {}).get(f"at://{owner.did}/{ENTRY}/{reference.key}")
        try:
            stored = stored or _stored(owner, reference.key)
        except NotFoundError as error:
            raise NotFoundError(
                f"the label {label.target} leads to an entry that is gone",
                url=label.record.dataset_uri,
                hint="publish the dataset again",
            ) from error
        return self._entry(owner, stored, label)

    def _entry(self, owner: Session, stored: StoredEntry, label: Label | None = None) -> Entry:
        return entry_of(
            stored.record,
            uri=stored.uri,
            did=owner.did,
            name=label.record.name if label else None,
            version=label.record.version if label else None,
            schema=self._schema(owner, stored.record.schema_ref),
        )

    def _other(self, authority: str) -> Session:
        """Another account, which a record names. A stranger's record cannot send requests into this machine."""
        if authority not in self._others:
            if on_this_machine(authority) and not is_loopback(self._reader.pds_url):
                raise IntegrityError("this record names an account on this machine", url=f"at://{authority}")
            self._others[authority] = Session.anonymous(authority)
        return self._others[authority]

    def _schema(self, owner: Session, uri: str) -> SchemaRecord | None:
        """The schema of an entry; None if it cannot be read: the shards can be without."""
        if uri not in self._schemas:
            self._schemas[uri] = self._read_schema(owner, uri)
        return self._schemas[uri]

    def _read_schema(self, owner: Session, uri: str) -> SchemaRecord | None:
        authority, _, path = uri.removeprefix("at://").partition("/")
        collection, _, key = path.partition("/")
        if collection != SCHEMA or not key:
            return None
        try:
            if authority not in (owner.did, owner.handle):
                owner = self._other(authority)
            found = owner.get_record(collection, key)
            return SchemaRecord.from_json(found[0], uri=uri) if found else None
        except AtdataError as error:
            if error.retryable:
                raise
            return None


def parse_record(uri: str) -> tuple[str, str]:
    """Collection and key of a record's URI."""
    _, _, path = uri.removeprefix("at://").partition("/")
    collection, _, key = path.partition("/")
    return collection, key


def _stored(session: Session, key: str) -> StoredEntry:
    uri = f"at://{session.did}/{ENTRY}/{key}"
    found = session.get_record(ENTRY, key)
    if found is None:
        raise NotFoundError(
            "there is no such entry",
            url=uri,
            hint="it may have been withdrawn; atdata-cli inspect @HANDLE lists what is there",
        )
    value, cid = found
    return StoredEntry(uri, cid, EntryRecord.from_json(value, uri=uri))


def _followed(entry: Entry) -> Entry:
    """The entry, if a reader may follow its shards."""
    if entry.problem is not None:
        raise IntegrityError(entry.problem, url=entry.uri, hint="its publisher has to mend it")
    return entry


def _entry_reference(label: Label) -> Reference:
    try:
        reference = parse(label.record.dataset_uri)
    except AtdataError:
        reference = None
    if reference is None or reference.kind != "entry":
        raise IntegrityError(
            f"the label {label.target} leads to no entry", url=label.uri, hint="publish the dataset again"
        )
    return reference


def _named(label: Label, name: str, version: str | None, *, exactly: bool = False) -> bool:
    """Whether a label is one of *name*: of a version that label alone, without one all, or *exactly* the plain one."""
    same_version = label.record.version == version if exactly or version is not None else True
    return label.record.name == name and same_version


def _age(stored: StoredEntry) -> tuple[object, str]:
    return age(stored.record.created_at), stored.uri


def _deleted(
    session: Session,
    lost: Sequence[StoredEntry],
    left: Sequence[Tie],
    entries: Sequence[StoredEntry],
    ties: Sequence[Tie],
) -> list[EntryShard]:
    """Blobs of *lost* and *left* that no other entry or upload holds: the server deletes them at once."""
    going = {blob.cid: blob for blob in _held(lost, left)}
    kept = {blob.cid for blob in _held([one for one in entries if one not in lost], [t for t in ties if t not in left])}
    return [
        EntryShard(f"at://{session.did}/blob/{cid}", sha256_in(cid), blob.size)
        for cid, blob in going.items()
        if cid not in kept
    ]


def _held(entries: Iterable[StoredEntry], ties: Iterable[Tie]) -> Iterator[Blob]:
    for one in entries:
        if isinstance(one.record.storage, StorageBlobs):
            yield from (shard.blob for shard in one.record.storage.shards)
    for tie in ties:
        yield from tie.blobs
