"""What uploads into a PDS have left that never came to their entry: it is told of, and removed when it is given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from atdata_cli.atproto.ledger import UPLOAD, Tie, ties_of
from atdata_cli.atproto.session import Session
from atdata_cli.atproto.storage import Blob, StorageBlobs
from atdata_cli.indexes.base import Published
from atdata_cli.indexes.publishing import entries_of
from atdata_cli.words import count, human_bytes

__all__ = ["Abandoned", "abandon", "told_unfinished"]


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


def told_unfinished(published: Published, left: Sequence[Tie]) -> Published:
    """What was published, with a word about what other runs have left."""
    if not left:
        return published
    blobs = {blob.cid: blob.size for tie in left for blob in tie.blobs}
    last = max(tie.created for tie in left)
    warning = (
        f"another upload of this name, last at {last:%Y-%m-%d %H:%M} UTC, is not finished: "
        f"{count(len(blobs), 'blob')}, {human_bytes(sum(blobs.values()))}; if it was given up, abort removes them"
    )
    return replace(published, warnings=[*published.warnings, warning])
