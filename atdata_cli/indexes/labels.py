"""Labels: which entry a name leads to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from atdata_cli.atproto.records import LABEL, LabelRecord, tid_at
from atdata_cli.atproto.session import Session
from atdata_cli.errors import IntegrityError

__all__ = ["Label", "age", "labels_of", "later_than", "named_key", "newest"]


@dataclass(frozen=True, slots=True)
class Label:
    """A label as it is stored.

    Attributes
    ----------
    uri, cid : of its record.
    record : what it says.
    """

    uri: str
    cid: str
    record: LabelRecord

    @property
    def key(self) -> str:
        """Of its record."""
        return self.uri.rpartition("/")[2]

    def leads_to(self, session: Session, uri: str) -> bool:
        """Whether it leads to the record *uri* of the account; the label may name the account by handle or DID."""
        authority, _, path = self.record.dataset_uri.removeprefix("at://").partition("/")
        return authority in (session.did, session.handle) and uri == f"at://{session.did}/{path}"

    @property
    def target(self) -> str:
        """``NAME`` or ``NAME@VERSION``."""
        return f"{self.record.name}@{self.record.version}" if self.record.version else self.record.name


def labels_of(session: Session, name: str | None = None) -> list[Label]:
    """All labels, or those of one name; the pages of the list are read to the end.

    Damaged ones lead nowhere, and are left out.
    """
    found = []
    for uri, cid, value in session.list_records(LABEL):
        try:
            record = LabelRecord.from_json(value, uri=uri)
        except IntegrityError:
            continue
        if name is None or record.name == name:
            found.append(Label(uri, cid, record))
    return found


def newest(labels: Iterable[Label]) -> Label | None:
    """The label that counts: of one name, the one made last, whatever its version."""
    return max(labels, key=lambda label: (age(label.record.created_at), label.uri), default=None)


def age(created_at: str) -> datetime:
    """When a record was made, to compare; one that does not tell is the oldest."""
    try:
        moment = datetime.fromisoformat(created_at)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def later_than(labels: Sequence[Label]) -> str:
    """A moment for a new label that makes it the newest, even if a clock ran fast when one of *labels* was made."""
    moment = datetime.now(UTC)
    last = newest(labels)
    if last is not None:
        moment = max(moment, age(last.record.created_at).astimezone(UTC) + timedelta(milliseconds=1))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_EPOCH = 1_672_531_200_000_000  # 2023-01-01, in microseconds since 1970: before any record of these lexicons


def named_key(name: str, version: str | None) -> str:
    """The record key of what is first published under a name: a TID that follows from it.

    Of two runs that publish at once, one finds it taken.
    """
    digest = hashlib.sha256(f"{name}@{version or ''}".encode()).digest()
    number = int.from_bytes(digest[:8], "big")
    return tid_at(_EPOCH + number % (1 << 45), number >> 45 & 1023)
