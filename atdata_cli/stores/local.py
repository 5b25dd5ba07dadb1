"""Shards on disk.

What makes a file appear whole or not at all:

- bytes go to a hidden sibling ``.NAME.RANDOM.part`` (same folder, hence same file system), which
  ``rename(2)`` puts in the place of NAME atomically;
- ``fsync`` of the file before, of the folder after the rename: without the first a crash may leave an empty
  file under the final name, without the second it may forget the rename;
- a name is claimed by ``link(2)`` from a complete temporary file: it fails if the name exists, so one of many
  racers wins, and what it claims is whole from the first moment.

Locks are ``flock(2)``: the kernel drops them when their holder dies, also by ``kill -9``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from os import PathLike
from typing import Any, BinaryIO, Literal

from atdata_cli.errors import AtdataError, TemporaryError, UsageError, from_os_error
from atdata_cli.refs import check_name, join, local_path
from atdata_cli.shards.protocols import Chunk, ObjectInfo
from atdata_cli.stores.base import ShardUrls, StoreBase
from atdata_cli.stores.diskwrites import DiskWrites

__all__ = ["LocalSink", "LocalStore", "entry_kind", "is_temporary", "temporary_name", "temporary_target"]

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}\.part", re.DOTALL)
_LOCK = re.compile(r"\.(.+)\.lock", re.DOTALL)
_STATE_FOLDER = ".atdata"  # what it holds is ours, so it goes when it is empty
_LOCK_SECONDS = 30.0  # a holder needs milliseconds
_RACES = 100  # how often a folder may vanish between making and using it

_WRITES = DiskWrites()  # of all files: memory is the machine's

# What flock, link and fsync of a folder answer where a file system (FAT, Lustre without flock, FUSE) lacks
# them.
_UNSUPPORTED = {
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOLCK,
    errno.EPERM,
    errno.EMLINK,
}

# Where NFS emulates flock by fcntl locks, it excludes other processes but not other threads of this one.
_THREADS = threading.Lock()

_Names = list[str]  # inside the class, `list` is a method


class LocalStore(StoreBase):
    """A folder.

    Parameters
    ----------
    root : the folder that names are relative to; "" is the working directory. It is joined to names as typed,
        so that URLs stay relative if it is.
    """

    portable = True

    def __init__(self, root: str | PathLike[str] = "") -> None:
        self.root = os.fspath(root)
        self._made: set[str] = set()  # folders that this store made, to take them away again if nothing came of it
        self._folders = threading.Lock()

    def __reduce__(self) -> tuple[type[LocalStore], tuple[str]]:
        return type(self), (self.root,)  # a worker process gets its own locks

    def url(self, name: str) -> str:
        """The path as typed: relative if the root is."""
        return join(self.root, name) if name else self.root

    def write_shards(self, ds: Any, *, prefix: str, **kwargs: Any) -> ShardUrls:
        """As in :meth:`StoreBase.write_shards`, with absolute paths: they outlive the working directory."""
        check_name(prefix, url=prefix)
        return _absolute(super().write_shards(ds, prefix=prefix, **kwargs))

    def read_url(self, url: str) -> str:
        """The path as typed, with ``./`` where WebDataset would take it for something else.

        Parameters
        ----------
        url : a path or a ``file:`` URL.
        """
        path = local_path(url)
        if path.startswith("//"):
            return "/" + path.lstrip("/")  # urllib.parse takes what follows for a host
        # "-" is standard input, other options; "run:7.tar" has the scheme "run".
        first = path.partition("/")[0]
        return f"./{path}" if first.startswith("-") or ":" in first else path

    def create(self, name: str) -> LocalSink:
        """Begin a new file; folders on the way to it are made."""
        return LocalSink(self, name)

    def open(self, name: str) -> BinaryIO:
        """Open for reading."""
        path = self._path(name)
        with _os_errors(path, "read"):
            return open(path, "rb")

    def read(self, name: str) -> bytes | None:
        """A small file whole, or None if it is not there."""
        path = self._path(name)
        with _os_errors(path, "read"):
            try:
                with open(path, "rb") as file:
                    return file.read()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All files below a folder in bytewise order, without the temporary ones of runs under way."""
        prefix = prefix.strip("/")
        for name, entry in _walk(self._path(prefix), prefix):
            if is_temporary(entry.name) or _LOCK.fullmatch(entry.name):
                continue
            try:
                info = entry.stat()
            except FileNotFoundError:  # deleted since its folder was read
                continue
            except OSError as error:
                raise from_os_error(error, entry.path, doing="read") from error
            yield ObjectInfo(name, info.st_size, _version(info))

    def stat(self, name: str) -> ObjectInfo | None:
        """One file, or None if there is none (a folder is none)."""
        path = self._path(name)
        with _os_errors(path, "read"):
            try:
                info = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
        return ObjectInfo(name, info.st_size, _version(info)) if stat.S_ISREG(info.st_mode) else None

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Claim a name with its content: one of any number of racers wins; the file is whole or not there."""
        path = self._path(name)
        with _os_errors(path, "write to"):
            if os.path.lexists(path):
                _refuse_folder(path)
                return False
            sink = self._complete(name, data)
            try:
                return self._claim(sink.temporary, path)
            finally:
                sink.abort()

    def _claim(self, temporary: str, path: str) -> bool:
        """Give a complete file its name unless the name is taken."""
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            # No hard links here: every racer of ours looks and renames under the same lock instead.
            with _locked(path):
                if os.path.lexists(path):
                    return False
                os.replace(temporary, path)
        _sync_folder(path)
        return True

    def replace_if_unchanged(self, name: str, data: bytes, version: str) -> bool:
        """Replace a small file if it still is *version*.

        Look and replace happen under a lock that all our processes take, on every machine that shares the
        folder. A program that does not take it (an editor) is noticed only if it was done before.
        """
        path = self._path(name)
        with _os_errors(path, "write to"), contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_locked(path))
                before = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                return False
            if _version(before) != version:
                return False
            sink = self._complete(name, data, newer_than=before.st_mtime_ns)
            try:
                os.replace(sink.temporary, path)
                _sync_folder(path)
            finally:
                sink.abort()
            return True

    def put(self, name: str, data: bytes) -> None:
        """Store or replace a small file; nothing waits for the disk."""
        sink = LocalSink(self, name)
        try:
            sink.write(data)
            sink.commit(durable=False)
        except BaseException:
            sink.abort()
            raise

    def delete(self, name: str) -> None:
        """Remove a file, and folders that it leaves empty if this store made them or they held our state."""
        path = self._path(name)
        with _os_errors(path, "delete"):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(path)
            self._remove_empty_folders(name)

    def leftovers(self, prefix: str, of: Callable[[str], bool] | None = None) -> _Names:
        """Names of temporary files and locks below a folder whose owners are gone; not those of running ones."""
        prefix = prefix.strip("/")
        found = []
        for name, entry in _walk(self._path(prefix), prefix):
            target = temporary_target(name)
            if target is not None and (of is None or of(target)) and not _in_use(entry.path):
                found.append(name)
        return found

    def clean(self, prefix: str, of: Callable[[str], bool] | None = None) -> _Names:
        """Delete :meth:`leftovers`, and folders of our state that are empty; returns the names of files."""
        names = self.leftovers(prefix, of)
        for name in names:
            path = self._path(name)
            with _os_errors(path, "delete"), contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                if _try_lock(file.fileno(), path):  # nobody can take it for theirs while it goes
                    self.delete(name)
        for folder, _, _ in os.walk(self._path(join(prefix.strip("/"), _STATE_FOLDER)), topdown=False):
            with contextlib.suppress(OSError):  # it is not empty; whoever is about to use it makes it again
                os.rmdir(folder)
        return names

    def _path(self, name: str) -> str:
        return self.url(check_name(name, url=self.root or name)) or "."

    def _make_and_open(self, name: str) -> tuple[int, str]:
        """A new temporary file beside *name*, locked as in use: (file descriptor, path)."""
        path = self._path(name)
        if not os.path.basename(path):
            raise UsageError("a file needs a name", url=path)
        folder, base = os.path.split(path)
        for attempt in range(_RACES):
            temporary = os.path.join(folder, temporary_name(base))
            try:
                with self._folders:
                    self._make_folders(folder)
                    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                # Another process made the folder, gave up and removed it between our two calls.
                if attempt == _RACES - 1:
                    raise
                continue
            with contextlib.suppress(OSError):  # only `leftovers` asks for it
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # nobody has it for longer than `clean` needs
            if os.fstat(descriptor).st_nlink:
                return descriptor, temporary
            os.close(descriptor)  # `clean` found it before it was locked, and took it for a killed run's
        raise FileNotFoundError(errno.ENOENT, "it is removed again and again", path)

    def _make_folders(self, folder: str) -> None:
        """``makedirs`` that remembers what it made, and makes it durable."""
        missing = []
        while folder and not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for path in reversed(missing):
            try:
                os.mkdir(path)  # noqa: PTH102
            except FileExistsError:
                if not os.path.isdir(path):
                    raise
            else:
                self._made.add(path)
                _sync_folder(path)

    def expect(self, prefix: str) -> None:
        """Take folders that other processes are about to make for ones that this store has made."""
        folder = self._path(prefix)
        with self._folders:
            while folder and not os.path.isdir(folder):
                self._made.add(folder)
                folder = os.path.dirname(folder)

    def _remove_empty_folders(self, name: str) -> None:
        """Take away the folders above *name* that are ours and empty, from the inside out."""
        folder = os.path.dirname(self._path(name))
        with self._folders:
            while folder and (folder in self._made or self._holds_state(folder)):
                try:
                    os.rmdir(folder)
                except FileNotFoundError:
                    pass
                except OSError:  # not empty, or a mount point, or no longer ours to change: it stays
                    return
                self._made.discard(folder)
                folder = os.path.dirname(folder)

    def _holds_state(self, folder: str) -> bool:
        """Whether a folder is a state folder or inside one; the root is the user's, whatever its name."""
        return _STATE_FOLDER in folder[len(self.root) :].split("/")

    def _complete(self, name: str, data: bytes, *, newer_than: int = 0) -> LocalSink:
        """A sink that has taken all of *data* and made it durable, but not visible.

        Its mtime is set by us: the kernel's clock ticks every 4 ms, and two versions of one size within a
        tick, with an inode number that is used again, would look the same.
        """
        sink = LocalSink(self, name)
        try:
            sink.write(data)
            sink.finish(max(time.time_ns(), newer_than + 1))
        except BaseException:
            sink.abort()
            raise
        return sink


class LocalSink:
    """One new file; see :class:`atdata_cli.shards.protocols.ShardSink`."""

    def __init__(self, store: LocalStore, name: str) -> None:
        self._store, self._name = store, name
        self._path = store._path(name)
        self._committed = False
        self._written = 0
        self._descriptor = -1
        with _os_errors(self._path, "write to"):
            _refuse_folder(self._path)  # now, not after a gigabyte
            self._descriptor, self.temporary = store._make_and_open(name)

    def write(self, chunk: Chunk, /) -> None:
        """Write all of *chunk*."""
        with _os_errors(self._path, "write to"):
            data = memoryview(chunk).cast("B")
            start, self._written = self._written, self._written + len(data)
            _WRITES.write(self._descriptor, data)
            _begin_to_sync(self._descriptor, start, len(data))

    def finish(self, mtime_ns: int | None = None) -> None:
        """Make the temporary file durable, with the given mtime (nanoseconds since 1970)."""
        with _os_errors(self._path, "write to"):
            if mtime_ns is not None:
                os.utime(self._descriptor, ns=(mtime_ns, mtime_ns))
            os.fsync(self._descriptor)

    def commit(self, *, durable: bool = True) -> None:
        """Give the file its name; durable when this returns, unless that does not matter."""
        if durable:
            self.finish()
        with _os_errors(self._path, "write to"):
            os.replace(self.temporary, self._path)
            self._committed = True
            self._close()  # not earlier: its lock tells `clean` that the temporary file is in use
            if durable:
                _sync_folder(self._path)

    def abort(self) -> None:
        """Remove the temporary file, and folders that were made for it and are empty."""
        if self._committed:
            return
        with _os_errors(self._path, "delete"):
            self._close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.temporary)
            self._store._remove_empty_folders(self._name)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def temporary_name(base: str) -> str:
    """A new hidden name for what is to become the file *base* in the same folder."""
    return f".{_shortened(base)}.{os.urandom(8).hex()}.part"


def is_temporary(base: str) -> bool:
    """Whether a file's name, without folder, comes from :func:`temporary_name`."""
    return _TEMPORARY.fullmatch(base) is not None


def temporary_target(name: str) -> str | None:
    """The name of the file that a temporary one, or a lock, is for; None if *name* is of neither."""
    folder, slash, base = name.rpartition("/")
    match = _TEMPORARY.fullmatch(base) or _LOCK.fullmatch(base)
    return None if match is None else folder + slash + match[1]


def _shortened(base: str) -> str:
    """Cut in bytes, so that what is put around it stays within the 255 that file systems allow."""
    return os.fsdecode(os.fsencode(base)[:200])


def _absolute(urls: ShardUrls) -> ShardUrls:
    """The same shards under absolute paths."""
    return ShardUrls(
        [os.path.abspath(url) for url in urls],
        {os.path.abspath(url): checksum for url, checksum in urls.checksums.items()},
    )


def _version(info: os.stat_result) -> str:
    return f"{info.st_mtime_ns}-{info.st_size}-{info.st_ino}"


def _refuse_folder(path: str) -> None:
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)


def _begin_to_sync(descriptor: int, start: int, size: int) -> None:
    """Ask the kernel to write these bytes to the disk from now on, so that ``fsync`` finds little left to do.

    Linux does that for POSIX_FADV_DONTNEED and returns at once. Pages that are not yet written stay in the cache, so
    whoever reads the shard next still finds it there.
    """
    if hasattr(os, "posix_fadvise"):  # not on macOS
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, start, size, os.POSIX_FADV_DONTNEED)


def _sync_folder(path: str) -> None:
    """Make the entry of *path* in its folder durable, where the file system can."""
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold the lock of *path*: a sibling ``.NAME.lock`` that is removed again.

    A file of its own, not the folder: NFS locks only what is open for writing. Whoever gets the lock makes
    sure that the file still is the one under that name, for its last holder removed it; and a file that a
    killed process left behind is simply used by the next.
    """
    folder, base = os.path.split(path)
    lock = os.path.join(folder, f".{_shortened(base)}.lock")
    give_up = time.monotonic() + _LOCK_SECONDS
    with _THREADS:
        while True:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if _try_lock(descriptor, lock):
                    try:
                        yield
                    finally:
                        os.unlink(lock)
                    return
            finally:
                os.close(descriptor)
            if time.monotonic() > give_up:
                raise TemporaryError("another process holds it", url=path, hint="try again when that is done")
            time.sleep(0.002)


def _try_lock(descriptor: int, path: str) -> bool:
    """Lock an open file; False if another has it, or if the file was removed from its path meanwhile."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def _in_use(path: str) -> bool:
    """Whether a running process writes this temporary file: it holds a lock on it."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:  # gone, or another user's
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Regular files below *folder* as (name, entry), in bytewise order; links are followed, loops are not.

    Memory: the entries of one folder a level.
    """
    if not os.path.isdir(folder):
        return
    stack = [(prefix, *_scan(folder, frozenset()))]
    while stack:
        base, entries, ancestors = stack[-1]
        if not entries:
            stack.pop()
            continue
        entry = entries.pop()
        name = join(base, entry.name)
        match entry_kind(entry):
            case "folder":
                stack.append((name, *_scan(entry.path, ancestors)))
            case "file":
                yield name, entry


_Ancestors = frozenset[tuple[int, int]]


def _scan(folder: str, ancestors: _Ancestors) -> tuple[list[os.DirEntry[str]], _Ancestors]:
    """A folder's entries, last first, and the identities of it and those above it; nothing for a loop."""
    with _os_errors(folder, "list"):
        try:
            info = os.stat(folder)
            identity = (info.st_dev, info.st_ino)
            if identity in ancestors:
                return [], ancestors
            with os.scandir(folder) as entries:
                return sorted(entries, key=_bytewise, reverse=True), ancestors | {identity}
        except FileNotFoundError:  # deleted since the folder above was read
            return [], ancestors


def _bytewise(entry: os.DirEntry[str]) -> bytes:
    """Sort key: a folder's name as it is within longer names, with the slash."""
    return os.fsencode(entry.name + "/" if entry_kind(entry) == "folder" else entry.name)


def entry_kind(entry: os.DirEntry[str], base: str = "") -> Literal["file", "folder", "other"]:
    """What an entry is, or what it links to; ``other`` is a device, pipe or socket, or a link to nothing.

    Parameters
    ----------
    entry : as ``os.scandir`` gives it.
    base : what its path begins with, if it is one of an open folder and does not know that.
    """
    try:
        if entry.is_file():
            return "file"
        return "folder" if entry.is_dir() else "other"
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return "other"
        raise from_os_error(error, base + entry.path, doing="read") from error


@contextlib.contextmanager
def _os_errors(path: str, doing: str) -> Iterator[None]:
    """Turn the system's errors into ours, with the path."""
    try:
        yield
    except AtdataError:
        raise
    except OSError as error:
        raise from_os_error(error, path, doing=doing) from error
