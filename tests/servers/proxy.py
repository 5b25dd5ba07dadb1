"""An HTTP proxy in front of a real server, which damages, refuses or loses what a test tells it to."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Exchange:
    """One request on its way to the server, and then its answer on the way back.

    Attributes
    ----------
    method, path : of the request.
    headers, body : of the request; change them to damage it.
    status, answer_headers, answer : set ``status`` to answer in place of the server.
    lost : the answer does not reach the client.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int = 0
    answer_headers: dict[str, str] = field(default_factory=dict)
    answer: bytes = b""
    lost: bool = False


def _unchanged(_exchange: Exchange) -> None:
    return


@dataclass
class Faults:
    """What a test does to requests, and to answers."""

    request: Callable[[Exchange], None] = _unchanged
    answer: Callable[[Exchange], None] = _unchanged
    seen: list[Exchange] = field(default_factory=list)


@contextmanager
def faulty(endpoint: str, faults: Faults) -> Iterator[str]:
    """The URL of a proxy for *endpoint*; stops it at the end."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            self._exchange()

        def _exchange(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            exchange = Exchange(self.command, self.path, dict(self.headers.items()), body)
            faults.seen.append(exchange)
            faults.request(exchange)
            if not exchange.status:
                _forward(endpoint, exchange)
            faults.answer(exchange)
            if exchange.lost:
                self.close_connection = True
                return
            self.send_response_only(exchange.status)
            for name, value in exchange.answer_headers.items():
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(exchange.answer)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(exchange.answer)

        def log_message(self, *_args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _forward(endpoint: str, exchange: Exchange) -> None:
    """Ask the server; the Host header stays as it was signed."""
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc)
    connection.request(exchange.method, exchange.path, exchange.body, exchange.headers)
    answer = connection.getresponse()
    exchange.status, exchange.answer = answer.status, answer.read()
    dropped = {"transfer-encoding", "connection"} | ({"content-length"} if exchange.method != "HEAD" else set())
    exchange.answer_headers = {n: v for n, v in answer.getheaders() if n.lower() not in dropped}
    connection.close()
