"""A proxy between a program and a real HTTP server (S3, PDS, PLC) that fails as networks and servers do.

Bodies pass through as they come, so what fails in the middle of one does so while the rest is not yet sent::

    with FaultyProxy(server.endpoint) as proxy:
        proxy.when(Reset(after=1 << 20), method="PUT", contains="partNumber=2", times=1)
        proxy.when(Status(503, "SlowDown"), method="PUT", every=5)
        run("write", ..., endpoint=proxy.url)
        assert [one.path for one in proxy.requests("PUT")] == [...]

``proxy.py`` beside this one is for tests that look at whole messages, or change them.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

PIECE = 64 << 10
SECONDS = 120  # a hanging peer ends a test, not the test run
STEP = 64 << 10  # what a request counts besides its body, see FaultyProxy.at


@dataclass(frozen=True)
class Fault:
    """What happens to a request. The classes below say what; the server sees the request unless they say otherwise."""


@dataclass(frozen=True)
class Reset(Fault):
    """The connection is reset when *after* bytes of the request's body have come; the server gets what came."""

    after: int = 0


@dataclass(frozen=True)
class ResetAnswer(Fault):
    """The connection is reset when *after* bytes of the answer's body have gone."""

    after: int = 0


@dataclass(frozen=True)
class Truncate(Fault):
    """The answer ends after *after* bytes of its body: an orderly end of the connection, but too early."""

    after: int = 0


@dataclass(frozen=True)
class Lost(Fault):
    """The server does what it is asked; its answer never arrives."""


@dataclass(frozen=True)
class Twice(Fault):
    """The server gets the request two times, one after the other; its second answer is the one that arrives."""


@dataclass(frozen=True)
class Status(Fault):
    """An answer in place of the server's, which never hears of the request.

    Attributes
    ----------
    status : HTTP status.
    code : the S3 error code, which makes an XML body; without one the body is empty.
    headers : such as Retry-After.
    read_body : take the request's body first; else answer at once, and close.
    """

    status: int
    code: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    read_body: bool = True

    @property
    def body(self) -> bytes:
        """As S3 servers have it."""
        if not self.code:
            return b""
        return f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>asked for</Message></Error>".encode()


@dataclass(frozen=True)
class Slow(Fault):
    """Both bodies pass at *rate* bytes a second."""

    rate: float


@dataclass(frozen=True)
class Hold(Fault):
    """The request waits until :attr:`release` is set; :attr:`arrived` is set when it waits.

    Attributes
    ----------
    after : bytes of its body that come before.
    """

    after: int = 0
    arrived: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


@dataclass
class Request:
    """One request, as it went.

    Attributes
    ----------
    method, path : of the request, with its query.
    headers : in lower case.
    received : bytes of its body that came from the client.
    status : of the answer that the client got, or would have got; 0 if there was none.
    sent : bytes of the answer's body that went to the client.
    fault : what was done to it, if anything.
    forwarded : whether the server saw any of it.
    """

    method: str
    path: str
    headers: dict[str, str]
    received: int = 0
    status: int = 0
    sent: int = 0
    fault: Fault | None = None
    forwarded: bool = False


@dataclass
class _Rule:
    fault: Fault
    matches: Callable[[Request], bool]
    skip: int
    times: int | None
    every: int
    seen: int = 0

    def takes(self, request: Request) -> bool:
        if not self.matches(request):
            return False
        self.seen += 1
        number = self.seen - self.skip
        return number > 0 and number % self.every == 0 and (self.times is None or number // self.every <= self.times)


class _CutError(Exception):
    """The connection to the client ends here."""


class FaultyProxy:
    """A proxy for *endpoint*, as a context manager.

    Attributes
    ----------
    url : where it listens.
    log : every request so far, in the order in which they came.
    passed : what came so far, as :meth:`at` counts.
    """

    def __init__(self, endpoint: str) -> None:
        self.host = urlsplit(endpoint).netloc
        self.log: list[Request] = []
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self.passed = 0
        self._at: tuple[int, Callable[[], object]] | None = None
        self._down = False
        self._open: set[socket.socket] = set()
        proxy = self

        class Handler(_Handler):
            def setup(self) -> None:
                self.proxy = proxy
                super().setup()

        class Server(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that is gone is what is tested."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for rule in self._rules:
            if isinstance(rule.fault, Hold):
                rule.fault.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._cut_all()

    # -- what a test says

    def when(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        contains: str = "",
        where: Callable[[Request], bool] | None = None,
        skip: int = 0,
        times: int | None = None,
        every: int = 1,
    ) -> None:
        """Do *fault* to requests that match; of several rules the first one that takes a request.

        Parameters
        ----------
        method, contains, where : of these requests: of the method, with this text in path and query, for which the
            function is true.
        skip : let the first so many pass.
        times : then do it so often; None for always.
        every : to every so many-th only.
        """

        def matches(request: Request) -> bool:
            return (
                (method is None or request.method == method)
                and contains in request.path
                and (where is None or where(request))
            )

        with self._lock:
            self._rules.append(_Rule(fault, matches, skip, times, every))

    def heal(self) -> None:
        """No more faults; those who are held go on."""
        with self._lock:
            rules, self._rules = self._rules, []
        for rule in rules:
            if isinstance(rule.fault, Hold):
                rule.fault.release.set()

    def at(self, count: int, do: Callable[[], object]) -> None:
        """Call *do* once when *count* bytes of requests have come, before the last of them goes on to the server.

        A request counts :data:`STEP` bytes besides its body: half of them when it has come, half when the server has
        done what it asks, but before anybody hears of it.
        """
        with self._lock:
            self.passed, self._at = 0, (count, do)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Nobody is there: connections that are open are reset, new ones too."""
        self._down = True
        self._cut_all()
        try:
            yield
        finally:
            self._down = False

    def down_for(self, seconds: float) -> threading.Thread:
        """An outage that begins now and ends by itself; join the thread to wait for its end."""
        begun = threading.Event()

        def fail() -> None:
            with self.outage():
                begun.set()
                time.sleep(seconds)

        thread = threading.Thread(target=fail)
        thread.start()
        begun.wait()
        return thread

    def requests(self, method: str | None = None, contains: str = "") -> list[Request]:
        """Those of the log with this method and with this text in path and query."""
        with self._lock:
            return [one for one in self.log if (method is None or one.method == method) and contains in one.path]

    # -- what the handlers use

    def begin(self, request: Request) -> None:
        with self._lock:
            self.log.append(request)
            request.fault = next((rule.fault for rule in self._rules if rule.takes(request)), None)

    def count(self, amount: int) -> None:
        """Count what came; raises if this is where it ends."""
        with self._lock:
            self.passed += amount
            if self._at is None or self.passed < self._at[0]:
                return
            (_, do), self._at = self._at, None
        do()
        raise _CutError

    def is_down(self) -> bool:
        return self._down

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def _cut_all(self) -> None:
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    _linger_not(connection)
                    connection.shutdown(socket.SHUT_RDWR)


def _linger_not(connection: socket.socket) -> None:
    """Make the end of a connection a reset (RST)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SECONDS
    proxy: FaultyProxy

    def setup(self) -> None:
        super().setup()
        self.proxy.opened(self.request)

    def finish(self) -> None:
        self.proxy.closed(self.request)
        with suppress(OSError):
            super().finish()

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if self.proxy.is_down():
            self._reset()
            return
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        self.proxy.begin(request)
        try:
            self._exchange(request)
        except (_CutError, OSError, http.client.HTTPException):
            # The server, or whoever is at the other end, is gone: so is this connection.
            self._reset()

    def log_message(self, *_args: object) -> None:
        """Tests read the log of the proxy."""

    def _reset(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            _linger_not(self.connection)
            self.connection.shutdown(socket.SHUT_RD)
        # socketserver would end the connection in order, and so tell the client that all is well.
        with suppress(OSError):
            self.connection.close()
        for stream in (self.rfile, self.wfile):
            with suppress(OSError, ValueError):
                stream.close()

    def _exchange(self, request: Request) -> None:
        self.proxy.count(STEP // 2)
        fault = request.fault
        if isinstance(fault, Status):
            self._answer_as_told(request, fault)
            return
        if isinstance(fault, Reset) and not fault.after:
            raise _CutError
        connection = http.client.HTTPConnection(self.proxy.host, timeout=SECONDS)
        try:
            if isinstance(fault, Twice):
                self._forward_twice(request, connection)
            else:
                self._forward(request, connection)
            answer = connection.getresponse()
            request.status = answer.status
            self.proxy.count(STEP // 2)
            if isinstance(fault, Lost):
                raise _CutError
            self._send_back(request, answer)
        finally:
            connection.close()

    def _answer_as_told(self, request: Request, fault: Status) -> None:
        if fault.read_body:
            for _ in self._body(request):
                pass
        else:
            self.close_connection = True
        request.status = fault.status
        self.send_response_only(fault.status)
        for name, value in fault.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(fault.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(fault.body)
            request.sent = len(fault.body)

    def _body(self, request: Request) -> Iterator[bytes]:
        """The request's body as it comes."""
        if "chunked" in request.headers.get("transfer-encoding", ""):
            pieces: Iterator[bytes] = self._chunks()
        else:
            pieces = self._counted(int(request.headers.get("content-length", 0)))
        for piece in pieces:
            request.received += len(piece)
            self.proxy.count(len(piece))
            yield piece

    def _counted(self, left: int) -> Iterator[bytes]:
        while left:
            piece = self.rfile.read1(min(left, PIECE))
            if not piece:
                raise _CutError
            left -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(1000).split(b";")[0], 16):
            yield from self._counted(size)
            self.rfile.readline(10)
        while self.rfile.readline(65537).strip():
            pass

    def _forward(self, request: Request, connection: http.client.HTTPConnection) -> None:
        fault = request.fault
        connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect"):
                connection.putheader(name, value)
        connection.endheaders()
        request.forwarded = True
        chunked = "chunked" in request.headers.get("transfer-encoding", "")
        held = not isinstance(fault, Hold)
        if not held and not fault.after:  # type: ignore[union-attr]
            _hold(fault)
            held = True
        for piece in self._body(request):
            if isinstance(fault, Reset) and request.received >= fault.after:
                connection.close()
                raise _CutError
            if not held and request.received >= fault.after:  # type: ignore[union-attr]
                _hold(fault)
                held = True
            connection.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            _pace(fault, len(piece))
        if chunked:
            connection.send(b"0\r\n\r\n")

    def _forward_twice(self, request: Request, connection: http.client.HTTPConnection) -> None:
        body = b"".join(self._body(request))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "expect")}
        headers = {name: value for name, value in headers.items() if name.lower() != "transfer-encoding"}
        request.forwarded = True
        for turn in range(2):
            connection.request(request.method, request.path, body, headers)
            if not turn:
                connection.getresponse().read()

    def _send_back(self, request: Request, answer: http.client.HTTPResponse) -> None:
        fault = request.fault
        self.send_response_only(answer.status)
        size = answer.getheader("Content-Length")
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        bare = self.command == "HEAD" or answer.status in (204, 304)
        if size is None and not bare:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if bare:
            return
        limit = fault.after if isinstance(fault, ResetAnswer | Truncate) else None
        while piece := answer.read1(PIECE):
            if limit is not None:
                piece = piece[: limit - request.sent]
            self.wfile.write(piece)
            request.sent += len(piece)
            if limit is not None and request.sent >= limit:
                break
            _pace(fault, len(piece))
        if isinstance(fault, ResetAnswer):
            time.sleep(0.05)  # a reset overtakes what is still on its way
            raise _CutError
        if isinstance(fault, Truncate):
            self.close_connection = True


def _hold(fault: Any) -> None:
    fault.arrived.set()
    fault.release.wait(SECONDS)


def _pace(fault: Fault | None, size: int) -> None:
    if isinstance(fault, Slow):
        time.sleep(size / fault.rate)
