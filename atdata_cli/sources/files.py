"""Folders and single files as a source: every file is a member of the sample that its name says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, BinaryIO, overload

from atdata_cli.errors import from_os_error
from atdata_cli.sources.base import Files, InputFile, Preflight, Sample, SampleSource, WholeBlob
from atdata_cli.sources.fieldcheck import FieldSets, arbitrary_fields, case_reason, examples, renamed
from atdata_cli.sources.listing import Listing, PlannedFile
from atdata_cli.sources.patterns import name_filter

if TYPE_CHECKING:
    from atdata_cli.sources.pieces import Opened

__all__ = ["FileBlob", "FolderSource"]

# A file's own work in Python is that of some 15 KB of its content.
_BULKY_BYTES = 32 << 10


class FileBlob(WholeBlob):
    """A file's content, read when it is written.

    Attributes
    ----------
    files : opens it; None in another process until that has opened the piece that it came with.
    where : path or URL.
    size : bytes, as listed; the file may have changed since.
    """

    __slots__ = ("files", "size", "where")

    def __init__(self, files: Files | None, where: str, size: int) -> None:
        self.files = files
        self.where = where
        self.size = size

    def __reduce__(self) -> tuple[type[FileBlob], tuple[None, str, int]]:
        return FileBlob, (None, self.where, self.size)

    def attach(self, opened: Opened) -> None:
        """See :class:`~atdata_cli.sources.pieces.Promise`."""
        self.files = opened.files

    def _open(self) -> BinaryIO:
        assert self.files is not None
        return self.files.open(self.where)

    def open(self) -> BinaryIO:
        """A reader at the first byte."""
        if not _is_local(self.where):
            return self._open()
        try:
            return open(self.where, "rb", buffering=0)
        except OSError as error:
            raise from_os_error(error, self.where, doing="read") from error

    def readinto(self, target: memoryview) -> bool:
        """See :class:`~atdata_cli.sources.base.WholeBlob`: three system calls for a local file."""
        if not _is_local(self.where):
            with self._open() as reader:
                return _fill(reader, target) and not reader.read(1)
        more = bytearray(1)
        try:
            file = os.open(self.where, os.O_RDONLY | os.O_CLOEXEC)
            try:
                # A byte more than the file should have shows that it has grown. Linux reads up to 2 GiB at once.
                count = os.readv(file, [target, more])
                while 0 < count < len(target):  # network file systems may give less
                    further = os.readv(file, [target[count:], more])
                    count = count + further if further else -1
            finally:
                os.close(file)
        except OSError as error:
            raise from_os_error(error, self.where, doing="read") from error
        return count == len(target)


class FolderSource(SampleSource):
    """Samples from the files below folders, keyed by webdataset's rule on the path relative to the folder.

    Roots come in the order given; the samples of one root bytewise by key, their fields bytewise by name. A
    key that several roots have, with different fields, is one sample in the first root's place (``images/``
    and ``labels/``). A root that is a file is its own root, so a list of files keeps the order of the list.

    The folders are listed when the source is made; no file is read before its blob is opened.

    Parameters
    ----------
    files : how places are listed and opened.
    roots : folders and files, as URLs or paths.
    include, exclude : globs; see :func:`atdata_cli.sources.patterns.name_filter`.
    fields : only these fields; None for all.
    check : given a relative path of each field, as the folders are listed; raises for one that does not belong.
    names : of each root that is a file, the relative path that its key is made from; by default its basename.

    Raises
    ------
    NotFoundError : a root is not there.
    UsageError : a root is neither file nor folder.
    """

    def __init__(
        self,
        files: Files,
        roots: Sequence[str],
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        fields: Sequence[str] | None = None,
        check: Callable[[str], None] | None = None,
        names: Sequence[str | None] | None = None,
    ) -> None:
        super().__init__()
        self.files = files
        wanted = name_filter(include, exclude)
        self._listing = Listing(files, wanted, fields, check, several=len(roots) > 1)
        for root, name in zip(roots, names or [None] * len(roots), strict=True):
            self._listing.add(root, name)
        self._plan = self._listing.found
        self._plan.sort()
        self._find_clashes()
        self._find_arbitrary_fields()
        self._drop_damaged_samples()
        self._position = 0
        self.inputs = _Inputs(self._plan, self._listing)

    def count(self) -> int:
        """How many samples there are."""
        return sum(1 for _ in self.members())

    def position(self) -> int:
        """Bytes of the samples that have been taken."""
        return self._position

    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self._plan)

    @property
    def bulky(self) -> bool:
        """See :class:`~atdata_cli.sources.base.Source`."""
        return self.size() >= _BULKY_BYTES * len(self._plan)

    def preflight(self) -> Preflight:
        """Name what would be lost or damaged, and what looks unintended; reads no file."""
        field_sets = FieldSets()
        for group in self.members():
            field_sets.add(tuple([file.field for file in group]), group[0].key)
        problems = sorted(self._listing.problems, key=lambda problem: problem.where)
        return Preflight(problems, [*self._listing.warnings(), *self._merged(), *field_sets.warnings()])

    def samples(self) -> Iterator[Sample]:
        """The samples in order; those of which a file is a problem are left out."""
        self._position = 0
        files, url = self.files, self._listing.url
        for group in self.members():
            blobs = {file.field: FileBlob(files, url(file), file.size) for file in group}
            yield Sample(group[0].key, blobs, blobs[group[0].field].where)
            self._position += sum([file.size for file in group])

    def promised(self) -> Iterator[Sample]:
        """See :class:`~atdata_cli.sources.base.SampleSource`: files are."""
        return self.samples()

    def members(self) -> Iterator[list[PlannedFile]]:
        """The files of each sample, in the order of :meth:`samples`."""
        for _, group in groupby(self._plan, attrgetter("key")):
            yield list(group)

    def url(self, file: PlannedFile) -> str:
        """How a file of the plan is opened."""
        return self._listing.url(file)

    def _find_clashes(self) -> None:
        fields = self._listing.fields()
        if not self._listing.several and len({field.lower() for field in fields}) == len(fields):
            return  # the names of one root differ, so two files of a sample have different fields
        for group in self.members():
            if len(group) == 1:
                continue
            seen: dict[str, PlannedFile] = {}
            for file in group:
                other = seen.setdefault(file.field.lower(), file)
                if other is file:
                    continue
                if other.field == file.field:
                    reason = f"the same key and field as {self.url(other)}: rename one of them"
                else:
                    reason = case_reason(other.field, file.field)
                self._listing.problem(file, reason)

    def _find_arbitrary_fields(self) -> None:
        if not arbitrary_fields(self._listing.fields()):
            return
        arbitrary = arbitrary_fields(file.field for file in self._plan)
        for file in self._plan:
            if file.field in arbitrary:
                reason = (
                    f"its name splits into the key {file.key!r} and the field {file.field!r}, one of "
                    f"{len(arbitrary)} fields with a dot: rename it to {renamed(file.name)!r}"
                )
                self._listing.problem(file, reason)

    def _drop_damaged_samples(self) -> None:
        bad = self._listing.bad_keys
        if bad:
            self._plan[:] = [file for file in self._plan if file.key not in bad]

    def _merged(self) -> list[str]:
        if self._listing.folders < 2:
            return []
        keys = [group[0].key for group in self.members() if len({file.root for file in group}) > 1]
        if not keys:
            return []
        return [f"{len(keys)} samples have files from more than one source, such as {examples(keys)}"]


class _Inputs(Sequence[InputFile]):
    """The plan's files as inputs, made when they are asked for."""

    def __init__(self, plan: list[PlannedFile], listing: Listing) -> None:
        self._plan = plan
        self._listing = listing

    def __len__(self) -> int:
        return len(self._plan)

    @overload
    def __getitem__(self, index: int) -> InputFile: ...
    @overload
    def __getitem__(self, index: slice) -> list[InputFile]: ...
    def __getitem__(self, index: int | slice) -> InputFile | list[InputFile]:
        if isinstance(index, slice):
            return [self._input(file) for file in self._plan[index]]
        return self._input(self._plan[index])

    def __iter__(self) -> Iterator[InputFile]:
        return map(self._input, self._plan)

    def _input(self, file: PlannedFile) -> InputFile:
        return InputFile(file.name, self._listing.url(file), file.size)


def _fill(reader: BinaryIO, target: memoryview) -> bool:
    """Read until *target* is full; False if there is less."""
    while target:
        count = reader.readinto(target)  # type: ignore[attr-defined]
        if not count:
            return False
        target = target[count:]
    return True


def _is_local(url: str) -> bool:
    return ":" not in url.partition("/")[0]
