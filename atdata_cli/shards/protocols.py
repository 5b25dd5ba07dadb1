"""What a store offers to the sharding job.

The job is written once, over these protocols; ``atdata_cli.stores`` implements them. Names are paths with
``/`` inside one store (``training/v1/shard-000000.tar``), never URLs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, runtime_checkable

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Chunk", "ConnectingStore", "HashedSink", "LendingSink", "ObjectInfo", "ShardSink", "ShardStore"]

Chunk = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a store.

    Attributes
    ----------
    name : path inside the store.
    size : bytes.
    version : what the store offers to recognise a change (an ETag, or size and mtime), if anything.
    """

    name: str
    size: int
    version: str | None = None


class ShardSink(Protocol):
    """Where the bytes of one new object go. Nothing is visible under its name before :meth:`commit`.

    The methods of one sink are called one after another, but not all from the same thread.
    """

    def write(self, chunk: Chunk, /) -> None:
        """Take the next bytes. *chunk* may be reused by the caller as soon as this returns."""

    def commit(self) -> None:
        """Make the object visible, whole, under its name; durable when this returns."""

    def abort(self) -> None:
        """Forget everything written; nothing stays behind. Safe to call twice, and after a failed commit."""


@runtime_checkable
class LendingSink(ShardSink, Protocol):
    """A sink that has memory of its own for what it sends, so that bytes need not be copied into it.

    Its bytes come through :meth:`take` and :meth:`send` in turn, or through :meth:`ShardSink.write`, never both.
    """

    def take(self) -> bytearray:
        """Memory to fill from its beginning; waits while too much is under way."""

    def send(self, length: int, read: Future[None], /) -> None:
        """Take the first *length* bytes of the memory that :meth:`take` gave; all of it, except at the object's end.

        Parameters
        ----------
        read : is done when the caller, too, reads them no longer.
        """


@runtime_checkable
class HashedSink(ShardSink, Protocol):
    """A sink that names its object by its content.

    Attributes
    ----------
    sha256 : of all bytes, hex; set right before :meth:`ShardSink.commit`, so that nobody hashes them twice.
    """

    sha256: str


@runtime_checkable
class ShardStore(Protocol):
    """The part of a built-in store that the sharding job uses.

    Errors are ``atdata_cli.errors.AtdataError`` with the URL concerned.

    Attributes
    ----------
    atomic : False if the store can show a half-written object; ``stores`` lists it as such.
    writable : False if the store can only be read.
    """

    atomic: bool
    writable: bool

    def url(self, name: str) -> str:
        """The URL of an object, as it is printed and stored."""

    def create(self, name: str) -> ShardSink:
        """Begin a new object; replaces one of the same name at :meth:`ShardSink.commit`."""

    def open(self, name: str) -> BinaryIO:
        """Open for reading, seekable where the store can read ranges."""

    def read(self, name: str) -> bytes | None:
        """A small object whole, or None if it is not there."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects below the folder *prefix*, recursively, in bytewise order of name; none if it is absent."""

    def stat(self, name: str) -> ObjectInfo | None:
        """One object, or None if it is not there."""

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Store a small object unless the name is taken; True if this call stored it."""

    def replace_if_unchanged(self, name: str, data: bytes, version: str) -> bool:
        """Replace a small object if it still is *version* (of :class:`ObjectInfo`); True if replaced."""

    def put(self, name: str, data: bytes) -> None:
        """Store or replace a small object, whole or not at all; it may be lost if the machine stops right after."""

    def delete(self, name: str) -> None:
        """Remove an object; no error if it is not there."""

    def delete_many(self, names: Sequence[str]) -> None:
        """Remove objects."""

    def leftovers(self, prefix: str, of: Callable[[str], bool] | None = None) -> Sequence[str]:
        """What interrupted writes left below a folder that nobody sees: temporary files, unfinished uploads.

        Parameters
        ----------
        of : only those of objects of which this is true; it is given the name that the object was to have.
        """

    def clean(self, prefix: str, of: Callable[[str], bool] | None = None) -> Sequence[str]:
        """Remove :meth:`leftovers`; those of runs under way may be among them where the store cannot tell."""


@runtime_checkable
class ConnectingStore(Protocol):
    """A store whose first request takes long, for it needs a connection."""

    def load(self) -> None:
        """Import what a connection needs, without making one: processes that are forked next have it, too."""

    def connect(self) -> None:
        """Make the connection."""
