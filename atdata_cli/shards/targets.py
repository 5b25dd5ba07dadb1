"""Where the shards of one pass go: into the store, nowhere because they are there already, or nowhere at all."""

from __future__ import annotations

import dataclasses
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from posixpath import join
from typing import IO, Self, TypeVar

from atdata_cli.errors import from_os_error
from atdata_cli.shards.destination import Destination, Place, ShardNames
from atdata_cli.shards.manifest import ShardRow
from atdata_cli.shards.protocols import Chunk, ShardSink
from atdata_cli.shards.series import FinishedShard, Target

__all__ = ["Compared", "Counted", "Stored", "Targets"]

_T = TypeVar("_T")
_IN_MEMORY = 32 << 20
_COPY_BYTES = 8 << 20


class _NoSink:
    """Takes bytes and keeps none: for shards that are made only to be compared."""

    def write(self, chunk: Chunk, /) -> None:
        """Nothing is kept."""

    def commit(self) -> None:
        """Nothing was kept."""

    def abort(self) -> None:
        """Nothing was kept."""


class _Spool:
    """Keeps a shard in a temporary file until it is known whether it has to be stored.

    For what can be read only once: a shard that turns out to be there already is never sent.
    """

    def __init__(self, make_sink: Callable[[], ShardSink]) -> None:
        self._make_sink = make_sink
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed by both ends

    def write(self, chunk: Chunk, /) -> None:
        try:
            self._file.write(chunk)
        except OSError as error:
            told = from_os_error(error, tempfile.gettempdir(), doing="keep a shard in")
            told.hint = f"{told.hint or 'make room'}; TMPDIR names another folder for it"
            raise told from error

    def commit(self) -> None:
        sink = self._make_sink()
        try:
            self._file.seek(0)
            while chunk := self._file.read(_COPY_BYTES):
                sink.write(chunk)
            sink.commit()
        except BaseException:
            sink.abort()
            raise
        finally:
            self._file.close()

    def abort(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Targets(ABC):
    """Where the shards of a pass go. What a worker process needs of it can be sent there.

    Attributes
    ----------
    names : of shards that are stored.
    """

    names: ShardNames

    @abstractmethod
    def target(self, destination: Destination, folder: str, index: int) -> Target:
        """Where one shard goes.

        Parameters
        ----------
        destination : of the job.
        folder : ``""`` or a split's name.
        index : the shard's number in it.
        """

    def only(self, folder: str, first: int, count: int | None) -> Self:
        """The same for some consecutive shards (all from *first* on if *count* is None), in another process."""
        return self


@dataclass(frozen=True)
class Counted(Targets):
    """Nothing is made, only counted: for a plan."""

    def target(self, destination: Destination, folder: str, index: int) -> Target:
        """See :class:`Targets`."""
        return Target(self.names.of(index))


@dataclass(frozen=True)
class Compared(Targets):
    """All shards are made and none is stored: for what is there already, which tells whether it would change.

    Attributes
    ----------
    known : the shards that are there.
    """

    known: Mapping[Place, ShardRow] = field(default_factory=dict)

    def target(self, destination: Destination, folder: str, index: int) -> Target:
        """See :class:`Targets`."""
        return Target(self.names.of(index), _NoSink(), known=self.known.get((folder, index)))

    def only(self, folder: str, first: int, count: int | None) -> Self:
        """See :class:`Targets`."""
        return dataclasses.replace(self, known=_only(self.known, folder, first, count))


@dataclass(frozen=True)
class Stored(Targets):
    """Shards are stored, except those that are there already.

    Attributes
    ----------
    known : the shards that are there.
    made : the shards of an earlier pass over the same input. Those that it has kept or stored are not made again.
    spool : the input can be read only once, so that a shard is put aside until it is known whether it is there.
    count : what was made need not even be read again to know where shards end.
    begin : called before the first shard is stored.
    check : called before each shard is stored, if another run may store other bytes under the same names.
    """

    known: Mapping[Place, ShardRow] = field(default_factory=dict)
    made: Mapping[Place, FinishedShard] | None = None
    spool: bool = False
    count: bool = False
    begin: Callable[[], None] | None = None
    check: Callable[[], None] | None = None

    def target(self, destination: Destination, folder: str, index: int) -> Target:
        """See :class:`Targets`."""
        place = folder, index
        name = self.names.of(index)
        if self.made is not None:
            made = self.made.get(place)
            if made is not None and made.how != "compared":
                return Target(made.row.name, None if self.count else _NoSink(), known=made.row, made=made)
            return self._new(destination, place, name)
        known = self.known.get(place)
        if known is None:
            return self._new(destination, place, name)
        if not self.spool:
            return Target(name, _NoSink(), known=known)
        sink = _Spool(partial(self._create, destination, folder, name))
        return self._stored(destination, place, name, sink, known)

    def only(self, folder: str, first: int, count: int | None) -> Self:
        """See :class:`Targets`; whoever sends work to other processes has begun."""
        made = None if self.made is None else _only(self.made, folder, first, count)
        return dataclasses.replace(
            self, known=_only(self.known, folder, first, count), made=made, begin=None, check=None
        )

    def _new(self, destination: Destination, place: Place, name: str) -> Target:
        return self._stored(destination, place, name, self._create(destination, place[0], name))

    def _stored(
        self, destination: Destination, place: Place, name: str, sink: ShardSink, known: ShardRow | None = None
    ) -> Target:
        note = partial(destination.note, place, exactly=self.check is not None)
        return Target(name, sink, stores=True, known=known, check=self.check, note=note)

    def _create(self, destination: Destination, folder: str, name: str) -> ShardSink:
        if self.begin is not None:
            self.begin()
        return destination.store.create(join(destination.prefix, folder, name))


def _only(shards: Mapping[Place, _T], folder: str, first: int, count: int | None) -> dict[Place, _T]:
    if count is None:
        return {place: shard for place, shard in shards.items() if place[0] == folder and place[1] >= first}
    places = ((folder, index) for index in range(first, first + count))
    return {place: shards[place] for place in places if place in shards}
