"""Shards as blobs of an account's personal data server (PDS) on the AT Protocol.

Blobs have no names but their CIDs, there are no folders, and one that no record refers to is deleted: so a dataset here
is its list of shard URLs, which an entry in the account's repository holds (``atdata_cli.indexes.atmosphere``). Until
then a ledger does (:class:`atdata_cli.atproto.ledger.BlobLedger`).
"""

from __future__ import annotations

import dataclasses
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, BinaryIO, NoReturn, Protocol

from atdata_cli.atproto.blobs import (
    UPLOAD_BLOB,
    blob_limit,
    blob_size,
    blob_url,
    looks_like,
    open_blob,
)
from atdata_cli.atproto.identity import plain_authority
from atdata_cli.atproto.ledger import BlobLedger
from atdata_cli.atproto.session import Session
from atdata_cli.atproto.storage import MAX_BLOB_BYTES, TAR, Blob
from atdata_cli.atproto.transport import TooLargeError
from atdata_cli.atproto.values import blob_cid, blob_sha256
from atdata_cli.errors import (
    AtdataError,
    DataError,
    IntegrityError,
    NotFoundError,
    OccupiedError,
    UsageError,
    from_os_error,
)
from atdata_cli.refs import parse, redact
from atdata_cli.shards.job import WriteOptions
from atdata_cli.shards.manifest import MANIFEST
from atdata_cli.shards.protocols import Chunk, ObjectInfo, ShardSink
from atdata_cli.shards.transfer import ShardReader
from atdata_cli.stores.base import ShardUrls, StoreBase

if TYPE_CHECKING:
    from atdata_cli.shards.write import WriteResult

__all__ = ["BlobUrls", "BlobWrite", "Body", "NamelessFolder", "PDSBlobStore"]

PARALLEL = 4
"""Uploads at a time. Each has a finished shard in a temporary file; one more is being filled."""

_CHUNK = 1 << 20
_IN_MEMORY = 1 << 20  # of a shard on its way; larger ones go to a temporary file
_SMALL = 1 << 30  # no shard is so large that it cannot be read whole


class BlobUrls(ShardUrls):
    """Shard URLs in order, as ``at://DID/blob/CID``.

    Attributes
    ----------
    checksums : URL to sha256 in hex.
    blob_refs : the shards' blob references, in the same order and exactly as the server gave them; ``atdata.Index``
        puts them into the entry.
    """

    def __init__(self, did: str, blobs: Sequence[Blob]) -> None:
        urls = [_url(did, blob.cid) for blob in blobs]
        super().__init__(urls, {url: blob_sha256(blob.cid) for url, blob in zip(urls, blobs, strict=True)})
        self.blob_refs = [blob.as_json() for blob in blobs]
        self.blobs = tuple(blobs)


@dataclass(frozen=True, slots=True)
class BlobWrite:
    """What a write did.

    Attributes
    ----------
    result : what :func:`atdata_cli.shards.write.write` returned; its manifest is stored nowhere, and ``stored`` are the
        shards that were sent: of a dry run, those that would be.
    urls : of the shards, in order.
    """

    result: WriteResult
    urls: BlobUrls


class Body(Protocol):
    """A shard's bytes, which can be sent more than once: what :class:`~atdata_cli.shards.transfer.ShardReader` is."""

    def read(self, size: int, /) -> bytes:
        """The next bytes; none at the end."""

    def rewind(self) -> None:
        """Begin again at the first byte."""


class PDSBlobStore(StoreBase):
    """The blobs of one account.

    Anybody reads them; the account itself writes, with the session that ``atdata-cli login`` has stored or with handle
    and password in the environment.

    Parameters
    ----------
    account : handle, DID or :class:`~atdata_cli.atproto.session.Session`; None for the account that is logged in.
    parallel : uploads at a time.
    """

    atomic = True
    writable = True

    def __init__(self, account: str | Session | None = None, *, parallel: int = PARALLEL) -> None:
        self._session = account if isinstance(account, Session) else None
        self._authority = None if account is None or isinstance(account, Session) else plain_authority(account)
        self.parallel = parallel
        self._limit: int | None = None

    def __reduce__(self) -> tuple[type[PDSBlobStore], tuple[str | None]]:
        # A worker process opens what it needs for itself; tokens do not travel.
        return type(self), (self._authority if self._session is None else self._session.did,)

    def __repr__(self) -> str:
        return f"PDSBlobStore({self._authority or self._session})"

    @cached_property
    def account(self) -> Session:
        """The session to write with.

        Raises
        ------
        AuthError : there is none for this account.
        """
        if self._session is not None and self._session.authenticated:
            return self._session
        return Session.from_environment_or_file(self._authority)

    @cached_property
    def _reader(self) -> Session:
        if self._session is not None:
            return self._session
        return self.account if self._authority is None else Session.anonymous(self._authority)

    @property
    def did(self) -> str:
        """Of the account."""
        return self._reader.did

    # -- limits

    @property
    def limit(self) -> int:
        """The largest shard, in bytes, that both the server and the lexicon take."""
        if self._limit is None:
            self._limit = blob_limit(self.account)
        return self._limit

    # -- writing

    def write_shards(self, ds: Any, *, prefix: str, **kwargs: Any) -> BlobUrls:
        """Upload *ds* as shards.

        The blobs live as long as the ledger named *prefix* holds them; release it (:meth:`ledger`) when an entry does.

        Parameters
        ----------
        ds, **kwargs : see :meth:`atdata_cli.stores.base.StoreBase.write_shards`. Shards end where the server's limit
            is, if ``maxsize`` is not smaller.
        prefix : the dataset's name. Equal names go on with each other's unfinished upload.

        Raises
        ------
        DataError : samples that cannot be written, or one that is too large.
        AuthError : there is no session for this account.
        """
        from atdata_cli.shards.write import write_options
        from atdata_cli.sources.mappings import as_source

        return self.write(as_source(ds), prefix, write_options(**kwargs)).urls

    def write(
        self,
        source: Any,
        name: str,
        options: WriteOptions,
        *,
        ledger: BlobLedger | None = None,
        most_shards: int | None = None,
        check: Callable[[str], None] | None = None,
        dry_run: bool = False,
        **more: Any,
    ) -> BlobWrite:
        """Upload a dataset's shards; what the command line does.

        Parameters
        ----------
        source : where samples come from.
        name : of the dataset, and of its ledger.
        options : how shards are made; ``max_size`` is lowered to what the server takes.
        ledger : that of *name*, if it is open already.
        most_shards : how many an entry has room for; the one after them is an error.
        check : called with the CID of each shard before it is sent; what it raises ends the run.
        dry_run : make the shards, to know their CIDs, and send none.
        **more : ``rejects`` and ``progress``, see :func:`atdata_cli.shards.write.write`.

        Raises
        ------
        AtdataError : as of :func:`atdata_cli.shards.write.write`. What is uploaded stays for the next attempt, unless
            the input itself is wrong.
        """
        from atdata_cli.shards.write import write

        ledger = ledger or self.ledger(name)
        with _Uploads(self, ledger, most_shards, check, dry_run=dry_run) as uploads:
            try:
                result = write(source, uploads, name, self._fitting(options), **more)
            except (DataError, UsageError, NotFoundError, OccupiedError):
                uploads.cancel()
                with suppress(AtdataError):  # the first error is the one to tell
                    ledger.release()
                raise
            made = list(result.shards())
            sent = [row for shard, row in made if shard in uploads.sent]
            urls = BlobUrls(self.did, [uploads.blobs[shard] for shard, _ in made])
        return BlobWrite(dataclasses.replace(result, stored=sent), urls)

    def plan(self, source: Any, name: str, options: WriteOptions) -> WriteResult:
        """What a write would make, as far as can be known without making it; see :meth:`write`."""
        from atdata_cli.shards.write import write

        return write(source, NamelessFolder(), name, self._fitting(options), dry_run=True)

    def _fitting(self, options: WriteOptions) -> WriteOptions:
        if options.compress is not None:
            raise UsageError(
                "shards in a PDS cannot be compressed: the lexicon takes plain tars only", hint="leave out --compress"
            )
        most = min(options.max_size or self.limit, self.limit)
        return dataclasses.replace(options, max_size=most, hard_limit=True)

    def ledger(self, name: str) -> BlobLedger:
        """What keeps the blobs of a dataset alive until its entry does."""
        return BlobLedger.open(self.account, name, name)

    def upload(self, shard: ShardReader, *, ledger: BlobLedger | None = None) -> Blob:
        """Upload one finished shard, straight from where it is.

        Parameters
        ----------
        shard : the server hashes what it gets, and answers with its CID, so that a shard whose SHA-256 is known need
            not be hashed here. If it is not, the shard is read once more for it.
        ledger : keeps the blob alive; without one that is the caller's care. What it knows is neither sent again nor
            read.

        Raises
        ------
        TooLargeError : the server does not take it; nothing is sent.
        IntegrityError : the shard is not what it should be.
        DataError : the server would take it for another kind of file.
        """
        size, sha256 = shard.size, shard.expected
        if size is None or sha256 is None:
            size, sha256 = sum(map(len, shard)), shard.sha256
            assert sha256 is not None
        if size > self.limit:
            raise self._too_large(size)
        kept = None if ledger is None else ledger.keep(blob_cid(sha256), size)
        if kept is not None:
            return kept
        try:
            return self.send(shard, size, sha256, ledger, shard.stop)
        except IntegrityError:
            shard.compare()
            raise

    def send(
        self,
        body: Body,
        size: int,
        sha256: str,
        ledger: BlobLedger | None = None,
        stop: threading.Event | None = None,
    ) -> Blob:
        """Upload what is known to have this size and SHA-256, whether the server has it or not; see :meth:`upload`.

        Parameters
        ----------
        stop : ends a pause between two attempts once it is set.
        """
        cid = blob_cid(sha256)
        try:
            answer = self.account.send(UPLOAD_BLOB, lambda: self._content(body, cid), size, TAR, stop=stop)
        except TooLargeError as error:
            # It did not refuse the size when it was asked: perhaps it was too busy to do so in time.
            self._limit = blob_limit(self.account, below=size)
            raise self._too_large(size) from error
        blob = self._checked(answer, cid, size)
        if ledger is not None:
            ledger.add(blob)
        return blob

    def _content(self, body: Body, cid: str) -> Iterable[bytes]:
        """A shard from its beginning, unless that looks like something else to servers."""
        body.rewind()
        first = body.read(_CHUNK)
        mistaken = looks_like(first)
        if mistaken is not None:
            raise DataError(
                f"the server would not take this for a shard: the first sample's key begins with {mistaken!r}, as "
                "another kind of file does",
                url=_url(self.did, cid),
                hint="give the samples other keys, for example with --key or a folder above them",
            )
        return chain((first,), iter(lambda: body.read(_CHUNK), b""))

    def _checked(self, answer: Any, cid: str, size: int) -> Blob:
        """The reference that the server gave, if it is that of the blob that was sent."""
        url = _url(self.did, cid)
        try:
            blob = Blob.from_json(answer["blob"])
        except (ValueError, KeyError, TypeError) as error:
            raise AtdataError("the server's answer holds no blob", url=url) from error
        if (blob.cid, blob.size) != (cid, size):
            raise IntegrityError("the server has stored other bytes than were sent", url=url)
        if blob.media_type != TAR:
            raise DataError(
                f"the server takes the shard for {blob.media_type}, and the lexicon takes {TAR} only",
                url=url,
                hint="give the samples other keys: the first one's is what a tar begins with",
            )
        return blob

    def _too_large(self, size: int) -> TooLargeError:
        return TooLargeError(
            f"a shard of {size:,} bytes is too large: the server takes {min(self.limit, MAX_BLOB_BYTES):,} at most",
            url=self.account.pds_url,
            hint="write smaller shards, with --max-size",
        )

    # -- reading

    def url(self, name: str) -> str:
        """The URL of a blob, whose name is its CID; of anything else, a text for messages."""
        return _url(self._authority or self.did, name) if _is_cid(name) else f"at://{self._authority or ''}/{name}"

    def read_url(self, url: str) -> str:
        """The URL at which the account's server gives the blob to everybody."""
        reference = parse(url)
        if reference.kind != "blob":
            raise UsageError("this names no blob", url=url, hint="at://DID/blob/CID")
        reader = self._reader if reference.authority in {self._authority, self._reader.did} else None
        reader = reader or Session.anonymous(reference.authority)
        return blob_url(reader.pds_url, reader.did, reference.key)

    def open(self, name: str) -> BinaryIO:
        """Open a blob, whose name is its CID, for reading from the first byte to the last; see :func:`open_blob`."""
        return open_blob(self._reader, _cid(name))

    def read(self, name: str) -> bytes | None:
        """A blob whole, or None."""
        if not _is_cid(name):
            return None
        try:
            with self.open(name) as file:
                return file.read(_SMALL)
        except NotFoundError:
            return None

    def stat(self, name: str) -> ObjectInfo | None:
        """One blob, or None."""
        size = blob_size(self._reader, name) if _is_cid(name) else None
        return None if size is None else ObjectInfo(name, size, name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Nothing: there are no folders."""
        return iter(())

    def create(self, name: str) -> NoReturn:
        """Blobs have no names: always an error; see :meth:`write` and :meth:`upload`."""
        self._refuse(name)

    def put_if_absent(self, name: str, data: bytes) -> NoReturn:
        """Always an error."""
        self._refuse(name)

    def put(self, name: str, data: bytes) -> NoReturn:
        """Always an error."""
        self._refuse(name)

    def replace_if_unchanged(self, name: str, data: bytes, version: str) -> NoReturn:
        """Always an error."""
        self._refuse(name)

    def delete(self, name: str) -> NoReturn:
        """Always an error: a blob is deleted with the last record that refers to it."""
        self._refuse(name)

    def _refuse(self, name: str) -> NoReturn:
        raise UsageError("a PDS holds blobs without names", url=self.url(name), hint="write @HANDLE/NAME")


def _url(did: str, cid: str) -> str:
    return f"at://{did}/blob/{cid}"


def _is_cid(name: str) -> bool:
    return name.startswith("bafkrei") and name.isalnum()


def _cid(name: str) -> str:
    if not _is_cid(name):
        raise NotFoundError("this is no CID of a blob", url=redact(name))
    return name


def _given_up() -> AtdataError:
    return AtdataError("the upload was given up")


def _keep(file: IO[bytes], chunk: Chunk) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise from_os_error(error, tempfile.gettempdir(), doing="write to") from error


class NamelessFolder(StoreBase):
    """Stands for the folder that a dataset is written to where shards keep no names.

    Small objects stay in memory, so that the job finds its marks and manifests; of shards only the sizes do.
    """

    def __init__(self) -> None:
        self._small: dict[str, bytes] = {}
        self._sizes: dict[str, int] = {}

    def url(self, name: str) -> str:
        """The name itself."""
        return name

    def read(self, name: str) -> bytes | None:
        """A small object."""
        return self._small.get(name)

    def open(self, name: str) -> BinaryIO:
        """Nothing that could be opened is kept."""
        raise NotFoundError("shards on their way cannot be read", url=self.url(name))

    def create(self, name: str) -> ShardSink:
        """A shard that is made to know what it would be."""
        return _Counter(self._sizes, name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Everything, for there is one dataset only."""
        return (info for name in sorted({*self._small, *self._sizes}) if (info := self.stat(name)) is not None)

    def stat(self, name: str) -> ObjectInfo | None:
        """A small object or a shard."""
        size = len(self._small[name]) if name in self._small else self._sizes.get(name)
        return None if size is None else ObjectInfo(name, size)

    def put(self, name: str, data: bytes) -> None:
        """Keep a small object."""
        self._small[name] = data

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Keep a small object unless there is one of its name."""
        if name in self._small:
            return False
        self.put(name, data)
        return True

    def replace_if_unchanged(self, name: str, data: bytes, version: str) -> bool:
        """Nothing here has a version."""
        return False

    def delete(self, name: str) -> None:
        """Forget an object."""
        self._small.pop(name, None)
        self._sizes.pop(name, None)


class _Counter:
    """A shard of which only the size is kept."""

    def __init__(self, sizes: dict[str, int], name: str) -> None:
        self._sizes, self._name, self._size = sizes, name, 0

    def write(self, chunk: Chunk) -> None:
        self._size += len(chunk)

    def commit(self) -> None:
        self._sizes[self._name] = self._size

    def abort(self) -> None: ...


class _Uploads(NamelessFolder):
    """Stands for the folder that a dataset is written to: shards become blobs, small objects stay in memory.

    Several shards go up at a time. The manifest is put last, as everywhere: so that is where all uploads must be done.

    Parameters
    ----------
    store : where they go.
    ledger : keeps the blobs alive.
    most : shards that an entry has room for.
    check : called with the CID of each shard before it is sent.
    dry_run : send nothing.

    Attributes
    ----------
    blobs : name of a shard to its blob.
    sent : names of those that the server did not have.
    """

    def __init__(
        self,
        store: PDSBlobStore,
        ledger: BlobLedger,
        most: int | None,
        check: Callable[[str], None] | None,
        *,
        dry_run: bool,
    ) -> None:
        super().__init__()
        self.blobs: dict[str, Blob] = {}
        self.sent: set[str] = set()
        self._check = check
        self._dry_run = dry_run
        self._most = most
        self._store = store
        self._ledger = ledger
        self._begin()

    def _begin(self) -> None:
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(self._store.parallel, "upload")  # starts no thread before it has work
        self._room = threading.Semaphore(self._store.parallel)
        self._pending: dict[str, tuple[Future[Blob], IO[bytes]]] = {}

    def __enter__(self) -> _Uploads:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.cancel()
        if error is not None:
            with suppress(AtdataError):  # the first error is the one to tell
                self._ledger.flush()

    def cancel(self) -> None:
        """Give up what is on its way."""
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for _, file in self._pending.values():
            file.close()
        self._pending.clear()

    def url(self, name: str) -> str:
        blob = self.blobs.get(name)
        return f"at://{self._store.did}/{name}" if blob is None else _url(self._store.did, blob.cid)

    def create(self, name: str) -> _BlobSink:
        if self._stop.is_set():  # a first pass was given up, because fields turned up that its first rows did not have
            self._begin()
        if self._most is not None and len(self.blobs) + len(self._pending) >= self._most:
            raise UsageError(
                f"there are more shards than the {self._most:,} that an entry has room for",
                url=self.url(name),
                hint="make them larger, or divide the dataset into several",
            )
        return _BlobSink(self, name)

    def submit(self, name: str, file: IO[bytes], size: int, sha256: str) -> None:
        """Upload a finished shard in the background; waits while enough are on their way.

        Raises
        ------
        AtdataError : one of those before it failed, or this one must not be sent.
        """
        if self._check is not None:
            self._check(blob_cid(sha256))
        while not self._room.acquire(timeout=0.2):
            if self._stop.is_set():
                file.close()
                raise _given_up()
        try:
            self._collect(wait=False)
            self._pending[name] = self._pool.submit(self._upload, name, file, size, sha256), file
            self._sizes[name] = size
        except BaseException:
            file.close()
            raise

    def _upload(self, name: str, file: IO[bytes], size: int, sha256: str) -> Blob:
        try:
            kept = self._ledger.keep(blob_cid(sha256), size, tie=not self._dry_run)
            if kept is not None:
                return kept
            self.sent.add(name)
            if self._dry_run:
                return Blob(blob_cid(sha256), size, TAR)
            return self._store.send(_Spool(file, self._stop), size, sha256, self._ledger, self._stop)
        finally:
            file.close()
            self._room.release()

    def _collect(self, *, wait: bool) -> None:
        """Take the blobs that are there, or all; raises what went wrong with one."""
        for name, (upload, _) in list(self._pending.items()):
            if wait or upload.done():
                del self._pending[name]
                self.blobs[name] = upload.result()

    def put(self, name: str, data: bytes) -> None:
        if name.endswith(MANIFEST):
            self._collect(wait=True)
            self._ledger.flush()
        super().put(name, data)


class _Spool:
    """A finished shard in its temporary file, on its way to the server until *stop* is set."""

    def __init__(self, file: IO[bytes], stop: threading.Event) -> None:
        self._file = file
        self._stop = stop

    def read(self, size: int, /) -> bytes:
        if self._stop.is_set():
            raise _given_up()
        return self._file.read(size)

    def rewind(self) -> None:
        self._file.seek(0)


class _BlobSink:
    """One shard on its way to a temporary file, and from there to the server.

    Attributes
    ----------
    sha256 : of all its bytes, see :class:`~atdata_cli.shards.protocols.HashedSink`.
    """

    def __init__(self, uploads: _Uploads, name: str) -> None:
        self._uploads = uploads
        self._name = name
        self._file: IO[bytes] | None = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - until it is sent
        self.sha256 = ""
        self._size = 0

    def write(self, chunk: Chunk) -> None:
        assert self._file is not None
        _keep(self._file, chunk)
        self._size += len(chunk)

    def commit(self) -> None:
        assert self._file is not None
        self._uploads.submit(self._name, self._file, self._size, self.sha256)
        self._file = None  # the upload closes it

    def abort(self) -> None:
        # The run has failed, or starts over: what other shards are sent is of no use either.
        self._uploads.cancel()
        if self._file is not None:
            self._file.close()
            self._file = None
