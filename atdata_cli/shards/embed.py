"""``--embed``: the files that rows name become members, and no file outside the embed root ever does."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from atdata_cli.errors import AtdataError, DataError, NotFoundError
from atdata_cli.refs import join, parent, scheme
from atdata_cli.sources.base import Blob, Files, InputFile, Row

__all__ = ["Embedder", "NamedFile"]

# The ending of these says how the content is compressed, the one before it what it is: KEY.nii.gz.
_COMPRESSED = {".gz", ".zst", ".bz2", ".xz"}


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file as a value: read when it is written.

    Attributes
    ----------
    where : path or URL.
    size : bytes.
    """

    files: Files
    where: str
    size: int

    def open(self) -> BinaryIO:
        """A reader at the first byte."""
        return self.files.open(self.where)


class Embedder:
    """Finds the files that fields of a row name.

    Parameters
    ----------
    files : how they are opened.
    fields : the fields that name files.
    root : no file outside it is read; None for the folder of the row file.
    """

    def __init__(self, files: Files, fields: Sequence[str], root: str | None) -> None:
        self._files = files
        self.fields = tuple(fields)
        self._root = root
        self._real_roots: dict[str, str] = {}

    def embed(self, row: Row, file: InputFile) -> Mapping[str, tuple[str, Blob]]:
        """For one row: field to (name of the member's field, content). A null names no file.

        With one ``--embed`` field the member is named by the file's ending (``KEY.jpg``), with several by field and
        ending (``KEY.left.jpg``).

        Raises
        ------
        DataError : the file is missing, cannot be read, or is outside the root.
        """
        found: dict[str, tuple[str, Blob]] = {}
        for name in self.fields:
            named = row.get(name)
            if named is None:
                continue
            if not isinstance(named, str) or not named:
                raise DataError(f"field {name!r} is to name a file, but it is {named!r}")
            ending = _ending(named) or name
            found[name] = (ending if len(self.fields) == 1 else f"{name}.{ending}", self._blob(named, file))
        return found

    def places(self, row: Row, file: InputFile) -> Iterator[str]:
        """Paths and URLs of the files that a row names and that may be read; nobody looks whether they are there."""
        for name in self.fields:
            named = row.get(name)
            if isinstance(named, str) and named:
                with suppress(DataError):
                    yield self._inside(named, self._base(file))

    def _base(self, file: InputFile) -> str:
        return self._root if self._root is not None else ("" if file.url == "-" else parent(file.url))

    def _blob(self, named: str, file: InputFile) -> Blob:
        url = self._inside(named, self._base(file))
        try:
            info = self._files.info(url)
        except NotFoundError:
            info = None
        except AtdataError as error:
            raise DataError(f"{named}: {error.message}") from error
        if info is None or info.kind != "file":
            raise DataError(f"names {named!r}, which {'is no file' if info else 'does not exist'}")
        if info.size is None:
            raise DataError(f"names {named!r}, whose size its store does not tell")
        return NamedFile(self._files, url, info.size)

    def _inside(self, named: str, base: str) -> str:
        """The path or URL of *named*, if it is inside *base*, also after symbolic links."""
        if scheme(base):
            if scheme(named) or posixpath.isabs(named) or ".." in named.split("/"):
                raise self._outside(named, base)
            return join(base, named)
        real_root = self._real_roots.get(base)
        if real_root is None:
            real_root = self._real_roots[base] = os.path.realpath(base or ".")
        if "\0" in named or scheme(named):
            raise self._outside(named, base)
        path = os.path.join(base, named)
        real = os.path.realpath(path)
        if os.path.commonpath((real, real_root)) != real_root:
            raise self._outside(named, base)
        return path

    @staticmethod
    def _outside(named: str, base: str) -> DataError:
        return DataError(
            f"names {named!r}, which is outside {base or 'the current folder'}: --embed-root allows another"
        )


def _ending(path: str) -> str:
    stem, ending = posixpath.splitext(posixpath.basename(path))
    if ending.lower() in _COMPRESSED:
        ending = posixpath.splitext(stem)[1] + ending
    return ending[1:]
