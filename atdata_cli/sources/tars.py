"""Existing shards as a source: tars, plain or compressed, whose members are already samples."""

from __future__ import annotations

import contextlib
import functools
import io
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from atdata_cli.errors import IntegrityError, NotFoundError, from_os_error, lost_shard
from atdata_cli.refs import local_path
from atdata_cli.samples.keys import UniqueKeys, check_field, check_key, is_meta, split_name
from atdata_cli.samples.tar import BLOCK, Member, TarReader, is_header
from atdata_cli.sources.base import Files, InputFile, Reject, Sample, SampleSource, Value, WholeBlob
from atdata_cli.sources.fieldcheck import case_reason

if TYPE_CHECKING:
    from atdata_cli.sources.pieces import Opened
    from atdata_cli.sources.stream import Meter

__all__ = ["MemberBlob", "OpenTar", "Range", "TarSource"]

# Members up to this size are handed over as bytes, as long as a sample's stay below the total.
_SMALL = 256 * 1024
_SMALL_TOTAL = 16 * 1024 * 1024
# On this machine's disks larger ones go straight from the file to where they are written: one copy instead of three.
_INLINE = 16 * 1024
# A sample's fields are kept until its last one is known: this bounds what a hostile tar can pile up.
_MOST_FIELDS = 10_000
# Where a read is a request, each should be worth it.
_REMOTE_BLOCK = 4 * 1024 * 1024

_LINK = "a link has no content: pack the tar again with links followed (tar --dereference --hard-dereference)"
_WITHOUT_CONTENT = {"hardlink": _LINK, "symlink": _LINK, "other": "neither a file nor a folder"}

# The same few names come again and again.
_check_field = functools.lru_cache(maxsize=1024)(check_field)

# Given a member and how many bytes of memory are left: its content, and how many of them it takes.
Content = Callable[[Member, int], tuple[Value, int]]


class TarSource(SampleSource):
    """The samples of existing shards, in their order: consecutive members with one key, by webdataset's rule.

    A sample's fields are handed over bytewise by name, but are in the tar as its writer put them, and only
    the next key tells that the last one was seen. So small members are read into memory. Large ones are
    jumped over and read later, by offset, through a second handle, where the input can seek; else (standard
    input, compressed) they go through one temporary file, which holds one sample's large members at a time.

    Folders, hidden names (``._a.jpg``) and the names that webdataset's readers pass over (``__NAME__``) are
    skipped. Everything else that is no part of a good sample is rejected through :attr:`on_reject`: names
    without a field, links and devices, unsafe names, fields that are the same or differ only by case, keys
    that come back (members out of order, or a sample cut by a shard's end).

    Parameters
    ----------
    files : how they are opened.
    inputs : the tars, in order.

    Attributes
    ----------
    hidden : how many members with hidden names were skipped so far.

    Raises
    ------
    IntegrityError : while iterating: a tar is damaged; names file and offset.
    DataError : while iterating: compressed data is damaged.
    """

    def __init__(self, files: Files, inputs: Sequence[InputFile]) -> None:
        super().__init__()
        self.files = files
        self.inputs = inputs
        self.rewindable = not any(map(_is_stream, inputs))
        self.hidden = 0
        self._finished = 0
        self._current: OpenTar | None = None

    def position(self) -> int:
        """Input bytes read so far."""
        return self._finished + (self._current.position() if self._current else 0)

    def count(self) -> int | None:
        """How many samples there are, from the headers alone; None where that means reading everything."""
        if not self.rewindable:
            return None  # looking would already take from the stream
        counter = TarSource(self.files, self.inputs)
        counter.on_reject = _ignore
        unique = UniqueKeys()
        total = 0
        for item in self.inputs:
            with OpenTar(self.files, item) as tar:
                if not tar.seekable:
                    return None
                total += sum(1 for _ in counter._good_groups(tar, unique, _no_content))
        return total

    def samples(self) -> Iterator[Sample]:
        """The samples in order."""
        self._finished = 0
        unique = UniqueKeys()
        for item in self.inputs:
            with OpenTar(self.files, item) as tar:
                self._current = tar
                for group in self._good_groups(tar, unique, tar.content):
                    fields = group.fields
                    if len(fields) > 1:
                        fields = dict(sorted(fields.items()))
                    yield Sample(group.key, fields, group.where)
                self._current = None
            self._finished += item.size or tar.position()

    def promised(self) -> Iterator[Sample] | None:
        """See :class:`~atdata_cli.sources.base.SampleSource`: members of plain tars on this machine's disks are."""
        if not self.rewindable or not all(self._is_plain(item) for item in self.inputs):
            return None
        return self._promised()

    def _is_plain(self, item: InputFile) -> bool:
        if "://" in item.url:
            return False
        with OpenTar(self.files, item) as tar:
            return tar.seekable

    def _promised(self) -> Iterator[Sample]:
        unique = UniqueKeys()
        for item in self.inputs:
            path = local_path(item.url)
            with OpenTar(self.files, item) as tar:

                def promise(member: Member, budget: int, path: str = path) -> tuple[Value, int]:
                    return MemberBlob(path, member.offset, member.size), 0

                for group in self._good_groups(tar, unique, promise):
                    yield Sample(group.key, dict(sorted(group.fields.items())), group.where)

    def _good_groups(self, tar: OpenTar, unique: UniqueKeys, content: Content) -> Iterator[_Group]:
        for group in self._groups(tar, content):
            if group.problem is None:
                first = unique.add(group.key, group.where)
                if first is None:
                    yield group
                    continue
                group.problem = f"the key {group.key!r} was there before, at {first}: its members must be together"
            self.on_reject(Reject(group.where, group.problem, key=group.key))

    def _groups(self, tar: OpenTar, content: Content) -> Iterator[_Group]:
        group: _Group | None = None
        for member in tar.reader:
            name = member.name
            split = split_name(name) if member.kind == "file" else None
            if split is None or name[0] in "._" or "/." in name:
                split = self._unusual(tar, member, split)
                if split is None:
                    continue
            key, field = split
            if group is None or key != group.key:
                if group is not None:
                    yield group
                    tar.forget()
                group = _Group(key, tar.place(member))
            group.add(field, member, content)
        if group is not None:
            yield group

    def _unusual(self, tar: OpenTar, member: Member, split: tuple[str, str] | None) -> tuple[str, str] | None:
        """*split* if the member belongs to a sample after all; None for what is skipped or rejected."""
        name = member.name
        if member.kind != "file":
            if member.kind != "folder":
                self.on_reject(Reject(tar.place(member), _WITHOUT_CONTENT[member.kind]))
            return None
        if is_meta(name):
            return None
        if name.rpartition("/")[2].startswith("."):
            self.hidden += 1
            return None
        if split is None:
            self.on_reject(Reject(tar.place(member), "its name has no field, as it has no extension"))
        return split


def _is_stream(item: InputFile) -> bool:
    """True for what can be opened only once: standard input, and what has no size (a shell's ``<(...)``)."""
    return item.url == "-" or item.size is None


def _ignore(reject: Reject) -> None:
    """For a pass that only counts."""


def _no_content(member: Member, budget: int) -> tuple[Value, int]:
    return b"", 0


class _Group:
    """The members of one sample, as they come."""

    __slots__ = ("_lowered", "_memory", "fields", "key", "problem", "where")

    def __init__(self, key: str, where: str) -> None:
        self.key = key
        self.where = where
        self.fields: dict[str, Value] = {}
        self.problem = check_key(key)
        self._lowered: dict[str, str] = {}
        self._memory = _SMALL_TOTAL

    def add(self, field: str, member: Member, content: Content) -> None:
        """Take in one member; once there is a problem, contents do not matter any more."""
        if self.problem is None:
            self.problem = self._field_problem(field)
        if self.problem is not None:
            self.fields.clear()
            return
        self.fields[field], used = content(member, self._memory)
        self._memory -= used

    def _field_problem(self, field: str) -> str | None:
        reason = _check_field(field)
        if reason is not None or not self.fields:
            return reason
        if field in self.fields:
            return f"the field {field!r} comes twice"
        if len(self.fields) >= _MOST_FIELDS:
            return f"more than {_MOST_FIELDS} fields in one sample"
        if not self._lowered:
            self._lowered = {first.lower(): first for first in self.fields}
        other = self._lowered.setdefault(field.lower(), field)
        return None if other == field else case_reason(other, field)


class OpenTar:
    """One tar, open, as a context manager: where its members' contents are and how they are reached.

    Parameters
    ----------
    files : how it is opened.
    item : the tar, plain or compressed.

    Attributes
    ----------
    reader : its members.
    seekable : plain, and contents can be read by offset.
    """

    def __init__(self, files: Files, item: InputFile) -> None:
        self.files = files
        self._item = item
        self._closing = contextlib.ExitStack()
        self._contents: BinaryIO | None = None
        self._opened: Opened | None = None
        self._spool: BinaryIO | None = None
        self._spooled = 0
        self._meter: Meter | None = None
        stream = self._open_plain()
        self.seekable = stream is not None
        self._is_local = self.seekable and "://" not in item.url
        if stream is None:
            from atdata_cli.sources.stream import Meter, open_decompressed

            meter = self._meter = Meter()
            stream = self._closing.enter_context(contextlib.closing(open_decompressed(files, item, meter)))
        # Locally, small blocks stay in the processor's cache.
        block = _REMOTE_BLOCK if "://" in item.url else 256 * 1024
        self.reader = TarReader(stream, where=item.url, seek=self.seekable, block=block)

    def __enter__(self) -> OpenTar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.close()

    def _open_plain(self) -> BinaryIO | None:
        """The input, if it can seek and is no more than a tar.

        A header's checksum tells that better than the first bytes, which are a member's name and may be
        anything. An input that is not recognised may still turn out to be a tar.
        """
        if _is_stream(self._item):
            return None
        try:
            stream = _unbuffered(self.files.open(self._item.url))
            is_plain = stream.seekable() and is_header(stream.read(BLOCK))
        except NotFoundError as error:
            if self._item.size is None:
                raise
            raise lost_shard(self._item.url) from error  # somebody said how large it is
        if is_plain:
            with contextlib.ExitStack() as opened:
                opened.enter_context(contextlib.closing(stream))
                self._check_size(stream.seek(0, io.SEEK_END))
                stream.seek(0)
                self._closing.enter_context(opened.pop_all())
            return stream
        stream.close()
        return None

    def _check_size(self, size: int) -> None:
        """What a manifest or a listing said has to be what is there."""
        if self._item.size not in (None, size):
            raise IntegrityError(
                f"it has {size} bytes, not {self._item.size} as its manifest or listing says",
                url=self._item.url,
                hint="it was changed or cut: restore it, or write the dataset again",
            )

    def position(self) -> int:
        """Bytes of the input read so far, compressed if it is."""
        return self.reader.position() if self._meter is None else self._meter.bytes

    def place(self, member: Member) -> str:
        """Where a member is, for messages."""
        name = member.name
        return f"{self._item.url}: {name if name.isprintable() else ascii(name)}"

    def content(self, member: Member, budget: int) -> tuple[Value, int]:
        """The current member's content and how much of the memory *budget*, in bytes, it takes."""
        size = member.size
        if self._is_local and size > _INLINE and not member.name.endswith(".msgpack"):  # rows are looked into
            return self._promise(member), 0
        if size <= _SMALL and size <= budget:
            return self.reader.read(), size
        if self.seekable:
            if self._contents is None:
                self._contents = self._closing.enter_context(contextlib.closing(self.files.open(self._item.url)))
            return Range(self._contents, member.offset, size, self.place(member)), 0
        return self._spool_content(member), 0

    def _promise(self, member: Member) -> Value:
        if self._opened is None:
            from atdata_cli.sources.pieces import Opened

            self._opened = self._closing.enter_context(Opened(self.files))
        blob = MemberBlob(local_path(self._item.url), member.offset, member.size)
        blob.attach(self._opened)
        return blob

    def _spool_content(self, member: Member) -> Value:
        import tempfile

        offset = self._spooled
        try:
            if self._spool is None:
                self._spool = self._closing.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            self._spool.seek(offset)
            while chunk := self.reader.take(1 << 20):
                self._spool.write(chunk)
            self._spool.flush()
        except OSError as error:
            raise from_os_error(error, tempfile.gettempdir(), doing="write to") from error
        self._spooled += member.size
        return Range(self._spool, offset, member.size, self.place(member))

    def forget(self) -> None:
        """Give back the temporary space of the sample that has been taken."""
        if self._spool is not None and self._spooled:
            self._spool.seek(0)
            self._spool.truncate()
            self._spooled = 0


def _unbuffered(stream: BinaryIO) -> BinaryIO:
    """A local file itself: who reads in large blocks, and jumps, needs no buffer between."""
    if isinstance(stream, io.BufferedReader) and isinstance(stream.raw, io.FileIO) and stream.seekable():
        return cast(BinaryIO, stream.detach())
    return stream


class MemberBlob(WholeBlob):
    """A member's content in a tar on this machine's disks, which any process can read.

    Attributes
    ----------
    where : path of the tar.
    offset, size : of the content.
    """

    __slots__ = ("_opened", "offset", "size", "where")

    def __init__(self, where: str, offset: int, size: int) -> None:
        self._opened: Opened | None = None
        self.where = where
        self.offset = offset
        self.size = size

    def __reduce__(self) -> tuple[type[MemberBlob], tuple[str, int, int]]:
        return MemberBlob, (self.where, self.offset, self.size)

    def attach(self, opened: Opened) -> None:
        """See :class:`~atdata_cli.sources.pieces.Promise`."""
        self._opened = opened

    def open(self) -> BinaryIO:
        """A reader at the first byte."""
        return io.BufferedReader(_RangeReader(open(self.where, "rb"), self.offset, self.size, closes=True), 1 << 16)

    def readinto(self, target: memoryview) -> bool:
        """See :class:`~atdata_cli.sources.base.WholeBlob`."""
        if self._opened is None:
            with self.open() as reader:
                return reader.readinto(target) == len(target)  # type: ignore[attr-defined, no-any-return]
        done = 0
        try:
            file = self._opened.descriptor(self.where)
            while done < len(target):
                count = os.preadv(file, [target[done:]], self.offset + done)
                if not count:
                    return False
                done += count
        except OSError as error:
            raise from_os_error(error, self.where, doing="read") from error
        return True


class Range:
    """A part of an open file as a blob."""

    __slots__ = ("_file", "_offset", "size", "where")

    def __init__(self, file: BinaryIO, offset: int, size: int, where: str) -> None:
        self._file = file
        self._offset = offset
        self.size = size
        self.where = where

    def open(self) -> BinaryIO:
        """A reader at the part's first byte."""
        return io.BufferedReader(_RangeReader(self._file, self._offset, self.size), 1 << 16)


class _RangeReader(io.RawIOBase):
    """Reads a part of a file that others may read as well: it seeks before every read."""

    def __init__(self, file: BinaryIO, offset: int, size: int, *, closes: bool = False) -> None:
        self._file = file
        self._next = offset
        self._end = offset + size
        self._closes = closes

    def close(self) -> None:
        if self._closes:
            self._file.close()
        super().close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._take(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self._take(1 << 23), b""))

    def _take(self, limit: int) -> bytes:
        self._file.seek(self._next)
        chunk = self._file.read(min(limit, self._end - self._next))
        self._next += len(chunk)
        return chunk
