"""Shards into the publisher's PDS, on their way to an entry: as they are where the server takes them, else as new ones.

Blobs live only while a record refers to them: a ledger of records does, until the entry is there and was read back.
A run that was killed finds there what it has uploaded.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from atdata_cli.atproto.ledger import BlobLedger
from atdata_cli.atproto.records import SCHEMA, new_tid, room_for_shards
from atdata_cli.atproto.session import Session
from atdata_cli.atproto.storage import Blob, BlobShard, Checksum, StorageBlobs
from atdata_cli.atproto.transport import TooLargeError
from atdata_cli.atproto.values import blob_cid
from atdata_cli.errors import UsageError
from atdata_cli.indexes.base import EntryShard, Publication, Published
from atdata_cli.indexes.entryrecord import entry_record
from atdata_cli.indexes.publishing import check_of_version, publish
from atdata_cli.indexes.unfinished import cids_of, publish_uploaded, told_unfinished
from atdata_cli.shards.job import WriteOptions
from atdata_cli.shards.manifest import Manifest
from atdata_cli.shards.reader import Shard
from atdata_cli.shards.transfer import ShardReader, Stages, copy_shards
from atdata_cli.sources.tars import TarSource
from atdata_cli.stores.pds import BlobUrls, NamelessFolder, PDSBlobStore
from atdata_cli.words import count, human_bytes

__all__ = [
    "check_room",
    "fits",
    "planned_blobs",
    "publish_blobs",
    "room",
    "upload",
    "with_blobs",
    "written_blobs",
]


def publish_blobs(
    session: Session, publication: Publication, *, dry_run: bool = False, progress: Stages | None = None
) -> Published:
    """Copy the shards of a publication into the account's PDS, and publish it.

    Raises
    ------
    AtdataError : see :func:`atdata_cli.indexes.publishing.publish`. What was uploaded stays for the next attempt.
    """
    store, progress = PDSBlobStore(session), progress or Stages()
    while True:
        limit = store.limit
        try:
            return _publish_blobs(store, publication, limit, dry_run=dry_run, progress=progress)
        except TooLargeError:
            if store.limit >= limit:
                raise
            # The server takes less than it seemed to: as new shards, all fit.


def _publish_blobs(
    store: PDSBlobStore, publication: Publication, limit: int, *, dry_run: bool, progress: Stages
) -> Published:
    session = store.account
    planned = planned_blobs(publication, limit, progress, exactly=dry_run)
    known = fits(planned, limit)
    # Everything that can be wrong is found before the first byte is sent.
    looked = publish(session, planned if known else _one_shard(planned), dry_run=True)
    looked = replace(looked, shards=_in_the_pds(planned, store.did) if known else ())
    if dry_run:
        return _told_resharded(looked, publication, limit)
    ledger = store.ledger(publication.name)
    if known and looked.status == "unchanged":
        return told_unfinished(looked, ledger.release(cids_of(planned)))  # a run may have been killed when all was done
    try:
        stored = upload(publication, store, ledger, progress)
    except TooLargeError:
        ledger.release()  # what will be sent instead has other blobs
        raise
    published = replace(publish_uploaded(session, stored, ledger), shards=tuple(stored.shards))
    return _told_resharded(published, publication, limit)


def _told_resharded(published: Published, publication: Publication, limit: int) -> Published:
    """What was published, with a word about why its shards are not those that there were."""
    if fits(publication, limit):
        return published
    large = sum((shard.bytes or 0) > limit for shard in publication.shards)
    reasons = [f"{count(large, 'shard')} over the server's limit of {human_bytes(limit)}"] if large else []
    reasons += ["it takes no compressed shards"] if publication.compression is not None else []
    return replace(published, warnings=[*published.warnings, f"re-sharded: {', and '.join(reasons)}"])


def _in_the_pds(publication: Publication, did: str) -> list[EntryShard]:
    """The shards as an entry would name them."""
    return [
        replace(shard, url=f"at://{did}/blob/{blob_cid(shard.sha256)}")
        for shard in publication.shards
        if shard.sha256 is not None
    ]


def _one_shard(publication: Publication) -> Publication:
    """Stands for a publication whose shards are not known yet, to look at all else."""
    shard = replace(publication.shards[0], sha256="00" * 32, bytes=1)
    return replace(publication, shards=[shard], compression=None, version=None)


def fits(publication: Publication, limit: int) -> bool:
    """Whether the PDS takes the shards as they are: plain tars, none too large."""
    return publication.compression is None and all((shard.bytes or 0) <= limit for shard in publication.shards)


def room(publication: Publication) -> int:
    """About how many shards in the PDS one entry of this dataset has room for."""
    digest = "00" * 32
    some = [EntryShard("", digest, 50_000_000, 10_000)] * 100
    storage = StorageBlobs([BlobShard(Blob(blob_cid(digest), 50_000_000), Checksum.sha256(digest))] * len(some))
    uri = f"at://did:plc:{'a' * 24}/{SCHEMA}/{new_tid()}"
    return room_for_shards(entry_record(replace(publication, shards=some), storage, uri))


def check_room(publication: Publication, shards: int) -> None:
    """Refuse what is known not to fit into one entry, before anything is uploaded.

    Raises
    ------
    UsageError : there are more shards than the record holds.
    """
    most = room(publication)
    if shards > most:
        raise UsageError(
            f"{shards:,} shards are too many for one entry",
            hint=f"about {most:,} fit: make them larger, or divide the dataset into several",
        )


def planned_blobs(publication: Publication, limit: int, progress: Stages, *, exactly: bool) -> Publication:
    """The publication with the shards that the PDS would get, as far as they can be known.

    Parameters
    ----------
    limit : bytes of the largest blob.
    progress : told how far it is.
    exactly : make new shards to know their hashes, without uploading them, where the old ones do not fit.
    """
    if fits(publication, limit):
        return publication
    least = math.ceil(sum(shard.bytes or 0 for shard in publication.shards) / limit)
    check_room(publication, least)
    # Two shards in a row have more than the limit together, so there are less than twice as many.
    if not exactly and 2 * least + 1 <= room(publication):
        return publication
    from atdata_cli.shards.write import write  # with it come webdataset and numpy

    options, told = _options(publication, limit), progress.writing("re-sharding")
    result = write(_source(publication), NamelessFolder(), publication.name, options, progress=told)
    check_room(publication, len(result.manifest.shards))
    return replace(publication, **_told(result.manifest), compression=None)


def upload(publication: Publication, store: PDSBlobStore, ledger: BlobLedger, progress: Stages) -> Publication:
    """Put the shards of a publication into the PDS; what the server has already is not sent again.

    Returns
    -------
    The publication with the blobs as its shards.
    """
    if not fits(publication, store.limit):
        check = check_of_version(store.account, publication.name, publication.version)
        options = _options(publication, store.limit)
        told = progress.writing("re-sharding")
        done = store.write(_source(publication), publication.name, options, ledger=ledger, check=check, progress=told)
        return written_blobs(replace(publication, compression=None), done.result.manifest, done.urls)
    blobs: dict[int, Blob | None] = {
        place: ledger.keep(blob_cid(shard.sha256), shard.bytes) if shard.sha256 and shard.bytes else None
        for place, shard in enumerate(publication.shards)
    }
    missing = [place for place, blob in blobs.items() if blob is None]
    shards = [_to_read(publication, place) for place in missing]
    transfer = progress.transfer("uploading")
    transfer.total = sum(shard.size or 0 for shard in shards)

    def put(stream: ShardReader) -> Blob:
        return store.upload(stream, ledger=ledger)

    sent = copy_shards(shards, publication.files, put, jobs=store.parallel, progress=transfer, compared=True)
    blobs.update(zip(missing, sent, strict=True))
    ledger.flush()
    return with_blobs(publication, BlobUrls(store.did, [blob for blob in blobs.values() if blob is not None]))


def _to_read(publication: Publication, place: int) -> Shard:
    """One shard where it is now, with what it must be."""
    found, told = publication.located.shards[place], publication.shards[place]
    return replace(found, size=told.bytes, sha256=told.sha256)


def _source(publication: Publication) -> TarSource:
    return TarSource(publication.files, [shard.input for shard in publication.located.shards])


def _options(publication: Publication, limit: int) -> WriteOptions:
    return WriteOptions(name=publication.name, max_size=limit, hard_limit=True, allow_empty=True)


def with_blobs(publication: Publication, urls: BlobUrls) -> Publication:
    """The publication with its shards at their new place."""
    shards = [replace(shard, url=url) for shard, url in zip(publication.shards, urls, strict=True)]
    refs = dict(zip(urls, urls.blob_refs, strict=True))
    return replace(publication, shards=shards, blob_refs=refs, blobs=False, endpoint=None, region=None)


def written_blobs(publication: Publication, manifest: Manifest, urls: BlobUrls) -> Publication:
    """The publication with new shards, which are in the PDS now."""
    return with_blobs(replace(publication, **_told(manifest)), urls)


def _told(manifest: Manifest) -> dict[str, Any]:
    """What a manifest of new shards says of a publication."""
    return {
        "shards": [
            EntryShard(row.name, row.sha256, row.bytes, row.samples, row.first_key, row.last_key)
            for row in manifest.shards
        ],
        "samples": manifest.samples,
        "bytes": manifest.bytes,
        "payload": manifest.payload,
    }
