"""Copying a dataset's shards, byte for byte, from wherever they are into a prefix of a store.

Each shard is checked on its way and appears only if it is right; the manifests, byte for byte too, come last. While a
copy runs, or after it broke off, ``.atdata/job.json`` marks the prefix as unfinished, and
``.atdata/shards/NNNNNN.json`` says what the NNNNNNth shard was when it was stored: the same copy again goes on from
there.

Shards that others made have no manifest, and get none: they are copied under their names, with those of the folders
below the one that was named.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from atdata_cli import refs
from atdata_cli.errors import AtdataError, IntegrityError, OccupiedError, TemporaryError, UsageError
from atdata_cli.shards.destination import STATE, Destination, Held, is_shard_name
from atdata_cli.shards.job import Job
from atdata_cli.shards.manifest import FORMAT, MANIFEST, Manifest
from atdata_cli.shards.plan import shard_name
from atdata_cli.shards.protocols import ObjectInfo, ShardStore
from atdata_cli.shards.reader import Located, Shard
from atdata_cli.shards.transfer import CHUNK, JOBS, ShardReader, TransferProgress, copy_shards, in_threads
from atdata_cli.sources.base import Files
from atdata_cli.sources.formats import is_tar
from atdata_cli.words import count

__all__ = ["CopiedShard", "CopyResult", "copy_dataset"]

_LEAVE = "nothing was changed; choose another DEST, or remove what is there"
Status = Literal["copied", "unchanged", "planned"]
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # URLs are printed one a line


@dataclass(frozen=True, slots=True)
class CopiedShard:
    """One shard at its new place.

    Attributes
    ----------
    name : in the store.
    bytes : as stored; None in a plan if the place where it is does not tell.
    sha256 : of its bytes, hex; None in a plan if nothing tells.
    copied : False if it was there already.
    """

    name: str
    bytes: int | None
    sha256: str | None
    copied: bool


@dataclass(frozen=True, slots=True)
class CopyResult:
    """What a copy did, or would do.

    Attributes
    ----------
    status : ``planned`` for a dry run that would copy.
    prefix : of the copy in its store.
    shards : all of them, in order.
    manifest : of the dataset, or the root one of its splits; None for shards that others made.
    """

    status: Status
    prefix: str
    shards: Sequence[CopiedShard]
    manifest: Manifest | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be where.

    Attributes
    ----------
    shards : each with its name below the prefix.
    manifests : name below the prefix to content, in the order in which they are put.
    job : its identity: equal ones give the same objects.
    """

    shards: Sequence[Shard]
    manifests: Mapping[str, bytes]
    job: Job

    @classmethod
    def of(cls, located: Located, files: Files) -> _Plan:
        shards = [replace(shard, name=_name(shard, index)) for index, shard in enumerate(located.shards)]
        manifests = _manifests(located, files)
        repeated = [name for name, times in Counter(shard.name for shard in shards).items() if times > 1]
        if repeated and manifests:
            raise IntegrityError(
                f"the manifest names {repeated[0]!r} twice", url=located.url, hint="write the dataset again"
            )
        if repeated:
            raise UsageError(
                f"{count(len(repeated), 'name')} of shards came more than once, first {repeated[0]!r}",
                url=located.url,
                hint="copy each folder to a DEST of its own, or give the folder above them",
            )
        identity = {
            "copy": 1,
            "manifests": {name: hashlib.sha256(text).hexdigest() for name, text in manifests.items()},
            "shards": [[shard.name, shard.size, shard.expected_sha256] for shard in shards],
        }
        return cls(shards, manifests, Job(hashlib.sha256(_canonical(identity)).hexdigest(), {}))


def _name(shard: Shard, index: int) -> str:
    """What a shard is called at its new place: as where it is, and blobs in a PDS, which have no names, by number."""
    name = shard.name or (shard_name(index) if refs.scheme(shard.url) == "at" else refs.basename(shard.url))
    refs.check_name(name, url=shard.url)
    if any(part == "" or part.startswith(".") for part in name.split("/")) or _CONTROL.search(name):
        raise UsageError(
            f"a shard cannot be copied under the name '{refs.printable(name)}'",
            url=shard.url,
            hint="names with hidden or empty parts, or control characters, are not copied",
        )
    if not is_tar(name):
        raise UsageError(
            "this is no shard: its name does not end as that of a tar",
            url=shard.url,
            hint="copy takes .tar, .tar.gz and .tar.zst",
        )
    return name


def _manifests(located: Located, files: Files) -> dict[str, bytes]:
    """The manifests as they are, the root one last.

    Raises
    ------
    IntegrityError : the root one vouches for another manifest of a split than is there.
    TemporaryError : one was replaced since it was read.
    """
    if located.manifest is None or refs.in_index(located.url):  # what an index tells is no file to copy
        return {}
    splits = located.manifest.splits or {}
    known = {row.manifest: located.parts[f"{split}/"] for split, row in splits.items()}
    known[MANIFEST] = located.manifest
    texts = {}
    for name, manifest in known.items():
        url = refs.join(located.url, name)
        with files.open(url) as reader:
            text = texts[name] = reader.read()
        if Manifest.loads(text, url=url) != manifest:
            raise TemporaryError("the manifest was replaced while it was read", url=url, hint="start again")
    for row in splits.values():
        if hashlib.sha256(texts[row.manifest]).hexdigest() != row.sha256:
            raise IntegrityError(
                "this is not the manifest of the split that the root one vouches for",
                url=refs.join(located.url, row.manifest),
                hint="the split was changed by itself: write the dataset again",
            )
    # Each split is a dataset of its own, too.
    return {f"{split}/{MANIFEST}": texts[row.manifest] for split, row in splits.items()} | texts


def copy_dataset(
    located: Located,
    files: Files,
    store: ShardStore,
    prefix: str,
    *,
    jobs: int = JOBS,
    progress: TransferProgress | None = None,
    if_exists: Literal["resume", "fail"] = "resume",
    dry_run: bool = False,
) -> CopyResult:
    """Copy shards, and their manifests if they have some, to *prefix*: the same bytes under the same names.

    Parameters
    ----------
    located : what to copy, as :func:`atdata_cli.shards.reader.locate` found it.
    files : how it is read.
    store, prefix : where it goes.
    jobs : shards under way at once.
    progress : told how far it is.
    if_exists : ``resume`` leaves a finished copy as it is and goes on with an unfinished one; ``fail`` refuses both.
    dry_run : look only; nothing is stored.

    Raises
    ------
    IntegrityError : a shard or manifest is not what it should be; it is not stored.
    OccupiedError : the prefix holds something else; nothing is touched.
    AtdataError : anything else; the same call can be repeated, and copies what is missing.
    """
    destination = Destination(store, prefix)
    destination.check_writable()
    copy = _Copy(_Plan.of(located, files), files, destination, jobs, progress or TransferProgress())
    held = copy.survey()
    if held != "nothing" and if_exists == "fail":
        raise OccupiedError(f"it holds this copy, {held}", url=store.url(prefix), hint="leave out --if-exists fail")
    if held == "nothing" and not dry_run and not copy.begin():
        held = copy.survey()
    copy.find_kept(held)
    status: Status = "unchanged" if held == "finished" and copy.is_complete() else "planned" if dry_run else "copied"
    if not dry_run:
        copy.run(held)
    return CopyResult(status, prefix, copy.shards(), located.manifest if copy.has_manifest else None)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A shard that is at its new place.

    Attributes
    ----------
    bytes, sha256 : of what is there.
    version : of the object, by which a replacement is noticed.
    """

    bytes: int
    sha256: str
    version: str | None


_Found = Literal["nothing", "finished", "unfinished"]


class _Copy:
    """One run."""

    def __init__(
        self, plan: _Plan, files: Files, destination: Destination, jobs: int, progress: TransferProgress
    ) -> None:
        self.has_manifest = bool(plan.manifests)
        self._plan = plan
        self._files = files
        self._destination = destination
        self._store = destination.store
        self._jobs = jobs
        self._progress = progress
        self._manifest: bytes | None = None  # that is at the new place
        self._there: dict[str, ObjectInfo] = {}  # by name below the prefix
        self._kept: dict[int, _Stored] = {}
        self._copied: dict[int, _Stored] = {}

    def survey(self) -> _Found:
        """What the prefix holds of this copy.

        Raises
        ------
        OccupiedError : it holds anything else.
        TemporaryError : other runs keep changing what is there.
        """
        return self._destination.when_at_rest(self._look)

    def _look(self) -> _Found | None:
        """What :meth:`survey` tells; None if it changed while it was looked at."""
        text = self._manifest = self._store.read(self._destination.name(MANIFEST))
        self._there = self._destination.objects()
        if text is not None and (self._plan.manifests or FORMAT.encode() in text):
            if text == self._plan.manifests.get(MANIFEST):
                return "finished"
            raise self._occupied("it holds another dataset, or another version of this one")
        marked = self._destination.marked()
        if marked is not None:
            if marked == self._plan.job.id:
                return "unfinished"
            raise self._occupied("it holds another job's unfinished dataset")
        ours = [shard.name for shard in self._plan.shards if shard.name in self._there]
        if not self._plan.manifests and len(ours) == len(self._plan.shards):
            return "finished"
        others = [name for name in self._there if is_shard_name(name)] if self._plan.manifests else []
        taken = next(iter(ours + others), None)
        if taken is None:
            return "nothing"
        if not self._destination.is_at_rest(self._there, finished=text is not None):
            return None
        what = "shards without a manifest" if self._plan.manifests else "a shard of this name, but not all of them"
        raise self._occupied(f"it holds {what}", taken)

    def _occupied(self, what: str, name: str = "") -> OccupiedError:
        url = self._store.url(self._destination.name(name)) if name else self._destination.url
        return OccupiedError(what, url=url, hint=_LEAVE)

    def find_kept(self, held: _Found) -> None:
        """Find the shards that are there, as they should be.

        Raises
        ------
        OccupiedError : others have the names of those that no manifest and no mark tells about.
        """
        if held == "nothing":
            return
        self._progress.activity = "comparing"
        # Without a manifest nothing says that what is there is what is to be copied, but the bytes themselves.
        find = self._of_size if self._plan.manifests else self._equal
        found = in_threads(find if held == "finished" else self._of_state, self._plan.shards, self._jobs)
        self._kept = {index: stored for index, stored in enumerate(found) if stored is not None}

    def _of_size(self, index: int, shard: Shard, stop: threading.Event) -> _Stored | None:
        info = self._there.get(shard.name)
        if info is None or info.size != shard.size:
            return None
        return _Stored(info.size, shard.expected_sha256 or "", info.version)

    def _equal(self, index: int, shard: Shard, stop: threading.Event) -> _Stored:
        info = self._there[shard.name]
        if shard.size in (None, info.size):
            stored = self._read_back(info, stop)
            if stored.sha256 == (shard.expected_sha256 or self._hash_of(shard, stop)):
                return stored
        raise self._occupied("it holds a shard of this name with other content", shard.name)

    def _of_state(self, index: int, shard: Shard, stop: threading.Event) -> _Stored | None:
        """By what this job, when it ran before, said of the shard; else by reading what is there."""
        info = self._there.get(shard.name)
        if info is None or shard.size not in (None, info.size):
            return None
        stored = self._state(index)
        if stored is None or stored.version is None or (stored.bytes, stored.version) != (info.size, info.version):
            if shard.expected_sha256 is None:
                return None
            stored = self._read_back(info, stop)
        return stored if shard.expected_sha256 in (None, stored.sha256) else None

    def _state(self, index: int) -> _Stored | None:
        name = _state_name(index)
        text = self._store.read(self._destination.name(name)) if name in self._there else None
        try:
            return _Stored(**json.loads(text)) if text else None
        except (ValueError, TypeError, RecursionError):
            return None

    def _hash_of(self, shard: Shard, stop: threading.Event) -> str | None:
        with ShardReader(shard, self._files, stop=stop) as stream:
            for _ in stream:
                pass
            return stream.sha256

    def _read_back(self, info: ObjectInfo, stop: threading.Event) -> _Stored:
        digest = hashlib.sha256()
        with self._store.open(info.name) as reader:
            while not stop.is_set() and (data := reader.read(CHUNK)):
                digest.update(data)
        return _Stored(info.size, digest.hexdigest(), info.version)

    def is_complete(self) -> bool:
        """Whether all is there."""
        missing = self._plan.manifests.keys() - self._there.keys()
        return len(self._kept) == len(self._plan.shards) and not missing

    def begin(self) -> bool:
        """Mark the place as this copy's; False if another run of it has finished since the survey.

        Raises
        ------
        OccupiedError : another job has marked it, or finished there.
        """
        try:
            self._destination.begin(self._plan.job, Held("nothing", text=self._manifest))
        except OccupiedError:
            manifest = self._plan.manifests.get(MANIFEST)
            if manifest is None or self._store.read(self._destination.name(MANIFEST)) != manifest:
                raise
            return False
        return True

    def run(self, held: _Found) -> None:
        """Copy what is missing, then the manifests; remove the marks."""
        missing = [index for index in range(len(self._plan.shards)) if index not in self._kept]
        try:
            self._copy(missing)
            for name, text in self._plan.manifests.items():
                self._destination.put_manifest(name, text)
        except BaseException:
            if held == "nothing" and not self._copied:
                with suppress(AtdataError):  # the first error is the one to tell
                    self._destination.release()
            raise
        self._clean(held)

    def _copy(self, missing: Sequence[int]) -> None:
        self._progress.activity = "copying"
        sizes = [self._plan.shards[index].size for index in missing]
        self._progress.total = None if None in sizes else sum(size or 0 for size in sizes)

        def put(stream: ShardReader) -> None:
            self._put(missing[stream.index], stream)

        copy_shards(
            [self._plan.shards[index] for index in missing], self._files, put, jobs=self._jobs, progress=self._progress
        )

    def _put(self, index: int, stream: ShardReader) -> None:
        name = self._destination.name(stream.shard.name)
        sink = self._store.create(name)
        size = 0
        try:
            for chunk in stream:
                sink.write(chunk)
                size += len(chunk)
            sink.commit()
        except BaseException:
            with suppress(AtdataError):  # the first error is the one to tell
                sink.abort()
            raise
        stored = self._copied[index] = _Stored(size, stream.sha256 or "", None)
        info = self._store.stat(name)
        stored = replace(stored, version=info.version if info else None)
        state = self._destination.name(_state_name(index))
        self._store.put(state, _canonical(asdict(stored)) + b"\n")

    def _clean(self, held: _Found) -> None:
        """Remove what a run that was killed left in the making, and the marks."""
        if held == "unfinished":
            names = {*(shard.name for shard in self._plan.shards), *self._plan.manifests}
            self._destination.clean(lambda name: name in names)
        if self._destination.marked() in (None, self._plan.job.id):
            self._destination.release()

    def shards(self) -> list[CopiedShard]:
        """All shards of the copy, as they are now, or would be."""
        return [self._shard(index, shard) for index, shard in enumerate(self._plan.shards)]

    def _shard(self, index: int, shard: Shard) -> CopiedShard:
        name = self._destination.name(shard.name)
        stored = self._kept.get(index) or self._copied.get(index)
        if stored is None:
            return CopiedShard(name, shard.size, shard.expected_sha256, copied=True)
        return CopiedShard(name, stored.bytes, stored.sha256, copied=index not in self._kept)


def _state_name(index: int) -> str:
    return f"{STATE}/shards/{index:06d}.json"


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")
