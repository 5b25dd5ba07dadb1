"""Shards on any file system that fsspec knows: memory, SFTP, Google and Azure storage, Hugging Face, …

Never through ``fs.transaction``: it is state of an instance that fsspec shares, so shards that are written at
the same time would be committed together.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, BinaryIO, cast

from atdata_cli import net
from atdata_cli.errors import AtdataError, UsageError, from_os_error, reason_of
from atdata_cli.refs import check_name, scheme
from atdata_cli.retry import Retry
from atdata_cli.shards.protocols import Chunk, ObjectInfo
from atdata_cli.stores.base import StoreBase
from atdata_cli.stores.local import is_temporary, temporary_name, temporary_target

__all__ = ["FilesystemSink", "FilesystemStore", "find", "fs_errors", "reader"]

_COMMITS = {
    "s3": "s3fs uploads parts that nobody sees; commit() completes the upload, discard() aborts it",
}
"""Protocols whose ``open(autocommit=False)`` shows nothing before ``commit()``, and why.

Not so in general: the memory file system ignores the option; the local and SFTP ones write to ``/tmp`` and
move from there, which copies if that is another device.
"""

_RENAMES = {
    "memory": "a finished copy enters the dictionary in one assignment",
    "file": "rename(2) inside one folder",
    "local": "rename(2) inside one folder",
    "sftp": "the posix-rename extension replaces the target in one step",
    "ssh": "the posix-rename extension replaces the target in one step",
}
"""Protocols whose ``mv`` inside one folder makes the whole file appear in one step, and why.

Elsewhere it may be a copy that can be seen growing, or may need the old file removed first: there the store
is not atomic, although the temporary name makes the time short.
"""

_OPENED_BY_WEBDATASET = frozenset({"hf", "sftp"})
"""Protocols that WebDataset opens itself: by huggingface_hub, by curl."""

_BUFFER = 1 << 16

# Look and write are two steps on most file systems: this makes them one within this process, at least.
_ONE_AT_A_TIME = threading.Lock()


class FilesystemStore(StoreBase):
    """A file system of fsspec.

    Reading, listing and deleting are repeated after temporary failures. Writing is not: few file systems say how much
    of it was done, and the same command goes on where this one was.

    Parameters
    ----------
    fs : the file system.
    protocol : the scheme of its URLs.
    base : what comes before a name in a URL, such as ``sftp://host/``; by default the scheme and ``://``.

    Attributes
    ----------
    atomic : False where neither a commit nor a move is known to show only whole files.
    """

    expires: int | None = 3600

    def __init__(self, fs: Any, *, protocol: str, base: str | None = None) -> None:
        self.fs = fs
        self.protocol = protocol
        self.base = f"{protocol}://" if base is None else base
        self.atomic = protocol in _COMMITS or protocol in _RENAMES
        self.portable = protocol != "memory"
        self.retry = net.retry()

    def url(self, name: str) -> str:
        """The URL of a name."""
        return self.base + name

    def read_url(self, url: str) -> str:
        """A signed URL, where the file system can make one, or the URL itself, where WebDataset knows its scheme.

        Raises
        ------
        UsageError : neither, so WebDataset has no way to open the URL.
        """
        if self.protocol in _OPENED_BY_WEBDATASET:
            return url
        with fs_errors(url, "sign a URL for"):
            try:
                return str(self.fs.sign(self._path(url.removeprefix(self.base)), expiration=self.expires))
            except NotImplementedError as error:
                raise UsageError(
                    f"WebDataset cannot open '{self.protocol}:' URLs, and they cannot be signed",
                    url=url,
                    hint="copy the dataset to disk, to s3: or to a web server first",
                ) from error

    def create(self, name: str) -> FilesystemSink:
        """Begin a new file."""
        return FilesystemSink(self, name)

    def open(self, name: str) -> BinaryIO:
        """Open for reading, seekable."""
        return self.retry.run(lambda: self._open(name))

    def _open(self, name: str) -> BinaryIO:
        from fsspec.spec import AbstractBufferedFile

        url = self.url(name)
        path = self._path(name)
        with fs_errors(url, "read"):
            if self.protocol == "memory":
                # Its open() gives everyone the same object, with one position for all.
                return io.BytesIO(self.fs.cat_file(path))
            file = self.fs.open(path, "rb")
            # These ask for ranges, and move on only when one has come; what others do when a read fails is not known.
            return reader(file, url, retry=self.retry if isinstance(file, AbstractBufferedFile) else None)

    def read(self, name: str) -> bytes | None:
        """A small file whole, or None."""
        return self.retry.run(lambda: self._read(name))

    def _read(self, name: str) -> bytes | None:
        with fs_errors(self.url(name), "read"):
            try:
                return cast(bytes, self.fs.cat_file(self._path(name)))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All files below a folder, in bytewise order, without the temporary ones of runs under way."""
        for name, info in self._found(prefix):
            if not is_temporary(name.rpartition("/")[2]):
                yield ObjectInfo(name, int(info.get("size") or 0), _version(info))

    def _found(self, prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        prefix = prefix.strip("/")
        below = f"{prefix}/" if prefix else ""
        found = self.retry.run(lambda: find(self.fs, self._path(prefix), self.url(prefix)))
        for name, info in sorted((self._name(path), info) for path, info in found.items()):
            if name.startswith(below):
                yield name, info

    def leftovers(self, prefix: str, of: Callable[[str], bool] | None = None) -> Sequence[str]:
        """Names of temporary files below a folder; those of runs under way are among them."""
        targets = ((name, temporary_target(name)) for name, _ in self._found(prefix))
        return [name for name, target in targets if target is not None and (of is None or of(target))]

    def stat(self, name: str) -> ObjectInfo | None:
        """One file, or None."""
        return self.retry.run(lambda: self._stat(name))

    def _stat(self, name: str) -> ObjectInfo | None:
        path = self._path(name)
        with fs_errors(self.url(name), "read"):
            self.fs.invalidate_cache()  # listings are kept for ever otherwise
            try:
                info = self.fs.info(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
        if info["type"] != "file":
            return None
        return ObjectInfo(name, int(info.get("size") or 0), _version(info))

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Claim a name.

        Exact where the file system creates exclusively (object stores do, and memory within a process);
        elsewhere a racer on another machine, between look and move, is not noticed.
        """
        path = self._path(name)
        with _ONE_AT_A_TIME, fs_errors(self.url(name), "write to"):
            if _creates_exclusively(self.fs):
                try:
                    self.fs.pipe_file(path, data, mode="create")
                except NotImplementedError:
                    pass
                except (TimeoutError, ConnectionError, PermissionError):
                    raise  # these say nothing about who has the name
                except OSError:
                    # Not only FileExistsError: s3fs has EINVAL for a failed precondition. Without a file
                    # under the name it was another error, such as a file where a folder is needed.
                    self.fs.invalidate_cache()
                    if not self.fs.isfile(path):
                        raise
                    return False
                else:
                    return True
            self.fs.invalidate_cache()
            if self.fs.isfile(path):
                return False
            self.put(name, data)
            return True

    def replace_if_unchanged(self, name: str, data: bytes, version: str) -> bool:
        """Replace a small file if it still is *version*; exact within a process, best effort beyond."""
        with _ONE_AT_A_TIME:
            found = self.stat(name)
            if found is None or found.version != version:
                return False
            self.put(name, data)
            return True

    def delete(self, name: str) -> None:
        """Remove a file."""
        self.retry.run(lambda: self._delete(name))

    def _delete(self, name: str) -> None:
        with fs_errors(self.url(name), "delete"), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self.fs.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return str(self.fs.root_marker) + check_name(name, url=self.url(name))

    def _name(self, path: str) -> str:
        return path.removeprefix(self.fs.root_marker).lstrip("/")


class FilesystemSink:
    """One new file; see :class:`atdata_cli.shards.protocols.ShardSink`."""

    def __init__(self, store: FilesystemStore, name: str) -> None:
        self._store = store
        self._fs = store.fs
        self._url = store.url(name)
        self._path = store._path(name)
        self._commits = store.protocol in _COMMITS
        self._done = False
        folder, slash, base = self._path.rpartition("/")
        if not base:
            raise UsageError("a file needs a name", url=self._url)
        self._target = self._path if self._commits else folder + slash + temporary_name(base)
        with fs_errors(self._url, "write to"):
            if self._fs.isdir(self._path):
                raise IsADirectoryError(self._path)
            self._file = self._open(folder)

    def _open(self, folder: str) -> Any:
        options = {"autocommit": False} if self._commits else {}
        try:
            return self._fs.open(self._target, "wb", **options)
        except FileNotFoundError:
            # Only now: on object stores there are no folders, and making one may mean a bucket.
            self._fs.makedirs(folder, exist_ok=True)
            return self._fs.open(self._target, "wb", **options)

    def write(self, chunk: Chunk, /) -> None:
        """Write all of *chunk*; file systems buffer it, so it is copied if the caller may change it."""
        with fs_errors(self._url, "write to"):
            self._file.write(chunk if isinstance(chunk, bytes) else bytes(chunk))

    def commit(self) -> None:
        """Close, and make the file visible under its name."""
        with fs_errors(self._url, "write to"):
            self._file.close()
            if self._commits:
                self._file.commit()
            else:
                self._move()
            self._done = True

    def _move(self) -> None:
        try:
            self._rename()
        except OSError:
            # Some refuse to replace a file (SMB, HDFS, FTP).
            if self._store.atomic or not self._fs.isfile(self._path):
                raise
            self._fs.rm_file(self._path)
            self._rename()

    def _rename(self) -> None:
        from fsspec.spec import AbstractFileSystem

        if type(self._fs).mv is not AbstractFileSystem.mv:
            self._fs.mv(self._target, self._path)
        else:  # fsspec's general one takes *, ? and [ in names for patterns
            self._fs.cp_file(self._target, self._path)
            self._fs.rm_file(self._target)

    def abort(self) -> None:
        """Forget what was written."""
        if self._done:
            return
        self._done = True
        with fs_errors(self._url, "delete"):
            if self._commits:
                self._file.discard()
                return
            # What cannot be closed (a lost connection, a full disk) was perhaps still created.
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._target)


def find(fs: Any, path: str, url: str) -> Mapping[str, Mapping[str, Any]]:
    """All files below *path* with what the listing says of them; nothing if it is not there.

    fsspec's own ``walk`` passes over folders that it cannot read, so that data would be missing without a
    word: it is told not to, where a file system has not its own way to list.
    """
    from fsspec.spec import AbstractFileSystem

    strict = {"on_error": "raise"} if type(fs).find is AbstractFileSystem.find else {}
    with fs_errors(url, "list"):
        fs.invalidate_cache()
        try:
            found = fs.find(path, detail=True, **strict)
        except (FileNotFoundError, NotADirectoryError):
            return {}
    return {name: info for name, info in found.items() if info.get("type", "file") == "file" and name[-1:] != "/"}


@contextlib.contextmanager
def fs_errors(url: str, doing: str) -> Iterator[None]:
    """Turn what a file system raises into our errors.

    fsspec asks for ``OSError``, but the libraries behind it raise their own classes (of paramiko, of Google,
    of Azure) that cannot be named here without importing them; what is not an ``OSError`` becomes a plain
    failure.
    """
    try:
        yield
    except AtdataError:
        raise
    except Exception as error:
        if scheme(url) == "s3":  # sources read it through s3fs; what botocore said is behind what s3fs says
            from atdata_cli.stores.s3_errors import translate

            raise translate(error, url, doing) from error
        if isinstance(error, OSError):
            raise from_os_error(error, url, doing=doing) from error
        raise AtdataError(f"cannot {doing} it: {reason_of(error)}", url=url) from error


_Errors = Callable[[str, str], contextlib.AbstractContextManager[None]]


def reader(
    file: Any, url: str, *, seekable: bool = True, errors: _Errors = fs_errors, retry: Retry | None = None
) -> BinaryIO:
    """A buffered reader over a file of fsspec that fills what is asked for, and raises our errors.

    Parameters
    ----------
    errors : what maps them: a context manager made of the URL and what is being done.
    retry : for a file that has not moved when a read failed: how the read is repeated.
    """
    return io.BufferedReader(_Raw(file, url, seekable, errors, retry), _BUFFER)


class _Raw(io.RawIOBase):
    def __init__(self, file: Any, url: str, seekable: bool, errors: _Errors, retry: Retry | None) -> None:
        self._file, self._url, self._seekable, self._errors, self._retry = file, url, seekable, errors, retry

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._again(lambda: self._file.read(len(view)))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return bytes(self._again(lambda: self._file.read()))

    def _again(self, read: Callable[[], Any]) -> Any:
        def attempt() -> Any:
            with self._errors(self._url, "read"):
                return read()

        return attempt() if self._retry is None else self._retry.run(attempt)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._errors(self._url, "read"):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._file.close()


def _creates_exclusively(fs: Any) -> bool:
    """Whether the file system has a ``pipe_file(mode="create")`` of its own.

    The inherited one only looks before it writes.
    """
    from fsspec.asyn import AsyncFileSystem
    from fsspec.spec import AbstractFileSystem

    method = type(fs)._pipe_file if isinstance(fs, AsyncFileSystem) else type(fs).pipe_file
    inherited = {getattr(AsyncFileSystem, "_pipe_file", None), AbstractFileSystem.pipe_file}
    return method not in inherited and "mode" in inspect.signature(method).parameters


def _version(info: Mapping[str, Any]) -> str | None:
    """What a listing offers to recognise a change: a tag of the content, or else time and size."""
    for key in ("ETag", "etag", "e_tag", "generation", "md5Hash", "content_hash", "blob_id"):
        if info.get(key):
            return str(info[key])
    for key in ("mtime", "LastModified", "last_modified", "updated", "modified", "created"):
        moment = info.get(key)
        if moment is not None:
            # The memory file system gives a number in listings and a date elsewhere.
            moment = f"{moment.timestamp():.6f}" if isinstance(moment, datetime) else moment
            moment = f"{moment:.6f}" if isinstance(moment, float) else moment
            return f"{moment}-{info.get('size')}"
    return None
