"""Who an account is and where it lives: handle to DID to DID document to PDS, through the SDK's resolvers.

https://atproto.com/specs/handle and https://atproto.com/specs/did: the handle names a DID (by DNS, or by a file on its
host), the DID's document names the handle back, and the server that holds the account's data.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from atdata_cli import config
from atdata_cli.atproto.sessionfile import SessionFile
from atdata_cli.atproto.transport import Transport, http_errors, transport_error
from atdata_cli.errors import AtdataError, IntegrityError, NotFoundError, TemporaryError, UntrustedError, UsageError
from atdata_cli.net import httpx_options, is_loopback, server_root

__all__ = ["PLC_URL", "Identity", "configured_url", "is_did", "on_this_machine", "plain_authority", "resolve"]

PLC_URL = "https://plc.directory"
_SECONDS = 15.0  # for one look-up
_DID = r"did:(?:plc:[a-z2-7]{24}|web:[A-Za-z0-9.-]+(?:%3A[0-9]+)?)"
_HANDLE = r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"


@dataclass(frozen=True, slots=True)
class Identity:
    """An account.

    Attributes
    ----------
    did : its lasting name.
    handle : its readable one: checked both ways if it was resolved by it, else what the DID's document claims; empty if
        there is none.
    pds_url : its server, as ``https://HOST`` without a path.
    """

    did: str
    handle: str
    pds_url: str


def is_did(text: str) -> bool:
    """Whether *text* is a DID of a method that the AT Protocol knows."""
    return re.fullmatch(_DID, text) is not None


def on_this_machine(authority: str) -> bool:
    """Whether it is a did:web of this machine itself."""
    return authority.startswith("did:web:") and is_loopback(f"https://{_web_host(authority)}")


def plain_authority(text: str) -> str:
    """A handle in lower case and without its ``@``, or a DID.

    Raises
    ------
    UsageError : it is neither.
    """
    if is_did(text):
        return text
    handle = text.removeprefix("@").lower()
    if len(handle) > 253 or not re.fullmatch(_HANDLE, handle):
        raise UsageError(f"{text!r} is neither a handle nor a DID", hint="a handle looks like alice.example.com")
    return handle


def configured_url(text: str | None, name: str) -> str | None:
    """``https://HOST`` of a URL that the user gives; None if there is none.

    Parameters
    ----------
    name : of the option or variable, for messages.

    Raises
    ------
    UsageError : it is no URL of a server, or plain HTTP to another machine.
    """
    if text is None:
        return None
    root = server_root(text)
    if root is None:
        raise UsageError(f"{name} is no URL of a server", url=text, hint="https://HOST")
    if root.startswith("http:") and not is_loopback(root):
        raise UsageError(f"{name}: plain http is only for servers on this machine", url=text, hint="use https")
    return root


def resolve(authority: str, *, pds_url: str | None = None) -> Identity:
    """The account that a handle or DID names.

    Parameters
    ----------
    authority : handle, with or without ``@``, or DID.
    pds_url : server to ask first, if it is on this machine: handles there are in no DNS. Default: the one of a login
        that was kept, else by the environment.

    Raises
    ------
    NotFoundError : nobody has this handle or DID.
    IntegrityError : handle and DID do not name each other, or the DID's document is not valid.
    TemporaryError : a directory or server does not answer.
    """
    wanted = plain_authority(authority)
    server = configured_url(pds_url or config.pds_url(), "the PDS's URL")
    plc = configured_url(config.plc_url(), "ATDATA_PLC_URL")
    logged_in = _logged_in(wanted) if pds_url is None else None
    return logged_in or _resolved(wanted, server if server and is_loopback(server) else None, plc)


def _logged_in(authority: str) -> Identity | None:
    """The account as its login found it on a server of this machine, which no directory of the network knows."""
    for file in SessionFile.all():
        with suppress(OSError):  # another user's; what is public can be read without
            tokens = file.read()
            if tokens and authority in (tokens.handle.lower(), tokens.did) and is_loopback(tokens.pds_url):
                return Identity(tokens.did, tokens.handle, tokens.pds_url)
    return None


# A run asks for the same few accounts, at each of their blobs.
@lru_cache(maxsize=1024)
def _resolved(authority: str, local: str | None, plc: str | None) -> Identity:
    did = authority if is_did(authority) else _did_of(authority, local)
    document = _document(did, local, plc)
    claimed = _claimed_handles(document)
    if did != authority and authority not in claimed:
        raise IntegrityError(
            f"the handle {authority} names {did}, which does not name it back",
            hint="the account has another handle by now, or the handle points to a wrong account",
        )
    handle = authority if did != authority else next(iter(claimed), "")
    here = local is not None or is_loopback(plc or "") or on_this_machine(did)
    return Identity(did, handle, _server(document, did, on_this_machine=here))


def _did_of(handle: str, local: str | None) -> str:
    did = _ask_local(local, handle) if local is not None else None
    did = did or _ask_network(handle)
    if did is None or not is_did(did):
        raise NotFoundError(
            f"nobody has the handle {handle}",
            hint="check its spelling; for a server on this machine set ATDATA_PDS_URL",
        )
    return did


def _ask_local(server: str, handle: str) -> str | None:
    transport = Transport(server)
    try:
        answer = transport.query("com.atproto.identity.resolveHandle", {"handle": handle})
    except (TemporaryError, UntrustedError):
        raise
    except AtdataError:  # "Unable to resolve handle" is a 400 without a name
        return None
    finally:
        transport.close()
    return str(answer.get("did")) if isinstance(answer, dict) else None


def _ask_network(handle: str) -> str | None:
    try:
        found: str | None = _handle_resolver().resolve(handle)
    except ValueError:  # a TXT record that is no text
        return None
    return found


# The SDK's resolver never closes its connections: one is kept.
@lru_cache(maxsize=1)
def _handle_resolver() -> Any:
    import httpx
    from atproto_identity.handle.resolver import HandleResolver

    resolver = HandleResolver(timeout=_SECONDS)
    # It takes no client, but shall ask as all others do.
    resolver._http_client.close()
    resolver._http_client = httpx.Client(**httpx_options())
    return resolver


def _document(did: str, local: str | None, plc: str | None) -> Any:
    """The DID's document, of the SDK's class."""
    if local is not None and plc is None:
        document = _local_document(local, did)
        if document is not None:
            return document
    if did.startswith("did:plc:"):
        return _document_at(f"{plc or PLC_URL}/{did}", did)
    host = _web_host(did)
    url = f"https://{host}/.well-known/did.json"
    if not on_this_machine(did):
        if ":" in host:
            raise UsageError(f"{did}: a port is only for servers on this machine", hint="did:web:HOST names a server")
        return _document_at(url, did)
    try:
        return _document_at(url, did)
    except TemporaryError:  # servers of developers often have no certificate
        return _document_at(url.replace("https:", "http:", 1), did)


def _web_host(did: str) -> str:
    """``HOST[:PORT]`` of a did:web, which writes the colon as ``%3A``: https://w3c-ccg.github.io/did-method-web/."""
    return unquote(did.removeprefix("did:web:"))


def _document_at(url: str, did: str) -> Any:
    """The document that a directory or a server has of a DID."""
    import httpx
    import orjson
    from atproto_core.exceptions import AtProtocolError
    from atproto_identity.did.resolvers.base_resolver import BaseResolver

    try:
        with httpx.Client(**httpx_options(timeout=_SECONDS)) as client:
            answer = client.get(url)
    except httpx.HTTPError as error:
        failure = transport_error(error, url)
        if isinstance(failure, TemporaryError):
            failure = TemporaryError(f"{did} cannot be looked up: {failure.message}", url=url)
        raise failure from error
    if answer.status_code in {404, 410}:
        raise NotFoundError(f"there is no {did}", url=url)
    if answer.status_code != 200:
        raise TemporaryError(f"{did} cannot be looked up: HTTP {answer.status_code}", url=url)
    try:
        return BaseResolver.validate_did_doc(did, orjson.loads(answer.content))
    except (AtProtocolError, ValueError) as error:
        raise IntegrityError(f"the document of {did} is not valid", url=url) from error


def _local_document(server: str, did: str) -> Any:
    """The document as the DID's server on this machine has it; None if the DID is not there."""
    from atproto_core.did_doc import DidDocument

    transport = Transport(server)
    nsid = "com.atproto.repo.describeRepo"
    try:
        answer = transport.query(nsid, {"repo": did})
        with http_errors(transport.method_url(nsid), nsid):
            document = DidDocument.from_dict(answer["didDoc"])
    except (TemporaryError, UntrustedError):
        raise
    except AtdataError:
        return None
    finally:
        transport.close()
    return document if document.id == did else None


def _claimed_handles(document: Any) -> list[str]:
    names = document.also_known_as or []
    return [name.removeprefix("at://").lower() for name in names if name.startswith("at://")]


def _server(document: Any, did: str, *, on_this_machine: bool) -> str:
    """The account's PDS. A stranger's document cannot send requests into this machine."""
    endpoint = document.get_pds_endpoint()
    if not isinstance(endpoint, str):
        raise NotFoundError(
            f"{did} has no personal data server", hint="ask its owner: the account may have been closed"
        )
    root = server_root(endpoint)
    if root is None or not (root.startswith("https://") or is_loopback(root)):
        raise IntegrityError(
            f"the server of {did} cannot be used: it must be https",
            url=endpoint,
            hint="http is taken on this machine only; ask the account's owner",
        )
    if is_loopback(root) and not on_this_machine:
        raise IntegrityError(
            f"the server of {did} is said to be on this machine",
            url=endpoint,
            hint="if that is so, set ATDATA_PLC_URL or ATDATA_PDS_URL",
        )
    return root
