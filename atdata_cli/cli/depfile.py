"""``--depfile FILE``: what a run reads, as rules for make(1), which then runs it again only if something changed."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO

from atdata_cli.errors import UsageError, from_os_error
from atdata_cli.refs import local_path, printable, scheme
from atdata_cli.sources.base import RowSource, Source

__all__ = ["Depfile", "local_name"]

# What GNU make cannot have in names of files, whatever is written before it: control characters and ';', a '~' at the
# beginning, a space, backslash or '&' at the end, a '|' alone, a ')' at the end (of an archive's members, LIB(A B)).
_IMPOSSIBLE = re.compile(rb"[\x00-\x1f;]|^~|[ \\&)]$|^\|$")
# A backslash before a character that it makes plain is plain itself only if it is doubled.
_IN_TARGET = re.compile(rb"(\\*)([ #:%*?\[])")
_IN_PREREQUISITE = re.compile(rb"(\\*)([ #:|*?\[])")
_SHOWN = 3


class Depfile:
    """Collects the local files and folders that a run reads, and writes them as the prerequisites of one target.

    Each is a target without a recipe, too: make runs the rule again, and does not stop, if one has gone. A folder
    changes when a file is added to it or taken from it. URLs and streams are not in it: make knows only files.

    Parameters
    ----------
    path : the file to write; it is replaced as a whole, and left alone if it says the same already.
    target : what is made of what is read.

    Attributes
    ----------
    newest : when the last of all that was read changed, in nanoseconds since 1970; known after :meth:`write`.
    unnamed : files and folders that make cannot have as prerequisites.

    Raises
    ------
    UsageError : *path* is no file, or make cannot have *target* as a target.
    """

    def __init__(self, path: str, target: str) -> None:
        if path == "-":
            raise UsageError("--depfile needs a file: standard output carries the shards' URLs")
        if _IMPOSSIBLE.search(os.fsencode(target)):
            raise UsageError("make cannot have a file of this name as a target", url=target)
        self._path = path
        self._target = target
        self._names: dict[str, None] = {}
        self.newest = 0
        self.unnamed: list[str] = []

    def add(self, name: str) -> None:
        """Take in a file, or a folder if *name* ends with a slash."""
        self._names[name] = None

    def write(self, source: Source, embed: Sequence[str] = (), embed_root: str | None = None) -> None:
        """Write what was taken in, the inputs of *source*, and the files that its rows name.

        Before the shards are written, so that no manifest is there without it.

        Parameters
        ----------
        embed, embed_root : as of :class:`~atdata_cli.shards.embed.Embedder`.
        """
        names = self._all(source, embed, embed_root)
        try:
            if os.path.exists(self._path) and not stat.S_ISREG(os.stat(self._path).st_mode):
                with open(self._path, "wb") as file:  # a pipe, or /dev/null
                    self._rules(file, names)
                return
            folder, base = os.path.split(self._path)
            temporary = os.path.join(folder, f".{base}.{os.getpid()}")
            try:
                with open(temporary, "wb") as file:
                    self._rules(file, names)
                if os.path.exists(self._path) and filecmp.cmp(temporary, self._path, shallow=False):
                    os.unlink(temporary)
                else:
                    os.replace(temporary, self._path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise from_os_error(error, self._path, doing="write to") from error

    def warnings(self) -> Iterator[str]:
        """What make will not notice."""
        if self.unnamed:
            some = ", ".join(printable(name) for name in self.unnamed[:_SHOWN])
            more = f" and {len(self.unnamed) - _SHOWN} more" if len(self.unnamed) > _SHOWN else ""
            yield f"make cannot have these names as prerequisites, so changes of the files go unnoticed: {some}{more}"

    def _all(self, source: Source, embed: Sequence[str], embed_root: str | None) -> Iterator[str]:
        yield from self._names
        for item in source.inputs:
            name = local_name(item.url)
            if name is not None and name not in self._names:
                yield name
        if embed and isinstance(source, RowSource) and source.rewindable:
            from atdata_cli.shards.embed import Embedder

            embedder = Embedder(source.files, embed, embed_root)
            for batch in source.batches():
                for row in batch.rows:
                    # One that is not there would make every run of make repeat the rule.
                    yield from filter(os.path.exists, filter(local_name, embedder.places(row, batch.file)))

    def _rules(self, file: BinaryIO, names: Iterator[str]) -> None:
        """One rule with all of them, and one for each, in one pass over any number."""
        with tempfile.TemporaryFile() as gone:
            file.write(_target(os.fsencode(self._target)) + b":")
            for name in names:
                with suppress(OSError):
                    self.newest = max(self.newest, os.stat(name).st_mtime_ns)
                plain = os.fsencode(name.rstrip("/") or "/")
                if _IMPOSSIBLE.search(plain):
                    if plain[-1:] != b")" or not name.endswith("/") or _IMPOSSIBLE.search(plain[:-1]):
                        self.unnamed.append(name)
                        continue
                    plain += b"/"
                file.write(b" \\\n " + _prerequisite(plain))
                gone.write(_target(plain) + b":\n")
            file.write(b"\n\n")
            gone.seek(0)
            shutil.copyfileobj(gone, file, 1 << 20)


def local_name(url: str) -> str | None:
    """The path of a local file; None for what is a URL or a stream."""
    if url == "-":
        return None
    if scheme(url) in ("", "file"):
        return local_path(url)
    return url if "//" not in url and os.path.lexists(url) else None


def _target(name: bytes) -> bytes:
    return _references(_IN_TARGET.sub(_doubled, name))


def _prerequisite(name: bytes) -> bytes:
    return _references(_IN_PREREQUISITE.sub(_doubled, name))


def _doubled(match: re.Match[bytes]) -> bytes:
    return match[1] * 2 + b"\\" + match[2]


def _references(name: bytes) -> bytes:
    """What backslashes do not make plain: dollars, and equals signs (``year=2024``), which would assign a variable."""
    return name.replace(b"$", b"$$").replace(b"=", b"$(or =)")
