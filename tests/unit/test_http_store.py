"""Reading from real web servers: with ranges, without, behind a proxy, failing."""

import contextlib
import http.server
import pickle
import socket
import threading

import pytest

from atdata_cli.errors import AtdataError, AuthError, NotFoundError, TemporaryError, UsageError
from atdata_cli.stores.base import AbstractDataStore
from atdata_cli.stores.http import HTTPStore

DATA = bytes(range(256)) * 50_000  # 12.8 MB: several blocks


class Plain(http.server.SimpleHTTPRequestHandler):
    """Python's own server: no ranges."""

    def log_message(self, *args):
        pass

    def copyfile(self, source, outputfile):
        with contextlib.suppress(ConnectionError):  # the client has seen enough
            super().copyfile(source, outputfile)


class Ranges(http.server.BaseHTTPRequestHandler):
    """Ranges, ETags and every failure that a path names."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        self.server.seen.append((self.command, self.path, self.headers.get("Range")))
        path = self.path.partition("?")[0]
        if path.startswith("/status/") or (path == "/no-head.tar" and not body):
            return self.reply(int(path[8:]) if path.startswith("/status/") else 403, b"no", {}, body)
        if path == "/short.tar":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"1234")
            self.close_connection = True
            return None
        data = {"/empty": b"", "/a%20b%23.tar": b"odd"}.get(path, DATA)
        wanted = self.headers.get("Range")
        if not wanted:
            return self.reply(200, data, {"ETag": '"v1"'}, body)
        if not data:
            return self.reply(416, b"", {"Content-Range": "bytes */0"}, body)
        first, _, end = wanted.removeprefix("bytes=").partition("-")
        stop = min(int(end) + 1, len(data)) if end else len(data)
        headers = {"Content-Range": f"bytes {first}-{stop - 1}/{len(data)}", "ETag": '"v1"'}
        return self.reply(206, data[int(first) : stop], headers, body)

    def reply(self, status, data, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            with contextlib.suppress(ConnectionError):  # the client has seen enough
                self.wfile.write(data)

    def log_message(self, *args):
        pass


def serve(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.seen = []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def ranges():
    server, root = serve(Ranges)
    yield server, root
    server.shutdown()
    server.server_close()


@pytest.fixture
def plain(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "big.tar").write_bytes(DATA)
    (tmp_path / "x" / "empty").write_bytes(b"")
    (tmp_path / "x" / "a b#.tar").write_bytes(b"odd")
    server, root = serve(lambda *args: Plain(*args, directory=str(tmp_path)))
    yield server, root
    server.shutdown()
    server.server_close()


def test_ranges(ranges):
    server, root = ranges
    store = HTTPStore(root)
    with store.open("big.tar") as file:
        assert file.seekable()
        assert file.seek(9_000_000) == 9_000_000
        assert file.read(300) == DATA[9_000_000:9_000_300]
        assert all(wanted for method, _, wanted in server.seen)
        assert file.seek(0) == 0
        assert file.read() == DATA
    info = store.stat("big.tar")
    assert (info.size, info.version) == (len(DATA), '"v1"')


def test_without_ranges_it_is_read_from_the_beginning(plain):
    store = HTTPStore(plain[1] + "/x")
    with store.open("big.tar") as file:
        assert not file.seekable()
        assert file.read(5) == DATA[:5]
        parts = [DATA[:5]]
        while part := file.read(1_000_000):
            parts.append(part)
        assert b"".join(parts) == DATA
    with store.open("big.tar") as file, pytest.raises(OSError, match="not seekable"):
        file.seek(100)
    assert store.stat("big.tar").size == len(DATA)


@pytest.mark.parametrize("server", ["plain", "ranges"])
def test_small_and_odd_files(server, request):
    _, root = request.getfixturevalue(server)
    store = HTTPStore(root + ("/x" if server == "plain" else ""))
    assert store.read("empty") == b""
    assert store.stat("empty").size == 0
    assert store.read("a b#.tar") == b"odd"
    assert store.url("a b#.tar").endswith("/a%20b%23.tar")


def test_a_query_stays_with_every_name(ranges):
    server, root = ranges
    store = HTTPStore(root + "/d?token=a%2Fb")
    store.stat("x.tar")
    assert server.seen == [("HEAD", "/d/x.tar?token=a%2Fb", None)]


def test_where_head_is_refused(ranges):
    server, root = ranges
    assert HTTPStore(root).stat("no-head.tar").size == len(DATA)
    assert [method for method, _, _ in server.seen] == ["HEAD", "GET"]


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, NotFoundError), (410, NotFoundError), (401, AuthError), (403, AuthError), (429, TemporaryError),
     (500, TemporaryError), (503, TemporaryError), (418, AtdataError)],
)  # fmt: skip
def test_failures(ranges, status, error, monkeypatch):
    monkeypatch.setenv("ATDATA_RETRIES", "0")
    store = HTTPStore(ranges[1])
    with pytest.raises(error, match=f"HTTP {status}") as caught:
        store.open(f"status/{status}")
    assert caught.value.url == f"{ranges[1]}/status/{status}"
    if error is NotFoundError:
        assert store.stat(f"status/{status}") is None
        assert store.read(f"status/{status}") is None
    else:
        with pytest.raises(error):
            store.stat(f"status/{status}")


def test_no_server(monkeypatch):
    monkeypatch.setenv("ATDATA_RETRIES", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        root = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(TemporaryError):
            HTTPStore(root).open("a")
    with pytest.raises(TemporaryError, match=r"the name no\.invalid cannot be resolved") as caught:
        HTTPStore("https://no.invalid").open("a")
    assert "check the URL" in caught.value.hint


def test_a_connection_that_breaks_off(ranges):
    with HTTPStore(ranges[1]).open("short.tar") as file, pytest.raises(TemporaryError, match="ended before"):
        file.read(100)


def test_it_is_read_only():
    store = HTTPStore("https://host/x")
    assert isinstance(store, AbstractDataStore)
    assert pickle.loads(pickle.dumps(store)).root == store.root
    acts = (
        lambda: store.create("a"),
        lambda: store.put_if_absent("a", b""),
        lambda: store.replace_if_unchanged("a", b"", "v"),
        lambda: store.delete("a"),
        lambda: store.write_shards([], prefix="x"),
    )
    for act in acts:
        with pytest.raises(UsageError, match="http is read only"):
            act()
    with pytest.raises(UsageError, match="does not list"):
        store.list("")
    with pytest.raises(UsageError):
        store.url("../a")


def test_proxies_are_honoured(ranges, monkeypatch):
    server, root = ranges
    monkeypatch.setenv("http_proxy", root)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert HTTPStore("http://nowhere.invalid").stat("x.tar").size == len(DATA)
    assert server.seen == [("HEAD", "http://nowhere.invalid/x.tar", None)]
