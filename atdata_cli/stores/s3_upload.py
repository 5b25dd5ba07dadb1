"""Uploading objects to S3 as they are made: parts in flight, bounded memory, bytes checked end to end."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from atdata_cli.errors import IntegrityError, UsageError
from atdata_cli.retry import Retry
from atdata_cli.shards.protocols import Chunk
from atdata_cli.stores.s3_errors import error_code, translated

__all__ = ["PARTS_HELD", "PART_SIZE", "PartBody", "S3Sink", "Uploads"]

PART_SIZE = 16 << 20
PARTS_IN_FLIGHT = 6
PARTS_HELD = PARTS_IN_FLIGHT + 2  # two are filled and wait, so that a free connection has something to send
MAX_PARTS = 10_000  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
GROW_AFTER = 5_000
GROW_EVERY = 1_000
ABORT_SECONDS = 1.0
ABORTING = Retry(retries=2, first=0.2)  # whoever gives up does not wait for long
SEND_SIZE = 256 << 10  # a piece of this size within the time for which a server may be silent is progress
SEND_ATTEMPTS = 3

Call = Callable[..., dict[str, Any]]
"""As ``S3FileSystem.call_s3``: method name and botocore parameters to the parsed answer; ``stop`` and ``retry`` are of
the repeating."""


def part_size(number: int, base: int) -> int:
    """Bytes of part *number* (from 1): *base* for the first 5,000, then doubled every 1,000.

    Equal as long as they can be, since R2 takes no others; with 16 MiB that is up to 78 GiB an object, and
    10,000 parts hold 1 TiB.
    """
    return base << max(0, (number - 1 - GROW_AFTER + GROW_EVERY) // GROW_EVERY)


class PartBody:
    """A part as botocore and aiohttp take it, without a copy.

    aiohttp joins and buffers ``bytes`` (and warns above 1 MiB) but sends what an asynchronous iterator yields
    as it is; botocore wants ``read`` on what is not ``bytes``, and ``seek`` to repeat a request.

    Attributes
    ----------
    taken : pieces that were taken so far, in all attempts.
    waits : somebody takes pieces, and has not taken the last one.
    """

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0
        self.taken = 0
        self.waits = False

    def __len__(self) -> int:
        return len(self._data)

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""
        end = len(self._data) if size is None or size < 0 else self._at + size
        piece = bytes(self._data[self._at : end])
        self._at += len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move as in a file."""
        self._at = offset + (0, self._at, len(self._data))[whence]
        return self._at

    def tell(self) -> int:
        """Where the next :meth:`read` begins."""
        return self._at

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        self.waits = True
        for at in range(0, len(self._data), SEND_SIZE):
            self.taken += 1
            yield self._data[at : at + SEND_SIZE]
        self.waits = False


class _Budget:
    """Bytes that may wait or be under way at once. What alone is larger goes alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._freed = threading.Condition()
        self.peak = 0

    def take(self, size: int) -> None:
        with self._freed:
            self._freed.wait_for(lambda: self._used == 0 or self._used + size <= self._limit)
            self._used += size
            self.peak = max(self.peak, self._used)

    def give(self, size: int) -> None:
        with self._freed:
            self._used -= size
            self._freed.notify_all()


@dataclass(frozen=True, slots=True)
class Part:
    """An uploaded part, as ``CompleteMultipartUpload`` names it."""

    number: int
    etag: str
    crc32: str | None

    def named(self) -> dict[str, Any]:
        """The row of ``MultipartUpload.Parts``."""
        row: dict[str, Any] = {"PartNumber": self.number, "ETag": self.etag}
        return row if self.crc32 is None else {**row, "ChecksumCRC32": self.crc32}


class Uploads:
    """What all sinks of one store share: threads, memory, and how this server checks bytes.

    Every body is sent with its CRC-32 (2.4 GB/s a core; MD5 0.7), which S3 servers compare and echo. A server
    that does not echo it must have answered with the MD5 as ETag, or the body is sent again; from then on it
    gets ``Content-MD5``, which every S3 server must compare. So does one that refuses the CRC-32 header.

    Parameters
    ----------
    call : makes requests, and repeats what fails for the moment.
    part : bytes of a part.
    """

    def __init__(self, call: Call, part: int = PART_SIZE) -> None:
        self.call = call
        self.part = part
        self.budget = _Budget(PARTS_HELD * part)
        self.pool = ThreadPoolExecutor(PARTS_IN_FLIGHT, thread_name_prefix="s3-part")
        self.takes_crc = True
        self.echoes = True
        self._buffers: list[bytearray] = []

    def buffer(self, size: int) -> bytearray:
        """Memory for a part, used again: the first touch of fresh pages costs as much as the copying."""
        if size == self.part:
            try:
                return self._buffers.pop()
            except IndexError:
                pass
        # Zeroed pages come into being only when they are written: a small object takes little.
        return bytearray(size)

    def recycle(self, buffer: bytearray, read: Future[None] | None) -> None:
        """Take back memory whose bytes have arrived, once others have *read* them, too."""
        if read is not None:
            wait((read,))
        if len(buffer) == self.part and len(self._buffers) <= PARTS_HELD:
            self._buffers.append(buffer)

    def send(
        self,
        method: str,
        data: memoryview,
        *,
        declared: bool = False,
        once: bool = False,
        stop: threading.Event | None = None,
        **params: Any,
    ) -> tuple[dict[str, Any], str | None]:
        """``PutObject`` or ``UploadPart`` with *data* as body, so that no damage on the way goes unnoticed.

        Parameters
        ----------
        declared : the multipart upload was begun with CRC-32, so that all its parts need one.
        once : never send again what may have been stored: the request has a condition that would then fail.
        stop : ends the pauses between attempts.

        Returns
        -------
        The answer, and the CRC-32 that was sent, in base64.

        Raises
        ------
        IntegrityError : the server got other bytes, again and again.
        """
        for _ in range(SEND_ATTEMPTS):
            crc = _crc32(data) if self.takes_crc and (self.echoes or declared) else None
            md5 = _md5(data) if once or crc is None or not self.echoes else None
            try:
                answer = self.call(method, Body=PartBody(data), stop=stop, **_checks(crc, md5), **params)
            except OSError as error:
                if crc is not None and _refuses_checksum(error):
                    self.takes_crc = False
                elif error_code(error) not in ("BadDigest", "XAmzContentChecksumMismatch"):
                    raise
                continue
            if self._arrived(answer, data, crc, checked=md5 is not None):
                return answer, crc
        raise IntegrityError("the server received other bytes than were sent", hint="run the same command again")

    def _arrived(self, answer: dict[str, Any], data: memoryview, crc: str | None, *, checked: bool) -> bool:
        """True if the answer says that the server holds *data*; *checked*: it had to compare an MD5."""
        echoed = answer.get("ChecksumCRC32")
        if crc is not None and echoed is not None:
            return bool(echoed == crc)
        if checked:
            return True
        self.echoes = False
        return bool(answer.get("ETag", "").strip('"') == _md5(data).hex())


def _checks(crc: str | None, md5: bytes | None) -> dict[str, str]:
    checks = {} if crc is None else {"ChecksumCRC32": crc}
    return checks if md5 is None else {**checks, "ContentMD5": base64.b64encode(md5).decode()}


def _crc32(data: memoryview) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def _md5(data: Chunk) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _refuses_checksum(error: OSError) -> bool:
    """True if the server does not know the checksum header: some answer 501, others name it."""
    code = error_code(error)
    return code == "NotImplemented" or (
        code in ("InvalidRequest", "InvalidArgument") and "checksum" in str(error).lower()
    )


class S3Sink:
    """One new object: parts go up while the next is filled. A :class:`.protocols.ShardSink`.

    An object of at most one part is a single ``PutObject`` at :meth:`commit`. A multipart upload is not
    visible before it is completed.

    Parameters
    ----------
    uploads : what the store's sinks share.
    bucket, key : the object.
    url : its ``s3://`` URL, for messages.
    """

    def __init__(self, uploads: Uploads, *, bucket: str, key: str, url: str) -> None:
        self._uploads = uploads
        self._where: dict[str, Any] = {"Bucket": bucket, "Key": key}
        self._url = url
        self._buffer = bytearray()
        self._filled = 0
        self._read: Future[None] | None = None
        self._upload_id: Future[str] | None = None
        self._declared = False
        self._parts: list[Future[Part]] = []
        self._failed: Exception | None = None
        self._stop = threading.Event()
        self._open = True

    def write(self, chunk: Chunk, /) -> None:
        """Take the next bytes; waits while as many parts are under way as memory is meant for."""
        self._check_open()
        rest = memoryview(chunk).cast("B")
        while rest:
            if self._filled == len(self._buffer):
                self._next_buffer()
            count = min(len(rest), len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + count] = rest[:count]
            self._filled += count
            rest = rest[count:]

    def take(self) -> bytearray:
        """See :class:`.protocols.LendingSink`; the memory is a part's, sent when more is to come."""
        self._check_open()
        self._next_buffer()
        return self._buffer

    def send(self, length: int, read: Future[None], /) -> None:
        """See :class:`.protocols.LendingSink`."""
        self._check_open()
        self._filled, self._read = length, read

    def commit(self) -> None:
        """Make the object visible; returns when the server has it whole."""
        self._check_open()
        self._open = False
        with translated(self._url, doing="write to"):
            if self._upload_id is None:
                self._put_whole()
            else:
                self._send_part()
                self._complete(self._upload_id.result(), [part.result() for part in self._parts])

    def abort(self) -> None:
        """Forget the object.

        Parts that are under way should arrive first, since an abort might not catch them; a server that does not
        answer is not waited for.
        """
        self._open = False
        self._stop.set()
        self._buffer, self._filled = bytearray(), 0
        started, self._upload_id = self._upload_id, None
        if started is None:
            return
        for part in self._parts:
            part.cancel()
        begun: list[Future[Any]] = [started, *self._parts]
        wait(begun, ABORT_SECONDS)
        if not started.done() or started.exception() is not None:
            return
        with translated(self._url, doing="abort the upload to"):
            try:
                self._uploads.call("abort_multipart_upload", retry=ABORTING, UploadId=started.result(), **self._where)
            except OSError as error:
                if error_code(error) not in ("NoSuchUpload", "NoSuchKey", "404"):
                    raise

    def _check_open(self) -> None:
        if self._failed is not None:
            with translated(self._url, doing="write to"):
                raise self._failed
        if not self._open:
            raise ValueError("the object was committed or aborted already")

    def _next_buffer(self) -> None:
        """Send the buffer if it is full, and go on with an empty one."""
        if self._filled:
            self._check_open()
            self._send_part()
        number = len(self._parts) + 1
        if number > MAX_PARTS:
            raise UsageError(
                "the object is too large: more than 10,000 parts",
                url=self._url,
                hint="write smaller shards, or larger parts (-o part_size=64M)",
            )
        self._buffer, self._filled = self._uploads.buffer(part_size(number, self._uploads.part)), 0

    def _send_part(self) -> None:
        if self._upload_id is None:
            # In the pool's queue it is before the parts that wait for it: they cannot take all threads.
            self._upload_id = self._uploads.pool.submit(self._begin)
        buffer, data, read = self._filled_part()
        self._uploads.budget.take(len(buffer))
        number = len(self._parts) + 1
        part = self._uploads.pool.submit(self._upload_part, self._upload_id, number, buffer, data, read)
        # Also when the part is cancelled before it began.
        part.add_done_callback(lambda _: self._uploads.budget.give(len(buffer)))
        self._parts.append(part)

    def _filled_part(self) -> tuple[bytearray, memoryview, Future[None] | None]:
        """The current buffer, its bytes, and when others have read them; there is no current one any more."""
        buffer, filled, read = self._buffer, self._filled, self._read
        self._buffer, self._filled, self._read = bytearray(), 0, None
        return buffer, memoryview(buffer)[:filled], read

    def _begin(self) -> str:
        algorithm = {"ChecksumAlgorithm": "CRC32"} if self._uploads.takes_crc and self._uploads.echoes else {}
        begun = time.monotonic()
        try:
            answer = self._uploads.call("create_multipart_upload", stop=self._stop, **algorithm, **self._where)
        except OSError as error:
            if not algorithm or not _refuses_checksum(error):
                raise
            self._uploads.takes_crc = False
            algorithm = {}
            answer = self._uploads.call("create_multipart_upload", stop=self._stop, **self._where)
        self._declared = bool(algorithm)
        upload_id = str(answer["UploadId"])
        if answer.get("ResponseMetadata", {}).get("RetryAttempts"):
            with suppress(Exception):  # the upload itself goes well
                self._end_lost(upload_id, time.monotonic() - begun)
        return upload_id

    def _end_lost(self, upload_id: str, seconds: float) -> None:
        """Abort the uploads that were begun for us within these *seconds*, but whose answer was lost."""
        where = {"Bucket": self._where["Bucket"], "Prefix": self._where["Key"]}
        rows = self._uploads.call("list_multipart_uploads", stop=self._stop, **where).get("Uploads", [])
        ours = {row["UploadId"]: row["Initiated"] for row in rows}[upload_id]
        for row in rows:
            age = (ours - row["Initiated"]).total_seconds()  # the server's clock on both sides
            if row["Key"] == self._where["Key"] and row["UploadId"] != upload_id and -1 <= age <= seconds + 1:
                self._uploads.call("abort_multipart_upload", stop=self._stop, UploadId=row["UploadId"], **self._where)

    def _upload_part(
        self, upload_id: Future[str], number: int, buffer: bytearray, data: memoryview, read: Future[None] | None
    ) -> Part:
        if self._failed is not None:
            raise self._failed
        try:
            where = {"UploadId": upload_id.result(), "PartNumber": number, **self._where}
            answer, crc = self._uploads.send("upload_part", data, declared=self._declared, stop=self._stop, **where)
        except Exception as error:
            # After a failure the connection may still hold the buffer, so it is not used again.
            self._failed = error
            self._stop.set()
            raise
        self._uploads.recycle(buffer, read)
        return Part(number, answer["ETag"], crc if self._declared else None)

    def _put_whole(self) -> None:
        buffer, data, read = self._filled_part()
        self._uploads.send("put_object", data, stop=self._stop, **self._where)
        self._uploads.recycle(buffer, read)

    def _complete(self, upload_id: str, parts: list[Part]) -> None:
        rows = {"Parts": [part.named() for part in parts]}
        try:
            self._uploads.call("complete_multipart_upload", UploadId=upload_id, MultipartUpload=rows, **self._where)
        except OSError as error:
            # A request whose answer was lost is sent again; then the upload is gone, the object there.
            if error_code(error) != "NoSuchUpload" or not self._is_complete(parts):
                raise

    def _is_complete(self, parts: list[Part]) -> bool:
        etags = [part.etag.strip('"') for part in parts]
        try:
            whole = _md5(b"".join(bytes.fromhex(etag) for etag in etags)).hex() + f"-{len(parts)}"
        except ValueError:
            return False
        found = self._uploads.call("head_object", **self._where)
        return bool(found["ETag"].strip('"') == whole)
