"""``write`` straight into a PDS: samples become blobs, and the blobs an entry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from atdata_cli.errors import NotFoundError, OccupiedError, UsageError
from atdata_cli.indexes.atmosphere import AtmosphereIndex
from atdata_cli.indexes.base import EntryShard, Publication, Published
from atdata_cli.indexes.blobs import check_room, room, written_blobs
from atdata_cli.indexes.publishing import check_of_version, publish
from atdata_cli.indexes.typemap import schema_name
from atdata_cli.indexes.unfinished import publish_uploaded
from atdata_cli.refs import Reference
from atdata_cli.shards.job import WriteOptions
from atdata_cli.shards.manifest import Manifest
from atdata_cli.shards.reader import Located
from atdata_cli.shards.write import Status, WriteResult
from atdata_cli.sources.base import RowSource, Source
from atdata_cli.stores.inputs import StoreFiles
from atdata_cli.stores.pds import PDSBlobStore

__all__ = ["WrittenEntry", "write_entry"]

_HEADERS = 4096  # bytes of a tar around one sample with a few members


@dataclass(frozen=True, slots=True)
class WrittenEntry:
    """What came of it.

    Attributes
    ----------
    result : of the writing, with the warnings of the publishing, too; its manifest is stored nowhere but in the entry.
    urls : of the shards, in order.
    published : of the publishing.
    """

    result: WriteResult
    urls: list[str]
    published: Published


def write_entry(
    target: Reference,
    source: Source,
    options: WriteOptions,
    *,
    said: Mapping[str, Any] | None = None,
    if_exists: Literal["resume", "fail"] = "resume",
    dry_run: bool = False,
    **more: Any,
) -> WrittenEntry:
    """Write a dataset into the PDS of the account that is logged in, and publish its entry.

    What the server has already is not sent again: the same call after one that was killed goes on with it, and after
    one that was not it finds everything "unchanged".

    Parameters
    ----------
    target : ``@HANDLE/NAME[@VERSION]``.
    source, options : see :func:`atdata_cli.shards.write.write`; shards end where the server's limit is.
    said : description, tags, license and metadata of the entry, see :class:`Publication`.
    if_exists : ``fail`` refuses a name that leads somewhere already.
    dry_run : make the shards and the records, and send none.
    **more : ``rejects`` and ``progress``, see :func:`atdata_cli.shards.write.write`.

    Raises
    ------
    AuthError : the account is not logged in.
    UsageError : one entry cannot hold this; told before the upload where that can be known.
    OccupiedError : the version names another dataset: told before the first shard is sent that it does not have.
    AtdataError : see :func:`atdata_cli.shards.write.write` and :meth:`AtmosphereIndex.publish`.
    """
    if options.splits() is not None:
        raise UsageError(
            "an entry holds one split: loaded by its name, several would be mixed",
            url=target.text,
            hint="write the splits to another store, then: publish REF @HANDLE/NAME --split NAME --blobs",
        )
    index = AtmosphereIndex(target.authority)
    session = index.account
    if if_exists == "fail":
        _check_free(index, target)
    store = PDSBlobStore(session)
    draft = _draft(target, said or {})
    publish(session, draft, dry_run=True)  # what is said, the account: all that can be wrong is found now
    most = room(draft)
    check_room(draft, options.shards or 0)
    if _may_be_too_many(source, options, store.limit, most):
        check_room(draft, len(store.plan(source, target.name, options).manifest.shards))
    check = check_of_version(session, target.name, target.version)
    ledger = store.ledger(target.name)
    written = store.write(
        source, target.name, options, ledger=ledger, most_shards=most, check=check, dry_run=dry_run, **more
    )
    publication = written_blobs(_publication(draft, written.result.manifest), written.result.manifest, written.urls)
    publication = replace(publication, version=target.version)
    result = replace(written.result, stored=() if dry_run else written.result.stored)
    if dry_run:
        published = publish(session, publication, dry_run=True)
    else:
        published = publish_uploaded(session, publication, ledger)
    status: Status = "unchanged" if published.status == "unchanged" else "planned" if dry_run else "written"
    warnings = [*result.warnings, *published.warnings]
    return WrittenEntry(replace(result, status=status, warnings=warnings), list(written.urls), published)


def _check_free(index: AtmosphereIndex, target: Reference) -> None:
    try:
        entry = index.find(target.name, target.version)
    except NotFoundError:
        return
    raise OccupiedError("this name leads to a dataset already", url=entry.uri, hint="leave out --if-exists fail")


def _may_be_too_many(source: Source, options: WriteOptions, limit: int, most: int) -> bool:
    """Whether an input that can be read twice may need more shards than an entry holds, so that a plan must tell.

    Bounds from above, in growing order of what they cost: a row has two bytes and more, counting reads no payloads.
    """
    size = source.size()
    if size is None or not source.rewindable:
        return False
    # Tars are larger than what is in them, and two shards in a row may have little more than the limit together.
    by_bytes = 4 * math.ceil(size / limit) + 1
    if isinstance(source, RowSource) and by_bytes + size // (2 * options.count_limit) <= most:
        return False
    samples = source.count()
    if samples is None:
        return True
    return by_bytes + math.ceil(samples * _HEADERS / limit) + math.ceil(samples / options.count_limit) > most


def _draft(target: Reference, said: Mapping[str, Any]) -> Publication:
    """What is published, with one shard that stands for those to come."""
    return Publication(
        name=target.name,
        located=Located(target.text, ()),
        files=StoreFiles(),
        shards=[EntryShard("", sha256="00" * 32, bytes=1, samples=10_000, first_key="0000010000")],
        schema={},
        schema_name=schema_name(target.name),
        encoding="msgpack",
        samples=0,
        bytes=0,
        payload=0,
        blobs=True,
        **said,
    )


def _publication(draft: Publication, manifest: Manifest) -> Publication:
    return replace(
        draft,
        schema=manifest.schema,
        fields=manifest.fields,
        encoding=manifest.encoding,
        job=manifest.job,
    )
