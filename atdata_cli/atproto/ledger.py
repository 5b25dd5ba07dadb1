"""What keeps uploaded blobs alive until their entry does: records in the account's own repository.

A server deletes a blob that no record refers to, after a while. A long upload therefore ties its blobs to records as it
goes, and one that was killed finds them there and need not send them again. The collection claims nobody's domain.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping
from typing import Any

from atdata_cli.atproto.records import new_tid
from atdata_cli.atproto.session import ABSENT, Session
from atdata_cli.atproto.storage import TAR, Blob
from atdata_cli.atproto.transport import BlobMissingError

__all__ = ["UPLOAD", "BlobLedger"]

UPLOAD = "local.atdata-cli.upload"

_FEW = 8  # blobs, and
_MUCH = 64 << 20  # bytes, that are sent again if a run is killed at the worst moment
_LONG = 60.0  # seconds that a blob waits to be tied; servers wait an hour before they delete it
_PAGE = 1000  # of listBlobs


class BlobLedger:
    """The blobs of one upload job.

    May be used from many threads at once.

    Attributes
    ----------
    job : what tells this upload from others of the account: equal ones share their ledger.
    """

    def __init__(self, session: Session, job: str, name: str) -> None:
        self.job = job
        self._session = session
        self._name = name
        self._prefix = hashlib.sha256(job.encode()).hexdigest()[:32]
        self._lock = threading.RLock()
        self._alive: set[str] = set()
        self._tied: set[str] = set()
        self._records: set[str] = set()
        self._pending: dict[str, Blob] = {}
        self._since = time.monotonic()

    @classmethod
    def open(cls, session: Session, job: str, name: str) -> BlobLedger:
        """The ledger of a job, with what earlier runs have left in it.

        Parameters
        ----------
        session : of the account.
        job : any text; equal jobs go on with each other's upload.
        name : of the dataset, for people who look at the records.
        """
        ledger = cls(session, job, name)
        ledger._read()
        return ledger

    def _read(self) -> None:
        cursor = None
        while True:
            page = self._session.get("com.atproto.sync.listBlobs", did=self._session.did, limit=_PAGE, cursor=cursor)
            self._alive.update(page["cids"])
            cursor = page.get("cursor")
            if cursor is None or not page["cids"]:
                break
        for uri, _, record in self._session.list_records(UPLOAD):
            key = uri.rpartition("/")[2]
            if key.startswith(f"{self._prefix}."):
                self._records.add(key)
                self._tied.update(_cids(record))

    @property
    def known(self) -> frozenset[str]:
        """CIDs of the blobs that this ledger holds."""
        with self._lock:
            return frozenset(self._tied | self._pending.keys())

    def keep(self, cid: str, size: int) -> Blob | None:
        """The blob, if the server has it already; it is in the ledger then. None if it must be sent.

        Parameters
        ----------
        cid, size : of the shard.
        """
        blob = Blob(cid, size, TAR)
        with self._lock:
            if cid in self._tied or cid in self._pending:
                return blob
            if cid not in self._alive:
                return None
            try:  # a record of another dataset holds it, and may let go of it at any time
                self._put({cid: blob})
            except BlobMissingError:
                self._alive.discard(cid)
                return None
        return blob

    def add(self, blob: Blob) -> None:
        """Take a blob that was uploaded; it is tied to a record soon."""
        with self._lock:
            if not self._pending:
                self._since = time.monotonic()
            self._pending[blob.cid] = blob
            size = sum(one.size for one in self._pending.values())
            if len(self._pending) >= _FEW or size >= _MUCH or time.monotonic() - self._since > _LONG:
                self.flush()

    def flush(self) -> None:
        """Tie all blobs that were added to records."""
        with self._lock:
            if self._pending:
                self._put(self._pending)
                self._pending = {}

    def _put(self, blobs: Mapping[str, Blob]) -> None:
        # Never one that exists: replacing a record would delete the blobs that only it holds.
        key = f"{self._prefix}.{new_tid()}"
        record = {
            "$type": UPLOAD,
            "job": self.job,
            "name": self._name,
            "blobs": [blob.as_json() for blob in blobs.values()],
        }
        self._session.put_record(UPLOAD, key, record, ABSENT)
        self._records.add(key)
        self._tied.update(blobs)

    def release(self) -> None:
        """Remove the records that this job has left. A blob that no other record holds is deleted at once.

        Call it when the entry has been read back, or when the upload is given up.
        """
        with self._lock:
            self._pending = {}
            for key in sorted(self._records):
                self._session.delete_record(UPLOAD, key)
                self._records.discard(key)
            self._tied.clear()


def _cids(record: Mapping[str, Any]) -> list[str]:
    blobs = record.get("blobs")
    found = []
    for blob in blobs if isinstance(blobs, list) else ():
        try:
            found.append(Blob.from_json(blob).cid)
        except ValueError:  # somebody else's, or damaged
            continue
    return found
