"""An account's, or nobody's, way to one PDS: what both the blob store and the index go through."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any, Final, TypeVar

from atdata_cli import config, net
from atdata_cli.atproto.identity import Identity, configured_url, is_did, plain_authority, resolve
from atdata_cli.atproto.sessionfile import SessionFile, Tokens
from atdata_cli.atproto.transport import ExpiredTokenError, SwapError, Transport, http_errors
from atdata_cli.errors import AtdataError, AuthError, IntegrityError, NotFoundError, TemporaryError, from_os_error
from atdata_cli.net import is_loopback
from atdata_cli.retry import Retry

__all__ = ["ABSENT", "ANY", "Session", "Swap"]

T = TypeVar("T")

_PAGE = 100  # listRecords answers 500 to more
_LOGIN = "atdata-cli login HANDLE, or set ATDATA_HANDLE and ATDATA_PASSWORD"


class _Expected(Enum):
    ABSENT = "absent"
    ANY = "any"


ABSENT: Final = _Expected.ABSENT
"""The record must not be there yet."""
ANY: Final = _Expected.ANY
"""Whatever is there is replaced."""

Swap = str | _Expected
"""What a record must be for a write to happen: its CID, :data:`ABSENT` or :data:`ANY`."""


class Session:
    """One account's repository on its PDS; without tokens, for reading what is public.

    Failures that are temporary are repeated with growing pauses, a server's rate limits are waited for, and an expired
    token is renewed: what a method raises is final. May be used from many threads at once.

    Parameters
    ----------
    identity : whose repository.
    tokens : of a session; None to read what is public.
    file : where new tokens are kept; None to keep them in memory alone.
    password : for another login when a session has ended.
    retry : how patiently temporary failures are met.

    Attributes
    ----------
    did, handle, pds_url : of the account.
    """

    def __init__(
        self,
        identity: Identity,
        tokens: Tokens | None = None,
        *,
        file: SessionFile | None = None,
        password: str | None = None,
        retry: Retry | None = None,
    ) -> None:
        self.did = identity.did
        self.handle = identity.handle
        self.pds_url = identity.pds_url
        self.retry = retry or net.retry()
        self._identity = identity
        self._tokens = tokens
        self._file = file
        self._password = password
        self._renewing = threading.Lock()
        self._stop = threading.Event()
        self._transport = Transport(identity.pds_url)

    def __repr__(self) -> str:
        return f"Session({self.handle or self.did}, {self.pds_url}{'' if self._tokens else ', anonymous'})"

    # -- opening

    @classmethod
    def login(
        cls,
        handle: str,
        password: str,
        pds_url: str | None = None,
        *,
        keep: bool = False,
        retry: Retry | None = None,
    ) -> Session:
        """A new session.

        Parameters
        ----------
        handle : handle, with or without ``@``, or DID.
        password : the account's, or an app password. It is sent to the PDS that the handle's DID names, or to
            *pds_url* on this machine, and nowhere else.
        pds_url : the account's server; default by the environment, else as the handle says.
        keep : store the session, for later runs.

        Raises
        ------
        AuthError : the password is wrong, or *pds_url* is not the account's server.
        NotFoundError : nobody has this handle.
        """
        retry = retry or net.retry()
        identity = retry.run(lambda: _own_identity(handle, pds_url))
        tokens = retry.run(lambda: _create_session(identity, password))
        identity = Identity(identity.did, tokens.handle, identity.pds_url)
        file = SessionFile.of(tokens.did) if keep else None
        if file is not None:
            try:
                file.write(tokens)
            except OSError as error:
                raise from_os_error(error, str(file.path), doing="write") from error
        return cls(identity, tokens, file=file, password=None if keep else password, retry=retry)

    @classmethod
    def from_environment_or_file(cls, authority: str | None = None, *, retry: Retry | None = None) -> Session:
        """The session to write with: of handle and password in the environment, else of an earlier ``login``.

        Parameters
        ----------
        authority : handle or DID of the account; None for the only one there is.

        Raises
        ------
        AuthError : there is no session for that account.
        """
        wanted = None if authority is None else plain_authority(authority)
        handle = config.account_handle()
        try:
            password = config.account_password()
        except OSError as error:
            raise from_os_error(error, config.get("ATDATA_PASSWORD_FILE") or "", doing="read") from error
        if handle is not None and password is not None and _same_account(wanted, plain_authority(handle)):
            return cls.login(handle, password, retry=retry)
        return cls.stored(wanted, retry=retry)

    @classmethod
    def stored(cls, authority: str | None = None, *, retry: Retry | None = None) -> Session:
        """The session that an earlier ``login`` has kept.

        Parameters
        ----------
        authority : handle or DID of the account; None for the only one there is.

        Raises
        ------
        AuthError : there is none, or several.
        """
        wanted = None if authority is None else plain_authority(authority)
        stored = [(file, tokens) for file in SessionFile.all() if (tokens := file.read()) is not None]
        found = [(file, tokens) for file, tokens in stored if wanted in (None, tokens.handle.lower(), tokens.did)]
        if not found and wanted is not None and stored:
            did = resolve(wanted).did  # a handle that has changed since the login
            found = [(file, tokens) for file, tokens in stored if tokens.did == did]
        if len(found) != 1:
            raise _no_session(wanted, [tokens.handle for _, tokens in found or stored])
        file, tokens = found[0]
        identity = Identity(tokens.did, tokens.handle, tokens.pds_url)
        return cls(identity, tokens, file=file, retry=retry)

    @classmethod
    def anonymous(cls, authority: str, *, retry: Retry | None = None) -> Session:
        """What an account shows to everybody.

        Raises
        ------
        NotFoundError : there is no such account.
        """
        retry = retry or net.retry()
        return cls(retry.run(lambda: resolve(authority)), retry=retry)

    @property
    def authenticated(self) -> bool:
        """Whether it can write."""
        return self._tokens is not None

    def authorization(self) -> dict[str, str]:
        """The header that says who asks; empty for what is public. It is a secret."""
        tokens = self._tokens
        return {} if tokens is None else _bearer(tokens.access)

    def close(self) -> None:
        """End pauses that other threads make at this moment, and let go of the connections."""
        self._stop.set()
        self._transport.close()

    def logout(self) -> None:
        """End the session on the server, and forget it here."""
        tokens = self._tokens
        if tokens is None:
            return
        if self._file is not None:
            tokens = self._file.read() or tokens
        self._tokens = None
        try:
            nsid = "com.atproto.server.deleteSession"
            with suppress(ExpiredTokenError, AuthError):  # it has ended already
                self.retry.run(lambda: self._transport.procedure(nsid, None, _bearer(tokens.refresh)), stop=self._stop)
        finally:
            if self._file is not None:
                self._file.delete()

    # -- calls

    def get(self, nsid: str, /, **params: Any) -> Any:
        """A query's answer: a dict, or bytes where it is no JSON. Parameters that are None are left out."""
        return self._call(lambda headers: self._transport.query(nsid, params, headers))

    def post(self, nsid: str, /, body: Mapping[str, Any] | None = None) -> Any:
        """A procedure's answer. It is repeated after a temporary failure, so it must be safe to repeat."""
        content = None if body is None else _json(body)
        extra = {} if content is None else {"Content-Type": "application/json"}
        return self._call(lambda headers: self._transport.procedure(nsid, content, {**headers, **extra}))

    def send(
        self,
        nsid: str,
        /,
        content: Callable[[], Iterable[bytes]],
        size: int,
        content_type: str,
        *,
        stop: threading.Event | None = None,
    ) -> Any:
        """A procedure's answer to a body that is streamed.

        Parameters
        ----------
        content : called at each attempt; gives the body from its beginning.
        size : its bytes.
        content_type : of the body.
        stop : ends a pause between two attempts.
        """
        extra = {"Content-Type": content_type, "Content-Length": str(size)}
        return self._call(lambda headers: self._transport.procedure(nsid, content(), {**headers, **extra}), stop)

    def remaining(self, nsid: str) -> int | None:
        """How many more calls of a method the server takes in the current window, if it has told."""
        return self._transport.remaining(nsid)

    # -- records

    def get_record(self, collection: str, rkey: str) -> tuple[dict[str, Any], str] | None:
        """A record and its CID; None if there is none."""
        try:
            found = self.get("com.atproto.repo.getRecord", repo=self.did, collection=collection, rkey=rkey)
        except NotFoundError:
            return None
        return found["value"], found["cid"]

    def list_records(self, collection: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """URI, CID and content of all records of a collection, page by page to the end."""
        cursor = None
        while True:
            page = self.get(
                "com.atproto.repo.listRecords", repo=self.did, collection=collection, limit=_PAGE, cursor=cursor
            )
            for record in page["records"]:
                yield record["uri"], record["cid"], record["value"]
            cursor = page.get("cursor")
            if cursor is None or not page["records"]:
                return

    def put_record(self, collection: str, rkey: str, record: Mapping[str, Any], swap: Swap = ABSENT) -> tuple[str, str]:
        """Write a record; its URI and CID. The same content again changes nothing.

        Parameters
        ----------
        swap : what must be there now.

        Raises
        ------
        SwapError : something else is there; nothing was written.
        BlobMissingError : the record refers to a blob that the server does not have (any more).
        """
        body: dict[str, Any] = {"repo": self.did, "collection": collection, "rkey": rkey, "record": dict(record)}
        if not isinstance(swap, _Expected):
            body["swapRecord"] = swap
        elif swap is ABSENT:
            body["swapRecord"] = None  # the SDK's models would leave it out
        try:
            written = self.post("com.atproto.repo.putRecord", body)
        except SwapError:
            return self._written_before(collection, rkey, record)
        except AtdataError as error:
            # Under a race some conflicts come as a 400 without a body.
            if swap is ANY or error.retryable or not error.message.endswith("HTTP 400"):
                raise
            return self._written_before(collection, rkey, record)
        return written["uri"], written["cid"]

    def _written_before(self, collection: str, rkey: str, record: Mapping[str, Any]) -> tuple[str, str]:
        """URI and CID of a record that an earlier attempt has written, whose answer was lost.

        Raises
        ------
        SwapError : another one is there.
        """
        there = self.get_record(collection, rkey)
        uri = f"at://{self.did}/{collection}/{rkey}"
        if there is None or there[0] != json.loads(_json(record)):
            raise SwapError("the record is not what it was: another run has written it", url=uri)
        return uri, there[1]

    def delete_record(self, collection: str, rkey: str, swap: Swap = ANY) -> None:
        """Remove a record; no error if it is not there.

        Raises
        ------
        SwapError : *swap* is a CID, and the record is another one.
        """
        body: dict[str, Any] = {"repo": self.did, "collection": collection, "rkey": rkey}
        if not isinstance(swap, _Expected):
            body["swapRecord"] = swap
        self.post("com.atproto.repo.deleteRecord", body)

    # -- tokens

    def _call(self, send: Callable[[Mapping[str, str]], T], stop: threading.Event | None = None) -> T:
        def attempt() -> T:
            tokens = self._tokens
            if tokens is None:
                return send({})
            try:
                return send(_bearer(tokens.access))
            except ExpiredTokenError:
                return send(_bearer(self._renewed(tokens).access))

        return self.retry.run(attempt, stop=stop or self._stop)

    def _renewed(self, old: Tokens) -> Tokens:
        """Tokens that are newer than *old*: those that another thread or process has got, else fresh ones."""
        with self._renewing:
            if self._tokens is None or self._tokens.access != old.access:
                if self._tokens is None:
                    raise AuthError("the session has ended", hint=_LOGIN)
                return self._tokens
            if self._file is None:
                self._tokens = self._refresh_or_login(old)
                return self._tokens
            try:
                with self._file.lock():
                    stored = self._file.read()
                    if stored is not None and stored.access != old.access:
                        self._tokens = stored
                    else:
                        self._tokens = self._refresh_or_login(old)
                        self._file.write(self._tokens)
            except OSError as error:
                raise from_os_error(error, str(self._file.path), doing="renew") from error
            return self._tokens

    def _refresh_or_login(self, old: Tokens) -> Tokens:
        nsid = "com.atproto.server.refreshSession"
        try:
            with http_errors(self._transport.method_url(nsid), nsid):
                answer = self._transport.client.com.atproto.server.refresh_session(headers=_bearer(old.refresh))
        except AuthError as error:
            if self._password is not None:
                return _create_session(self._identity, self._password)
            raise AuthError(
                f"the session of {old.handle} has ended: it has expired, or its password was revoked",
                url=self.pds_url,
                hint=f"atdata-cli login {old.handle}",
            ) from error
        return Tokens(answer.handle, old.did, old.pds_url, answer.access_jwt, answer.refresh_jwt)


def _own_identity(handle: str, pds_url: str | None) -> Identity:
    """Who logs in, and the one server that may see the password."""
    server = configured_url(pds_url or config.pds_url(), "the PDS's URL")
    identity = resolve(handle, pds_url=server)
    if server is None or server == identity.pds_url:
        return identity
    if is_loopback(server):
        return Identity(identity.did, identity.handle, server)
    raise AuthError(
        f"{handle} lives on another server, {identity.pds_url}: the password is not sent to this one",
        url=server,
        hint="leave the URL out: the account's server is found by its handle",
    )


def _create_session(identity: Identity, password: str) -> Tokens:
    transport = Transport(identity.pds_url)
    nsid = "com.atproto.server.createSession"
    try:
        with http_errors(transport.method_url(nsid), nsid):
            answer = transport.client.com.atproto.server.create_session(
                {"identifier": identity.did, "password": password}
            )
    except AuthError as error:
        if "AuthenticationRequired" not in error.message:  # a code by e-mail, an account that is closed
            raise
        raise AuthError(
            "wrong handle or password",
            url=identity.handle or identity.did,
            hint=f"check both; {identity.pds_url} was asked",
        ) from error
    finally:
        transport.close()
    if answer.did != identity.did:
        raise IntegrityError(
            "the server logs in another account than the handle names",
            url=identity.pds_url,
            hint="log in with the handle of that account, or name its server with --pds",
        )
    return Tokens(answer.handle, identity.did, identity.pds_url, answer.access_jwt, answer.refresh_jwt)


def _same_account(wanted: str | None, mine: str) -> bool:
    """Whether two handles or DIDs name one account."""
    if wanted is None or wanted == mine:
        return True
    if not is_did(wanted) and not is_did(mine):
        return False
    try:
        return resolve(wanted).did == resolve(mine).did
    except TemporaryError:
        raise
    except AtdataError:
        return False


def _no_session(wanted: str | None, handles: list[str]) -> AuthError:
    if wanted is None and handles:
        return AuthError(f"there are sessions of several accounts: {', '.join(handles)}", hint="set ATDATA_HANDLE")
    if handles:
        return AuthError(f"not logged in as {wanted}, but as {', '.join(handles)}", hint=_LOGIN)
    return AuthError("not logged in" if wanted is None else f"not logged in as {wanted}", hint=_LOGIN)


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
