"""What a source is: something that yields samples, or rows that become samples.

Sources never open anything themselves: they are handed a :class:`Files`, so that the same source reads a local
path, an S3 URL or any other file system.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from atdata_cli.sources.pieces import RowPiece

__all__ = [
    "Blob",
    "FileInfo",
    "Files",
    "InputFile",
    "PackedBatch",
    "Preflight",
    "Reject",
    "Row",
    "RowBatch",
    "RowSource",
    "Sample",
    "SampleSource",
    "Source",
    "Value",
    "WholeBlob",
    "content",
    "size_of",
]

Row = dict[str, Any]


class Blob(Protocol):
    """A value that is read when it is written, so that a member of any size passes through flat memory."""

    @property
    def size(self) -> int:
        """Bytes that :meth:`open` will give, exactly."""

    def open(self) -> BinaryIO:
        """A fresh reader at the first byte."""


class WholeBlob(ABC):
    """A :class:`Blob` that is read in one go where there is room for all of it: what small files need most."""

    __slots__ = ()

    @abstractmethod
    def readinto(self, target: memoryview) -> bool:
        """Fill *target*, which has the blob's size; False if there are more or fewer bytes by now."""


Value = bytes | Blob


def content(value: Value) -> bytes:
    """All bytes of a value; a blob is read whole."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, WholeBlob):
        data = bytearray(size_of(value))
        if value.readinto(memoryview(data)):
            return bytes(data)
    with value.open() as reader:
        return reader.read()


def size_of(value: Value) -> int:
    """Bytes of a value; a blob is not read for it."""
    return len(value) if isinstance(value, bytes) else value.size


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample on its way to a shard.

    Attributes
    ----------
    key : the ``__key__``.
    fields : field name (the member's file extension) to content.
    where : where it came from, for messages: ``rows.jsonl:12`` or a path.
    extra : columns that describe the sample but are not written as they are (``--join``); used to split by.
    """

    key: str
    fields: Mapping[str, Value]
    where: str
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """An input that cannot become a sample.

    Attributes
    ----------
    where : ``file:line`` or path.
    reason : one line, with what would help.
    key : the sample's key, if it got that far.
    record : the input as text, if it is a row.
    """

    where: str
    reason: str
    key: str | None = None
    record: str | None = None


class InputFile(NamedTuple):
    """One file that a source reads.

    Attributes
    ----------
    name : relative to its source's root; part of the job's identity, so never absolute.
    url : how to open it; ``-`` for standard input.
    size : bytes, or None for a stream.
    """

    name: str
    url: str
    size: int | None


@dataclass(slots=True)
class RowBatch:
    """Some hundreds of consecutive records of one file.

    Attributes
    ----------
    file : where they came from; embedded paths are relative to its folder.
    rows : the good records.
    lines : for each row, its line or record number in the file, 1-based.
    offsets : for each row, its position among all records of the batch, 0-based; rejected ones count.
    records : how many records the batch consumed, rejected ones included.
    rejects : the others.
    """

    file: InputFile
    rows: list[Row]
    lines: Sequence[int]
    offsets: Sequence[int]
    records: int
    rejects: list[Reject] = field(default_factory=list)

    def where(self, index: int) -> str:
        """The place of row *index*, as ``file:line``."""
        return f"{self.file.url}:{self.lines[index]}"


@dataclass(slots=True)
class PackedBatch:
    """Consecutive records of one file, all of them good and with known fields, that their source has packed.

    Attributes
    ----------
    payloads : the msgpack samples.
    columns : the values of each known field.
    first : line or record number of the first one in its file, 1-based.
    """

    payloads: list[bytes]
    columns: Sequence[Sequence[Any]]
    first: int


@dataclass(slots=True)
class Preflight:
    """What can be said before anything is written.

    Attributes
    ----------
    problems : inputs that would be lost or damaged.
    warnings : what a person would want to know, but may be meant so.
    """

    problems: list[Reject] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class FileInfo(NamedTuple):
    """What a :class:`Files` knows of one path.

    Attributes
    ----------
    url : how to open it.
    kind : ``other`` is a device, pipe or socket.
    size : bytes, or None where it is not known without reading.
    version : what changes when the content does: of a local file the times of the last changes, of its content and of
        its inode, in nanoseconds, and the inode's number; else an ETag; None where nothing does.
    readable : False for a local file that its owner or mode keeps from us.
    """

    url: str
    kind: Literal["file", "folder", "other"]
    size: int | None = None
    version: tuple[int, int, int] | str | None = None
    readable: bool = True


class Files(Protocol):
    """Reading access to the places that sources live in."""

    def info(self, url: str) -> FileInfo | None:
        """What *url* is, or None if there is nothing."""

    def walk(self, url: str) -> Iterator[tuple[str, FileInfo]]:
        """Everything below a folder except hidden files and folders: (path relative to it, info), in no order."""

    def hidden(self) -> int:
        """How many hidden files and folders :meth:`walk` has passed over so far."""

    def glob(self, pattern: str) -> list[str]:
        """URLs that match a pattern with ``*``, ``?``, ``[…]`` or ``**``, in bytewise order."""

    def open(self, url: str) -> BinaryIO:
        """Open for reading; ``-`` is standard input. Seekable where the place can seek."""


class Source(ABC):
    """Common to both kinds of source.

    Attributes
    ----------
    inputs : the files read, in order; with their sizes they identify the input.
    rewindable : False for standard input and commands: they can be read once.
    files : opens them, and the files that rows name.
    """

    inputs: Sequence[InputFile]
    rewindable: bool = True
    files: Files

    @abstractmethod
    def count(self) -> int | None:
        """How many samples or records there are, without encoding them; None if only a full read tells."""

    def position(self) -> int:
        """Input bytes consumed so far, for a progress bar."""
        return 0

    def size(self) -> int | None:
        """Total of :meth:`position` at the end, or None if it is not known."""
        sizes = [item.size for item in self.inputs]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def bulky(self) -> bool:
        """Whether its samples are files so large that passing on their bytes is the work, and not Python code."""
        return False

    def finish(self) -> None:  # noqa: B027 - most sources have nothing to say
        """Called after the last sample, before the manifest: raises if the input turned out incomplete."""


class SampleSource(Source):
    """A source whose samples are members already: folders and tars.

    Attributes
    ----------
    on_reject : called with each input that turns out not to be a sample while :meth:`samples` runs; the job
        sets it before it iterates.
    rejects : where they go if nobody has set it.
    """

    def __init__(self) -> None:
        self.rejects: list[Reject] = []
        self.on_reject: Callable[[Reject], None] = self.rejects.append

    def preflight(self) -> Preflight:
        """Check what can be checked without reading payloads."""
        return Preflight()

    @abstractmethod
    def samples(self) -> Iterator[Sample]:
        """The samples in order. A blob may be read only until the next sample is asked for."""

    def promised(self) -> Iterator[Sample] | None:
        """The same samples, with values that any process can read at any time; None if there are none such."""
        return None


class RowSource(Source):
    """A source of records that an encoder turns into samples: JSONL, CSV, Parquet, Arrow, msgpack.

    Attributes
    ----------
    fields : the columns, if the format declares them.
    """

    fields: tuple[str, ...] | None = None

    @abstractmethod
    def batches(self) -> Iterator[RowBatch]:
        """The records in order, from the beginning."""

    def packing(self, rest: Iterator[RowBatch], fields: Sequence[str]) -> Iterator[RowBatch | PackedBatch]:
        """What is left of :meth:`batches`, packed where the source has a faster way to do that.

        Parameters
        ----------
        rest : what :meth:`batches` gave.
        fields : all that rows should have; one with others is left unpacked.
        """
        return rest

    def pieces(self, quota: Callable[[int], float], size: int) -> Iterator[RowPiece]:
        """The records in pieces of whole shards that any process can read; none if the source cannot be divided.

        Parameters
        ----------
        quota : how many records shard *index* takes.
        size : input bytes that a piece is to have at least.
        """
        return iter(())
