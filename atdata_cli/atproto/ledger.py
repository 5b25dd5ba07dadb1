"""What keeps uploaded blobs alive until their entry does: records in the account's own repository.

A server deletes a blob that no record refers to, after a while. A long upload therefore ties its blobs to records as it
goes, and one that was killed finds them there and need not send them again. The collection claims nobody's domain.

Several runs may upload under one name at once, on different machines. Each adds records of its own, and never relies on
those of another, who may remove them at any time; nor does it remove what another run may still need.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from atdata_cli.atproto.records import new_tid, now
from atdata_cli.atproto.session import ABSENT, Session
from atdata_cli.atproto.storage import TAR, Blob
from atdata_cli.atproto.transport import BlobMissingError
from atdata_cli.errors import TemporaryError

__all__ = ["UPLOAD", "BlobLedger", "Tie", "dead_runs", "ties_of"]

UPLOAD = "local.atdata-cli.upload"

_FEW = 8  # blobs, and
_MUCH = 200 << 20  # bytes, that are sent again if a run is killed at the worst moment
_LONG = 60.0  # seconds that a blob waits to be tied; servers wait an hour before they delete it
_MOST = 500  # blobs that a record has room for, and more
_PAGE = 1000  # of listBlobs
_DEAD = timedelta(hours=1)  # a run that goes on adds a record a minute, and waits a quarter of an hour at most


@dataclass(frozen=True, slots=True)
class Tie:
    """One record of a ledger.

    Attributes
    ----------
    key : of the record.
    run : which run made it; empty if it does not say.
    name : of the dataset.
    created : when; long ago if it does not say.
    blobs : that it holds.
    """

    key: str
    run: str
    name: str
    created: datetime
    blobs: Sequence[Blob]

    @classmethod
    def read(cls, key: str, record: Mapping[str, Any]) -> Tie:
        """From a record, of which nothing is sure: somebody else may have written it."""
        try:
            created = datetime.fromisoformat(str(record.get("createdAt")))
        except ValueError:
            created = datetime.min
        blobs = record.get("blobs")
        return cls(
            key,
            str(record.get("run", "")),
            str(record.get("name", "")),
            created if created.tzinfo else created.replace(tzinfo=UTC),
            list(_readable(blobs if isinstance(blobs, list) else ())),
        )


def _readable(blobs: Sequence[Any]) -> Iterator[Blob]:
    for blob in blobs:
        try:
            yield Blob.from_json(blob)
        except ValueError:
            continue


def ties_of(session: Session) -> Iterator[Tie]:
    """All records of all ledgers of an account."""
    for uri, _, record in session.list_records(UPLOAD):
        yield Tie.read(uri.rpartition("/")[2], record)


def dead_runs(ties: Iterable[Tie]) -> set[str]:
    """The runs that have added nothing for so long that they must have ended."""
    last: dict[str, datetime] = {}
    for tie in ties:
        last[tie.run] = max(tie.created, last.get(tie.run, tie.created))
    return {run for run, created in last.items() if datetime.now(UTC) - created > _DEAD}


class BlobLedger:
    """The blobs of one upload job.

    May be used from many threads at once.

    Attributes
    ----------
    job : what tells this upload from others of the account: equal ones find each other's blobs.
    """

    def __init__(self, session: Session, job: str, name: str) -> None:
        self.job = job
        self._session = session
        self._name = name
        self._prefix = hashlib.sha256(job.encode()).hexdigest()[:32]
        self._run = new_tid()
        self._state = threading.RLock()  # held for moments only
        self._writing = threading.Lock()  # one record at a time
        self._alive: set[str] = set()
        self._asked = 0.0
        self._tied: set[str] = set()
        self._records: set[str] = set()
        self._others: dict[str, Tie] = {}
        self._pending: dict[str, Blob] = {}
        self._under_way: Mapping[str, Blob] = {}
        self._sent: list[int] = []  # sizes of the pending ones that would have to be sent again
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
        for tie in ties_of(session):
            if tie.key.startswith(f"{ledger._prefix}."):
                ledger._others[tie.key] = tie
        ledger._ask()
        return ledger

    def _ask(self) -> None:
        """Ask which blobs the server has."""
        alive: set[str] = set()
        cursor = None
        while True:
            page = self._session.get("com.atproto.sync.listBlobs", did=self._session.did, limit=_PAGE, cursor=cursor)
            alive.update(page["cids"])
            cursor = page.get("cursor")
            if cursor is None or not page["cids"]:
                break
        self._alive, self._asked = alive, time.monotonic()

    @property
    def earlier(self) -> Sequence[Tie]:
        """What other runs of this job have left, or are making."""
        return list(self._others.values())

    def keep(self, cid: str, size: int, *, tie: bool = True) -> Blob | None:
        """The blob, if the server has it already; this run ties it, too. None if it must be sent.

        Parameters
        ----------
        cid, size : of the shard.
        tie : False only asks.
        """
        blob = Blob(cid, size, TAR)
        with self._state:
            if cid in self._tied or cid in self._pending or cid in self._under_way:
                return blob
            if time.monotonic() - self._asked > _LONG:  # what holds it may have let go of it
                self._ask()
            if cid not in self._alive:
                return None
            if not tie:
                return blob
            self._wait_for(blob)
        self._tie_if_due()
        return blob

    def add(self, blob: Blob) -> None:
        """Take a blob that was uploaded; it is tied to a record soon."""
        with self._state:
            self._wait_for(blob)
            self._sent.append(blob.size)
        self._tie_if_due()

    def _wait_for(self, blob: Blob) -> None:
        if not self._pending:
            self._since = time.monotonic()
        self._pending[blob.cid] = blob

    def _tie_if_due(self) -> None:
        with self._state:
            late = bool(self._pending) and time.monotonic() - self._since > _LONG
            due = late or len(self._sent) >= _FEW or sum(self._sent) >= _MUCH or len(self._pending) >= _MOST
        # The server copies the blobs before it answers: other uploads need not wait for that.
        if due and self._writing.acquire(blocking=False):
            try:
                self._tie()
            finally:
                self._writing.release()

    def flush(self) -> None:
        """Tie all blobs that were added to records.

        Raises
        ------
        TemporaryError : the server has lost one.
        """
        with self._writing:
            self._tie()

    def _tie(self) -> None:
        with self._state:
            blobs, self._pending, self._sent = self._pending, {}, []
            self._under_way = blobs
        try:
            together = list(blobs.values())
            for first in range(0, len(together), _MOST):
                self._put(together[first : first + _MOST])
        except BlobMissingError as error:
            self._wait_again(blobs, without=error.cid)
            raise TemporaryError(
                "the server has lost a blob in the meantime",
                url=f"at://{self._session.did}/blob/{error.cid}" if error.cid else self._session.pds_url,
                hint="the same command again uploads what is missing",
            ) from error
        except BaseException:
            self._wait_again(blobs)
            raise
        finally:
            with self._state:
                self._under_way = {}

    def _wait_again(self, blobs: Mapping[str, Blob], *, without: str | None = None) -> None:
        """Keep what could not be tied for the next time."""
        with self._state:
            left = {cid: blob for cid, blob in blobs.items() if cid not in self._tied and cid != without}
            self._pending = {**left, **self._pending}
            self._alive.discard(without or "")

    def _put(self, blobs: Sequence[Blob]) -> None:
        # Never one that exists: replacing a record would delete the blobs that only it holds.
        key = f"{self._prefix}.{new_tid()}"
        record = {
            "$type": UPLOAD,
            "job": self.job,
            "run": self._run,
            "name": self._name,
            "createdAt": now(),
            "blobs": [blob.as_json() for blob in blobs],
        }
        self._records.add(key)  # before: its answer may be lost
        self._session.put_record(UPLOAD, key, record, ABSENT)
        with self._state:
            self._tied.update(blob.cid for blob in blobs)

    def release(self, held: Collection[str] = ()) -> Sequence[Tie]:
        """Remove the records of this run, and those of others that nobody needs any more.

        A blob that no other record holds is deleted at once. Call it when the entry has been read back, or when this
        upload is given up.

        Parameters
        ----------
        held : CIDs of the blobs that an entry holds from now on: records of others that hold no more are removed, too.

        Returns
        -------
        What stays, of runs that are still at work, or were killed.
        """
        with self._writing:
            self._pending, self._sent = {}, []
            for key in sorted(self._records):
                self._session.delete_record(UPLOAD, key)
                self._records.discard(key)
            self._tied.clear()
            dead = dead_runs(self._others.values())
            for key, tie in list(self._others.items()):
                if held and (tie.run in dead or all(blob.cid in held for blob in tie.blobs)):
                    self._session.delete_record(UPLOAD, key)
                    del self._others[key]
        return self.earlier
