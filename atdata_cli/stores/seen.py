"""What a dataset was made from, as this machine saw it: an unchanged input then need not be read to know that.

This is a cache. Without it, or where it says anything else, the input is read and compared; it never decides that
something changed, and it is asked only where the destination holds the finished dataset of the same job.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

from atdata_cli.config import cache_home
from atdata_cli.refs import local_path, scheme
from atdata_cli.sources.base import FileInfo

__all__ = ["SeenInputs"]

# A file that was changed so shortly before it was listed may change again within one tick of its clock.
_SETTLED_NS = 2 * 10**9
_DIGEST = 16


class SeenInputs:
    """The files that one run has been told of, and what is remembered of those of the run before.

    Parameters
    ----------
    dest : where the dataset is, as typed.
    where : what else tells one destination from another of the same name: the server.
    """

    def __init__(self, dest: str, where: str = "") -> None:
        place = dest.rstrip("/")
        if scheme(dest) in ("", "file"):
            place = os.path.realpath(local_path(dest))
        name = hashlib.sha256(f"{where} {place}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self._path = Path(cache_home(), "atdata-cli", "inputs", f"{name}.json")
        self._began = time.time_ns()
        self._total = 0
        self._files = 0
        self._told = True

    def see(self, info: FileInfo) -> None:
        """Take in one file. The order does not matter: what is kept is the sum of all files' hashes."""
        version = info.version
        if version is None or info.kind != "file":
            self._told = self._told and info.kind == "folder"
            return
        if isinstance(version, tuple):
            if version[0] > self._began - _SETTLED_NS:
                self._told = False
                return
            version = ":".join(map(str, version))
        text = f"{info.url}\0{info.size}\0{version}".encode("utf-8", "surrogateescape")
        self._total += int.from_bytes(hashlib.blake2b(text, digest_size=_DIGEST).digest(), "big")
        self._files += 1

    def distrust(self) -> None:
        """The input is more than the files that were seen."""
        self._told = False

    def are_those_of(self, manifest: bytes) -> bool:
        """Whether the dataset with this manifest was made from the files seen."""
        if not self._told or not self._files:
            return False
        try:
            known = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return False
        return bool(known == self._document(manifest))

    def remember(self, manifest: bytes) -> None:
        """Keep that the files seen are those of the dataset with this manifest."""
        if not self._told or not self._files:
            return
        temporary = self._path.with_suffix(".new")  # one name: what a killed run leaves, the next one uses
        with contextlib.suppress(OSError):  # no home, a full or read-only disk: then the next run reads the input
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._document(manifest)))
            temporary.replace(self._path)

    def _document(self, manifest: bytes) -> dict[str, str]:
        files = f"{self._files}:{self._total % (1 << 8 * _DIGEST):x}"
        return {"files": files, "manifest": hashlib.sha256(manifest).hexdigest()}
