"""Checking one shard: one pass over its bytes, which are hashed and read as a tar of samples at once.

The bytes are hashed as they are read, while they are in the processor's cache: that costs less than handing them to
a thread, and the other processors have other shards.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import operator
from collections.abc import Callable
from typing import Any, BinaryIO

from atdata_cli.errors import AtdataError, DataError, NotFoundError, from_os_error
from atdata_cli.samples.keys import check_field, check_key, is_meta, split_name
from atdata_cli.samples.tar import BLOCK, Member, TarDamage, TarReader
from atdata_cli.shards.problems import Expected, KeyBatch, Kind, Problem, ShardResult, ShardTask, Tick
from atdata_cli.shards.samplecheck import FieldRules, PackedRows
from atdata_cli.sources.base import Files, InputFile
from atdata_cli.sources.stream import is_compressed, open_decompressed

__all__ = ["check_shard"]

# Where a read is a request, each should be worth it; locally, small blocks stay in the processor's cache.
_LOCAL_BLOCK = 256 << 10
_REMOTE_BLOCK = 4 << 20
_BATCH = 2048  # samples
_LONGEST_NAME = 4096
_MOST_FIELDS = 10_000
_MOST_PROBLEMS = 10_000
_NO_CONTENT = {"hardlink": "a hard link", "symlink": "a symbolic link", "other": "neither a file nor a folder"}


def check_shard(
    task: ShardTask, files: Files, expected: Expected | None, emit: Callable[[Tick | KeyBatch], None]
) -> ShardResult:
    """Check one shard.

    Parameters
    ----------
    expected : by its manifest.
    emit : told of progress, and of keys if they are wanted.
    """
    return _ShardCheck(task, expected, emit).run(files)


class _Hashed(io.RawIOBase):
    """A file's bytes, counted and hashed as they are read."""

    def __init__(self, inner: BinaryIO, url: str) -> None:
        self._inner = inner
        self._url = url
        # ``read1`` gives what there is in one go, past the file's own buffer.
        self._take: Callable[[int], bytes] = getattr(inner, "read1", None) or inner.read
        self._hash = hashlib.sha256()
        self.bytes = 0
        self.failed = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        try:
            data = self._take(size)
        except OSError as error:
            self.failed = True
            raise from_os_error(error, self._url, doing="read") from error
        except AtdataError:
            self.failed = True
            raise
        self._hash.update(data)
        self.bytes += len(data)
        return data

    def readinto(self, target: Any, /) -> int:
        data = self.read(len(target))
        target[: len(data)] = data
        return len(data)

    def seekable(self) -> bool:
        return self._inner.seekable()

    def restart(self) -> int:
        """Go back to the first byte; how many there are."""
        total = self._inner.seek(0, io.SEEK_END)
        self._inner.seek(0)
        self._hash = hashlib.sha256()
        self.bytes = 0
        return total

    def peek(self, offset: int, size: int) -> bytes:
        """Look somewhere else; what is seen is neither hashed nor counted."""
        here = self._inner.tell()
        try:
            self._inner.seek(offset)
            return self._inner.read(size)
        except OSError as error:
            raise from_os_error(error, self._url, doing="read") from error
        finally:
            self._inner.seek(here)

    def drain(self) -> str:
        """Read what is left; the digest of everything."""
        while self.read(_LOCAL_BLOCK):
            pass
        return self._hash.hexdigest()

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._inner.close()


class _One:
    """Opens one file that is open already, as :func:`open_decompressed` wants it."""

    def __init__(self, stream: _Hashed) -> None:
        self._stream = stream

    def open(self, url: str) -> BinaryIO:
        return self._stream  # type: ignore[return-value]


class _ShardCheck:
    """The state of a check; keys and offsets of some samples are gathered and looked at together."""

    def __init__(self, task: ShardTask, expected: Expected | None, emit: Callable[[Tick | KeyBatch], None]) -> None:
        self._task = task
        self._emit = emit
        self._result = ShardResult(task.index)
        self._rules = FieldRules(expected)
        self._rows = PackedRows(self._problem, expected)
        # The sample whose members are coming.
        self._key: str | None = None
        self._header = 0
        self._fields: dict[str, None] = {}
        self._suspects = 0  # this many samples from here on may have lost members to damage
        # Samples that are complete, but not yet looked at.
        self._keys: list[str] = []
        self._offsets: list[int] = []
        self._sets: list[tuple[str, ...]] = []
        self._first: str | None = None
        self._last: str | None = None
        self._intact = True
        self._stream: _Hashed | None = None
        self._told = Tick(0, 0)

    def _problem(self, kind: Kind, key: str | None, offset: int | None, detail: str) -> None:
        if len(self._result.problems) < _MOST_PROBLEMS:
            self._result.problems.append(Problem(kind, self._task.url, key, offset, detail))
        else:
            self._result.omitted += 1

    def _unreadable(self, error: AtdataError, offset: int | None) -> None:
        self._problem("unreadable", None, offset, error.message)
        self._result.failure = error

    # --- the file ---

    def run(self, files: Files) -> ShardResult:
        task = self._task
        try:
            stream = _Hashed(files.open(task.url), task.url)
        except NotFoundError as error:
            self._problem("missing-shard", None, None, error.message)
            return self._result
        except AtdataError as error:
            self._unreadable(error, None)
            return self._result
        except OSError as error:
            self._unreadable(from_os_error(error, task.url, doing="read"), None)
            return self._result
        with contextlib.closing(stream):
            self._check_content(stream)
            if not stream.failed:
                self._check_stored(stream)
            self._result.bytes = stream.bytes
            self._tick()
        return self._result

    def _check_content(self, stream: _Hashed) -> None:
        reader: TarReader | None = None
        try:
            reader = self._open(stream)
            self._read_tar(reader)
        except DataError as error:
            self._intact = False
            self._problem("compression", None, reader.position() if reader else 0, error.message)
        except AtdataError as error:
            self._intact = False
            self._unreadable(error, reader.position() if reader else None)
        self._end_sample()
        self._look_at_samples()
        self._rows.finish()
        if self._rules.expected is None:
            self._result.sets = self._rules.sets
        if self._result.failure is None:
            self._check_counts()

    def _open(self, stream: _Hashed) -> TarReader:
        url = self._task.url
        self._stream = stream
        # Kept, for it closes the stream when it is forgotten.
        self._plain = plain = open_decompressed(_One(stream), InputFile(url, url, self._task.size))  # type: ignore[arg-type]
        block = _REMOTE_BLOCK if "://" in url else _LOCAL_BLOCK
        if is_compressed(plain) or not stream.seekable():
            return TarReader(plain, where=url, block=block)
        total = stream.restart()
        return TarReader(stream, where=url, block=block, total=total, peek=stream.peek)  # type: ignore[arg-type]

    def _check_stored(self, stream: _Hashed) -> None:
        try:
            digest = stream.drain()
        except AtdataError as error:
            self._unreadable(error, None)
            return
        row = self._task.row
        if row is None:
            if self._task.sha256 not in (None, digest):
                self._problem("hash", None, None, f"the SHA-256 is {digest}, the index says {self._task.sha256}")
            return
        if row.bytes != stream.bytes:
            self._problem("size", None, None, f"{stream.bytes} bytes, the manifest says {row.bytes}")
        if row.sha256 != digest:
            self._problem("hash", None, None, f"the SHA-256 is {digest}, the manifest says {row.sha256}")

    def _check_counts(self) -> None:
        result, row = self._result, self._task.row
        if row is None:
            if result.samples == 0 and not result.problems:
                self._problem("empty", None, None, "no sample in it")
            return
        if row.samples != result.samples:
            self._problem("count", None, None, f"{result.samples} samples, the manifest says {row.samples}")
        if not self._intact or not result.samples:
            return
        for kind, found, said in (("first-key", self._first, row.first_key), ("last-key", self._last, row.last_key)):
            if said and found != said:  # an index may leave it open
                self._problem(kind, found, None, f"the manifest says {said!a}")  # type: ignore[arg-type]

    # --- the tar ---

    def _read_tar(self, reader: TarReader) -> None:
        at: int | None = 0
        while at is not None:
            try:
                self._read_members(reader, at)
                assert reader.end is not None
                self._check_end(reader, reader.end)
            except TarDamage as damage:
                self._intact = False
                self._report(damage)
                at = reader.resume(damage) if damage.kind != "no-end" else None
            else:
                return

    def _report(self, damage: TarDamage) -> None:
        # The sample that was being read, or the one that begins here, may have lost a member.
        self._suspects = 1 if self._key is None else 2
        key = None
        if damage.name is not None:
            name = damage.name.removeprefix("./")
            split = split_name(name)
            if split is not None and check_key(split[0]) is None:
                key = split[0]
        self._problem(damage.kind, key, damage.offset, damage.detail)

    def _check_end(self, reader: TarReader, end: int) -> None:
        at = end
        for chunk in reader.rest(end):
            data = chunk.lstrip(b"\0")
            if data:
                at += len(chunk) - len(data)
                self._problem("trailing-bytes", None, at, "more data after the end of the archive")
                return
            at += len(chunk)
        if at - end < 2 * BLOCK:
            what = f"the file ends {at - end} bytes into the two empty blocks that end a tar"
            self._problem("no-end", None, end, what)

    def _read_members(self, reader: TarReader, at: int) -> None:
        rules, rows = self._rules, self._rows
        good_fields = rules.good_fields
        for member in reader.members(at):
            name = member.name
            if len(name) > _LONGEST_NAME:
                name = self._shortened(member)
            split = split_name(name) if member.kind == "file" else None
            if split is None or name[0] in "._" or "/." in name:
                split = self._unusual(member, split)
                if split is None:
                    continue
            key, field_ = split
            if key != self._key:
                if self._key is not None:
                    self._end_sample()
                self._key = key
                self._header = member.header
                self._fields = {field_: None}
            else:
                self._add_field(key, field_, member)
            if field_ not in good_fields:
                self._check_field(key, field_, member)
            if rows.wanted:
                rows.add(key, field_, member, reader)

    def _unusual(self, member: Member, split: tuple[str, str] | None) -> tuple[str, str] | None:
        """*split* if the member belongs to a sample after all; None for what readers pass over."""
        name = member.name[:_LONGEST_NAME]
        if member.kind != "file":
            if member.kind != "folder":
                self._problem("no-content", None, member.header, f"{name!a} is {_NO_CONTENT[member.kind]}")
            return None
        if is_meta(name) or name.rpartition("/")[2].startswith("."):
            return None
        if split is None:
            self._problem("no-field", None, member.header, f"{name!a} has no extension to tell its field")
        return split

    def _shortened(self, member: Member) -> str:
        """A stand-in for a name that is too long for anything, of which millions might come."""
        name = member.name
        short = f"{name[:64]}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()}"
        detail = f"a name of {len(name)} characters, more than {_LONGEST_NAME}"
        self._problem("unsafe-name", None, member.header, detail)
        return f"{short.replace('.', '_')}.{name.rpartition('.')[2][:32]}"

    def _add_field(self, key: str, field_: str, member: Member) -> None:
        if field_ in self._fields:
            self._problem("duplicate-member", key, member.header, f"the field {field_!a} comes twice")
        elif len(self._fields) < _MOST_FIELDS:
            self._fields[field_] = None
            if len(self._fields) == _MOST_FIELDS:
                self._problem("too-many-fields", key, member.header, f"{_MOST_FIELDS} fields in one sample")

    def _check_field(self, key: str, field_: str, member: Member) -> None:
        reason = _field_reason(field_)
        if reason is None:
            if len(self._rules.good_fields) < _MOST_FIELDS:
                self._rules.good_fields.add(field_)
        else:
            self._problem("unsafe-name", key, member.header, reason)

    # --- the samples ---

    def _end_sample(self) -> None:
        key = self._key
        if key is None:
            return
        self._keys.append(key)
        self._offsets.append(self._header)
        if self._suspects:
            self._suspects -= 1
            self._sets.append(())  # says nothing about which fields samples have
        else:
            self._sets.append(tuple(self._fields))
        self._key = None
        if len(self._keys) >= _BATCH:
            self._look_at_samples()
            self._tick()

    def _look_at_samples(self) -> None:
        keys, offsets, sets = self._keys, self._offsets, self._sets
        if not keys:
            return
        self._result.samples += len(keys)
        if self._first is None:
            self._first = keys[0]
        self._last = keys[-1]
        self._rules.observe(keys, offsets, sets, self._problem)
        self._send_keys(self._checked(keys, offsets), offsets, sets)
        self._keys, self._offsets, self._sets = [], [], []

    def _tick(self) -> None:
        result, told = self._result, self._told
        now = Tick(result.samples, self._stream.bytes if self._stream else 0)
        self._emit(Tick(now.samples - told.samples, now.bytes - told.bytes))
        self._told = now

    def _checked(self, keys: list[str], offsets: list[int]) -> list[str]:
        """The keys, safe to be remembered; unsafe ones are reported."""
        reasons = list(map(check_key, keys))
        if not any(reasons):
            return keys
        safe = keys.copy()
        for index, reason in enumerate(reasons):
            if reason is not None:
                self._problem("unsafe-name", keys[index], offsets[index], reason)
                # No good key has this form.
                safe[index] = "\0" + keys[index].encode("utf-8", "surrogateescape").hex()
        return safe

    def _send_keys(self, keys: list[str], offsets: list[int], sets: list[tuple[str, ...]]) -> None:
        ascending = all(map(operator.lt, keys, keys[1:]))
        lowest, highest = (keys[0], keys[-1]) if ascending else (min(keys), max(keys))
        packed = KeyBatch.pack(keys, offsets, sets)
        self._emit(KeyBatch(self._task.index, len(keys), lowest, highest, ascending, packed))


_field_reason = functools.lru_cache(maxsize=1024)(check_field)
