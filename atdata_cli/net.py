"""What every HTTP client of this program is told: proxies, certificates, timeouts, retries, and who may be asked.

Each library has rules of its own for these (aiohttp looks at no proxy unless told, botocore trusts nothing that
``SSL_CERT_FILE`` names, none knows networks in ``NO_PROXY``), so they are decided here and handed to all. The command
line's options for them are environment variables: what a run starts (worker processes) does as the run does.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import threading
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from atdata_cli import config
from atdata_cli.errors import AtdataError, AuthError, TemporaryError, UsageError
from atdata_cli.retry import Retry

__all__ = [
    "CA_HINT",
    "PROXY_HINT",
    "configure",
    "http_options",
    "httpx_options",
    "is_loopback",
    "is_secure",
    "no_connection",
    "proxy_error",
    "proxy_for",
    "retry",
    "s3_ca_file",
    "server_root",
    "settings",
    "ssl_context",
    "timeouts",
    "user_agent",
]

CA_HINT = "check the server's certificate, or name the file of its authority: --ca-bundle FILE, or SSL_CERT_FILE"
PROXY_HINT = "HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT, likewise HTTP_PROXY; NO_PROXY for what needs none"

_CONNECT_SECONDS = 30.0
_SILENCE_SECONDS = 180.0  # without a byte either way: a server moves the blobs of a large record before it answers
_CONNECTIONS = 32
_VARIABLES = (
    *("ATDATA_RETRIES", "ATDATA_TIMEOUT", "ATDATA_CA_BUNDLE", "AWS_CA_BUNDLE", "SSL_CERT_FILE"),
    *("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"),
)


# -- what is set


def configure(*, retries: int | None = None, timeout: float | None = None, ca_bundle: str | None = None) -> None:
    """Set what the command line says, from now on, for this process and those that it starts; None changes nothing."""
    given = {"ATDATA_RETRIES": retries, "ATDATA_TIMEOUT": timeout, "ATDATA_CA_BUNDLE": ca_bundle}
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})


def settings() -> tuple[tuple[str, str | None], ...]:
    """All that is set; connections that were made under equal settings can be shared."""
    lower = ("https_proxy", "http_proxy", "all_proxy", "no_proxy")
    return (*((name, config.get(name)) for name in _VARIABLES), *((name, os.environ.get(name)) for name in lower))


def retry() -> Retry:
    """How temporary failures are met.

    Raises
    ------
    UsageError : ``ATDATA_RETRIES`` is no number.
    """
    text = config.get("ATDATA_RETRIES")
    if text is None:
        return Retry()
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise UsageError(f"ATDATA_RETRIES cannot be '{text}'", hint="a number, such as 6; 0 for no retries")
    return Retry(retries=int(text))


def timeouts(connect: float = _CONNECT_SECONDS, silence: float = _SILENCE_SECONDS) -> tuple[float, float]:
    """Seconds for a connection to come about, and for a server to be silent.

    Parameters
    ----------
    connect, silence : what they are unless a timeout is set.

    Raises
    ------
    UsageError : ``ATDATA_TIMEOUT`` is no number of seconds.
    """
    text = config.get("ATDATA_TIMEOUT")
    if text is None:
        return connect, silence
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or not float(text):
        raise UsageError(f"ATDATA_TIMEOUT cannot be '{text}'", hint="seconds, such as 60")
    return min(connect, float(text)), float(text)


# -- certificates


def ssl_context() -> ssl.SSLContext:
    """For connections to any server but those of S3, which botocore makes.

    Raises
    ------
    AuthError : the file of authorities cannot be read.
    """
    return _context(*_ca_file("ATDATA_CA_BUNDLE", "SSL_CERT_FILE"))


def s3_ca_file() -> str | None:
    """The file of authorities for S3 servers; None leaves it to botocore (``AWS_CA_BUNDLE``, a profile, its own).

    Raises
    ------
    AuthError : the file cannot be read.
    """
    named, file = _ca_file("ATDATA_CA_BUNDLE", "AWS_CA_BUNDLE", "SSL_CERT_FILE")
    if file is not None:
        _context(named, file)
    return None if named == "AWS_CA_BUNDLE" else file


def _ca_file(*variables: str) -> tuple[str, str | None]:
    """The first variable that is set, and its value."""
    return next(((name, value) for name in variables if (value := config.get(name))), ("", None))


@lru_cache(maxsize=4)
def _context(named: str, file: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        option = "--ca-bundle" if named == "ATDATA_CA_BUNDLE" else named
        reason = "it holds no certificates" if isinstance(error, ssl.SSLError) else getattr(error, "strerror", error)
        raise AuthError(
            f"the certificates to trust cannot be read: {reason}", url=file, hint=f"{option} names a file of PEM form"
        ) from error
    if file is None and not context.get_ca_certs() and not os.environ.get("SSL_CERT_DIR"):
        import certifi  # a system without certificates of its own, such as a small container

        context.load_verify_locations(certifi.where())
    return context


# -- proxies


def proxy_for(url: str) -> str | None:
    """The URL of the proxy by which *url* is reached; None for none.

    ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, in either case, as curl takes them. Its user and
    password, if it has them, are secrets.

    Raises
    ------
    UsageError : it is no HTTP proxy.
    """
    from urllib.request import getproxies

    proxies = getproxies()
    parts = urlsplit(url)
    proxy = proxies.get(parts.scheme.lower()) or proxies.get("all")
    if not proxy or _is_direct(parts.hostname or "", parts.port, proxies.get("no", "")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not re.match(r"(?i)https?://[^/]", proxy):
        hint = "HTTPS_PROXY=http://HOST:PORT; what needs no proxy goes into NO_PROXY"
        raise UsageError("only HTTP proxies can be used", url=proxy, hint=hint)
    _tell_once(parts.hostname or "", proxy)
    return proxy


def _is_direct(host: str, port: int | None, rules: str) -> bool:
    """Whether ``NO_PROXY`` names a host: itself, a domain above it, a network that its address is in, or ``*``."""
    for rule in rules.lower().replace(",", " ").split():
        name, _, of_port = rule.rpartition(":") if re.search(r"[^:]:[0-9]+$", rule) else (rule, "", "")
        if of_port and of_port != str(port):
            continue
        if name == "*" or _matches(host.lower(), name.strip("[]")):
            return True
    return False


def _matches(host: str, rule: str) -> bool:
    domain = rule.removeprefix("*").lstrip(".")
    if domain and (host == domain or host.endswith(f".{domain}")):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        return False


def proxy_error(status: int, url: str, doing: str) -> AtdataError:
    """What it means that a proxy answers with an HTTP status when it is asked for a connection."""
    if status == 407:
        return AuthError(f"cannot {doing} it: the proxy wants a user and a password", url=url, hint=PROXY_HINT)
    if status in {408, 425, 429, 500, 502, 503, 504}:
        what = f"cannot {doing} it: the proxy cannot reach the server (HTTP {status})"
        return TemporaryError(what, url=url, hint="check the URL and the network, and try again")
    return AuthError(f"cannot {doing} it: the proxy does not allow it (HTTP {status})", url=url, hint=PROXY_HINT)


@lru_cache(maxsize=256)
def _tell_once(host: str, proxy: str) -> None:
    import logging

    logging.getLogger(__name__).info("%s is reached through the proxy %s", host, proxy)


# -- clients


def httpx_options(**more: Any) -> dict[str, Any]:
    """Arguments for ``httpx.Client``, and for what passes them on to it.

    Raises
    ------
    AtdataError : what is set makes no sense.
    """
    import httpx

    connect, silence = timeouts()
    return {
        "timeout": httpx.Timeout(silence, connect=connect, pool=None),
        "transport": _routes()(ssl_context()),
        "trust_env": False,
        **more,
    }


@lru_cache(maxsize=1)
def _routes() -> Any:
    """The class of a transport that chooses the proxy for each request, redirects among them."""
    import httpx

    limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)

    class Routes(httpx.BaseTransport):
        def __init__(self, context: ssl.SSLContext) -> None:
            self._context = context
            self._lock = threading.Lock()
            self._by_proxy: dict[str | None, httpx.HTTPTransport] = {}

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            proxy = proxy_for(str(request.url))
            with self._lock:
                if proxy not in self._by_proxy:
                    self._by_proxy[proxy] = self._connected_by(proxy)
            return self._by_proxy[proxy].handle_request(request)

        def _connected_by(self, proxy: str | None) -> httpx.HTTPTransport:
            over_tls = proxy is not None and proxy[:6].lower() == "https:"
            through = None if proxy is None else httpx.Proxy(proxy, ssl_context=self._context if over_tls else None)
            return httpx.HTTPTransport(verify=self._context, limits=limits, proxy=through)

        def close(self) -> None:
            for transport in self._by_proxy.values():
                transport.close()

    return Routes


def http_options(url: str) -> dict[str, Any]:
    """Arguments of aiohttp's requests to the server of *url*.

    Raises
    ------
    AtdataError : what is set makes no sense.
    """
    return {"proxy": proxy_for(url), "ssl": ssl_context()}


def no_connection(error: OSError, host: str, port: int | None) -> str:
    """Why there is no connection to a server, in words."""
    if error.errno is None or error.errno <= 0:  # the name is not known: numbers of getaddrinfo
        return f"there is no connection to {host}: {error.strerror or error}"
    return f"there is no connection to {host}:{port}: {os.strerror(error.errno)}"


def user_agent() -> str:
    """What servers are told of who asks."""
    from importlib.metadata import version

    return f"atdata-cli/{version('atdata-cli')}"


def server_root(url: str) -> str | None:
    """``SCHEME://HOST[:PORT]`` of an HTTP URL, in lower case; None if it is none, or holds a user or password."""
    match = re.fullmatch(r"(?i)(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?(?:[/?#].*)?", url, re.DOTALL)
    return None if match is None else f"{match[1]}://{match[2]}{match[3] or ''}".lower()


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine itself."""
    root = server_root(url)
    if root is None:
        return False
    host = re.sub(r":[0-9]+$", "", root.partition("://")[2]).strip("[]")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_secure(url: str) -> bool:
    """Whether what is sent there cannot be read on the way: HTTPS, or this machine itself."""
    return url[:8].lower() == "https://" or is_loopback(url)
