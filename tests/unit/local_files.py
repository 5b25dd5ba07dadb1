"""Reading access to local files, as small as the protocol allows."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from atdata_cli.sources.base import FileInfo


class LocalFiles:
    def __init__(self) -> None:
        self._hidden = 0

    def info(self, url: str) -> FileInfo | None:
        return _info(url, os.stat(url)) if os.path.exists(url) else None

    def walk(self, url: str) -> Iterator[tuple[str, FileInfo]]:
        folders = [""]
        while folders:
            folder = folders.pop()
            with os.scandir(os.path.join(url, folder)) as entries:
                for entry in entries:
                    name = folder + entry.name
                    if entry.name.startswith("."):
                        self._hidden += 1
                        continue
                    if entry.is_dir():
                        folders.append(name + "/")
                    yield name, _info(entry.path, entry.stat())

    def hidden(self) -> int:
        return self._hidden

    def glob(self, pattern: str) -> list[str]:
        return sorted(glob.glob(pattern, recursive=True), key=os.fsencode)

    def open(self, url: str) -> BinaryIO:
        return open(url, "rb")


def _info(url: str, status: os.stat_result) -> FileInfo:
    if stat.S_ISDIR(status.st_mode):
        return FileInfo(url, "folder")
    return FileInfo(url, "file", status.st_size) if stat.S_ISREG(status.st_mode) else FileInfo(url, "other")
