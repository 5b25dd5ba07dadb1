"""What uploads into a PDS have left that never came to their entry: it is told of, and removed when it is given up."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from atdata_cli.atproto.ledger import UPLOAD, BlobLedger, Tie, ties_of
from atdata_cli.atproto.session import Session
from atdata_cli.atproto.storage import Blob, StorageBlobs
from atdata_cli.atproto.values import blob_cid
from atdata_cli.errors import AtdataError, OccupiedError
from atdata_cli.indexes.base import Publication, Published
from atdata_cli.indexes.publishing import entries_of, publish
from atdata_cli.words import count, human_bytes

__all__ = ["Abandoned", "abandon", "cids_of", "publish_uploaded", "told_unfinished", "unfinished"]


@dataclass(frozen=True, slots=True)
class Abandoned:
    """What goes with the uploads of a name.

    Attributes
    ----------
    deleted : blobs that nothing else holds: the server deletes them at once.
    kept : how many blobs stay, as an entry or the upload of another name holds them.
    """

    deleted: Sequence[Blob]
    kept: int


def abandon(session: Session, name: str, *, dry_run: bool = False) -> Abandoned:
    """Remove all records that uploads of a dataset have left, those under way included.

    Parameters
    ----------
    session : of the account, logged in.
    name : of the dataset.
    dry_run : look only.
    """
    ties = list(ties_of(session))
    held = {
        shard.blob.cid
        for entry in entries_of(session)
        if isinstance(entry.record.storage, StorageBlobs)
        for shard in entry.record.storage.shards
    }
    held.update(blob.cid for tie in ties if tie.name != name for blob in tie.blobs)
    going = {blob.cid: blob for tie in ties if tie.name == name for blob in tie.blobs}
    if not dry_run:
        for tie in ties:
            if tie.name == name:
                session.delete_record(UPLOAD, tie.key)
    deleted = [blob for cid, blob in going.items() if cid not in held]
    return Abandoned(deleted, len(going) - len(deleted))


def publish_uploaded(session: Session, publication: Publication, ledger: BlobLedger) -> Published:
    """Publish what was uploaded; from then on its entry holds the blobs, and the ledger is removed.

    Raises
    ------
    OccupiedError : the name or version went to another dataset: what this run has uploaded is removed.
    AtdataError : see :func:`atdata_cli.indexes.publishing.publish`. What was uploaded stays for the next attempt.
    """
    try:
        published = publish(session, publication)
    except OccupiedError:
        with suppress(AtdataError):  # the first error is the one to tell
            ledger.release()
        raise
    return told_unfinished(published, ledger.release(cids_of(publication)))


def cids_of(publication: Publication) -> set[str]:
    """CIDs of the blobs that a publication's shards are, or would be."""
    return {blob_cid(shard.sha256) for shard in publication.shards if shard.sha256}


def told_unfinished(published: Published, left: Sequence[Tie]) -> Published:
    """What was published, with a word about what other runs have left."""
    return replace(published, warnings=[*published.warnings, *unfinished(left)])


def unfinished(left: Sequence[Tie]) -> Sequence[str]:
    """A word about what other runs have left, if they have."""
    if not left:
        return ()
    blobs = {blob.cid: blob.size for tie in left for blob in tie.blobs}
    last = max(tie.created for tie in left)
    return [
        f"another upload of this name, last at {last:%Y-%m-%d %H:%M} UTC, is not finished: "
        f"{count(len(blobs), 'blob')}, {human_bytes(sum(blobs.values()))}; if it was given up, abort removes them"
    ]
