"""Where the shards of one pass go: into the store, nowhere because they are there already, or nowhere at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from posixpath import join
from typing import IO

from atdata_cli.errors import from_os_error
from atdata_cli.shards.destination import Destination, Held, Place
from atdata_cli.shards.job import Job
from atdata_cli.shards.protocols import Chunk, ShardSink
from atdata_cli.shards.series import FinishedShard, Target

__all__ = ["Compared", "Counted", "Stored", "Targets"]

Targets = Callable[[str, int], Target]
"""Given a folder (``""`` or a split's name) and a shard's number in it, where that shard goes."""

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


class Counted:
    """Nothing is made, only counted: for a plan."""

    def __init__(self, destination: Destination, job: Job, held: Held, *, gzip: bool) -> None:
        self._name = partial(destination.new_name, job=job, held=held, gzip=gzip)

    def __call__(self, folder: str, index: int) -> Target:
        """See :data:`Targets`."""
        return Target(self._name(index))


class Compared(Counted):
    """All shards are made and none is stored: for what is there already, which tells whether it would change."""

    def __init__(self, destination: Destination, job: Job, held: Held, *, gzip: bool) -> None:
        super().__init__(destination, job, held, gzip=gzip)
        self._known = held.shards

    def __call__(self, folder: str, index: int) -> Target:
        """See :data:`Targets`."""
        return Target(self._name(index), _NoSink(), known=self._known.get((folder, index)))


class Stored(Counted):
    """Shards are stored, except those that are there already.

    Parameters
    ----------
    made : the shards of an earlier pass over the same input. Those that it has kept or stored are not made again.
    spool : the input can be read only once, so that a shard is put aside until it is known whether it is there.
    count : what was made need not even be read again to know where shards end.
    begin : called before the first shard is stored.
    """

    def __init__(
        self,
        destination: Destination,
        job: Job,
        held: Held,
        *,
        gzip: bool,
        made: Mapping[Place, FinishedShard] | None = None,
        spool: bool = False,
        count: bool = False,
        begin: Callable[[], None],
    ) -> None:
        super().__init__(destination, job, held, gzip=gzip)
        self._destination = destination
        self._held = held
        self._made = None if made is None else {p: shard for p, shard in made.items() if shard.how != "compared"}
        self._spool = spool
        self._count = count
        self._begin = begin

    def __call__(self, folder: str, index: int) -> Target:
        """See :data:`Targets`."""
        place = folder, index
        name = self._name(index)
        if self._made is not None:
            made = self._made.get(place)
            if made is not None:
                return Target(made.row.name, None if self._count else _NoSink(), known=made.row, made=made)
            return self._new(place, name)
        known = self._held.shards.get(place)
        if known is None:
            return self._new(place, name)
        if not self._spool:
            return Target(name, _NoSink(), known=known)
        note = partial(self._destination.note, place)
        return Target(name, _Spool(partial(self._create, folder, name)), stores=True, known=known, note=note)

    def _new(self, place: Place, name: str) -> Target:
        note = partial(self._destination.note, place)
        return Target(name, self._create(place[0], name), stores=True, note=note)

    def _create(self, folder: str, name: str) -> ShardSink:
        self._begin()
        destination = self._destination
        return destination.store.create(join(destination.prefix, folder, name))
