"""What is published, what an index holds, and the protocol that all indexes share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from atdata_cli.shards.reader import Located
from atdata_cli.sources.base import Files

__all__ = ["Entry", "EntryShard", "Index", "Publication", "Published", "Status", "Withdrawal"]

Status = Literal["published", "updated", "unchanged", "planned"]


@dataclass(frozen=True, slots=True)
class EntryShard:
    """One shard, as an entry names it. What the index does not tell is None.

    Attributes
    ----------
    url : absolute and without secrets: a path, ``s3://BUCKET/KEY``, ``https://…``, ``at://DID/blob/CID``.
    sha256 : of the stored bytes, hex.
    bytes : size as stored.
    samples : how many.
    first_key, last_key : keys of its first and last sample.
    """

    url: str
    sha256: str | None = None
    bytes: int | None = None
    samples: int | None = None
    first_key: str | None = None
    last_key: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One dataset in an index, found under a name. What its author did not tell is None or empty.

    Attributes
    ----------
    uri : how it is named from now on: an AT URI, or ``atdata://local/dataset/NAME[@VERSION]``.
    key : what :meth:`Index.get` takes: a record key, or the CID in the local index.
    name, version : of the label it was found by; its own name, and None, where no label leads to it.
    shards : in order.
    schema : of a sample: draft-07 JSON Schema, or None if it cannot be read.
    schema_ref : URI of the schema, as the index has it.
    encoding : ``msgpack`` or ``files``.
    compression : ``gz`` or None.
    split : which split of a dataset this is.
    samples, bytes, payload : totals; payload is the sum of all members' sizes.
    job : identity of the dataset's input and options, as in its manifest.
    description, tags, license : as published.
    metadata : everything else that was published with it, without what is told above.
    created_at : when, as the index has it (ISO 8601, or SQLite's ``YYYY-MM-DD HH:MM:SS``).
    endpoint, region : of the S3 server that has the shards, where its author told. Whoever wrote the entry chose
        them: they are given no credentials but those that the user configured for this very endpoint.
    blob_refs : URL to blob ref, verbatim, of shards that are blobs.
    problem : why no reader may follow its shards, which are left out then; None if one may.
    """

    uri: str
    key: str
    name: str
    version: str | None
    shards: Sequence[EntryShard]
    schema: Mapping[str, Any] | None = None
    schema_ref: str | None = None
    encoding: str | None = None
    compression: str | None = None
    split: str | None = None
    samples: int | None = None
    bytes: int | None = None
    payload: int | None = None
    job: str | None = None
    description: str | None = None
    tags: Sequence[str] = ()
    license: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    created_at: str | None = None
    endpoint: str | None = None
    region: str | None = None
    blob_refs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Publication:
    """A dataset that is to be published, and what is said of it: the same for every index.

    Made by ``atdata_cli.indexes.publication.prepare``, which refuses what no index may hold (an unfinished dataset, one
    that nobody has checked, several splits at once). What an index of its own refuses (local paths, loopback URLs,
    sizes) it checks in :meth:`Index.publish`, before anything is sent.

    Attributes
    ----------
    name, version : of the target, ``@INDEX/NAME[@VERSION]``; version is None for the plain label alone.
    located, files : the dataset as found, and how its shards are opened; for an index that copies them.
    shards : in order; absolute URLs, each with its hash, size and number of samples.
    schema : draft-07 JSON Schema of a sample.
    schema_name : CamelCase identifier, for the index's schema record.
    fields : what is known of each field, as in a manifest (``kind``, ``dtypes``, ``nulls``, …).
    encoding, compression, split, samples, bytes, payload, job : see :class:`Entry`.
    description, tags, license, metadata : what the publisher says. None leaves what the entry says that the name leads
        to so far; an empty one takes it away. No name in ``metadata`` is one of ``atdata_cli.indexes.facts.RESERVED``.
    endpoint, region : of the S3 server that has the shards; None for AWS, or where it is another store.
    allow_local_url : take loopback URLs into a public index.
    blobs : copy the shards into the PDS first.
    blob_refs : URL to blob ref, verbatim as the PDS gave it, of shards that are blobs already.
    """

    name: str
    located: Located
    files: Files
    shards: Sequence[EntryShard]
    schema: Mapping[str, Any]
    schema_name: str
    encoding: str
    samples: int
    bytes: int
    payload: int
    version: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    compression: str | None = None
    split: str | None = None
    job: str | None = None
    description: str | None = None
    tags: Sequence[str] | None = None
    license: str | None = None
    metadata: Mapping[str, Any] | None = None
    endpoint: str | None = None
    region: str | None = None
    allow_local_url: bool = False
    blobs: bool = False
    blob_refs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Published:
    """What came of it.

    Attributes
    ----------
    uri : of the entry; of a dry run, the one it would have as far as that is known.
    status : ``published`` is new under this name, ``updated`` moved the label to a new entry, ``unchanged`` did
        nothing, ``planned`` is a dry run.
    records : what was written, or would be: (what it is called, its content), in the order of writing.
    warnings : what the publisher should know.
    shards : as the entry names them, where the index has put them to another place; empty if they stayed.
    """

    uri: str
    status: Status
    records: Sequence[tuple[str, Mapping[str, Any]]] = ()
    warnings: Sequence[str] = ()
    shards: Sequence[EntryShard] = ()


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What :meth:`Index.withdraw` would take away, so that a person can be told before.

    Attributes
    ----------
    target : ``@INDEX/NAME[@VERSION]``.
    labels : names, with their versions, that lead nowhere afterwards: ``NAME``, ``NAME@1.0.0``.
    entries : those that go; one that another label still needs stays, and is not among them.
    deleted : shards that are deleted with them, at once and for good: blobs that no other record holds.
    keys : URIs or keys of all that is deleted, for the index itself.
    warnings : what a person should know.
    """

    target: str
    labels: Sequence[str]
    entries: Sequence[Entry]
    deleted: Sequence[EntryShard] = ()
    keys: Sequence[str] = ()
    warnings: Sequence[str] = ()

    @property
    def deleted_bytes(self) -> int:
        """Bytes of the shards that are deleted."""
        return sum(shard.bytes or 0 for shard in self.deleted)


@runtime_checkable
class Index(Protocol):
    """Where datasets are announced.

    Errors are ``atdata_cli.errors.AtdataError`` with the URI concerned; names, records and URLs that come back are
    other people's, and are not to be trusted.
    """

    def publish(self, publication: Publication, *, dry_run: bool = False) -> Published:
        """Write the entry and move its label; nothing if the same is there already.

        With ``publication.version`` a versioned label is written, and the plain one moved.

        Raises
        ------
        UsageError : this dataset cannot be in this index; told before anything is sent.
        OccupiedError : the version names another dataset already, or another run was faster.
        """

    def find(self, name: str, version: str | None = None) -> Entry:
        """The entry that a name leads to; the newest without a version.

        Raises
        ------
        NotFoundError : there is none.
        IntegrityError : its shards are where no reader may follow.
        """

    def get(self, key: str) -> Entry:
        """One entry by its key, see :class:`Entry`.

        Raises
        ------
        NotFoundError, IntegrityError : see :meth:`find`.
        """

    def entries(self) -> Iterator[Entry]:
        """All datasets, one for each label (so one with a version comes under both), by name and version.

        Those whose shards cannot be followed are among them, see :class:`Entry`.
        """

    def plan_withdrawal(self, name: str, version: str | None = None) -> Withdrawal:
        """What would go: of the plain name all its labels, of a version that label alone.

        Raises
        ------
        NotFoundError : there is nothing of this name.
        """

    def withdraw(self, withdrawal: Withdrawal) -> None:
        """Do it.

        Raises
        ------
        OccupiedError : something has changed since it was planned; nothing is lost.
        """
