"""Where sources read: local paths, and any URL that a store or a file system of fsspec can open.

:class:`StoreFiles` is what sources are handed (:class:`atdata_cli.sources.base.Files`). Each kind of place is
a class with the same four methods.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Protocol, cast

from atdata_cli.errors import NotFoundError, UsageError, from_os_error
from atdata_cli.refs import MANIFEST, basename, is_glob, join, local_path, refuse_unsafe, scheme
from atdata_cli.shards.protocols import ShardStore
from atdata_cli.sources.base import FileInfo
from atdata_cli.stores.local import entry_kind
from atdata_cli.stores.registry import StoreOptions, open_filesystem, open_store, place_key, url_name

__all__ = ["StoreFiles"]

_BUFFER = 1 << 20
_Ancestors = frozenset[tuple[int, int]]


class _Place(Protocol):
    hidden: int

    def info(self, url: str) -> FileInfo | None: ...

    def walk(self, url: str) -> Iterator[tuple[str, FileInfo]]: ...

    def glob(self, pattern: str) -> list[str]: ...

    def open(self, url: str) -> BinaryIO: ...


class StoreFiles:
    """Reading access for sources; see :class:`atdata_cli.sources.base.Files`.

    :meth:`walk` gives files, and what is neither file nor folder as ``other`` (so is a link that leads
    nowhere or back to a folder above it); folders themselves are not given. It follows links.

    Parameters
    ----------
    options : how to reach stores.
    reached : those that are reached otherwise, see :meth:`reach`.

    Attributes
    ----------
    told : told of every place that :meth:`info` and :meth:`walk` give, if anybody wants to know.
    used : told of every local file that :meth:`open` opens, and, with a slash at the end, of every local folder that
        :meth:`walk` and :meth:`glob` look into.
    """

    def __init__(self, options: StoreOptions | None = None, reached: Mapping[str, StoreOptions] | None = None) -> None:
        self.options = options or StoreOptions()
        self._local = _Local()
        self._places: dict[str, _Place] = {}  # by scheme and host or bucket: connecting is slow
        self._reached: dict[str, StoreOptions] = dict(reached or {})
        self.told: Callable[[FileInfo], None] | None = None

    @property
    def used(self) -> Callable[[str], None] | None:
        """See above."""
        return self._local.used

    @used.setter
    def used(self, told: Callable[[str], None] | None) -> None:
        self._local.used = told

    def __reduce__(self) -> tuple[type[StoreFiles], tuple[StoreOptions, Mapping[str, StoreOptions]]]:
        return type(self), (self.options, self._reached)  # a worker process connects for itself

    def reach(self, url: str, options: StoreOptions) -> None:
        """From now on reach the host or bucket of *url* in this way.

        Raises
        ------
        UsageError : it was reached in another way before: one name means two places.
        """
        key = place_key(url)
        if self.options_for(url) != options and (key in self._reached or key in self._places):
            raise UsageError("this name means two places, on different servers", url=key, hint="read them one by one")
        self._reached[key] = options

    def options_for(self, url: str) -> StoreOptions:
        """How the store of *url* is reached."""
        return self._reached.get(place_key(url)) or self.options.at(url)

    def info(self, url: str) -> FileInfo | None:
        """What *url* is, or None if there is nothing. Standard input is ``other``."""
        info = FileInfo(url, "other") if url == "-" else self._place(url).info(url)
        if info is not None and self.told is not None:
            self.told(info)
        return info

    def walk(self, url: str) -> Iterator[tuple[str, FileInfo]]:
        """Everything below a folder except hidden files and folders, in no order.

        Raises
        ------
        AtdataError : also for a folder within it that cannot be read, so that no data is missing without a
            word.
        """
        found = self._place(url).walk(url)
        return found if self.told is None else self._telling(found, self.told)

    @staticmethod
    def _telling(
        found: Iterator[tuple[str, FileInfo]], told: Callable[[FileInfo], None]
    ) -> Iterator[tuple[str, FileInfo]]:
        for name, info in found:
            told(info)
            yield name, info

    def hidden(self) -> int:
        """How many hidden files and folders :meth:`walk` has passed over so far; one for a whole folder."""
        return self._local.hidden + sum(place.hidden for place in self._places.values())

    def glob(self, pattern: str) -> list[str]:
        """URLs that match, in bytewise order, without hidden ones. What exists under that very name is that
        name.

        ``**`` stands for any number of folders; at the end for all files below.
        """
        return self._place(pattern).glob(pattern)

    def open(self, url: str) -> BinaryIO:
        """Open for reading; ``-`` is standard input, once."""
        if url != "-":
            return self._place(url).open(url)
        if sys.stdin.buffer.closed:
            raise UsageError("standard input ('-') is named twice, and can be read once", hint="name '-' once")
        return sys.stdin.buffer

    def _place(self, url: str) -> _Place:
        kind = scheme(url)
        if not kind:
            return self._local
        refuse_unsafe(url)
        if kind == "file" or ("//" not in url and os.path.lexists(url)):  # "run:7.csv" is a file if it exists
            return self._local
        key = place_key(url)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _place_of(kind, url, self.options_for(url))
        return place


def _place_of(kind: str, url: str, options: StoreOptions) -> _Place:
    if kind in {"http", "https"}:
        return _Http(options)
    if kind in {"s3", "memory"}:
        return _Remote(url, options)
    store, _ = open_store(url, options)
    from atdata_cli.stores.filesystem import FilesystemStore

    return _Remote(url, options) if isinstance(store, FilesystemStore) else _Plugin(options)


class _Local:
    """Files on disk."""

    def __init__(self, used: Callable[[str], None] | None = None) -> None:
        self.hidden = 0
        self.used = used

    def info(self, url: str) -> FileInfo | None:
        path = _checked(local_path(url))
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return FileInfo(url, "other") if os.path.islink(path) else None
        except OSError as error:
            if error.errno == errno.ELOOP:
                return FileInfo(url, "other")
            raise from_os_error(error, url, doing="read") from error
        if stat.S_ISDIR(found.st_mode):
            return FileInfo(url, "folder")
        return _file_info(url, found) if stat.S_ISREG(found.st_mode) else FileInfo(url, "other")

    def walk(self, url: str) -> Iterator[tuple[str, FileInfo]]:
        waiting: list[tuple[str, str, _Ancestors]] = [("", _checked(local_path(url)) or ".", frozenset())]
        while waiting:
            prefix, folder, ancestors = waiting.pop()
            base = folder if folder.endswith("/") else f"{folder}/"
            try:
                # By names in an open folder: the system need not find the way to it for every file.
                with _opened(folder) as opened, os.scandir(opened) as entries:
                    below = _with_identity(os.fstat(opened), ancestors)
                    if below is None:  # a link to a folder above
                        yield prefix[:-1], FileInfo(folder, "other")
                        continue
                    self._look_into(folder)
                    for entry in entries:
                        name = entry.name
                        if name[0] == ".":
                            self.hidden += 1
                            continue
                        kind = entry_kind(entry, base)
                        if kind == "file":
                            yield prefix + name, _file_info(base + name, entry.stat())
                        elif kind == "folder":
                            waiting.append((f"{prefix}{name}/", base + name, below))
                        else:
                            yield prefix + name, FileInfo(base + name, "other")
            except OSError as error:
                where = folder if error.filename in (folder, None) else f"{base}{error.filename}"
                raise from_os_error(error, where, doing="read") from error

    def glob(self, pattern: str) -> list[str]:
        path = _checked(local_path(pattern))
        if os.path.lexists(path):
            return [pattern]
        if not is_glob(path):
            return []
        found = ["/" if path.startswith("/") else ""]
        parts = [part for part in path.split("/") if part]
        for number, part in enumerate(parts, 1):
            last = number == len(parts) and not path.endswith("/")
            if not is_glob(part) and is_glob("/".join(parts[: number - 1])):  # it may come to be in others of them
                for base in found:
                    self._look_into(base)
            found = list(dict.fromkeys(name for base in found for name in self._step(base, part, last)))
        # A name that reads like a URL, or like standard input, is given as a path.
        named = (name if not scheme(name) and name != "-" else f"./{name}" for name in found)
        return sorted(named, key=os.fsencode)

    def _step(self, base: str, part: str, last: bool) -> Iterator[str]:
        """What one part of a pattern matches in the folder *base*; only folders unless it is the last."""
        there = os.path.join(base, part)
        if part == "**":
            if last:
                below = _Local(self.used).walk(base or ".")
                yield from (join(base, name) for name, info in below if info.kind == "file")
            else:
                for folder in _folders(base):
                    self._look_into(folder)
                    yield folder
        elif not is_glob(part) or ("*" not in part and "?" not in part and os.path.lexists(there)):
            if os.path.lexists(there) if last else os.path.isdir(there):
                yield there
        else:
            self._look_into(base)
            yield from _matching(base, part, last)

    def _look_into(self, folder: str) -> None:
        if self.used is not None:
            self.used(join(folder or ".", ""))

    def open(self, url: str) -> BinaryIO:
        path = _checked(local_path(url))
        if self.used is not None:
            self.used(path)
        try:
            return open(path, "rb", buffering=_BUFFER)
        except OSError as error:
            raise from_os_error(error, url, doing="read") from error


def _file_info(path: str, found: os.stat_result) -> FileInfo:
    # The time of the last change of the inode, unlike that of the content, cannot be set back.
    version = (found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    # The system is asked only about what not everybody may read: that takes as long as all the rest.
    readable = bool(found.st_mode & stat.S_IROTH) or os.access(path, os.R_OK)
    # As FileInfo(…) does it, without a call in Python: of a million files that is seconds.
    return tuple.__new__(FileInfo, (path, "file", found.st_size, version, readable))


def _checked(path: str) -> str:
    """The path, unless the system cannot take it."""
    try:
        if b"\0" not in os.fsencode(path):
            return path
    except UnicodeEncodeError:
        pass
    raise UsageError("no file can have this name", url=path, hint="check the path")


@contextlib.contextmanager
def _opened(folder: str) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _with_identity(found: os.stat_result, ancestors: _Ancestors) -> _Ancestors | None:
    """*ancestors* and a folder itself, by device and inode; None if it is one of them."""
    identity = (found.st_dev, found.st_ino)
    return None if identity in ancestors else ancestors | {identity}


def _matching(base: str, part: str, last: bool) -> Iterator[str]:
    """Entries of a folder that match; hidden ones only if the pattern begins with a dot."""
    matches = re.compile(fnmatch.translate(part)).match
    for entry in _entries(base):
        hidden = entry.name[0] == "." and part[0] != "."
        if not hidden and matches(entry.name) and (last or entry_kind(entry) == "folder"):
            yield os.path.join(base, entry.name)


def _folders(base: str) -> Iterator[str]:
    """A folder and all folders below it that are not hidden; no loops."""
    waiting: list[tuple[str, _Ancestors]] = [(base, frozenset())]
    while waiting:
        folder, ancestors = waiting.pop()
        try:
            below = _with_identity(os.stat(folder or "."), ancestors)
        except OSError as error:
            raise from_os_error(error, folder, doing="read") from error
        if below is None:
            continue
        yield folder
        waiting.extend(
            (os.path.join(folder, entry.name), below)
            for entry in _entries(folder)
            if entry.name[0] != "." and entry_kind(entry) == "folder"
        )


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder or ".") as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise from_os_error(error, folder, doing="read") from error


class _Remote:
    """A file system of fsspec, S3 among them."""

    def __init__(self, url: str, options: StoreOptions) -> None:
        from atdata_cli.stores.filesystem import FilesystemStore

        self.fs, base, _ = open_filesystem(url, options)
        self._store = FilesystemStore(self.fs, protocol=scheme(url), base=base)
        self.hidden = 0

    def info(self, url: str) -> FileInfo | None:
        return self._store.retry.run(lambda: self._info(url))

    def _info(self, url: str) -> FileInfo | None:
        from atdata_cli.stores.filesystem import fs_errors

        with fs_errors(url, "read"):
            self.fs.invalidate_cache()
            try:
                found = self.fs.info(self._path(url))
            except (FileNotFoundError, NotADirectoryError):
                return None
        if found["type"] == "directory":
            return FileInfo(url, "folder")
        return FileInfo(url, "file" if found["type"] == "file" else "other", found.get("size"), found.get("ETag"))

    def walk(self, url: str) -> Iterator[tuple[str, FileInfo]]:
        from atdata_cli.stores.filesystem import find

        top = url_name(self.fs, url)
        below = f"{top}/" if top else ""
        hidden: set[str] = set()
        listing = self._store.retry.run(lambda: find(self.fs, self._path(url), url))
        if not listing and self.info(url) is None:
            raise NotFoundError("there is no such folder", url=url, hint="check the path")
        for path, found in listing.items():
            name = self._name(path)
            if not name.startswith(below):
                continue
            relative = name[len(below) :]
            concealed = _concealed(relative)
            if concealed:
                if concealed not in hidden:
                    hidden.add(concealed)
                    self.hidden += 1
                continue
            yield relative, FileInfo(self._store.url(name), "file", found.get("size"), found.get("ETag"))

    def glob(self, pattern: str) -> list[str]:
        return self._store.retry.run(lambda: self._glob(pattern))

    def _glob(self, pattern: str) -> list[str]:
        from atdata_cli.stores.filesystem import fs_errors

        path = self._path(pattern)
        with fs_errors(pattern, "list"):
            self.fs.invalidate_cache()
            found = self.fs.glob(path, detail=True)
            if not found:  # "data[1].csv" may be a name
                return [pattern] if self.fs.exists(path) else []
        names = [
            self._name(match)
            for match, info in found.items()
            if not (path.endswith("**") and info.get("type") == "directory")
        ]
        dots_asked_for = "/." in pattern
        fixed = len(re.split(r"[*?\[]", self._name(path), maxsplit=1)[0].rpartition("/")[0])
        names = [name for name in names if name and (dots_asked_for or not _concealed(name[fixed:].lstrip("/")))]
        return sorted((self._store.url(name) for name in names), key=os.fsencode)

    def open(self, url: str) -> BinaryIO:
        return self._store.open(url_name(self.fs, url))

    def _path(self, url: str) -> str:
        return str(self.fs.root_marker) + url_name(self.fs, url)

    def _name(self, path: str) -> str:
        return path.removeprefix(self.fs.root_marker).strip("/")


def _concealed(name: str) -> str:
    """The shortest beginning of a path that ends in a hidden file or folder; empty if nothing is hidden."""
    match = re.match(r"(?:[^/]*/)*?\.[^/]*", name) if name[:1] == "." or "/." in name else None
    return match[0] if match else ""


class _Http:
    """A web server: files only, for it does not list folders."""

    hidden = 0

    def __init__(self, options: StoreOptions) -> None:
        self._options = options

    def info(self, url: str) -> FileInfo | None:
        if self._may_be_folder(url) and self._look(join(url, MANIFEST)):
            return FileInfo(url, "folder")  # a dataset
        answer = self._look(url)
        if answer is None:
            return None
        return FileInfo(url, "folder") if answer.is_folder else FileInfo(url, "file", answer.size)

    @staticmethod
    def _may_be_folder(url: str) -> bool:
        """Whether a URL ends with a slash, or with a plain name: most files have endings, and asking is a request."""
        path = re.split(r"[?#]", url, maxsplit=1)[0]
        return path.endswith("/") or (path == url and not re.search(r"\.[^\W\d]\w*$", basename(url)))

    def _look(self, url: str) -> Any:
        from atdata_cli.stores.http import HTTPStore

        store, name = open_store(url, self._options)
        return cast(HTTPStore, store).look(name)

    def walk(self, url: str) -> Iterator[tuple[str, FileInfo]]:
        store, name = open_store(url, self._options)
        yield from ((info.name, FileInfo(info.name, "file")) for info in cast(ShardStore, store).list(name))

    def glob(self, pattern: str) -> list[str]:
        if not is_glob(pattern):
            return [pattern] if self._look(pattern) else []
        raise UsageError(
            "a web server lists no folders, so there are no patterns", url=pattern, hint="name the files: {000..009}"
        )

    def open(self, url: str) -> BinaryIO:
        store, name = open_store(url, self._options)
        return cast(ShardStore, store).open(name)


class _Plugin:
    """A store of a plugin, if it offers more than the three public methods."""

    def __init__(self, options: StoreOptions) -> None:
        self._options = options
        self.hidden = 0

    def _open_store(self, url: str) -> tuple[ShardStore, str]:
        store, name = open_store(url, self._options)
        if not isinstance(store, ShardStore):
            raise UsageError(f"the store of '{scheme(url)}:' cannot be read from", url=url)
        return store, name

    def info(self, url: str) -> FileInfo | None:
        store, name = self._open_store(url)
        found = store.stat(name)
        if found:
            return FileInfo(url, "file", found.size)
        return FileInfo(url, "folder") if next(iter(store.list(name)), None) else None

    def walk(self, url: str) -> Iterator[tuple[str, FileInfo]]:
        store, name = self._open_store(url)
        hidden = ""
        for found in store.list(name):
            relative = found.name[len(name) :].lstrip("/")
            concealed = _concealed(relative)
            if not concealed:
                yield relative, FileInfo(store.url(found.name), "file", found.size)
            elif concealed != hidden:  # listings are sorted, so what is in one folder comes together
                hidden = concealed
                self.hidden += 1

    def glob(self, pattern: str) -> list[str]:
        raise UsageError(
            f"patterns are not supported for '{scheme(pattern)}:' URLs",
            url=pattern,
            hint="name the files one by one, or in a list (--files-from)",
        )

    def open(self, url: str) -> BinaryIO:
        store, name = self._open_store(url)
        return store.open(name)
