"""Behind a proxy, and among servers with certificates of the house: every client, by the same settings."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from atdata_cli.atproto.values import blob_cid
from tests.cli.test_write import tree
from tests.cli.test_write_s3 import objects
from tests.servers.network import Authority, ForwardProxy, forward_proxy, tls_in_front
from tests.servers.seaweed import S3Server

HOST = "s3.house.test"  # in no DNS: only the proxy knows it


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure_s3(s3_server: S3Server, authority: Authority) -> Iterator[str]:
    """The S3 server behind TLS."""
    with tls_in_front(s3_server.endpoint, authority.context("127.0.0.1", HOST)) as url:
        yield url


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    with forward_proxy() as running:
        yield running


@pytest.fixture
def env(s3_env: dict[str, str], secure_s3: str) -> dict[str, str]:
    return {**s3_env, "AWS_ENDPOINT_URL": secure_s3}


def named(env: dict[str, str]) -> dict[str, str]:
    """The same server by a name that only the proxy can resolve."""
    return {**env, "AWS_ENDPOINT_URL": env["AWS_ENDPOINT_URL"].replace("127.0.0.1", HOST)}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server with *tmp_path*/web."""
    (tmp_path / "web").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "web"))  # type: ignore[arg-type]

        def log_message(self, *_args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class TestS3:
    @pytest.mark.parametrize("variable", ["--ca-bundle", "AWS_CA_BUNDLE", "SSL_CERT_FILE", "ATDATA_CA_BUNDLE"])
    def test_an_authority_of_the_house(self, cli, rows_file, env, authority, store, s3_bucket, variable):
        target = f"s3://{s3_bucket}/p"
        if variable == "--ca-bundle":
            ran = cli("write", rows_file, target, variable, authority.file, env=env)
        else:
            ran = cli("write", rows_file, target, env={**env, variable: str(authority.file)})
        assert ran.code == 0, ran.err
        assert "manifest.json" in objects(store, "p")

    def test_the_option_wins(self, cli, rows_file, env, authority, s3_bucket, tmp_path):
        other = Authority(tmp_path / "other", "Somebody Else").file
        wrong = dict.fromkeys(("AWS_CA_BUNDLE", "SSL_CERT_FILE"), str(other))
        ran = cli("write", rows_file, f"s3://{s3_bucket}/p", "--ca-bundle", authority.file, env={**env, **wrong})
        assert ran.code == 0, ran.err

    @pytest.mark.parametrize("trusted", ["nothing", "another"])
    def test_a_server_that_nobody_vouches_for(self, cli, rows_file, env, s3_server, s3_bucket, tmp_path, trusted):
        extra = {"SSL_CERT_FILE": str(Authority(tmp_path / "other").file)} if trusted == "another" else {}
        ran = cli("write", rows_file, f"s3://{s3_bucket}/p", env={**env, **extra})
        ran.failed(1, "certificate is not trusted", "--ca-bundle")
        assert len(ran.err.splitlines()) == 1  # nothing is tried again
        assert s3_server.key not in ran.err
        assert s3_server.secret not in ran.err

    def test_a_bundle_that_is_none(self, cli, rows_file, env, s3_bucket):
        ran = cli("write", rows_file, f"s3://{s3_bucket}/p", "--ca-bundle", rows_file, env=env)
        ran.failed(4, "rows.jsonl", "no certificates", "--ca-bundle")
        ran = cli("write", rows_file, f"s3://{s3_bucket}/p", env={**env, "AWS_CA_BUNDLE": "/nowhere"})
        ran.failed(4, "/nowhere", "AWS_CA_BUNDLE")

    def test_https_through_a_proxy(self, cli, rows_file, env, authority, proxy, store, s3_bucket, tmp_path):
        env = {**named(env), "AWS_CA_BUNDLE": str(authority.file), "HTTPS_PROXY": proxy.url}
        assert cli("write", rows_file, "here", env=env).code == 0
        ran = cli("write", rows_file, f"s3://{s3_bucket}/p", "-v", env=env)
        assert ran.code == 0, ran.err
        assert f"{HOST} is reached through the proxy {proxy.url}" in ran.err
        assert objects(store, "p") == tree(tmp_path / "here")
        assert set(proxy.asked) == {f"CONNECT {named(env)['AWS_ENDPOINT_URL'].removeprefix('https://')}"}
        ran = cli("inspect", f"s3://{s3_bucket}/p", "--verify", env=env)  # in processes of their own
        assert ran.code == 0, ran.err

    def test_http_through_a_proxy(self, cli, rows_file, s3_env, proxy, store, s3_bucket):
        ran = cli("write", rows_file, f"s3://{s3_bucket}/p", env={**named(s3_env), "HTTP_PROXY": proxy.url})
        assert ran.code == 0, ran.err
        assert "manifest.json" in objects(store, "p")
        assert any(asked.startswith(f"PUT http://{HOST}:") for asked in proxy.asked)

    @pytest.mark.parametrize("over", ["http", "https"])
    def test_a_proxy_that_asks_for_a_password(self, cli, rows_file, env, s3_env, authority, s3_bucket, over):
        reached = {**named(env), "AWS_CA_BUNDLE": str(authority.file)} if over == "https" else named(s3_env)
        variable = f"{over.upper()}_PROXY"
        target = f"s3://{s3_bucket}/p"
        with forward_proxy(login="user:pass%word") as proxy:
            bare = proxy.url.removeprefix("http://")
            for given in ("", "user:wrong@"):
                asked = len(proxy.asked)
                ran = cli("write", rows_file, target, "-v", env={**reached, variable: f"http://{given}{bare}"})
                ran.failed(4, "the proxy wants a user and a password", "HTTPS_PROXY=")
                assert len(proxy.asked) == asked + 1  # nothing is tried again
                assert "wrong" not in ran.err
            ran = cli("write", rows_file, target, "-v", env={**reached, variable: f"http://user:pass%25word@{bare}"})
            assert ran.code == 0, ran.err
            assert "through the proxy http://***@" in ran.err
            assert "pass%" not in ran.err

    def test_a_proxy_that_does_not_let_it_through(self, cli, rows_file, env, proxy, s3_bucket):
        env = {**named(env), "HTTPS_PROXY": proxy.url}
        proxy.refuse = 403
        cli("write", rows_file, f"s3://{s3_bucket}/p", env=env).failed(4, "the proxy does not allow it")
        assert len(proxy.asked) == 1
        proxy.refuse = 503
        ran = cli("write", rows_file, f"s3://{s3_bucket}/p", "--retries", "1", env=env)
        ran.failed(5, "the proxy cannot reach the server", "try again")
        assert len(proxy.asked) == 3

    def test_no_proxy_there(self, cli, rows_file, env, s3_bucket):
        env = {**named(env), "HTTPS_PROXY": "http://127.0.0.1:1"}
        ran = cli("write", rows_file, f"s3://{s3_bucket}/p", "--retries", "0", env=env)
        ran.failed(5, "the proxy cannot be reached", "HTTPS_PROXY", "try again")
        ran = cli("write", rows_file, f"s3://{s3_bucket}/p", env={**env, "HTTPS_PROXY": "socks5://127.0.0.1:1"})
        ran.failed(2, "only HTTP proxies")

    def test_no_proxy(self, cli, rows_file, env, authority, proxy, s3_bucket):
        env = {**env, "AWS_CA_BUNDLE": str(authority.file), "HTTPS_PROXY": proxy.url}
        for number, direct in enumerate(("127.0.0.1", "localhost,127.0.0.0/8", "*", ".example.com 127.0.0.1")):
            ran = cli("write", rows_file, f"s3://{s3_bucket}/{number}", env={**env, "NO_PROXY": direct})
            assert ran.code == 0, ran.err
            assert proxy.asked == []
        assert cli("write", rows_file, f"s3://{s3_bucket}/x", env={**env, "NO_PROXY": "10.0.0.0/8"}).code == 0
        assert proxy.asked


class TestWeb:
    @pytest.fixture
    def secure_web(self, cli, web, rows_file, authority) -> Iterator[str]:
        assert cli("write", rows_file, "web/ds", "--max-count", "1000").code == 0
        with tls_in_front(web, authority.context(HOST, "127.0.0.1")) as url:
            yield url

    def test_all_together(self, cli, secure_web, authority, proxy, tmp_path):
        url = secure_web.replace("127.0.0.1", HOST) + "/ds/manifest.json"
        env = {"SSL_CERT_FILE": str(authority.file), "HTTPS_PROXY": proxy.url}
        ran = cli("copy", url, "out", "-v", env=env)
        assert ran.code == 0, ran.err
        assert f"{HOST} is reached through the proxy {proxy.url}" in ran.err
        assert tree(tmp_path / "out") == tree(tmp_path / "web" / "ds")
        assert {asked.split()[0] for asked in proxy.asked} == {"CONNECT"}
        assert cli("inspect", url, "--verify", "-j", "2", env=env).code == 0
        assert cli("resolve", url, "--check", env=env).code == 0

    def test_no_proxy(self, cli, secure_web, authority, proxy):
        env = {"HTTPS_PROXY": proxy.url, "NO_PROXY": "127.0.0.0/8"}
        url = f"{secure_web}/ds/manifest.json"
        for command in (["inspect", url], ["resolve", url, "--check"]):
            ran = cli(*command, "--ca-bundle", authority.file, env=env)
            assert ran.code == 0, ran.err
        assert proxy.asked == []

    def test_a_server_that_nobody_vouches_for(self, cli, secure_web):
        url = f"{secure_web}/ds/manifest.json"
        cli("inspect", url).failed(1, "--ca-bundle", url)

    def test_a_proxy_that_asks_for_a_password(self, cli, secure_web, authority):
        url = secure_web.replace("127.0.0.1", HOST) + "/ds/manifest.json"
        with forward_proxy(login="user:secret") as proxy:
            env = {"SSL_CERT_FILE": str(authority.file), "HTTPS_PROXY": proxy.url}
            cli("inspect", url, env=env).failed(4, "the proxy wants a user and a password")
            assert len(proxy.asked) == 1
            env["HTTPS_PROXY"] = proxy.url.replace("://", "://user:secret@")
            ran = cli("inspect", url, "-v", env=env)
            assert ran.code == 0, ran.err
            assert "secret" not in ran.err


class TestPDS:
    def test_through_a_proxy(self, cli, rows_file, authority, proxy, pds_server, pds_account):
        assert cli("write", rows_file, "here").code == 0
        with tls_in_front(pds_server.url, authority.context("127.0.0.1")) as url:
            env = {
                **pds_account.env,
                "ATDATA_PDS_URL": url,
                "HTTPS_PROXY": proxy.url,
                "SSL_CERT_FILE": str(authority.file),
            }
            ran = cli("inspect", f"@{pds_account.handle}", "-v", env=env)
            assert ran.code == 0, ran.err
            assert f"127.0.0.1 is reached through the proxy {proxy.url}" in ran.err
            assert f"CONNECT {url.removeprefix('https://')}" in proxy.asked
            proxy.asked.clear()
            ran = cli("inspect", f"@{pds_account.handle}", env={**env, "NO_PROXY": "127.0.0.1"})
            assert ran.code == 0, ran.err
            assert proxy.asked == []
            wrong = {name: value for name, value in env.items() if name != "SSL_CERT_FILE"}
            ran = cli("inspect", f"@{pds_account.handle}", env=wrong)
            ran.failed(1, "--ca-bundle")
            assert pds_account.password not in ran.err


class WebAccount(http.server.BaseHTTPRequestHandler):
    """A server that is the account ``did:web:localhost%3A…``, with one blob."""

    blob = b"any bytes"
    document: ClassVar[dict[str, object]] = {}

    def do_GET(self) -> None:
        if self.path == "/.well-known/did.json":
            body = json.dumps(self.document).encode()
        else:
            body = self.blob if "getBlob" in self.path else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_args: object) -> None:
        pass


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_an_account_that_is_a_server_of_this_machine(cli, authority, scheme):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), WebAccount)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    plain = f"http://127.0.0.1:{server.server_port}"
    with tls_in_front(plain, authority.context("localhost")) as secure:
        port = (secure if scheme == "https" else plain).rpartition(":")[2]
        did, pds = f"did:web:localhost%3A{port}", f"{scheme}://localhost:{port}"
        service = {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": pds}
        WebAccount.document = {"id": did, "service": [service]}
        ref = f"at://{did}/blob/{blob_cid(hashlib.sha256(WebAccount.blob).hexdigest())}"
        ran = cli("resolve", ref, "--ca-bundle", authority.file, "--retries", "0")
        assert ran.code == 0, ran.err
        assert ran.lines[0].startswith(f"{pds}/xrpc/com.atproto.sync.getBlob?did=")
        if scheme == "https":
            cli("resolve", ref, "--retries", "0").failed(1, "certificate is not trusted", "--ca-bundle")
        WebAccount.document = {}
        cli("resolve", ref, "--ca-bundle", authority.file).failed(6, f"the document of {did} is not valid")
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_port_of_another_machine_is_no_account(cli):
    cli("resolve", "@did:web:example.com%3A8444/x").failed(2, "a port is only for servers on this machine")
