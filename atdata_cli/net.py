"""What every HTTP client of this program is told: timeouts, proxies, certificates, and which URLs may be plain HTTP.

Proxies (``HTTPS_PROXY``, ``NO_PROXY``) and a CA of one's own (``SSL_CERT_FILE``, ``SSL_CERT_DIR``) come from the
environment, where httpx looks for them by itself.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

__all__ = ["client_options", "is_loopback", "is_secure", "server_root", "user_agent"]

_CONNECT_SECONDS = 30
_SILENCE_SECONDS = 180  # without a byte either way: a server moves the blobs of a large record before it answers
_CONNECTIONS = 32


def client_options(**more: Any) -> dict[str, Any]:
    """Arguments for ``httpx.Client``, and for what passes them on to it."""
    import httpx

    return {
        "timeout": httpx.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS, pool=None),
        "limits": httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
        **more,
    }


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
