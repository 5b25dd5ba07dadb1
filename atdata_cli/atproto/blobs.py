"""Blobs of a PDS: their names, their limits, and how they are read so that every byte is checked."""

from __future__ import annotations

import hashlib
import http.client
import io
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO
from urllib.parse import urlencode, urlsplit

from atdata_cli.atproto.session import Session
from atdata_cli.atproto.storage import MAX_BLOB_BYTES, TAR
from atdata_cli.atproto.transport import answer_error, transport_error
from atdata_cli.atproto.values import blob_sha256
from atdata_cli.errors import AtdataError, IntegrityError, NotFoundError, TemporaryError
from atdata_cli.net import httpx_options, proxy_for, ssl_context, user_agent

__all__ = ["GET_BLOB", "UPLOAD_BLOB", "blob_limit", "blob_size", "blob_url", "looks_like", "open_blob"]

GET_BLOB = "com.atproto.sync.getBlob"
UPLOAD_BLOB = "com.atproto.repo.uploadBlob"

_CHUNK = 1 << 20
_SILENCE = 0.1  # seconds that the nearest server has to refuse a blob, and
_SECOND_LOOK = 3.0  # where it was given too few
# What installers and the server's code set, and round numbers between; the lexicon allows no more than the first.
_USUAL_LIMITS = (MAX_BLOB_BYTES, 50_000_000, 20 << 20, 10 << 20, 5 << 20, 5_000_000, 1 << 20, 1_000_000)

# What servers take a tar for by its first bytes, which are the name of its first member: file-type 16, which the
# reference PDS uses, looks for these before it looks for a tar.
_OTHER_FORMATS = (
    r"BM|MZ|%!|BZh|ID3|MP\+|[CF]WS|GIF|FLIF|8BPS|MPCK|FORM|icns|OggS|MThd|DSD |LZIP|fLaC|wvpk|%PDF|MAC |SQLi|Cr24|MSCF"
    r"|ISc\(|#!AMR|\{\\rtf|IMPM|ITSF|<\?xml |solid |BLENDER|!<arch>|gimp xcf |BEGIN:VC|FUJIFILMCCD-RAW|Extended Module:"
    r"|Creative Voice File|RIFF....(?:AVI|WAVE|QLCM)|wOF[F2]OTTO|..-l(?:h[0-7d]|z[s45])-"
    r"|....(?:ftyp|free|mdat|moov|wide)|.{8}WEBP|.{44}SCRM|.{60}BOOKMOBI"
)


def blob_url(pds_url: str, did: str, cid: str) -> str:
    """The URL at which anybody reads a blob."""
    return f"{pds_url}/xrpc/{GET_BLOB}?{urlencode({'did': did, 'cid': cid}, safe=':')}"


def looks_like(head: bytes) -> str | None:
    """The beginning of a tar's first name, if servers would take the tar for another kind of file by it.

    Parameters
    ----------
    head : the first bytes of the tar, 100 at least.
    """
    match = re.match(_OTHER_FORMATS.encode(), head[:100], re.DOTALL)
    return None if match is None else match[0].decode("ascii", "replace")


# -- limits


def blob_limit(session: Session, *, below: int | None = None) -> int:
    """The largest blob, in bytes, that a server takes and the lexicon allows.

    The server is asked; an older one does not tell, and is sent nothing but headers that announce a blob, which it
    refuses at once if it is too large.

    Parameters
    ----------
    below : a size that it is known to refuse.
    """
    began = time.monotonic()
    described = session.get("com.atproto.server.describeServer")
    took = time.monotonic() - began
    told = described.get("blobUploadLimit") if isinstance(described, dict) else None
    if isinstance(told, int) and not isinstance(told, bool) and told > 0:
        return min(told, MAX_BLOB_BYTES)
    if below is None and proxy_for(session.pds_url) is not None:
        return MAX_BLOB_BYTES  # a proxy would take the announced blob before it asks the server
    if below is not None or session.pds_url not in _found_limits:
        session.get("com.atproto.server.getSession")  # renews the token, if that is due
        # A refusal comes at once, as the other answer did: a server that is silent for longer waits for the blob. Where
        # that was wrong, the upload is refused, and there is time for a second look.
        patience = min(max(4 * took, _SILENCE), 10.0) if below is None else _SECOND_LOOK
        sizes = [size for size in _USUAL_LIMITS if below is None or size < below]
        _found_limits[session.pds_url] = _probed_limit(session, sizes, patience)
    return _found_limits[session.pds_url]


_found_limits: dict[str, int] = {}  # by server: a probe waits


def _probed_limit(session: Session, sizes: Sequence[int], patience: float) -> int:
    for size in sizes:
        if session.retry.run(lambda size=size: _takes(session, size, patience)):  # type: ignore[misc]
            return size
    raise AtdataError(
        "the server takes no blobs of a useful size",
        url=session.pds_url,
        hint="publish the shards from S3 or HTTPS instead: publish REF @HANDLE/NAME",
    )


def _takes(session: Session, size: int, patience: float) -> bool:
    """Whether a server waits, for *patience* seconds, for a blob of that size; none is sent."""
    # Neither httpx nor the SDK can send headers and wait.
    parts = urlsplit(session.pds_url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=patience)
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.netloc, timeout=patience, context=ssl_context())
    headers = {"Content-Type": TAR, "Content-Length": str(size), "User-Agent": user_agent()}
    try:
        connection.putrequest("POST", f"/xrpc/{UPLOAD_BLOB}")
        for name, value in {**headers, **session.authorization()}.items():
            connection.putheader(name, value)
        connection.endheaders()
        with connection.getresponse() as response:
            if response.status == 413:
                return False
            name, message = _named(response.read(10_000))
            told = {header.lower(): value for header, value in response.headers.items()}
            raise answer_error(response.status, name, message, told, session.pds_url, UPLOAD_BLOB)
    except TimeoutError:
        return True  # it waits for the body
    except (OSError, http.client.HTTPException) as error:
        raise transport_error(error, session.pds_url) from error
    finally:
        connection.close()


# -- reading


def blob_size(session: Session, cid: str) -> int | None:
    """Bytes of a blob; None if it is not there."""

    def attempt() -> int | None:
        with _client() as client, _answers(session, cid):
            response = client.head(blob_url(session.pds_url, session.did, cid), headers=_PLAIN)
            _check(response, b"", session, cid)
            length = response.headers.get("content-length", "")
            return int(length) if length.isdigit() else None

    try:
        return session.retry.run(attempt)
    except NotFoundError:
        return None


def open_blob(session: Session, cid: str) -> BinaryIO:
    """Open a blob for reading from its first byte to its last.

    Its last bytes are handed out only if it is what its CID names. A connection that breaks is taken up again.

    Raises
    ------
    NotFoundError : it is not there.
    IntegrityError : while reading: the bytes are not those that the CID names.
    """
    reader = _BlobReader(session, cid)
    reader.begin()
    return io.BufferedReader(reader, buffer_size=_CHUNK)


_PLAIN = {"Accept-Encoding": "identity"}  # compressed, tars come seven times slower, and without their length


def _client() -> Any:
    import httpx

    # Servers may keep blobs elsewhere and say where. Nothing secret is sent.
    return httpx.Client(**httpx_options(follow_redirects=True, headers={"User-Agent": user_agent()}))


@contextmanager
def _answers(session: Session, cid: str) -> Iterator[None]:
    """Turn what httpx raises into our errors."""
    import httpx

    try:
        yield
    except httpx.HTTPError as error:
        raise transport_error(error, f"at://{session.did}/blob/{cid}") from error


def _check(response: Any, body: bytes, session: Session, cid: str) -> None:
    """Raise what an answer other than 200 means."""
    if response.status_code == 200:
        return
    name, message = _named(body)
    url = f"at://{session.did}/blob/{cid}"
    # HEAD has no body to tell one 400 from another: that the CID is well-formed is known.
    if response.status_code == 400 and message in {"", "Blob not found"}:
        raise NotFoundError(
            "there is no such blob",
            url=url,
            hint="servers delete blobs that no record holds; ask its publisher to publish it again",
        )
    raise answer_error(response.status_code, name, message, response.headers, url, GET_BLOB)


def _named(body: bytes) -> tuple[str, str]:
    import orjson

    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", ""
    if not isinstance(told, dict):
        return "", ""
    return str(told.get("error", ""))[:100], str(told.get("message", ""))[:300]


class _BlobReader(io.RawIOBase):
    """The bytes of a blob, checked."""

    def __init__(self, session: Session, cid: str) -> None:
        super().__init__()
        self._session = session
        self._cid = cid
        self._url = f"at://{session.did}/blob/{cid}"
        self._sha256 = blob_sha256(cid)
        self._hash = hashlib.sha256()
        self._at = 0
        self._size: int | None = None
        self._failures = 0
        self._rest = b""
        self._client: Any = None
        self._response: Any = None
        self._chunks: Iterator[bytes] = iter(())

    def begin(self) -> None:
        """Ask for the blob, and pass over what was read before."""
        self._session.retry.run(self._ask)

    def _ask(self) -> None:
        self._leave()
        self._client = _client()
        with _answers(self._session, self._cid):
            request = self._client.build_request(
                "GET", blob_url(self._session.pds_url, self._session.did, self._cid), headers=_PLAIN
            )
            self._response = self._client.send(request, stream=True)
            if self._response.status_code != 200:
                _check(self._response, self._response.read()[:10_000], self._session, self._cid)
            length = self._response.headers.get("content-length", "")
            self._size = int(length) if length.isdigit() else None
            self._chunks = self._response.iter_raw(_CHUNK)
            skip = self._at
            while skip:
                chunk = next(self._chunks, b"")
                if not chunk:
                    raise TemporaryError("the blob ended early", url=self._url)
                self._rest, skip = chunk[skip:], max(0, skip - len(chunk))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self._rest:
            self._rest = self._next()
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _next(self) -> bytes:
        """The next bytes; none at the end, which is checked before the last ones are handed out."""
        while True:
            try:
                with _answers(self._session, self._cid):
                    chunk = next(self._chunks, b"")
                    if not chunk and self._size is not None and self._at < self._size:
                        raise TemporaryError("the connection ended before the blob did", url=self._url)
                break
            except TemporaryError:
                self._failures += 1
                if self._failures > self._session.retry.retries:
                    raise
                self.begin()
                if self._rest:  # the one chunk that holds both old and new bytes
                    chunk, self._rest = self._rest, b""
                    break
        self._failures = 0 if chunk else self._failures
        self._hash.update(chunk)
        self._at += len(chunk)
        if (not chunk or self._at == self._size) and self._hash.hexdigest() != self._sha256:
            raise IntegrityError(
                "the bytes are not those that the CID names",
                url=self._url,
                hint="the server holds or sends a damaged blob: try again, or tell who runs it",
            )
        return chunk

    def _leave(self) -> None:
        if self._response is not None:
            self._response.close()
        if self._client is not None:
            self._client.close()

    def close(self) -> None:
        self._leave()
        super().close()
