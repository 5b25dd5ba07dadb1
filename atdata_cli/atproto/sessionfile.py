"""Sessions on disk: one file an account, readable by its owner alone, in the XDG state folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from atdata_cli import config
from atdata_cli.errors import TemporaryError

__all__ = ["SessionFile", "Tokens"]

_ENDING = ".session"
_LOCK_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Tokens:
    """A session, as the SDK's ``Session`` but immutable, and without its secrets in any text.

    Attributes
    ----------
    handle, did, pds_url : of the account.
    access, refresh : its tokens, good for hours and for months. A refresh token can be used once.
    """

    handle: str
    did: str
    pds_url: str
    access: str = field(repr=False)
    refresh: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionFile:
    """The stored session of one account.

    The content is what the SDK's ``Session.encode`` gives.
    """

    path: Path

    @classmethod
    def of(cls, did: str) -> SessionFile:
        """The file of a DID, whether it exists or not."""
        return cls(_folder() / f"{did.replace(':', '_')}{_ENDING}")

    @classmethod
    def all(cls) -> list[SessionFile]:
        """All files there are."""
        return [cls(path) for path in sorted(_folder().glob(f"*{_ENDING}"))]

    def read(self) -> Tokens | None:
        """The session, or None if there is none."""
        from atproto import Session

        try:
            stored = Session.decode(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return Tokens(stored.handle, stored.did, stored.pds_endpoint or "", stored.access_jwt, stored.refresh_jwt)

    def write(self, tokens: Tokens) -> None:
        """Replace the file, whole.

        Raises
        ------
        OSError : it cannot be written.
        """
        from atproto import Session

        text = Session(tokens.handle, tokens.did, tokens.access, tokens.refresh, tokens.pds_url).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.{time.monotonic_ns()}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def delete(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from using the refresh token at the same time.

        Raises
        ------
        TemporaryError : another process has held it for minutes.
        OSError : there can be no lock file.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + _LOCK_SECONDS
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if time.monotonic() > deadline:
                    raise TemporaryError("another process is renewing the session", url=str(self.path))
                time.sleep(0.05)
            yield
        finally:
            os.close(descriptor)  # which ends the lock


def _folder() -> Path:
    return Path(config.state_home()) / "atdata-cli" / "sessions"
