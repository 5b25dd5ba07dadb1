"""What a prefix holds before a job begins, and the marks that a job leaves while it runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from posixpath import join
from typing import Any, Literal

from atdata_cli.errors import IntegrityError, OccupiedError, TemporaryError
from atdata_cli.shards.job import Job
from atdata_cli.shards.manifest import MANIFEST, STATE, Manifest
from atdata_cli.shards.protocols import ObjectInfo, ShardStore

__all__ = ["STATE", "Destination", "Held", "is_shard_name"]

_JOB = f"{STATE}/job.json"
_SHARD = re.compile(r"(?:.*/)?shard-\d{6,}(?:-[0-9a-f]+)?\.tar(?:\.gz)?")
_LEAVE = "nothing was changed; choose another DEST, or remove what is there"

Held = Literal["nothing", "finished", "unfinished"]


@dataclass(frozen=True, slots=True)
class Destination:
    """A prefix in a store, as the target of one job."""

    store: ShardStore
    prefix: str

    @property
    def url(self) -> str:
        """The prefix, for messages."""
        return self.store.url(self.prefix)

    def name(self, relative: str) -> str:
        """An object's name in the store."""
        return join(self.prefix, relative)

    def survey(self, job: Job) -> tuple[Held, bytes | None]:
        """What the prefix holds of this job: nothing, its finished dataset (with the manifest's text), or a part of it.

        Raises
        ------
        OccupiedError : it holds anything else; nothing is touched.
        """
        text = self.store.read(self.name(MANIFEST))
        if text is not None:
            self._check_same(Manifest.loads(text, url=self.store.url(self.name(MANIFEST))), job)
            return "finished", text
        marked = self.marked()
        if marked is not None:
            if marked != job.id:
                raise OccupiedError("it holds another job's unfinished dataset", url=self.url, hint=_LEAVE)
            return "unfinished", None
        for name in self._names():
            if _SHARD.fullmatch(name):
                what = "a folder in it holds shards" if "/" in name else "it holds shards without a manifest"
                raise OccupiedError(what, url=self.store.url(self.name(name)), hint=_LEAVE)
        return "nothing", None

    def marked(self) -> str | None:
        """The job whose mark is here: its id, or an empty text for a mark that cannot be read; None without a mark."""
        state = self.store.read(self.name(_JOB))
        return None if state is None else _job_id(state) or ""

    def _check_same(self, manifest: Manifest, job: Job) -> None:
        if manifest.job == job.id:
            return
        differences = _differences(manifest.options, job.options)
        what = ", ".join(differences) if differences else "the input has other names or sizes"
        raise OccupiedError(
            f"it holds the dataset {manifest.name!r} ({manifest.samples} samples) of another job: {what}",
            url=self.url,
            hint=_LEAVE,
        )

    def begin(self, job: Job) -> None:
        """Mark the prefix as this job's.

        Raises
        ------
        TemporaryError : another run has done so since the survey.
        """
        mark = json.dumps({"format": "atdata-job", "version": 1, "job": job.id}, sort_keys=True) + "\n"
        if not self.store.put_if_absent(self.name(_JOB), mark.encode()):
            raise TemporaryError(
                "another run is writing here", url=self.url, hint="wait for it to end, then run the command again"
            )

    def clear(self, job: Job) -> None:
        """Remove what an unfinished *job* of ours left: its shards and its splits' manifests, then its mark.

        A job writes into the prefix and, for splits, into folders right below it. A folder that has a mark, or a
        manifest of another job, has become somebody else's since, and is left alone.
        """
        folders: dict[str, list[str]] = {}
        for relative in self._names():
            folder, slash, name = relative.partition("/")
            folders.setdefault(folder if slash else "", []).append(name or folder)
        for folder, names in folders.items():
            ours = [name for name in names if "/" not in name and _SHARD.fullmatch(name)]
            if folder:
                ours += [name for name in names if name == MANIFEST]
            if not folder or (ours and self._is_split(folder, names, job)):
                for name in ours:
                    self.store.delete(self.name(join(folder, name)))
        self.release()

    def objects(self) -> dict[str, ObjectInfo]:
        """All that the prefix holds, by name relative to it."""
        below = len(join(self.prefix.strip("/"), ""))
        return {item.name[below:]: item for item in self.store.list(self.prefix)}

    def _names(self) -> Iterator[str]:
        """Names of all that the prefix holds, relative to it."""
        below = len(join(self.prefix.strip("/"), ""))
        return (item.name[below:] for item in self.store.list(self.prefix))

    def _is_split(self, folder: str, names: Sequence[str], job: Job) -> bool:
        if _JOB in names:
            return False
        text = self.store.read(self.name(join(folder, MANIFEST))) if MANIFEST in names else None
        if text is None:
            return True
        try:
            manifest = Manifest.loads(text, url=self.store.url(self.name(join(folder, MANIFEST))))
        except IntegrityError:
            return False
        return manifest.job == job.id and manifest.split == folder

    def release(self) -> None:
        """Remove the mark."""
        self.store.delete(self.name(_JOB))

    def publish(self, relative: str, manifest: Manifest) -> None:
        """Put a manifest; it appears whole, and only where there is none.

        Raises
        ------
        OccupiedError : another run has put a different one.
        """
        self.put_manifest(relative, manifest.dumps())

    def put_manifest(self, relative: str, text: bytes) -> None:
        """:meth:`publish` of a manifest's text."""
        name = self.name(relative)
        if not self.store.put_if_absent(name, text) and self.store.read(name) != text:
            raise OccupiedError("another run has finished another dataset here", url=self.url, hint=_LEAVE)

    def check_complete(self, manifests: Mapping[str, Manifest]) -> None:
        """Check that the shards of a finished dataset are still there, by size.

        Parameters
        ----------
        manifests : folder relative to the prefix (``""`` or a split's) to its manifest.

        Raises
        ------
        IntegrityError : one is missing or has another size.
        """
        sizes = {item.name: item.size for item in self.store.list(self.prefix)}
        for folder, manifest in manifests.items():
            for row in manifest.shards:
                name = self.name(join(folder, row.name))
                if sizes.get(name) != row.bytes:
                    found = f"has {sizes[name]} bytes" if name in sizes else "is missing"
                    raise IntegrityError(
                        f"a shard of the finished dataset {found}; its manifest says {row.bytes} bytes",
                        url=self.store.url(name),
                        hint="remove the manifest and write again",
                    )


def is_shard_name(name: str) -> bool:
    """Whether a name is one that this program gives a shard, in the prefix or a folder of it."""
    return _SHARD.fullmatch(name) is not None


def _job_id(state: bytes) -> str | None:
    import orjson  # json would raise RecursionError for what nests deeply

    try:
        document = orjson.loads(state)
    except orjson.JSONDecodeError:
        return None
    job = document.get("job") if isinstance(document, dict) else None
    return job if isinstance(job, str) else None


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """``--max-count 100 there, 200 here`` for each option that differs."""
    found = []
    for name in sorted({*theirs, *ours}):
        # Both have been through JSON in one case only: compare as JSON does.
        there, here = (json.dumps(side.get(name), sort_keys=True) for side in (theirs, ours))
        if there != here:
            option = "--" + name.replace("_", "-")
            found.append(f"{option} {_shown(there)} there, {_shown(here)} here")
    return found


def _shown(text: str) -> str:
    return "default" if text == "null" else text if len(text) <= 60 else text[:57] + "…"
