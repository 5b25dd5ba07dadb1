"""The proxy that fails as networks do, between plain clients and a real server."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from tests.servers.faults import FaultyProxy, Hold, Lost, Reset, ResetAnswer, Slow, Status, Truncate

BODY = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def taken() -> list[bytes]:
    """Bodies that arrived at the server, whole."""
    return []


@pytest.fixture
def proxy(taken: list[bytes]) -> Iterator[FaultyProxy]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            size = int(self.headers["Content-Length"])
            body = self.rfile.read(size)
            if len(body) == size:
                taken.append(body)
                self._answer(b"stored")

        def do_GET(self) -> None:
            self._answer(BODY)

        do_HEAD = do_GET

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        with FaultyProxy(f"http://127.0.0.1:{server.server_port}") as proxy:
            yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def client(proxy: FaultyProxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=30)
    yield connection
    connection.close()


def ask(client: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    client.request(method, path, body)
    answer = client.getresponse()
    return answer.status, answer.read()


def test_what_is_not_told_passes(proxy, client, taken):
    assert ask(client, "PUT", "/a?x=1", BODY) == (200, b"stored")
    assert ask(client, "GET", "/a") == (200, BODY)
    assert ask(client, "HEAD", "/a") == (200, b"")
    assert taken == [BODY]
    assert [(one.method, one.path, one.status, one.received, one.sent) for one in proxy.log] == [
        ("PUT", "/a?x=1", 200, len(BODY), 6),
        ("GET", "/a", 200, 0, len(BODY)),
        ("HEAD", "/a", 200, 0, 0),
    ]


@pytest.mark.parametrize("after", [0, 1, 300_000])
def test_a_reset_within_the_request(proxy, client, taken, after):
    proxy.when(Reset(after), method="PUT", times=1)
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        ask(client, "PUT", "/a", BODY)
    assert taken == []
    assert proxy.log[0].forwarded == (after > 0)
    client.close()
    assert ask(client, "PUT", "/a", BODY)[0] == 200


def test_a_reset_and_a_silent_end_within_the_answer(proxy, client):
    proxy.when(ResetAnswer(100_000), times=1)
    proxy.when(Truncate(200_000), times=1)
    with pytest.raises(ConnectionResetError):
        ask(client, "GET", "/a")
    client.close()
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(client, "GET", "/a")
    assert caught.value.partial == BODY[:200_000]
    assert [one.sent for one in proxy.log] == [100_000, 200_000]


def test_a_lost_answer(proxy, client, taken):
    proxy.when(Lost())
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        ask(client, "PUT", "/a", BODY)
    assert taken == [BODY]


def test_answers_in_place_of_the_servers(proxy, client, taken):
    proxy.when(Status(503, "SlowDown", (("Retry-After", "1"),)), method="PUT", skip=1, times=2)
    statuses = [ask(client, "PUT", f"/{number}", b"x")[0] for number in range(4)]
    assert statuses == [200, 503, 503, 200]
    proxy.when(Status(500, read_body=False), contains="whole")
    assert ask(client, "GET", "/whole") == (500, b"")
    assert taken == [b"x", b"x"]
    client.close()
    client.request("GET", "/0")
    assert client.getresponse().read() == BODY
    proxy.when(Status(503, "SlowDown"), every=2)
    client.close()
    client.request("GET", "/1")
    answer = client.getresponse()
    answer.read()
    status, body = ask(client, "GET", "/2")
    assert (answer.status, status) == (200, 503)
    assert b"<Code>SlowDown</Code>" in body


def test_a_request_that_is_held(proxy, client, taken):
    hold = Hold(after=100_000)
    proxy.when(hold, method="PUT")
    thread = threading.Thread(target=ask, args=(client, "PUT", "/a", BODY))
    thread.start()
    assert hold.arrived.wait(30)
    assert taken == []
    hold.release.set()
    thread.join()
    assert taken == [BODY]


def test_slow_connections_are_slow(proxy, client):
    proxy.when(Slow(rate=4 << 20))
    began = time.monotonic()
    assert ask(client, "GET", "/a") == (200, BODY)
    assert time.monotonic() - began >= 0.24  # never faster; how much slower depends on the machine


def test_an_outage_cuts_what_is_open_and_refuses_what_comes(proxy, client):
    hold = Hold()
    proxy.when(hold, contains="held")
    failed: list[BaseException] = []

    def held() -> None:
        try:
            ask(client, "GET", "/held")
        except (OSError, http.client.HTTPException) as error:
            failed.append(error)

    thread = threading.Thread(target=held)
    thread.start()
    assert hold.arrived.wait(30)
    other = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=30)
    with proxy.outage():
        hold.release.set()
        thread.join()
        assert failed
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            ask(other, "GET", "/a")
        other.close()
    assert ask(other, "GET", "/a")[0] == 200
    other.close()
    proxy.down_for(0.05).join()
    assert ask(other, "GET", "/a")[0] == 200
    other.close()
