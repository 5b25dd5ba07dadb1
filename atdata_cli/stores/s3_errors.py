"""What went wrong between us and an S3 server, as an error that a person can act on.

s3fs turns botocore's ``ClientError`` into the nearest ``OSError`` and keeps the original as ``__cause__``.
Only the original tells a missing bucket from a missing key, or a wrong secret from a missing permission, so
it is the original that counts here. Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from atdata_cli.errors import (
    AtdataError,
    AuthError,
    IntegrityError,
    NotFoundError,
    RateLimitedError,
    TemporaryError,
    UntrustedError,
    UsageError,
    from_os_error,
    starved,
)
from atdata_cli.net import PROXY_HINT, proxy_error
from atdata_cli.retry import seconds_to_wait

__all__ = [
    "BARE_CODES",
    "answer_error",
    "error_code",
    "note_retries",
    "request_error",
    "retries_made",
    "translate",
    "translated",
]

# A HEAD request's answer has no body: its code is the bare HTTP status.
BARE_CODES = frozenset({"400", "403", "404"})

_Known = tuple[type[AtdataError], str, str]

_REGION = "name the bucket's region (AWS_REGION or --region)"
_CLOCK = "set this machine's clock: signatures are valid for 15 minutes"
_LOGIN = "renew the credentials (with AWS: aws sso login, or export the new AWS_SESSION_TOKEN)"
_AGAIN = "run the same command again"

_CODES: dict[str, _Known] = {
    "NoSuchBucket": (
        NotFoundError,
        "there is no such bucket",
        "create the bucket, or check its name and the endpoint",
    ),
    "NoSuchKey": (NotFoundError, "there is no such object", "check the name"),
    "404": (NotFoundError, "there is no such object or bucket", "check the name and the endpoint"),
    "AccessDenied": (
        AuthError,
        "access denied",
        "these credentials lack a permission (s3:GetObject, PutObject, ListBucket, AbortMultipartUpload)",
    ),
    "AllAccessDisabled": (AuthError, "all access to the bucket is disabled", "ask its owner"),
    "AccountProblem": (AuthError, "the account has a problem", "ask the provider"),
    "403": (AuthError, "access denied", "check the credentials and their permissions"),
    "InvalidAccessKeyId": (
        AuthError,
        "the server does not know this access key",
        "check AWS_ACCESS_KEY_ID, and that it belongs to this endpoint",
    ),
    "SignatureDoesNotMatch": (AuthError, "the secret key is wrong", "check AWS_SECRET_ACCESS_KEY"),
    "ExpiredToken": (AuthError, "the credentials have expired", _LOGIN),
    "ExpiredTokenException": (AuthError, "the credentials have expired", _LOGIN),
    "TokenRefreshRequired": (AuthError, "the credentials have expired", _LOGIN),
    "InvalidToken": (AuthError, "the session token is wrong", "check AWS_SESSION_TOKEN, or unset it"),
    "RequestTimeTooSkewed": (AuthError, "this machine's clock is wrong", _CLOCK),
    "AuthorizationHeaderMalformed": (AuthError, "the request was signed for another region", _REGION),
    "PermanentRedirect": (UsageError, "the bucket is in another region", _REGION),
    "IllegalLocationConstraintException": (UsageError, "the bucket is in another region", _REGION),
    "301": (UsageError, "the bucket is in another region", _REGION),
    "InvalidBucketName": (UsageError, "this cannot be a bucket's name", "check the part after s3://"),
    "KeyTooLongError": (UsageError, "the name is too long", "a key has at most 1024 bytes"),
    "EntityTooLarge": (
        UsageError,
        "the object is too large for this server",
        "write smaller shards (--max-size)",
    ),
    "407": (AuthError, "the proxy wants a user and a password", PROXY_HINT),
    "InvalidObjectState": (UsageError, "the object is archived", "restore it first"),
    "BadDigest": (IntegrityError, "bytes were damaged on the way to the server", _AGAIN),
    "InvalidDigest": (IntegrityError, "bytes were damaged on the way to the server", _AGAIN),
    "XAmzContentSHA256Mismatch": (IntegrityError, "bytes were damaged on the way to the server", _AGAIN),
    "XAmzContentChecksumMismatch": (IntegrityError, "bytes were damaged on the way to the server", _AGAIN),
    "PreconditionFailed": (TemporaryError, "the object was changed meanwhile", _AGAIN),
    "412": (TemporaryError, "the object was changed meanwhile", _AGAIN),
    "NoSuchUpload": (TemporaryError, "somebody ended the unfinished upload", _AGAIN),
    "NotImplemented": (AtdataError, "the server cannot do this", "it lacks a part of the S3 protocol"),
    "QuotaExceeded": (AtdataError, "the quota is used up", "free some space, or write to another bucket"),
    "XMinioStorageFull": (AtdataError, "the server's disks are full", "free some space, or write elsewhere"),
}

_TEMPORARY_CODES = frozenset(
    {"SlowDown", "RequestTimeout", "RequestTimeoutException", "InternalError", "ServiceUnavailable"}
    | {
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "BandwidthLimitExceeded",
    }
    | {"OperationAborted", "ConditionalRequestConflict", "IncompleteBody", "429"}
)

_FINAL_CODES = frozenset({"PreconditionFailed", "412", "NoSuchUpload"})

_NO_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or choose a profile (AWS_PROFILE or --profile); "
    "to read a public bucket none are needed: --no-sign-request (copy: --source-no-sign-request), or "
    "no-sign-request = true of a named store"
)

# botocore's and aiohttp's classes by name: importing them here would load those libraries with this module.
_CLASSES: dict[str, _Known] = {
    "NoCredentialsError": (AuthError, "there are no credentials", _NO_CREDENTIALS),
    "PartialCredentialsError": (AuthError, "the credentials are incomplete", _NO_CREDENTIALS),
    "CredentialRetrievalError": (
        AuthError,
        "the credentials could not be got",
        "check the profile, or log in again",
    ),
    "SSOError": (AuthError, "the single sign-on session is not valid", _LOGIN),
    "TokenRetrievalError": (AuthError, "the single sign-on session is not valid", _LOGIN),
    "LoginError": (AuthError, "the login session is not valid", _LOGIN),
    "ProfileNotFound": (AuthError, "there is no such profile", "check AWS_PROFILE or --profile"),
    "ConfigParseError": (AuthError, "the AWS configuration cannot be read", "check ~/.aws/config"),
    "InvalidConfigError": (AuthError, "the AWS configuration is not valid", "check ~/.aws/config"),
    "ParamValidationError": (UsageError, "this cannot be the name of a bucket or object", "check the URL"),
    "InvalidRegionError": (UsageError, "this cannot be a region", "check AWS_REGION or --region"),
    "SSLError": (
        UntrustedError,
        "the server's certificate is not trusted, or it does not speak TLS",
        "name the file of its authority: --ca-bundle FILE, or AWS_CA_BUNDLE; or check http:// against https://",
    ),
    "EndpointConnectionError": (
        TemporaryError,
        "the server cannot be reached",
        "check the endpoint (AWS_ENDPOINT_URL or --endpoint-url) and the network, and try again",
    ),
    "ConnectTimeoutError": (
        TemporaryError,
        "the server does not answer",
        "check the endpoint (AWS_ENDPOINT_URL or --endpoint-url) and the network, and try again",
    ),
    "ProxyConnectionError": (
        TemporaryError,
        "the proxy cannot be reached",
        "check HTTPS_PROXY and HTTP_PROXY, and try again",
    ),
    "ReadTimeoutError": (TemporaryError, "the server stopped answering", _AGAIN),
    "FSTimeoutError": (TemporaryError, "the server stopped answering", _AGAIN),
    "ResponseParserError": (
        TemporaryError,
        "the answer is not one of an S3 server",
        "check the endpoint, and try again",
    ),
    "HTTPClientError": (TemporaryError, "the connection broke", _AGAIN),
    "ConnectionError": (TemporaryError, "the connection broke", _AGAIN),
    "ClientError": (TemporaryError, "the connection broke", _AGAIN),
    "TimeoutError": (TemporaryError, "the server stopped answering", _AGAIN),
    "IncompleteRead": (TemporaryError, "the connection broke", _AGAIN),
}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """*error* and what caused it, outermost first."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__


def _response(error: BaseException) -> dict[str, Any] | None:
    """The server's answer, as botocore parsed it, if there was one."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return response
    return None


def error_code(error: BaseException) -> str | None:
    """The server's error code, such as ``NoSuchKey``; None if no server answered."""
    response = _response(error)
    return None if response is None else str(response["Error"].get("Code") or "")


def note_retries(error: Exception, count: int) -> None:
    """Keep in an error that the request was repeated as often as is allowed; see :func:`retries_made`."""
    error.repeated = True  # type: ignore[attr-defined]
    response = _response(error)
    if response is not None:
        response.setdefault("ResponseMetadata", {})["RetryAttempts"] = count


def retries_made(error: BaseException) -> int:
    """How often the request had been sent before this answer: an earlier one, which was lost, may have done it."""
    response = _response(error) or {}
    return int(response.get("ResponseMetadata", {}).get("RetryAttempts", 0))


def request_error(error: Exception, url: str) -> AtdataError:
    """What an error means for the request that met it: whether the same request can succeed later, and when.

    A run may well succeed after another one has changed or ended something; the request as it is cannot.
    """
    if error_code(error) in _FINAL_CODES:
        return AtdataError(
            "the request is out of date", url=url, hint="another run has changed something: run the command again"
        )
    told = _translate(error, url, "send")
    told.message = told.message.removeprefix("cannot send it: ")  # callers know what it was for
    return told


@contextmanager
def translated(url: str, *, doing: str) -> Iterator[None]:
    """Turn errors of s3fs, botocore and aiohttp into ours.

    Parameters
    ----------
    url : the ``s3://`` URL concerned.
    doing : what is being done, as a verb phrase: "read", "write to".
    """
    try:
        yield
    except AtdataError as error:
        error.url = error.url or url
        raise
    except Exception as error:
        raise translate(error, url, doing) from error


def translate(error: Exception, url: str, doing: str) -> AtdataError:
    """Our error for one of s3fs, botocore or aiohttp."""
    told = _translate(error, url, doing)
    told.repeated = getattr(error, "repeated", False) and request_error(error, url).retryable
    return told


def _translate(error: Exception, url: str, doing: str) -> AtdataError:
    response = _response(error)
    if response is not None:
        kind, reason, hint = _from_answer(response)
        wait = seconds_to_wait(response.get("ResponseMetadata", {}).get("HTTPHeaders", {}))
        if kind is TemporaryError and wait is not None:
            return RateLimitedError(f"cannot {doing} it: {reason}", wait=wait, url=url, hint=hint)
        return kind(f"cannot {doing} it: {reason}", url=url, hint=hint or None)
    for one in _chain(error):
        inner = getattr(one, "kwargs", {}).get("error")  # of botocore's errors
        if isinstance(inner, AtdataError):
            return inner
        status = getattr(inner, "status", None)  # the proxy's, not the server's
        if status is not None:
            return proxy_error(int(status), url, doing)
        for base in type(one).__mro__:
            if base.__name__ == "SSLError" and "EOF occurred" in str(one):  # somebody ended it amid the handshake
                return TemporaryError(f"cannot {doing} it: the connection broke", url=url, hint=_AGAIN)
            if base.__name__ in _CLASSES:
                kind, reason, hint = _CLASSES[base.__name__]
                return kind(f"cannot {doing} it: {reason}", url=url, hint=hint)
    if isinstance(error, OSError):
        return from_os_error(error, url, doing=doing)
    lacking = starved(error)
    if lacking is not None:
        return lacking
    if isinstance(error, RuntimeError) and "credentials are still expired" in str(
        error
    ):  # botocore has no class for it
        return AuthError(f"cannot {doing} it: the credentials have expired", url=url, hint=_LOGIN)
    # The text of an unforeseen error is not shown: it may quote a request with its signature.
    return AtdataError(f"cannot {doing} it: unexpected {type(error).__name__}", url=url)


def answer_error(code: str, status: int, url: str, *, doing: str) -> AtdataError:
    """The error that a server's code and HTTP status mean."""
    kind, reason, hint = _from_answer({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}})
    return kind(f"cannot {doing} it: {reason}", url=url, hint=hint or None)


def _from_answer(response: dict[str, Any]) -> _Known:
    code = str(response["Error"].get("Code") or "")
    if code in _CODES:
        return _CODES[code]
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _TEMPORARY_CODES or status == 429 or (status >= 500 and status not in (501, 507)):
        return (
            TemporaryError,
            f"the server is overloaded or has a fault ({code or status})",
            "try again later",
        )
    kind = AuthError if status in (401, 403) else AtdataError
    # What a server says is not trusted: one short line without control characters.
    said = "".join(c if c.isprintable() else " " for c in str(response["Error"].get("Message") or ""))[:200].strip()
    return kind, f"the server says {code or status}" + (f": {said}" if said else ""), ""
