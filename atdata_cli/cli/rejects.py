"""``--rejects FILE``: what was left out, one JSON object a line."""

from __future__ import annotations

import json
import os
from types import TracebackType

from atdata_cli.errors import UsageError, from_os_error
from atdata_cli.refs import redact
from atdata_cli.sources.base import Reject

__all__ = ["RejectsWriter"]


class RejectsWriter:
    """Writes rejects as they come: ``{"where", "reason", "key", "record"}``, as a context manager.

    The file is there, and empty, also if nothing is rejected.
    """

    def __init__(self, path: str) -> None:
        if path == "-":
            raise UsageError("--rejects needs a file: standard output carries the shards' URLs")
        self._path = path
        try:
            # Rows may hold anything: nobody else has to see them.
            self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii")
        except OSError as error:
            raise from_os_error(error, path, doing="write to") from error

    def write(self, reject: Reject) -> None:
        """Add one reject."""
        where, reason = redact(reject.where), redact(reject.reason)
        line = {"where": where, "reason": reason, "key": reject.key, "record": reject.record}
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise from_os_error(error, self._path, doing="write to") from error

    def restart(self) -> None:
        """Forget all: the input is read again from the beginning. What has gone into a pipe is gone."""
        try:
            if self._file.seekable():
                self._file.seek(0)
                self._file.truncate()
        except OSError as error:
            raise from_os_error(error, self._path, doing="write to") from error

    def __enter__(self) -> RejectsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()
