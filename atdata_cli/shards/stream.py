"""The way of a shard's bytes from the tar writer to a store's sink: hashed on the same pass, off the main thread.

Hashing and writing release the interpreter lock, so they overlap with the encoding of the next samples. Buffers are
few, large and used again: large because each hand-over may wait for the lock (5 ms while Python code runs), few
because they are what a run's memory is.
"""

from __future__ import annotations

import hashlib
import queue
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from atdata_cli.shards.protocols import Chunk, HashedSink, LendingSink, ShardSink

__all__ = ["BUFFER_BYTES", "Pipeline", "ShardStream", "Stored"]

BUFFER_BYTES = 8 << 20
_ON_THEIR_WAY = 3  # buffers besides the one that each open shard is filling
_SMALL_BUFFER_BYTES = 1 << 20
_LARGE_BUFFERS = 8  # with many shards open at a time, of as many splits, the further buffers are small
# Deflate at its default level; a fixed level and an empty header make the bytes depend on zlib alone.
_GZIP_LEVEL = 6
_GZIP_WINDOW = 31  # the largest window, with a gzip header: no name, no time


@dataclass(frozen=True, slots=True)
class Stored:
    """One object as it now is in the store.

    Attributes
    ----------
    bytes : stored size.
    sha256 : of the stored bytes, hex.
    kept : it was there already, and was not stored again.
    """

    bytes: int
    sha256: str
    kept: bool = False


class Pipeline:
    """The threads and buffers that all shards of one run share, used as a context manager."""

    def __init__(self) -> None:
        self.hashing = ThreadPoolExecutor(1, "hash")
        self.storing = ThreadPoolExecutor(1, "store")
        # A commit may wait for the network or the disk: meanwhile the next shard's bytes must flow.
        self.committing = ThreadPoolExecutor(1, "commit")
        self._buffers: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._made = 0
        self._open = 0

    def opened(self) -> None:
        """Make room for one more shard: it holds a buffer until it ends, and must never wait for another shard's."""
        self._open += 1

    def ended(self) -> None:
        """One shard less is open."""
        self._open -= 1

    def take(self) -> bytearray:
        """A buffer to fill; waits while enough are on their way to the store, which bounds the memory.

        Called by the one thread that feeds all shards, which holds none for the shard that asks.
        """
        if self._made < self._open + _ON_THEIR_WAY and self._buffers.empty():
            self._made += 1
            return bytearray(BUFFER_BYTES if self._made <= _LARGE_BUFFERS else _SMALL_BUFFER_BYTES)
        return self._buffers.get()

    def give_back(self, buffer: bytearray) -> None:
        """Return a buffer that nobody reads any more."""
        self._buffers.put(buffer)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for lane in (self.hashing, self.storing, self.committing):
            lane.shutdown(wait=True, cancel_futures=error is not None)


class ShardStream:
    """One shard's bytes on their way to *sink*.

    Exactly one of :meth:`finish` and :meth:`abort` ends it.

    Parameters
    ----------
    sink : where they go.
    pipeline : threads and buffers.
    gzip : compress them.
    known : SHA-256 of the shard that is there already; if these bytes are the same, they are not committed.
    """

    def __init__(self, sink: ShardSink, pipeline: Pipeline, *, gzip: bool = False, known: str | None = None) -> None:
        self._sink = sink
        self._known = known
        self._pipeline = pipeline
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW) if gzip else None
        self._last: Future[None] | None = None
        self._failure: BaseException | None = None
        self._lender = sink if isinstance(sink, LendingSink) and not gzip else None
        pipeline.opened()

    def take(self) -> bytearray:
        """A buffer to fill and pass to :meth:`send`."""
        return self._pipeline.take() if self._lender is None else self._lender.take()

    def send(self, buffer: bytearray, length: int) -> None:
        """Pass on the first *length* bytes of a buffer from :meth:`take`; it belongs to the stream from now on.

        Raises
        ------
        Exception : what the sink raised for an earlier buffer.
        """
        if self._lender is not None:
            self._bytes += length
            self._last = self._pipeline.hashing.submit(self._read, memoryview(buffer)[:length])
            self._lender.send(length, self._last)
            return
        if self._failure is not None:
            self._pipeline.give_back(buffer)
            raise self._failure
        chunk = memoryview(buffer)[:length]
        hashed = None if self._deflate else self._pipeline.hashing.submit(self._hash.update, chunk)
        self._last = self._pipeline.storing.submit(self._store, buffer, chunk, hashed)

    def _read(self, chunk: memoryview) -> None:
        with chunk:
            self._hash.update(chunk)

    def _store(self, buffer: bytearray, chunk: memoryview, hashed: Future[None] | None) -> None:
        try:
            if self._failure is None:
                self._put(self._deflate.compress(chunk) if self._deflate else chunk)
        except BaseException as error:  # kept for the thread that feeds the stream: it is the one to tell
            self._failure = error
        finally:
            if hashed is not None:
                hashed.result()
            chunk.release()
            self._pipeline.give_back(buffer)

    def _put(self, chunk: Chunk) -> None:
        if self._deflate:
            self._hash.update(chunk)
        self._bytes += len(chunk)
        self._sink.write(chunk)

    def finish(self, note: Callable[[Stored], None], *, check: Callable[[], None] | None = None) -> Future[Stored]:
        """Commit once all bytes have arrived; the result tells what is stored, or raises what went wrong.

        Parameters
        ----------
        note : called, in a thread, after the commit.
        check : called, in a thread, before it.
        """
        self._pipeline.ended()
        return self._pipeline.committing.submit(self._commit, note, check)

    def _commit(self, note: Callable[[Stored], None], check: Callable[[], None] | None) -> Stored:
        try:
            self._drain()
            if self._failure is not None:
                raise self._failure
            if self._deflate:
                self._put(self._deflate.flush())
            digest = self._hash.hexdigest()
            stored = Stored(self._bytes, digest, digest == self._known)
            if stored.kept:
                self._sink.abort()
            else:
                if isinstance(self._sink, HashedSink):
                    self._sink.sha256 = digest
                if check is not None:
                    check()
                self._sink.commit()
                note(stored)
        except BaseException:
            self._sink.abort()
            raise
        return stored

    def abort(self) -> None:
        """Stop, and leave nothing in the store."""
        self._pipeline.ended()
        self._drain()
        self._sink.abort()

    def _drain(self) -> None:
        if self._last is not None:
            self._last.result()
