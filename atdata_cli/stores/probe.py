"""Whether URLs open, and hold tars: tried as WebDataset would, without any credentials of ours."""

from __future__ import annotations

import base64
import bz2
import contextlib
import http.client
import lzma
import os
import re
import ssl
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit, urlunsplit

from atdata_cli import net
from atdata_cli.errors import (
    AtdataError,
    ExitCode,
    IntegrityError,
    NotFoundError,
    TemporaryError,
    UntrustedError,
    from_os_error,
    lost_shard,
    reason_of,
    resized_shard,
)
from atdata_cli.refs import scheme
from atdata_cli.samples.tar import BLOCK, is_header
from atdata_cli.sources.base import Files
from atdata_cli.stores.http import status_error
from atdata_cli.stores.resolve import ResolvedShard
from atdata_cli.stores.s3_errors import answer_error

__all__ = ["failures", "worst"]

_AT_A_TIME = 16
_SECONDS = 60.0  # without a byte
_CHUNK = 1 << 16

# What tarfile, and with it webdataset, recognises by content.
_COMPRESSED: tuple[tuple[bytes, Callable[[], Any]], ...] = (
    (b"\x1f\x8b", lambda: zlib.decompressobj(zlib.MAX_WBITS | 16)),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", lzma.LZMADecompressor),
)

# Which failure of several is the command's: "try again" only where that can help for all.
_GRAVITY = (ExitCode.INTEGRITY, ExitCode.NOT_FOUND, ExitCode.NOT_AUTHORISED, ExitCode.USAGE, ExitCode.FAILED)


def failures(resolved: Sequence[ResolvedShard], files: Files) -> list[AtdataError]:
    """What is wrong with the shards that cannot be read, in their order.

    Each is opened by its URL, and its first tar header is read; its size is compared with the manifest's.

    Parameters
    ----------
    resolved : what to open.
    files : opens what is neither HTTP nor a path: a store's own URLs.
    """
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        try:
            found = list(pool.map(lambda one: _failure(one, files), resolved))
        except BaseException:  # Ctrl-C: what has not begun need not
            pool.shutdown(cancel_futures=True)
            raise
    return [error for error in found if error is not None]


def worst(errors: Sequence[AtdataError]) -> AtdataError:
    """The failure that stands for all."""
    for code in _GRAVITY:
        for error in errors:
            if error.exit_code == code:
                return error
    return errors[0]


def _failure(one: ResolvedShard, files: Files) -> AtdataError | None:
    try:
        net.retry().run(lambda: _check(one, files))
    except NotFoundError as error:
        error.url = one.shard.url  # never the signed one
        return error if one.shard.row is None else lost_shard(one.shard.url)
    except AtdataError as error:
        error.url = one.shard.url
        return error
    return None


def _check(one: ResolvedShard, files: Files) -> None:
    url = one.shard.url
    try:
        stream, size = _open(one, files)
        with stream:
            block = _first_block(stream)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error, url) from error
    except urllib.error.URLError as error:
        raise _unreachable(error.reason, url) from error
    except http.client.HTTPException as error:
        raise TemporaryError(f"cannot read it: {type(error).__name__}", url=url) from error
    except OSError as error:
        raise from_os_error(error, url, doing="read") from error
    expected = one.shard.row.bytes if one.shard.row else None
    if size is not None and expected is not None and size != expected:
        raise resized_shard(url, size, expected)
    if not is_header(block):
        raise IntegrityError("it does not begin with a tar header", url=url, hint="it is no shard, or damaged")


def _open(one: ResolvedShard, files: Files) -> tuple[BinaryIO, int | None]:
    """The shard as a stream, and its size if that is known by now."""
    if scheme(one.url) in {"http", "https"}:
        response = _opener(one.url).open(_request(one.url), timeout=net.timeouts(silence=_SECONDS)[1])
        length = response.headers.get("Content-Length", "")
        return response, int(length) if length.isdigit() else None
    if one.url != one.shard.url or not scheme(one.url):
        file = open(one.url, "rb")  # noqa: SIM115 - the caller closes it
        return file, os.fstat(file.fileno()).st_size
    return files.open(one.url), None


def _opener(url: str) -> urllib.request.OpenerDirector:
    proxy = net.proxy_for(url)
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({} if proxy is None else {scheme(url): proxy}),
        urllib.request.HTTPSHandler(context=net.ssl_context()),
    )


def _request(url: str) -> urllib.request.Request:
    """A request, with the user and password that a URL may name: curl takes them, urllib does not."""
    headers = {"Accept-Encoding": "identity"}
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    if at:
        headers["Authorization"] = "Basic " + base64.b64encode(unquote(login).encode()).decode("ascii")
        url = urlunsplit(parts._replace(netloc=host))
    return urllib.request.Request(url, headers=headers)  # noqa: S310 - the caller knows the scheme


def _first_block(stream: BinaryIO) -> bytes:
    """The first bytes of the tar, compressed or not; fewer if it is shorter."""
    data = stream.read(BLOCK)
    for magic, unpacker in _COMPRESSED:
        if data.startswith(magic):
            return _unpack(unpacker(), data, stream)
    return data


def _unpack(unpacker: Any, data: bytes, stream: BinaryIO) -> bytes:
    block = b""
    while data and len(block) < BLOCK and not unpacker.eof:
        try:
            block += unpacker.decompress(data, BLOCK)
        except (zlib.error, lzma.LZMAError, OSError) as error:
            raise IntegrityError(
                "the compressed data is damaged", hint="restore it, or write the dataset again"
            ) from error
        data = stream.read(_CHUNK)
    return block[:BLOCK]


def _refusal(error: urllib.error.HTTPError, url: str) -> AtdataError:
    """What an answer means; those of S3 servers say more than their status."""
    body = b""
    with contextlib.suppress(OSError, http.client.HTTPException):
        body = error.read(_CHUNK)
    code = re.search(rb"<Code>([A-Za-z0-9]+)</Code>", body)
    if code:
        return answer_error(code[1].decode("ascii"), error.code, url, doing="read")
    return status_error(error.code, str(error.reason), url, "read")


def _unreachable(reason: object, url: str) -> AtdataError:
    if isinstance(reason, ssl.SSLError):
        why = getattr(reason, "verify_message", reason)
        return UntrustedError(
            f"cannot read it: the server's certificate is not trusted: {why}", url=url, hint=net.CA_HINT
        )
    return TemporaryError(f"cannot read it: {reason_of(reason) if isinstance(reason, OSError) else reason}", url=url)
