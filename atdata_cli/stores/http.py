"""Datasets on a web server, for reading.

What fsspec's HTTP file system does is used for requests and for the cache of ranges; what a URL is (size,
ranges, or an error) is found out here: fsspec calls every failure "not found", and takes a server for one
with ranges until the first seek fails.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, TypeVar

from atdata_cli import net
from atdata_cli.errors import (
    AtdataError,
    AuthError,
    DataError,
    NotFoundError,
    RateLimitedError,
    TemporaryError,
    UntrustedError,
    UsageError,
)
from atdata_cli.refs import check_name, join
from atdata_cli.retry import seconds_to_wait
from atdata_cli.shards.protocols import ObjectInfo, ShardSink
from atdata_cli.stores.base import ShardUrls, StoreBase
from atdata_cli.stores.filesystem import fs_errors, reader

if TYPE_CHECKING:
    from aiohttp import ClientResponse

__all__ = ["Answer", "HTTPStore", "http_errors", "status_error"]

_CONNECT_SECONDS = 30.0
_SILENCE_SECONDS = 120.0  # without a byte; a shard as a whole may take as long as it takes
_BLOCK = 4 << 20  # of a range request
_SMALL = 1 << 30  # no manifest comes near

_LEGAL = "%/:?#[]@!$&'()*+,;=~"  # in URLs, by RFC 3986
_LEGAL_FOR_CURL = _LEGAL.replace("[", "").replace("]", "")

# Of a server, and of the caches and load balancers before it.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 527, 529, 530})

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says of a URL.

    Attributes
    ----------
    status : 200, or 206 for a range.
    size : bytes, if it tells.
    version : its ETag, or when the file changed.
    is_folder : whether the URL is a folder's, or that of a folder is what the server gave instead.
    """

    status: int
    size: int | None
    version: str | None
    is_folder: bool = False


class HTTPStore(StoreBase):
    """A folder of a web server, read only.

    Parameters
    ----------
    root : URL that names are relative to. Its query (a token, a signature) is kept behind every name.
    """

    writable = False

    def __init__(self, root: str) -> None:
        from urllib.parse import quote

        self.root = quote(root, safe=_LEGAL)

    def __reduce__(self) -> tuple[type[HTTPStore], tuple[str]]:
        return type(self), (self.root,)

    @cached_property
    def _fs(self) -> Any:
        import aiohttp
        from fsspec.implementations.http import HTTPFileSystem

        # aiohttp's default would end a transfer after five minutes.
        connect, silence = net.timeouts(_CONNECT_SECONDS, _SILENCE_SECONDS)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=silence)
        # URLs are sent as they are, for their signatures; what is stored is not to be compressed on the way,
        # for its size and hash.
        return HTTPFileSystem(
            encoded=True,
            block_size=_BLOCK,
            client_kwargs={"timeout": timeout},
            headers={"Accept-Encoding": "identity"},
            **net.http_options(self.root),
        )

    def url(self, name: str) -> str:
        """The URL of a name."""
        return join(self.root, check_name(name, url=self.root)) if name else self.root

    def read_url(self, url: str) -> str:
        """The URL as it is, but for what curl, by which WebDataset reads it, takes for a pattern or refuses."""
        from urllib.parse import quote

        scheme, host, path = re.split(r"(?<=//)([^/?#]*)", url, maxsplit=1)
        return scheme + host + quote(path, safe=_LEGAL_FOR_CURL, errors="surrogateescape")

    def open(self, name: str) -> BinaryIO:
        """Open for reading: with seeks if the server sends ranges, else from the beginning on."""
        url = self.url(name)
        answer = self._ask(url, self._probe)
        if answer.size == 0:
            return io.BytesIO()
        ranges = answer.status == 206 and answer.size is not None
        options = {"size": answer.size} if ranges else {"size": 1, "block_size": 0}
        with http_errors(url, "read"):
            file = self._fs.open(url, "rb", **options)
        # What comes from the beginning on only cannot be taken up where it broke.
        return reader(file, url, seekable=ranges, errors=http_errors, retry=net.retry() if ranges else None)

    def read(self, name: str) -> bytes | None:
        """A small object whole, or None."""
        try:
            with self.open(name) as file:
                data = file.read(_SMALL + 1)
        except NotFoundError:
            return None
        if len(data) > _SMALL:
            raise DataError("it is too large for what it should be", url=self.url(name))
        return data

    def stat(self, name: str) -> ObjectInfo | None:
        """One object, or None.

        Raises
        ------
        AtdataError : it is there, but the server does not tell its size.
        """
        answer = self.look(name)
        if answer is None:
            return None
        if answer.size is None:
            raise AtdataError("the server does not tell its size", url=self.url(name), hint="download it first")
        return ObjectInfo(name, answer.size, answer.version)

    def look(self, name: str) -> Answer | None:
        """What the server says of *name*: by HEAD, or by a GET of one byte where HEAD does not tell."""
        url = self.url(name)
        try:
            answer = self._ask(url, self._head)
            if answer is None or answer.size is None:
                answer = self._ask(url, self._probe)
        except NotFoundError:
            return None
        return answer

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """HTTP has no listings: always an error."""
        raise UsageError(
            "this is a folder, and a web server does not list what is in it",
            url=self.url(prefix),
            hint="name a dataset's manifest.json, or the files themselves: shard-{000000..000009}.tar",
        )

    def write_shards(self, ds: Any, *, prefix: str, **kwargs: Any) -> ShardUrls:
        """Always an error."""
        self._refuse(prefix)

    def create(self, name: str) -> ShardSink:
        """Always an error."""
        self._refuse(name)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Always an error."""
        self._refuse(name)

    def replace_if_unchanged(self, name: str, data: bytes, version: str) -> bool:
        """Always an error."""
        self._refuse(name)

    def delete(self, name: str) -> None:
        """Always an error."""
        self._refuse(name)

    def _refuse(self, name: str) -> NoReturn:
        raise UsageError("http is read only", url=self.url(name), hint="write to a folder or to s3:")

    def _ask(self, url: str, request: Callable[[str], Awaitable[_Result]]) -> _Result:
        from fsspec.asyn import sync

        def ask() -> _Result:
            with http_errors(url, "read"):
                result: _Result = sync(self._fs.loop, request, url)
                return result

        return net.retry().run(ask)

    async def _head(self, url: str) -> Answer | None:
        """The answer to HEAD; None where only GET can tell: a presigned URL is signed for GET alone."""
        session = await self._fs.set_session()
        async with session.head(self._fs.encode_url(url), allow_redirects=True, **self._fs.kwargs) as response:
            if response.status == 404 or response.status in _PASSING:
                response.raise_for_status()
            return _answer(response) if response.status == 200 else None

    async def _probe(self, url: str) -> Answer:
        """The answer to a GET of the first byte: status 206 means that the server sends ranges."""
        session = await self._fs.set_session()
        headers = {**self._fs.kwargs["headers"], "Range": "bytes=0-0"}
        async with session.get(self._fs.encode_url(url), **{**self._fs.kwargs, "headers": headers}) as response:
            # The answer of a range that an empty file does not have.
            if response.status == 416 and response.headers.get("Content-Range") == "bytes */0":
                return Answer(206, 0, None)
            response.raise_for_status()
            return _answer(response)


def _answer(response: ClientResponse) -> Answer:
    status, headers = response.status, response.headers
    size = headers.get("Content-Length")
    if status == 206:
        match = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", ""))
        size = match[1] if match else None
    elif headers.get("Content-Encoding", "identity") != "identity":
        size = None  # of the compressed form
    version = headers.get("ETag") or headers.get("Last-Modified")
    is_folder = response.url.path.endswith("/") and not response.url.query_string
    return Answer(status, int(size) if size and size.isdigit() else None, version, is_folder)


@contextlib.contextmanager
def http_errors(url: str, doing: str) -> Iterator[None]:
    """Turn what aiohttp raises into our errors: by status, and whether a retry can help."""
    import aiohttp

    try:
        with fs_errors(url, doing):
            yield
    except AtdataError as error:
        cause = error.__cause__
        if isinstance(cause, aiohttp.ClientHttpProxyError):
            raise net.proxy_error(cause.status, url, doing) from cause
        if isinstance(cause, aiohttp.ClientResponseError):
            raise status_error(cause.status, cause.message, url, doing, cause.headers or {}) from cause
        if isinstance(cause, aiohttp.ClientSSLError):
            what = f"cannot {doing} it: the server's certificate is not trusted: {_tls_reason(cause)}"
            raise UntrustedError(what, url=url, hint=net.CA_HINT) from cause
        if isinstance(cause, aiohttp.InvalidURL):
            raise UsageError(f"cannot {doing} it: it is not a valid URL", url=url) from cause
        if isinstance(cause, aiohttp.ClientPayloadError):
            raise TemporaryError("the connection ended before the file did", url=url) from cause
        if isinstance(cause, aiohttp.ClientConnectorDNSError):
            why = cause.os_error.strerror or cause.os_error
            what = f"cannot {doing} it: the name {cause.host} cannot be resolved: {why}"
            raise TemporaryError(what, url=url, hint="check the URL, and this machine's DNS or proxy") from cause
        if isinstance(cause, aiohttp.ClientConnectionError | TimeoutError):
            raise TemporaryError(f"cannot {doing} it: {_reason(cause)}", url=url) from cause
        raise


def _tls_reason(error: Exception) -> str:
    """What is wrong with a certificate; aiohttp says all that it knows of the connection."""
    certificate = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    return str(getattr(certificate, "verify_message", None) or getattr(certificate, "reason", None) or error)


def _reason(error: Exception) -> str:
    """Why there is no connection; aiohttp's own words for it carry what only its authors read."""
    import aiohttp

    if not isinstance(error, aiohttp.ClientConnectorError):
        return str(error) or type(error).__name__
    return net.no_connection(error.os_error, str(error.host), error.port)


def status_error(
    status: int, message: str, url: str, doing: str, headers: Mapping[str, str] | None = None
) -> AtdataError:
    """The error that an HTTP status means; *headers* of the answer may say when to ask again."""
    what = f"cannot {doing} it: HTTP {status} {message}".rstrip()
    if status in {404, 410}:
        return NotFoundError(what, url=url)
    if status == 407:
        return net.proxy_error(status, url, doing)
    if status in {401, 403}:
        return AuthError(what, url=url, hint="a presigned URL may have expired: make a new one")
    if status in _PASSING:
        wait = seconds_to_wait(headers or {})
        return TemporaryError(what, url=url) if wait is None else RateLimitedError(what, wait=wait, url=url)
    return AtdataError(what, url=url)
