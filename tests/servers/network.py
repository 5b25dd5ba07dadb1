"""What stands between a program and its servers in an office: TLS, a certificate authority of its own, a proxy.

All of it is real and on loopback: the proxy takes ``CONNECT`` for https: and whole URLs for http:, as RFC 9110 has it.
"""

from __future__ import annotations

import base64
import datetime
import http.client
import ipaddress
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PIECE = 64 << 10
SECONDS = 60  # a hanging peer ends a test, not the test run


class Authority:
    """A certificate authority.

    Attributes
    ----------
    file : its certificate, which clients have to trust.
    """

    def __init__(self, folder: Path, name: str = "Test Authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            **dict.fromkeys(
                ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
                False,
            ),
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            self._begin(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / "ca.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def context(self, *hosts: str) -> ssl.SSLContext:
        """A server's side of TLS, with a certificate for names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._begin(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])]), key)
            .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / f"server-{certificate.serial_number:x}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _begin(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@contextmanager
def tls_in_front(endpoint: str, context: ssl.SSLContext) -> Iterator[str]:
    """The https: URL of what passes bytes on to the http: server *endpoint*."""
    target = urlsplit(endpoint)

    def serve(client: socket.socket) -> None:
        with (
            suppress(OSError),
            context.wrap_socket(client, server_side=True) as inside,
            socket.create_connection((target.hostname, target.port), timeout=SECONDS) as server,
        ):
            _pump(inside, server)

    with _listening(serve) as port:
        yield f"https://127.0.0.1:{port}"


@contextmanager
def _listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port on which *serve* gets each connection in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.settimeout(SECONDS)
            threading.Thread(target=_serve_and_close, args=(serve, client), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _serve_and_close(serve: Callable[[socket.socket], None], client: socket.socket) -> None:
    with client:
        serve(client)


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes both ways until one side ends."""
    while True:
        ready = [side for side in (one, other) if isinstance(side, ssl.SSLSocket) and side.pending()]
        ready = ready or select.select([one, other], [], [], SECONDS)[0]
        if not ready:
            return
        for side in ready:
            data = side.recv(PIECE)
            if not data:
                return
            (other if side is one else one).sendall(data)


@dataclass
class ForwardProxy:
    """What a test knows of a running forward proxy.

    Attributes
    ----------
    url : where it listens.
    login : ``USER:PASSWORD`` that it asks for, if any.
    refuse : an HTTP status with which it answers everything.
    asked : what it was asked for: ``CONNECT host:port``, ``GET http://…``.
    """

    url: str = ""
    login: str | None = None
    refuse: int = 0
    asked: list[str] = field(default_factory=list)

    def refusal(self, authorization: str | None) -> int:
        """The status for somebody whom it does not let through; 0 for others."""
        if self.login is not None:
            expected = "Basic " + base64.b64encode(self.login.encode()).decode()
            if authorization != expected:
                return 407
        return self.refuse


class _ForwardHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SECONDS
    proxy: ForwardProxy

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self.proxy.asked.append(f"{self.command} {self.path}")
        status = self.proxy.refusal(self.headers.get("Proxy-Authorization"))
        if status:
            self._refuse(status)
        elif self.command == "CONNECT":
            self._tunnel()
        else:
            self._forward()

    def _refuse(self, status: int) -> None:
        self.close_connection = True
        self.send_response_only(status)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def _tunnel(self) -> None:
        self.close_connection = True
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((_address(host), int(port)), timeout=SECONDS) as server:
            self.send_response_only(200)
            self.end_headers()
            with suppress(OSError):
                _pump(self.connection, server)

    def _forward(self) -> None:
        parts = urlsplit(self.path)
        if parts.scheme != "http" or parts.hostname is None:
            self._refuse(400)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection(_address(parts.hostname), parts.port or 80, timeout=SECONDS)
        dropped = {"proxy-authorization", "proxy-connection", "connection"}
        headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(self.command, path or "/", body, headers)
        answer = connection.getresponse()
        data = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        size = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        if size is not None and answer.status != 204:
            self.send_header("Content-Length", size)
        self.end_headers()
        self.wfile.write(data)
        connection.close()

    def log_message(self, *_args: object) -> None:
        """``asked`` is the log."""


@contextmanager
def forward_proxy(login: str | None = None) -> Iterator[ForwardProxy]:
    """A proxy that reaches everything on this machine, and *.test* names as if they were it."""
    proxy = ForwardProxy(login=login)

    class Handler(_ForwardHandler):
        pass

    Handler.proxy = proxy

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that is gone is none of ours."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _address(host: str) -> str:
    return "127.0.0.1" if host.endswith(".test") else host
