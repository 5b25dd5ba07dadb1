"""What a prefix holds before a job begins, and the marks that a job leaves while it runs.

Nobody holds a lock and no clock is asked: who may write where is decided by ``.atdata/job.json``, which is put only
where there is none, and by the manifest, which is put only where there is none or in the place of the one that was
there when the job began. Runs of one job may write at the same time, for they write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from posixpath import join
from typing import Any, Literal, TypeVar

from atdata_cli.errors import AtdataError, IntegrityError, NotFoundError, OccupiedError, TemporaryError, UsageError
from atdata_cli.shards.job import Job
from atdata_cli.shards.manifest import MANIFEST, STATE, Manifest, ShardRow, is_split_manifest, shard_row
from atdata_cli.shards.plan import shard_name
from atdata_cli.shards.protocols import ObjectInfo, ShardStore
from atdata_cli.words import typed_size

__all__ = ["PARTS", "PLAN", "STATE", "Destination", "Held", "Place", "ShardNames", "is_shard_name"]

_JOB = f"{STATE}/job.json"
PARTS = f"{STATE}/parts"
PLAN = f"{STATE}/plan.json"
_STATE_FILE = re.compile(r"(?:(.+)/)?(\d{6,})\.json")
_SHARD = re.compile(r"(?:.*/)?shard-(\d{6,})(?:-[0-9a-f]+)?\.tar(?:\.gz)?")
_LEAVE = "nothing was changed; choose another DEST, or remove what is there"

T = TypeVar("T")
Place = tuple[str, int]
"""A shard's folder (``""`` or a split's name) and its number in it."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a prefix holds.

    Attributes
    ----------
    kind : ``finished`` and ``unfinished`` are this job's; ``other`` is another job's finished dataset.
    text : of the manifest there, if there is one: also while an update of it is unfinished.
    version : of that manifest, by which it can be replaced.
    parts : folder (``""``, or each split's) to its manifest.
    root : the manifest that ``text`` is.
    shards : the shards that are there, of the dataset or of the unfinished job: a shard with the same bytes need not
        be stored again.
    names : all objects below the prefix, relative to it, with their sizes.
    differs : how the other job differs from this one.
    over : whether the mark of the job that made the dataset is still here: its run was killed in between, or is about
        to remove it.
    """

    kind: Literal["nothing", "finished", "unfinished", "other"]
    text: bytes | None = None
    version: str | None = None
    parts: Mapping[str, Manifest] = field(default_factory=dict)
    root: Manifest | None = None
    shards: Mapping[Place, ShardRow] = field(default_factory=dict)
    names: Mapping[str, int] = field(default_factory=dict)
    differs: str = ""
    over: bool = False

    @property
    def base(self) -> str | None:
        """SHA-256 of the manifest there: what an update begins from."""
        return None if self.text is None else hashlib.sha256(self.text).hexdigest()

    def replaced(self, folder: str, rows: Sequence[ShardRow]) -> list[str]:
        """The shards in a folder that stay for readers of the manifest there, if *rows* are those of the new one."""
        part = self.parts.get(folder, None if folder else self.root)
        if part is None or part.shards == rows:
            return [] if part is None else list(part.replaced)
        left = {*part.replaced, *(row.name for row in part.shards)}.difference(row.name for row in rows)
        return sorted(name for name in left if join(folder, name) in self.names)


@dataclass(frozen=True, slots=True)
class ShardNames:
    """The file names of one job's shards.

    Attributes
    ----------
    tail : what stands after the number.
    gzip : whether they are compressed.
    """

    tail: str
    gzip: bool

    def of(self, index: int) -> str:
        """The name of one shard."""
        return _renamed(shard_name(index, gzip=self.gzip), self.tail)


@dataclass(frozen=True, slots=True)
class Destination:
    """A prefix in a store, as the target of one job.

    Attributes
    ----------
    part : the part of a dataset that is written there by itself, with names and marks of its own; empty for all of it.
    """

    store: ShardStore
    prefix: str
    part: str = ""

    @property
    def _shards(self) -> str:
        return f"{STATE}/shards{self._part_tail}"

    @property
    def _part_tail(self) -> str:
        return "-" + hashlib.sha256(f"part {self.part}".encode()).hexdigest()[:8] if self.part else ""

    @property
    def url(self) -> str:
        """The prefix, for messages."""
        return self.store.url(self.prefix)

    @property
    def giving_up(self) -> str:
        """The command that removes an unfinished job, for hints."""
        return f"atdata-cli abort {shlex.quote(self.url)}"

    def name(self, relative: str) -> str:
        """An object's name in the store."""
        return join(self.prefix, relative)

    # --- before ---

    def check_writable(self) -> None:
        """Find that nothing can be stored here.

        Raises
        ------
        UsageError : nothing can.
        """
        if not self.store.writable:
            raise UsageError(
                "this store can only be read",
                url=self.url,
                hint="choose a DEST that can be written to: atdata-cli stores lists them",
            )

    def survey(self, job: Job) -> Held:
        """What the prefix holds.

        Raises
        ------
        OccupiedError : another job's unfinished dataset, or shards that no manifest tells of; nothing is touched.
        IntegrityError : its manifest is damaged.
        TemporaryError : other runs keep changing what is there.
        """
        return self.when_at_rest(lambda: self._look(job))

    def _look(self, job: Job) -> Held | None:
        """What :meth:`survey` tells; None if it changed while it was looked at."""
        text, version = self._manifest_now()
        mark = self._mark()
        objects = self.objects()
        names = {name: item.size for name, item in objects.items()}
        if text is None:
            if mark is not None:
                self._check_ours(mark, job)
                return Held("unfinished", shards=self._noted(names), names=names)
            shard = next((name for name in names if is_shard_name(name)), None)
            if shard is None:
                return Held("nothing", names=names)
            if not self.is_at_rest(objects, finished=False):
                return None
            what = "a folder in it holds shards" if "/" in shard else "it holds shards without a manifest"
            raise OccupiedError(what, url=self.store.url(self.name(shard)), hint=_LEAVE)
        root = Manifest.loads(text, url=self.store.url(self.name(MANIFEST)))
        parts = self._parts(root)
        there = {(folder, _number(row.name)): row for folder, part in parts.items() for row in part.shards}
        base = hashlib.sha256(text).hexdigest()
        if mark is not None and mark.get("base") == base:
            if mark.get("job") == job.id:  # an update of what is there
                there |= self._noted(names)
                return Held("unfinished", text, version, parts, root, there, names)
            if root.job != job.id:
                self._check_ours(mark, job)
        same = root.job == job.id
        differs = "" if same else _differing(root, job)
        kind: Literal["finished", "other"] = "finished" if same else "other"
        return Held(kind, text, version, parts, root, there, names, differs, over=_is_over(mark, root, base))

    def dataset(self) -> tuple[Manifest | None, dict[str, Manifest]]:
        """The finished dataset that is there: its root manifest, and that of each folder."""
        text, _ = self._manifest_now()
        if text is None:
            return None, {}
        root = Manifest.loads(text, url=self.store.url(self.name(MANIFEST)))
        return root, self._parts(root)

    def _manifest_now(self) -> tuple[bytes | None, str | None]:
        """The root manifest and the version that it has."""
        name = self.name(MANIFEST)
        text = self.store.read(name)
        if text is None:
            return None, None
        for _ in range(_READS):
            info = self.store.stat(name)
            again = self.store.read(name)
            if info is not None and again == text:
                return text, info.version
            text = again
            if text is None:
                return None, None
        raise TemporaryError("the manifest keeps changing", url=self.store.url(name), hint="try again later")

    def _parts(self, root: Manifest) -> dict[str, Manifest]:
        if root.splits is None:
            return {"": root}
        parts = {}
        for split, row in root.splits.items():
            name = self.name(row.manifest)
            text = self.store.read(name)
            if text is None:
                raise IntegrityError(
                    "a split's manifest is missing",
                    url=self.store.url(name),
                    hint="remove the manifest above it, and write the dataset again",
                )
            parts[split] = Manifest.loads(text, url=self.store.url(name))
        return parts

    def objects(self) -> dict[str, ObjectInfo]:
        """All that the prefix holds, by name relative to it."""
        return {self._relative(item.name): item for item in self.store.list(self.prefix)}

    def is_at_rest(self, objects: Mapping[str, ObjectInfo], *, finished: bool) -> bool:
        """Whether shards that have neither a mark nor a manifest are truly without: no run is about to put one.

        Parameters
        ----------
        objects : what the prefix held when they were seen.
        finished : whether a manifest was seen.
        """
        return _JOB not in objects and (MANIFEST in objects) == finished and self.objects() == objects

    def when_at_rest(self, look: Callable[[], T | None]) -> T:
        """What *look* finds; it is called again while it gives None, as what is here changed under its eyes.

        Raises
        ------
        TemporaryError : it keeps changing.
        """
        for _ in range(_READS):
            found = look()
            if found is not None:
                return found
        raise self._restless()

    def _restless(self) -> TemporaryError:
        return TemporaryError("other runs keep beginning and ending here", url=self.url, hint="try again later")

    def _relative(self, name: str) -> str:
        return name[len(join(self.prefix.strip("/"), "")) :]

    def marked(self) -> str | None:
        """The job whose mark is here: its id, or an empty text for a mark that cannot be read; None without a mark."""
        mark = self._mark()
        return None if mark is None else str(mark.get("job", ""))

    def _mark(self) -> dict[str, Any] | None:
        return _parsed(self.store.read(self.name(_JOB)))

    def _names(self) -> dict[str, int]:
        return {name: item.size for name, item in self.objects().items()}

    def _noted(self, names: Mapping[str, int]) -> dict[Place, ShardRow]:
        """The shards that the state says are finished, as far as they are there."""
        noted = {}
        for name in names:
            ours = name.startswith(f"{self._shards}/")
            match = _STATE_FILE.fullmatch(name[len(self._shards) + 1 :]) if ours else None
            if match is None:
                continue
            document = _parsed(self.store.read(self.name(name))) or {}
            folder = match[1] or ""
            with suppress(ValueError):  # what cannot be read is simply written again
                row = shard_row(document)
                name = join(folder, row.name)
                there = names.get(name) == row.bytes and _SHARD.fullmatch(row.name)
                if there and ("object" not in document or document["object"] == self.version(name)):
                    noted[folder, int(match[2])] = row
        return noted

    def _check_ours(self, mark: Mapping[str, Any], job: Job) -> None:
        if mark.get("job") == job.id:
            return
        options = mark.get("options")
        what = _differences(options, job.options) if isinstance(options, dict) else []
        raise OccupiedError(
            "it holds another job's unfinished dataset" + (f": {', '.join(what)}" if what else ""),
            url=self.url,
            hint=f"wait for that run or start it again; if it is given up: {self.giving_up}",
        )

    def refusal(self, held: Held) -> OccupiedError:
        """What a run that may not replace the dataset there ends with."""
        there = next(iter(held.parts.values()))
        samples = sum(part.samples for part in held.parts.values())
        return OccupiedError(
            f"it holds the dataset {there.name!r} ({samples} samples) of another job: {held.differs}",
            url=self.url,
            hint="nothing was changed; choose another DEST, or replace what changed with --if-exists update",
        )

    # --- while ---

    def begin(self, job: Job, held: Held, *, run: str | None = None) -> bool:
        """Mark the prefix as this job's; another run of the same job may have done so.

        Two runs of a job may make different bytes where the input is a stream. So only one of them can store: the one
        that came last, if it found the other's work unfinished, as only then may that one be gone.

        Parameters
        ----------
        held : what :meth:`survey` found: a run that began and finished since then is noticed.
        run : a name of this run alone, if another run of the same job may make other bytes.

        Returns
        -------
        False if the store lets everybody replace what it was asked to keep, so that nothing keeps runs of different
        jobs apart.

        Raises
        ------
        OccupiedError : a run of another job has marked it, or finished there, since the survey.
        TemporaryError : a run of the same job has.
        """
        document = {"format": "atdata-job", "version": 1, "job": job.id, "base": held.base, "options": job.options}
        if run is not None:
            document["run"] = run
        mark = (json.dumps(document, sort_keys=True, default=list) + "\n").encode()
        name = self.name(_JOB)
        put = self._put_mark(name, mark, job, alone=run is not None, resumes=held.kind == "unfinished")
        # The same bytes again do no harm where the condition is ignored, and tell so.
        protected = not put or not self.store.put_if_absent(name, mark)
        # Whoever finished since the survey put a manifest before it removed its mark: now it can be seen.
        try:
            self._check_unchanged(job, held)
        except BaseException:
            if put:
                self.store.delete(name)
            raise
        return protected

    def _put_mark(self, name: str, mark: bytes, job: Job, *, alone: bool, resumes: bool) -> bool:
        """Whether this run put the mark; else one of its job is there."""
        for _ in range(_READS):
            if self.store.put_if_absent(name, mark):
                return True
            info = self.store.stat(name)
            there = _parsed(self.store.read(name))
            if there is None or info is None:
                continue
            self._check_ours(there, job)
            if not alone:
                return False
            if not resumes:
                raise TemporaryError(
                    "another run is writing here", url=self.url, hint="wait for it to end, then run the command again"
                )
            if self.store.replace_if_unchanged(name, mark, info.version or ""):
                return False
        raise self._restless()

    def _check_unchanged(self, job: Job, held: Held) -> None:
        text = self.store.read(self.name(MANIFEST))
        if text == held.text:
            return
        manifest = None if text is None else Manifest.loads(text, url=self.store.url(self.name(MANIFEST)))
        if manifest is not None and manifest.job != job.id:
            raise OccupiedError("another run has finished another dataset here", url=self.url, hint=_LEAVE)
        raise TemporaryError("another run has changed what is here", url=self.url, hint="run the command again")

    def check_ours(self, run: str) -> None:
        """Find that another run has taken the job over.

        Raises
        ------
        TemporaryError : it has.
        """
        mark = self._mark()
        if mark is None or mark.get("run") != run:
            raise TemporaryError(
                "another run of this command has taken over",
                url=self.url,
                hint="let it end, then run the command again",
            )

    def note(self, place: Place, row: ShardRow, *, exactly: bool = False) -> None:
        """Write down that a shard is finished, so that a later run of the job need not store it again.

        Parameters
        ----------
        exactly : whether this counts only for the object as it is now: another run may replace it by other bytes.
        """
        folder, index = place
        document = asdict(row)
        if exactly:
            document["object"] = self.version(join(folder, row.name))
        text = json.dumps(document, sort_keys=True).encode()
        self.store.put(self.name(join(self._shards, folder, f"{index:06d}.json")), text)

    def forget(self, place: Place, row: ShardRow) -> None:
        """Remove a shard, and that it is finished: it turned out to be none."""
        folder, index = place
        self.store.delete(self.name(join(self._shards, folder, f"{index:06d}.json")))
        self.store.delete(self.name(join(folder, row.name)))

    def names(self, job: Job, held: Held, *, gzip: bool) -> ShardNames:
        """The file names of shards that are to be stored.

        Those of an update are made of the job and of the manifest that it begins from: they take no name of a shard
        that somebody may be reading, and no two updates of a dataset have one in common, not even those of a stream,
        whose job is the same every night.
        """
        return ShardNames(self._part_tail or _tail(job, held), gzip)

    def split_manifest(self, split: str, text: bytes, job: Job, held: Held) -> str:
        """The name, below the prefix, of a split's manifest.

        An update leaves that of before to its readers, like the shards: the root manifest names one or the other.
        """
        row = ((held.root and held.root.splits) or {}).get(split)
        if row is not None and row.sha256 == hashlib.sha256(text).hexdigest():
            return row.manifest
        return join(split, _renamed(MANIFEST, _tail(job, held)))

    # --- after ---

    def publish(self, relative: str, manifest: Manifest, *, over: str | None = None) -> None:
        """Put a manifest; it appears whole, and only where there is none, or in the place of the version *over*.

        Raises
        ------
        OccupiedError : another run has put a different one.
        """
        self.put_manifest(relative, manifest.dumps(), over=over)

    def put_manifest(self, relative: str, text: bytes, *, over: str | None = None) -> None:
        """:meth:`publish` of a manifest's text."""
        name = self.name(relative)
        if over is None:
            put = self.store.put_if_absent(name, text)
        else:
            put = self.store.replace_if_unchanged(name, text, over)
        if not put and self.store.read(name) != text:
            raise OccupiedError("another run has finished another dataset here", url=self.url, hint=_LEAVE)

    def show_splits(self, root: Manifest) -> None:
        """Make each split's ``manifest.json`` the one that the root names, for those who read a split by itself."""
        for split, row in (root.splits or {}).items():
            plain = join(split, MANIFEST)
            text = None if row.manifest == plain else self.store.read(self.name(row.manifest))
            if text is not None and text != self.store.read(self.name(plain)):
                with suppress(OccupiedError):  # another run has brought it further meanwhile
                    self.put_manifest(plain, text, over=self.version(plain))

    def version(self, relative: str) -> str | None:
        """The version of an object that is there, or None."""
        info = self.store.stat(self.name(relative))
        return None if info is None else info.version

    def check_complete(self, manifests: Mapping[str, Manifest]) -> None:
        """Check that the shards of a finished dataset are there, by size.

        Parameters
        ----------
        manifests : folder relative to the prefix (``""`` or a split's) to its manifest.

        Raises
        ------
        IntegrityError : one is missing or has another size.
        """
        sizes = self._names()
        for folder, manifest in manifests.items():
            for row in manifest.shards:
                name = join(folder, row.name)
                if sizes.get(name) != row.bytes:
                    found = f"has {sizes[name]} bytes" if name in sizes else "is missing"
                    raise IntegrityError(
                        f"a shard of the finished dataset {found}; its manifest says {row.bytes} bytes",
                        url=self.store.url(self.name(name)),
                        hint="remove the manifest and write again",
                    )

    def finish(self, root: Manifest) -> None:
        """Remove what the runs that made the dataset there left: temporary files, unfinished uploads, then marks."""
        self.show_splits(root)
        self.tidy(root)
        if self.marked() in (None, root.job):  # else another run begins here
            self.release()

    def tidy(self, root: Manifest) -> None:
        """Remove the temporary files and unfinished uploads of a finished dataset's runs."""
        ours = {"", *(root.splits or ())}

        def of(name: str) -> bool:
            folder, _, base = name.rpartition("/")
            return folder in ours and (base == MANIFEST or is_shard_name(base) or is_split_manifest(base))

        self.clean(of)

    def sweep(self, held: Held) -> None:
        """Remove what a run noted of its shards when another one of its job had finished, and tidied up, already."""
        notes = [self.name(name) for name in held.names if name.startswith(f"{self._shards}/")]
        if notes and self.marked() is None:
            self.store.delete_many(notes)

    def clean(self, of: Callable[[str], bool]) -> None:
        """Remove temporary files and unfinished uploads of marks, and of the names for which *of* is true."""

        def ours(name: str) -> bool:
            relative = self._relative(name)
            return relative.startswith(f"{STATE}/") or of(relative)

        with suppress(AtdataError):  # who may write a dataset need not be allowed to list uploads
            self.store.clean(self.prefix, ours)

    def release(self) -> None:
        """Remove the marks; the one that makes the prefix somebody's goes last."""
        job = self.name(_JOB)
        self.store.delete_many([item.name for item in self.store.list(self.name(STATE)) if item.name != job])
        self.store.delete(job)

    # --- parts ---

    def part_names(self) -> Iterator[str]:
        """What the parts of the dataset have put about themselves: names below :data:`PARTS`."""
        below = len(self.name(PARTS)) + 1
        for item in self.store.list(self.name(PARTS)):
            yield item.name[below:]

    def read_state(self, relative: str) -> dict[str, Any] | None:
        """A document about the unfinished job; empty if it is damaged, None if it is not there."""
        return _parsed(self.store.read(self.name(relative)))

    def put_state(self, relative: str, document: Mapping[str, Any], *, new: bool = False) -> bool:
        """Put a document about the unfinished job, or, if it is to be *new*, only where there is none."""
        import orjson

        text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
        if new:
            return self.store.put_if_absent(self.name(relative), text)
        self.store.put(self.name(relative), text)
        return True

    def clear(self, job: Job, held: Held) -> None:
        """Remove what an unfinished *job* of ours left: its shards and its splits' manifests, then its marks.

        Of an update only the shards go that its state names. Else a job writes into the prefix and, for splits, into
        folders right below it. A folder that has a mark, or a manifest of another job, has become somebody else's
        since, and is left alone.
        """
        names = self._names()
        if held.text is not None:
            ours = {join(folder, row.name) for (folder, _), row in self._noted(names).items()}
            ours |= _split_manifests(names)
            ours -= _named(held.parts, held.root)
        else:
            ours = set(self._fresh(names, lambda manifest, folder: manifest.job == job.id and manifest.split == folder))
        self.store.delete_many([self.name(name) for name in sorted(ours)])
        self.release()

    def _fresh(self, names: Mapping[str, int], is_split: Callable[[Manifest, str], bool]) -> Iterator[str]:
        """What a job without a manifest has written."""
        folders: dict[str, list[str]] = {}
        for relative in names:
            folder, slash, name = relative.partition("/")
            folders.setdefault(folder if slash else "", []).append(name or folder)
        for folder, inside in folders.items():
            ours = [name for name in inside if "/" not in name and _SHARD.fullmatch(name)]
            if folder:
                ours += [name for name in inside if name == MANIFEST]
            if not folder or (ours and self._is_split(folder, inside, is_split)):
                yield from (join(folder, name) for name in ours)

    def _is_split(self, folder: str, names: Sequence[str], ours: Callable[[Manifest, str], bool]) -> bool:
        if _JOB in names:
            return False
        text = self.store.read(self.name(join(folder, MANIFEST))) if MANIFEST in names else None
        if text is None:
            return True
        try:
            manifest = Manifest.loads(text, url=self.store.url(self.name(join(folder, MANIFEST))))
        except IntegrityError:
            return False
        return ours(manifest, folder)

    # --- tidying ---

    def prune(self, *, dry_run: bool = False) -> list[str]:
        """Delete the shards that the manifest does not name; their names in the store.

        Raises
        ------
        NotFoundError : there is no manifest.
        OccupiedError : a job is unfinished here: its shards are not named yet.
        """
        text, _ = self._manifest_now()
        if text is None:
            raise NotFoundError("there is no dataset here", url=self.url, hint="prune removes what a manifest left out")
        root = Manifest.loads(text, url=self.store.url(self.name(MANIFEST)))
        mark = self._mark()
        if mark is not None and not _is_over(mark, root, hashlib.sha256(text).hexdigest()):
            raise OccupiedError(
                "a job is unfinished here", url=self.url, hint=f"finish it, or give it up: {self.giving_up}"
            )
        parts = self._parts(root)
        named = _named(parts, root)
        folders = {"", *parts}
        names = self._names()
        found = _split_manifests(names).union(name for name in names if _SHARD.fullmatch(name))
        old = [self.name(name) for name in sorted(found - named) if name.rpartition("/")[0] in folders]
        if not dry_run:
            self.store.delete_many(old)
        return old

    def abort(self, *, dry_run: bool = False) -> list[str]:
        """Remove what a job that was given up left: shards that no manifest names, marks, unfinished uploads.

        Returns
        -------
        The names in the store of what was removed.
        """
        names = self._names()
        mark = self._mark()
        text, _ = self._manifest_now()
        gone: list[str] = []
        if mark is not None:
            job = mark.get("job")
            if text is None:
                gone = sorted(self._fresh(names, lambda manifest, folder: manifest.job == job))
            else:
                root = Manifest.loads(text, url=self.store.url(self.name(MANIFEST)))
                noted = {join(folder, row.name) for (folder, _), row in self._noted(names).items()}
                gone = sorted((noted | _split_manifests(names)) - _named(self._parts(root), root))
        gone = [self.name(name) for name in gone]
        if not dry_run:
            self.store.delete_many(gone)
            if mark is not None or any(name.startswith(f"{STATE}/") for name in names):
                self.release()
        others = {name.removesuffix(_JOB) for name in names if name.endswith(f"/{_JOB}")}

        def of(name: str) -> bool:
            return not any(self._relative(name).startswith(folder) for folder in others)

        clean = self.store.leftovers if dry_run else self.store.clean
        return [*gone, *clean(self.prefix, of)]


_READS = 5


def _is_over(mark: Mapping[str, Any] | None, root: Manifest, base: str) -> bool:
    """Whether a mark is that of the job that the dataset there (its manifest has the hash *base*) was made by."""
    return mark is not None and mark.get("job") == root.job and mark.get("base") != base


def _named(parts: Mapping[str, Manifest], root: Manifest | None) -> set[str]:
    """Names, below the prefix, of the shards of a dataset, and of its splits' manifests."""
    splits = {} if root is None or root.splits is None else root.splits
    shards = {join(folder, row.name) for folder, part in parts.items() for row in part.shards}
    return shards.union(row.manifest for row in splits.values())


def _split_manifests(names: Iterable[str]) -> set[str]:
    """The splits' manifests that updates have put."""
    return {name for name in names if name.count("/") == 1 and is_split_manifest(name.rpartition("/")[2])}


def _tail(job: Job, held: Held) -> str:
    """What the names of an update's files have before their ending; nothing where nothing is there."""
    return "" if held.base is None else "-" + hashlib.sha256(f"{job.id} {held.base}".encode()).hexdigest()[:8]


def _renamed(plain: str, tail: str) -> str:
    stem, dot, ending = plain.partition(".")
    return f"{stem}{tail}{dot}{ending}"


def _number(name: str) -> int:
    """A shard's number; -1, which no shard has, for a name that this program does not give."""
    match = _SHARD.fullmatch(name)
    return -1 if match is None else int(match[1])


def is_shard_name(name: str) -> bool:
    """Whether a name is one that this program gives a shard, in the prefix or a folder of it."""
    return _SHARD.fullmatch(name) is not None


def _parsed(text: bytes | None) -> dict[str, Any] | None:
    """A small JSON document of ours; empty if it is none; None if there is no text."""
    if text is None:
        return None
    import orjson  # json would raise RecursionError for what nests deeply

    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _differing(manifest: Manifest, job: Job) -> str:
    return ", ".join(_differences(manifest.options, job.options)) or "the input has other names or sizes"


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """``--max-count 100 there, 200 here`` for each option that differs."""
    found = []
    for name in sorted({*theirs, *ours}):
        # Both have been through JSON in one case only: compare as JSON does.
        there, here = (json.dumps(side.get(name), sort_keys=True) for side in (theirs, ours))
        if there != here:
            option = "--" + name.replace("_", "-")
            found.append(f"{option} {_shown(name, there)} there, {_shown(name, here)} here")
    return found


def _shown(name: str, text: str) -> str:
    if name == "max_size" and text.isdecimal():
        return typed_size(int(text))
    return "default" if text == "null" else text if len(text) <= 60 else text[:57] + "…"
