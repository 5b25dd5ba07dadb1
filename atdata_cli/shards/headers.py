"""What the headers of tars tell, where nobody wrote a manifest: read by as many processes as that is worth."""

from __future__ import annotations

import operator
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice, pairwise
from typing import NamedTuple

from atdata_cli.errors import AtdataError
from atdata_cli.samples.keys import is_meta, split_name
from atdata_cli.samples.schema import MemberStats
from atdata_cli.samples.tar import BLOCK, Member, Run, archive_bytes
from atdata_cli.shards.forks import in_forks, is_alone, usable_cores
from atdata_cli.shards.reader import Shard
from atdata_cli.sources.base import Files
from atdata_cli.sources.tars import OpenTar

__all__ = ["Scan", "scan_shards"]

_CONNECTIONS = 8
_NAME_BYTES = 100  # in a run of headers
# Small members take a second a gigabyte and a half; a fork takes two milliseconds.
_WORTH_FORKS = 32 << 20


@dataclass(slots=True)
class Scan:
    """What the headers of one shard tell."""

    shard: Shard
    compressed: bool = False
    samples: int = 0
    payload: int = 0
    stored: int = 0
    first_key: str = ""
    last_key: str = ""
    skipped: int = 0
    fields: dict[str, MemberStats] = field(default_factory=dict)

    def follow(self, other: Scan) -> None:
        """Take in what the rest of the shard tells."""
        if other.samples:
            if not self.samples:
                self.first_key = other.first_key
            elif other.first_key == self.last_key:
                self.samples -= 1  # it goes on there
            self.last_key = other.last_key
        self.samples += other.samples
        self.payload += other.payload
        self.skipped += other.skipped
        self.stored = other.stored
        for name, seen in other.fields.items():
            self.fields.setdefault(name, MemberStats()).merge(seen)

    def add(self, name: str, size: int, *, is_file: bool = True) -> None:
        """Take in one member."""
        split = split_name(name) if is_file else None
        if split is None or is_meta(name):
            self.skipped += 1
            return
        key, extension = split
        self._begin(key)
        self._observe(extension, [size])

    def add_run(self, run: Run) -> None:
        """Take in many, with the same result; the rule that splits names is applied to bytes, where that is sure."""
        keys, sizes = _split_names(run)
        # With their fill: as many as there are fields and lengths of keys.
        extensions = {tail: tail.partition(b"\0")[0] for tail in sizes}
        if _is_odd(b"".join(keys), run.names, extensions):
            for name, size in zip(_each(run.names), run.sizes, strict=True):
                self.add(_text(name.partition(b"\0")[0]), size)
            return
        self._begin(_text(keys[0]))
        self.samples += sum(map(operator.ne, keys, islice(keys, 1, None)))
        self.last_key = _text(keys[-1])
        for tail, extension in extensions.items():
            self._observe(_text(extension), sizes[tail])

    def _begin(self, key: str) -> None:
        """A member with this key follows."""
        if not self.samples:
            self.first_key = key
        if key != self.last_key or not self.samples:
            self.samples += 1
            self.last_key = key

    def _observe(self, extension: str, sizes: Sequence[int]) -> None:
        seen = self.fields.get(extension)
        if seen is None:
            seen = self.fields[extension] = MemberStats()
        seen.observe_all(sizes)
        self.payload += sum(sizes)


def _split_names(run: Run) -> tuple[Sequence[bytes], Mapping[bytes, Sequence[int]]]:
    """What is before the first dot of each name, and the sizes by what is behind it, with its fill."""
    dot = run.names.find(b".", 0, _NAME_BYTES)
    if dot > 0:
        # Where there is one field, and all keys are of one length, one cut serves all names: that takes a third of
        # the time. Put together again they tell whether it is so.
        even = list(_each(run.names, dot))
        tail = run.names[dot:_NAME_BYTES]
        if tail.join([*even, b""]) == run.names and b"." not in b"".join(even):
            return even, {tail[1:]: run.sizes}
    keys, _, tails = zip(*[name.partition(b".") for name in _each(run.names)], strict=True)
    sizes: defaultdict[bytes, list[int]] = defaultdict(list)
    for tail, size in zip(tails, run.sizes, strict=True):
        sizes[tail].append(size)
    return keys, sizes


def _each(names: bytes, length: int = _NAME_BYTES) -> Iterator[bytes]:
    """The first bytes of each name in a run."""
    return chain.from_iterable(struct.iter_unpack(f"{length}s{_NAME_BYTES - length}x", names))


def _is_odd(keys: bytes, names: bytes, extensions: Mapping[bytes, bytes]) -> bool:
    """Whether some of many names, each 100 bytes, need a closer look than a cut at their first dot.

    Those are names with no dot, a dot in a folder's name, a key that ends at a slash, or a line break before the
    dot (see :func:`~atdata_cli.samples.keys.split_name`), and those that may be ``__NAME__``.
    """
    return (
        b"" in extensions
        or any(b"/" in extension for extension in extensions.values())
        or b"\0" in keys
        or b"\n" in keys
        or (b"/" in keys and b"/." in names)
        or ord("_") in names[::_NAME_BYTES]
    )


def _text(name: bytes) -> str:
    return str(name, "utf-8", "surrogateescape")


def scan_shards(shards: Sequence[Shard], files: Files, *, jobs: int | None) -> list[Scan]:
    """Read the headers of shards.

    Parameters
    ----------
    jobs : processes at a time, where the shards are on this machine's disks; None: as many as there are cores.

    Raises
    ------
    IntegrityError : a tar is damaged.
    """
    sizes = [0 if "://" in shard.url or shard.size is None else shard.size for shard in shards]
    if jobs != 1 and sum(sizes) >= _WORTH_FORKS and all(sizes) and is_alone():
        jobs = usable_cores() if jobs is None else jobs
        if jobs > 1:
            return _by_forks(shards, sizes, files, jobs)
    if len(shards) == 1:
        return [_whole(shards[0], files)]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(_CONNECTIONS, len(shards)), "scan") as pool:
        return list(pool.map(lambda shard: _whole(shard, files), shards))


def _whole(shard: Shard, files: Files) -> Scan:
    return _read(shard, files, 0, None).scan


# --- in pieces ---


class _Piece(NamedTuple):
    """The members of a shard whose first headers are in this range of bytes, up to its end if *stop* is None."""

    shard: int
    begin: int
    stop: int | None


class _Found(NamedTuple):
    """What a piece tells.

    Attributes
    ----------
    begin, end : offsets of its first member and of the next one's; *end* is None where the tar ends.
    alone : its tar says something of all members that follow, so that it cannot be read in pieces.
    """

    scan: Scan
    begin: int
    end: int | None
    alone: bool


def _by_forks(shards: Sequence[Shard], sizes: Sequence[int], files: Files, jobs: int) -> list[Scan]:
    shares = _shares(sizes, jobs)
    made = in_forks([partial(_guess_all, share, shards, files) for share in shares])
    found: defaultdict[int, list[tuple[_Piece, _Found | None]]] = defaultdict(list)
    for share, some in zip(shares, made, strict=True):
        for piece, one in zip(share, some or [None] * len(share), strict=True):
            found[piece.shard].append((piece, one))
    return [_together(shard, files, found[index]) for index, shard in enumerate(shards)]


def _shares(sizes: Sequence[int], jobs: int) -> list[list[_Piece]]:
    """As many bytes for each process; where a share ends in a shard, the next one goes on."""
    total = sum(sizes)
    shares = []
    for low, high in pairwise(total * number // jobs for number in range(jobs + 1)):
        share, before = [], 0
        for index, size in enumerate(sizes):
            begin, stop = max(0, low - before), min(size, high - before)
            if begin < stop:
                share.append(_Piece(index, begin - begin % BLOCK, None if stop == size else stop - stop % BLOCK))
            before += size
        shares.append(share)
    return shares


def _guess_all(share: Sequence[_Piece], shards: Sequence[Shard], files: Files) -> list[_Found | None]:
    return [_guess(piece, shards[piece.shard], files) for piece in share]


def _guess(piece: _Piece, shard: Shard, files: Files) -> _Found | None:
    """What a piece tells if its first member is where it seems to be; None if nothing seems to be there."""
    try:
        begin = piece.begin
        if begin:
            with OpenTar(files, shard.input) as tar:
                seems = tar.reader.header_near(begin) if tar.seekable else None
            if seems is None:
                return None
            begin = seems
        return _read(shard, files, begin, piece.stop)
    except AtdataError:
        return None  # it counts only if whoever reads on from the piece before finds it, too


def _together(shard: Shard, files: Files, pieces: Sequence[tuple[_Piece, _Found | None]]) -> Scan:
    """What a shard's pieces tell: each one only if it begins where the one before ended."""
    scan = Scan(shard)
    at: int | None = 0
    for piece, found in pieces:
        if at is None or (piece.stop is not None and piece.stop <= at):
            continue
        if found is None or found.begin != at:
            # Of a tar in a tar, or in the middle of an extended header.
            found = _read(shard, files, at, piece.stop)
        if found.alone:
            return _whole(shard, files)
        scan.compressed = found.scan.compressed
        scan.follow(found.scan)
        at = found.end
    return scan


def _read(shard: Shard, files: Files, begin: int, stop: int | None) -> _Found:
    found = Scan(shard)
    with OpenTar(files, shard.input) as tar:
        found.compressed = not tar.seekable
        reader = tar.reader
        for item in reader.runs(begin, stop if tar.seekable else None):
            if isinstance(item, Member):
                found.add(item.name, item.size, is_file=item.kind == "file")
            else:
                found.add_run(item)
        found.stored = shard.size if shard.size is not None else archive_bytes(reader.end or 0)
        end = None if reader.end is not None else reader.behind
        return _Found(found, begin, end, reader.has_globals)
