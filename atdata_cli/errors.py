"""Exit codes and errors: the one place that defines what can go wrong and what it means to a script."""

from __future__ import annotations

import enum
import errno
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from atdata_cli.redaction import redact

__all__ = [
    "AtdataError",
    "AuthError",
    "DataError",
    "ExitCode",
    "IntegrityError",
    "MissingExtraError",
    "NotFoundError",
    "OccupiedError",
    "RateLimitedError",
    "TemporaryError",
    "UntrustedError",
    "UsageError",
    "from_os_error",
    "lost_shard",
    "reason_of",
    "resized_shard",
    "starved",
]


class ExitCode(enum.IntEnum):
    """What a finished process tells its caller; help, man pages, README and tests read it from here."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> ExitCode:  # noqa: D102 - makes a member of (value, meaning)
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    DONE = 0, "done, or nothing to do because it is unchanged"
    FAILED = 1, "failed"
    USAGE = 2, "wrong usage"
    NOT_FOUND = 3, "not found, or empty"
    NOT_AUTHORISED = 4, "not authorised, or not configured"
    TEMPORARY = 5, "temporary failure, try again (also: another run holds it)"
    INTEGRITY = 6, "integrity check failed, or unfinished"
    REJECTED = 7, "done, but some samples were rejected"
    OCCUPIED = 8, "the destination holds something else"
    UNCHANGED = 9, "unchanged (only with --exit-unchanged)"
    HUNG_UP = 129, "the terminal went away (SIGHUP)"
    INTERRUPTED = 130, "interrupted (SIGINT)"
    BROKEN_PIPE = 141, "the reader of the output went away (SIGPIPE)"
    TERMINATED = 143, "terminated (SIGTERM)"


class AtdataError(Exception):
    """An error that a person can act on.

    Parameters
    ----------
    message : what failed, in one line.
    url : the file or URL that it concerns; may hold credentials, so print it through ``redact``, as ``str`` does.
    hint : what to do next.

    Attributes
    ----------
    retryable : the same may succeed if it is tried again.
    repeated : it was tried again, as often as is allowed: nobody further up should.
    """

    exit_code = ExitCode.FAILED
    code = "failed"
    retryable = False
    repeated = False

    def __init__(self, message: str, *, url: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.url = url
        self.hint = hint

    def __str__(self) -> str:
        where = f"{redact(self.url)}: " if self.url else ""
        advice = f" ({redact(self.hint)})" if self.hint else ""
        return f"{where}{redact(self.message)}{advice}"

    def __reduce__(self) -> tuple[Callable[..., AtdataError], tuple[Any, ...]]:
        # The usual way calls the class with the message alone, which not every one of them takes.
        return _from_process, (type(self), self.args, self.__dict__)


def _from_process(kind: type[AtdataError], args: tuple[Any, ...], state: Mapping[str, Any]) -> AtdataError:
    """An error as another process raised it."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class UsageError(AtdataError):
    """The command line, or an argument of a call, cannot mean anything."""

    exit_code = ExitCode.USAGE
    code = "usage"


class NotFoundError(AtdataError):
    """What was named is not there, or holds no samples."""

    exit_code = ExitCode.NOT_FOUND
    code = "not-found"


class AuthError(AtdataError):
    """Credentials are missing, wrong, or not allowed to do this."""

    exit_code = ExitCode.NOT_AUTHORISED
    code = "not-authorised"


class TemporaryError(AtdataError):
    """The same command may succeed later."""

    exit_code = ExitCode.TEMPORARY
    code = "temporary"
    retryable = True

    def __init__(self, message: str, *, url: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, url=url, hint=hint or "try again later")


class RateLimitedError(TemporaryError):
    """A server takes no more requests for the moment, and says until when.

    Parameters
    ----------
    wait : seconds from now until it takes some again.
    """

    code = "rate-limited"

    def __init__(self, message: str, *, wait: float, url: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, url=url, hint=hint)
        self.wait = wait


class IntegrityError(AtdataError):
    """Bytes are not what a manifest, checksum or format says, or a dataset is unfinished."""

    exit_code = ExitCode.INTEGRITY
    code = "integrity"


class OccupiedError(AtdataError):
    """The destination holds another dataset, or another job's unfinished work."""

    exit_code = ExitCode.OCCUPIED
    code = "occupied"


class UntrustedError(AtdataError):
    """A server's certificate is signed by nobody who is trusted, or is not for this server."""

    code = "untrusted"


class DataError(AtdataError):
    """The input itself is wrong: repeating the run cannot help until it is mended."""

    code = "bad-data"


class MissingExtraError(AtdataError):
    """An optional dependency is not installed."""

    exit_code = ExitCode.NOT_AUTHORISED
    code = "missing-extra"

    def __init__(self, what: str, *, extra: str, url: str | None = None) -> None:
        super().__init__(
            f"{what} needs the optional '{extra}' dependencies",
            url=url,
            hint=f"pip install 'atdata-cli[{extra}]'",
        )


_PASSING = frozenset(
    {errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE}
    | {errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET}
)

_MEMORY = "give it more: raise the limit (ulimit -v, or that of the container), or use fewer --jobs"

_HINTS = {
    errno.ENOSPC: "free some space, or write to another place; then run the same command again",
    errno.EDQUOT: "the quota is used up: free some space, or write to another place; then run the same command again",
    errno.EFBIG: "a file may not grow so large here: raise the limit (ulimit -f), or write smaller shards (--max-size)",
    errno.EROFS: "mount the file system writable, then run the same command again; or write to another place",
    errno.EIO: "the disk or its connection has a fault: see the system's log",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "this machine has too many files open: try again later",
    errno.ENOMEM: _MEMORY,
    errno.ENAMETOOLONG: "shorten the name",
}


_RESTORE = "restore it, or write the dataset again; inspect --verify finds everything that is wrong"


def lost_shard(url: str) -> IntegrityError:
    """What it means that nothing is at the *url* of a shard that a manifest names."""
    return IntegrityError(
        "the manifest names a shard that is not there",
        url=url,
        hint=_RESTORE,
    )


def resized_shard(url: str, size: int, expected: int) -> IntegrityError:
    """What it means that a shard has not as many bytes as its manifest says."""
    return IntegrityError(f"it has {size:,} bytes, the manifest says {expected:,}", url=url, hint=_RESTORE)


def starved(error: BaseException) -> AtdataError | None:
    """What it means that memory, or a thread, was not to be had; None if that is not what *error* says.

    The loader of shared libraries reports it in words, as an ImportError; of a library that does not report it
    at all Python says that an error came without an exception.
    """
    text = str(error)
    if (
        isinstance(error, MemoryError)
        or (isinstance(error, ImportError) and any(words in text for words in ("map segment", "allocate memory")))
        or (isinstance(error, SystemError) and ("without exception set" in text or "without setting an" in text))
    ):
        return AtdataError("there is not enough memory", hint=_MEMORY)
    if isinstance(error, RuntimeError) and "start new thread" in text:
        return AtdataError("no thread can be started", hint="raise the limit on processes (ulimit -u)")
    return None


def from_os_error(error: OSError, url: str, *, doing: str) -> AtdataError:
    """Turn an operating system's (or fsspec's) error into one of ours.

    Parameters
    ----------
    error : the error as raised; fsspec file systems use the same classes, often without an ``errno``.
    url : the file or URL concerned.
    doing : what was being done, as a verb phrase: "read", "write to".
    """
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"cannot {doing} it: no such file or folder", url=url, hint="check the path")
    if isinstance(error, PermissionError):
        return AuthError(f"cannot {doing} it: permission denied", url=url, hint="check owner and mode")
    if isinstance(error, IsADirectoryError):
        return UsageError(f"cannot {doing} it: it is a folder", url=url, hint="name a file in it")
    if isinstance(error, NotADirectoryError | FileExistsError):
        return UsageError(
            f"cannot {doing} it: a file is where a folder is needed",
            url=url,
            hint="choose another place, or move the file away",
        )
    if isinstance(error, TimeoutError | ConnectionError) or error.errno in _PASSING:
        return TemporaryError(f"cannot {doing} it: {reason_of(error)}", url=url)
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else reason_of(error)
    return AtdataError(f"cannot {doing} it: {reason}", url=url, hint=_HINTS.get(error.errno or 0))


def reason_of(error: BaseException) -> str:
    """What an error that is none of ours says, in one line; without the number that Python puts before it."""
    words = str(getattr(error, "strerror", None) or error).strip()
    return re.sub(r"^\[Errno -?\d+\] ", "", words.splitlines()[0]) if words else type(error).__name__
