"""XRPC calls on one server, through the SDK's client: with our timeouts, our errors, and an eye on rate limits."""

from __future__ import annotations

import re
import ssl
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from atdata_cli.errors import (
    AtdataError,
    AuthError,
    NotFoundError,
    OccupiedError,
    RateLimitedError,
    TemporaryError,
    UntrustedError,
    UsageError,
    reason_of,
)
from atdata_cli.net import CA_HINT, httpx_options, is_secure, no_connection, proxy_error, proxy_for, user_agent
from atdata_cli.retry import seconds_to_wait

__all__ = [
    "BlobMissingError",
    "ExpiredTokenError",
    "SwapError",
    "TooLargeError",
    "Transport",
    "http_errors",
]

_LONGEST_MESSAGE = 300
# What servers call the errors that mean "you are not, or no longer, who may do this".
_NOT_AUTHORISED = {
    "AuthMissing",
    "AuthFactorTokenRequired",
    "AuthenticationRequired",
    "InvalidToken",
    "BadJwt",
    "BadJwtSignature",
    "AccountTakedown",
    "AccountDeactivated",
    "AccountSuspended",
}
_NOT_FOUND = {"RecordNotFound", "RepoNotFound", "BlobNotFound", "HandleNotFound", "RepoDeactivated", "RepoTakendown"}
_TRY_AGAIN = "check the network, and try again"
_FALL_BACK_WAIT = 30.0  # of a 429 that does not say until when


class SwapError(OccupiedError):
    """The record is not what it was expected to be: somebody else has written it."""


class ExpiredTokenError(AuthError):
    """The session's token is no longer good; a refreshed one may be."""


class TooLargeError(AtdataError):
    """The server takes nothing so large."""

    code = "too-large"


class BlobMissingError(NotFoundError):
    """A record refers to a blob that the server does not have (any more).

    Attributes
    ----------
    cid : of the blob, if the server tells.
    """

    cid: str | None = None


@dataclass(frozen=True, slots=True)
class _Budget:
    """What a server says it will still take of one method.

    Attributes
    ----------
    limit, remaining : calls in the current window.
    reset : when the next one begins, on the clock of ``time.monotonic``.
    """

    limit: int
    remaining: int
    reset: float


class Transport:
    """One server's XRPC methods.

    May be used from many threads at once.

    Parameters
    ----------
    url : of the server, without a path.

    Raises
    ------
    UsageError : plain HTTP to another machine.
    """

    def __init__(self, url: str) -> None:
        if not is_secure(url):
            raise UsageError("plain http is only for servers on this machine", url=url, hint="use https")
        from atproto_client import Client
        from atproto_client.request import Request

        self.url = url
        self._budgets: dict[str, _Budget] = {}
        # The hook must not keep this object alive: connections are closed when nobody has it any more.
        observe = weakref.WeakMethod(self._observe)

        def look(response: Any) -> None:
            method = observe()
            if method is not None:
                method(response)

        request = Request(**httpx_options(event_hooks={"response": [look]}))
        request.add_additional_header("User-Agent", user_agent())
        self.client = Client(url, request=request)
        self._closing = weakref.finalize(self, request.close)

    def close(self) -> None:
        """Let go of the connections."""
        self._closing()

    def query(self, nsid: str, params: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Any:
        """A query's answer: parsed JSON, or bytes where it is none. Parameters that are None are left out.

        Raises
        ------
        AtdataError : see :func:`http_errors`.
        """
        from atproto_client.models.dot_dict import DotDict

        given = DotDict({name: _text(value) for name, value in params.items() if value is not None})
        with http_errors(self.method_url(nsid), nsid):
            self._check_budget(nsid)
            # The SDK would refresh tokens by itself, without regard for other processes: here it never holds any.
            answer = self.client.invoke_query(nsid, params=given, headers=dict(headers or {}))
            return answer.content

    def procedure(
        self, nsid: str, content: bytes | Iterable[bytes] | None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """A procedure's answer, as of :meth:`query`.

        Parameters
        ----------
        content : the request's body; an iterable is sent as it comes, and needs a ``Content-Length``.
        """
        with http_errors(self.method_url(nsid), nsid):
            self._check_budget(nsid)
            return self.client.invoke_procedure(nsid, content=content, headers=dict(headers or {})).content

    def method_url(self, nsid: str) -> str:
        """The URL of a method."""
        return f"{self.url}/xrpc/{nsid}"

    def remaining(self, nsid: str) -> int | None:
        """How many more calls of a method the server takes in the current window, if it has told."""
        budget = self._budgets.get(nsid)
        return None if budget is None or budget.reset <= time.monotonic() else budget.remaining

    def _check_budget(self, nsid: str) -> None:
        """Do not ask what is bound to be refused.

        Raises
        ------
        RateLimitedError : the server has said that it takes no more of these for now.
        """
        budget = self._budgets.get(nsid)
        if budget is not None and budget.remaining <= 0:
            wait = budget.reset - time.monotonic()
            if wait > 0:
                raise _limited(nsid, budget.limit, wait, self.url)

    def _observe(self, response: Any) -> None:
        """Look at each answer before anything else does."""
        if response.has_redirect_location and response.request.method != "GET":
            # It would be followed, with the body: a password among them.
            raise AtdataError(
                "the server sends writing requests elsewhere",
                url=self.url,
                hint="name the server that it redirects to with --pds",
            )
        headers = response.headers
        nsid = response.request.url.path.rpartition("/")[2]
        limit, remaining = (_number(headers.get(f"ratelimit-{name}")) for name in ("limit", "remaining"))
        wait = reset_seconds(headers)
        if limit is not None and remaining is not None and wait is not None:
            self._budgets[nsid] = _Budget(limit, remaining, time.monotonic() + wait)


def reset_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds until a rate limit's window ends, by the server's own clock where it tells its time."""
    reset = _number(headers.get("ratelimit-reset"))
    if reset is None:
        return None
    now = time.time()
    with suppress(TypeError, ValueError):  # without it, its clock is taken for ours
        now = parsedate_to_datetime(headers.get("date", "")).timestamp()
    return max(reset - now, 0.0) + 1.0  # both are in whole seconds


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,15}", text) else None


def _text(value: Any) -> Any:
    return ("true" if value else "false") if isinstance(value, bool) else value


def _limited(nsid: str, limit: int | None, wait: float, url: str) -> RateLimitedError:
    at = datetime.fromtimestamp(time.time() + wait, UTC).strftime("%Y-%m-%d %H:%M UTC")
    most = f"its limit of {limit:,} is reached" if limit is not None else "its limit is reached"
    return RateLimitedError(
        f"the server takes no more {nsid.rpartition('.')[2]} requests until {at}: {most}",
        wait=wait,
        url=url,
        hint="run the same command again after that: it goes on where it stopped",
    )


@contextmanager
def http_errors(url: str, nsid: str) -> Iterator[None]:
    """Turn what the SDK and httpx raise into our errors: by what happened, and whether a retry can help.

    Raises
    ------
    TemporaryError : no answer, or the server is in trouble.
    RateLimitedError : too many requests.
    AuthError : not who may do this; :class:`ExpiredTokenError` if a refreshed token may help.
    NotFoundError : no such record, repository or blob; :class:`BlobMissingError` for what a record refers to.
    SwapError : a record is not what it was expected to be.
    TooLargeError : the body is over the server's limit.
    AtdataError : anything else.
    """
    import httpx
    from atproto.exceptions import AtProtocolError
    from atproto_client.exceptions import RequestErrorBase

    try:
        yield
    except RequestErrorBase as error:
        if error.response is None:
            raise transport_error(error.__cause__ or error, url) from error
        name, message = _details(error.response.content)
        raise answer_error(error.response.status_code, name, message, error.response.headers, url, nsid) from error
    except httpx.HTTPError as error:
        raise transport_error(error, url) from error
    except (AtProtocolError, httpx.InvalidURL, ValueError) as error:  # ValueError: an answer that is no JSON
        if _is_cut(error):
            raise transport_error(error, url) from error
        raise AtdataError(
            f"the server's answer makes no sense: {_short(str(error))}",
            url=url,
            hint="is this the URL of a PDS? atdata-cli doctor URL examines it",
        ) from error


def _is_cut(error: BaseException) -> bool:
    """Whether an answer is right as far as it goes, as httpx or the SDK's parser of JSON says it.

    One without any JSON, such as a page for people, is another thing: the next would be the same.
    """
    cut = ("EOF while parsing", "peer closed connection without sending complete message body")
    return str(error).startswith(cut)


def transport_error(error: BaseException, url: str) -> AtdataError:
    """The error for a request that got no answer."""
    import httpx

    if _is_cut(error):
        return TemporaryError("the server's answer ended early", url=url, hint=_TRY_AGAIN)
    reason = _short(reason_of(error))
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return UntrustedError(f"the server's certificate is not trusted: {reason}", url=url, hint=CA_HINT)
    if isinstance(error, httpx.UnsupportedProtocol | httpx.TooManyRedirects):
        return AtdataError(f"cannot be asked: {reason}", url=url)
    if isinstance(error, httpx.ProxyError):
        status = re.match(r"[1-5][0-9]{2}\b", reason)
        return proxy_error(int(status[0]) if status else 502, url, "ask")
    return TemporaryError(f"the server does not answer: {_reason(error)}", url=url, hint=_TRY_AGAIN)


def _reason(error: BaseException) -> str:
    """Why there is no answer, in words: httpx has the numbers of the operating system in its own."""
    import httpx

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if cause is None or isinstance(cause, ssl.SSLError):
        return _short(str(error)) or type(error).__name__
    if isinstance(error, httpx.ConnectError):
        asked = str(error.request.url)
        parts = urlsplit(proxy_for(asked) or asked)
        return no_connection(cause, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    return cause.strerror or str(cause) or type(error).__name__


def answer_error(status: int, name: str, message: str, headers: Mapping[str, str], url: str, nsid: str) -> AtdataError:
    """The error that an answer means.

    Parameters
    ----------
    status : of HTTP.
    name, message : of XRPC; empty if there are none.
    """
    what = f"{nsid.rpartition('.')[2]}: HTTP {status}{' ' + name if name else ''}{': ' + message if message else ''}"
    if status == 429:
        wait = next(
            (seconds for seconds in (reset_seconds(headers), seconds_to_wait(headers)) if seconds is not None), None
        )
        limit = _number(headers.get("ratelimit-limit"))
        return _limited(nsid, limit, _FALL_BACK_WAIT if wait is None else wait, url)
    special = _special(status, name, message)
    if special is not None:
        return special(what, url)
    if status in {408, 425} or (status >= 500 and status != 501):
        return TemporaryError(f"the server is in trouble: {what}", url=url)
    return AtdataError(f"the server refuses: {what}", url=url)


def _special(status: int, name: str, message: str) -> Callable[[str, str], AtdataError] | None:
    """What makes the error for an answer that callers tell from others."""
    if name == "ExpiredToken":
        return lambda what, url: ExpiredTokenError(f"the session has expired: {what}", url=url)
    if name == "InvalidSwap":
        return lambda what, url: SwapError(f"another run has written it in the meantime: {what}", url=url)
    if name == "BlobNotFound":
        return lambda what, url: _blob_missing(what, url, message)
    if status in {401, 403} or name in _NOT_AUTHORISED:
        return _not_authorised
    if status == 404 or name in _NOT_FOUND or message.startswith("Could not find repo"):
        return lambda what, url: NotFoundError(
            f"there is no such thing: {what}",
            url=url,
            hint="check the name; atdata-cli inspect @HANDLE lists what is there",
        )
    if status == 413 or name in {"PayloadTooLarge", "PayloadTooLargeError"}:
        return lambda what, url: TooLargeError(f"the server takes nothing so large: {what}", url=url)
    return None


def _not_authorised(what: str, url: str) -> AuthError:
    if "AuthFactorToken" in what:
        hint = "the account asks for a code by e-mail at each login: make an app password for this program"
    else:
        hint = "check handle and password, or log in again: atdata-cli login HANDLE"
    return AuthError(f"not authorised: {what}", url=url, hint=hint)


def _blob_missing(what: str, url: str, message: str) -> BlobMissingError:
    error = BlobMissingError(f"the server does not have the blob: {what}", url=url)
    found = re.search(r"\bb[a-z2-7]{50,120}\b", message)
    error.cid = found[0] if found else None
    return error


def _details(content: Any) -> tuple[str, str]:
    """Name and message of an error's body."""
    name, message = getattr(content, "error", None), getattr(content, "message", None)
    if isinstance(content, bytes):
        message = content[:_LONGEST_MESSAGE].decode("utf-8", "replace")
    return _short(str(name or "")), _short(str(message or ""))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + "…"
