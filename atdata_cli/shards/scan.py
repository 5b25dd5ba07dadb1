"""What a dataset holds: from its manifest, or from the headers of its tars where nobody wrote one."""

from __future__ import annotations

import operator
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from typing import Any

from atdata_cli.errors import NotFoundError
from atdata_cli.samples.codec import unpack_rows
from atdata_cli.samples.keys import is_meta, split_name
from atdata_cli.samples.schema import FieldStats, MemberStats, json_schema, member_schema, observe_rows
from atdata_cli.samples.tar import Member, Run, archive_bytes
from atdata_cli.shards.reader import Located, Shard
from atdata_cli.sources.base import Files, Sample, content
from atdata_cli.sources.tars import OpenTar, TarSource

__all__ = ["DatasetInfo", "ShardInfo", "find_sample", "first_samples", "inspect", "is_packed", "values"]

# Packed samples say what their fields are only when they are decoded: this many of the first are.
_DECODED = 100
_CONNECTIONS = 8
_NAME_BYTES = 100  # in a run of headers


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One shard.

    Attributes
    ----------
    url, samples, bytes, payload : bytes as stored; payload is the sum of the members' sizes, None if only the
        manifest was asked.
    first_key, last_key : keys of its first and last sample.
    sha256 : what the manifest says, or None.
    split : the split it belongs to.
    """

    url: str
    samples: int
    bytes: int
    payload: int | None
    first_key: str
    last_key: str
    sha256: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """A dataset.

    Attributes
    ----------
    url : what was inspected.
    name : from the manifest, or None.
    scanned : True if there is no manifest, so that headers were read.
    samples, bytes, payload : totals.
    overhead : share of the tars that is headers and padding; None where compression hides it.
    encoding : ``msgpack`` or ``files``.
    compression : ``gz`` or None; None also where each shard has its own.
    fields : field to what is known of it, as in a manifest; ``example`` is of the first sample.
    schema : draft-07 JSON Schema.
    shards : in order.
    splits : split to its number of samples, if there are splits.
    rejected : inputs that were left out.
    skipped : members that are no part of a sample (folders, links, hidden names); None if not scanned.
    """

    url: str
    name: str | None
    scanned: bool
    samples: int
    bytes: int
    payload: int
    overhead: float | None
    encoding: str
    compression: str | None
    fields: Mapping[str, Mapping[str, Any]]
    schema: Mapping[str, Any]
    shards: Sequence[ShardInfo]
    splits: Mapping[str, int] | None = None
    rejected: int = 0
    skipped: int | None = None


def inspect(located: Located, files: Files) -> DatasetInfo:
    """What *located* holds; reads the manifest and one sample, or the headers of all shards.

    Raises
    ------
    IntegrityError : a tar is damaged.
    NotFoundError : there is no sample to show.
    """
    return _from_manifest(located, files) if located.manifest is not None else _from_headers(located, files)


def _from_manifest(located: Located, files: Files) -> DatasetInfo:
    manifest = located.manifest
    assert manifest is not None
    fields: dict[str, dict[str, Any]] = {name: dict(known) for name, known in manifest.fields.items()}
    for name, example in _examples(located, files).items():
        fields.setdefault(name, {})["example"] = example
    tar_bytes = None if manifest.compression else manifest.bytes
    return DatasetInfo(
        url=located.url,
        name=manifest.name,
        scanned=False,
        samples=manifest.samples,
        bytes=manifest.bytes,
        payload=manifest.payload,
        overhead=_overhead(manifest.payload, tar_bytes),
        encoding=manifest.encoding,
        compression=manifest.compression,
        fields=fields,
        schema=manifest.schema,
        shards=[_told(shard) for shard in located.shards],
        splits=None if manifest.splits is None else {name: row.samples for name, row in manifest.splits.items()},
        rejected=manifest.rejected,
    )


def _told(shard: Shard) -> ShardInfo:
    row = shard.row
    assert row is not None
    return ShardInfo(shard.url, row.samples, row.bytes, None, row.first_key, row.last_key, row.sha256, shard.split)


def _overhead(payload: int, tar_bytes: int | None) -> float | None:
    return None if not tar_bytes else 1 - payload / tar_bytes


@dataclass(slots=True)
class _Scan:
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


def _from_headers(located: Located, files: Files) -> DatasetInfo:
    scans = _scan_all(located.shards, files)
    samples = sum(scan.samples for scan in scans)
    members: dict[str, MemberStats] = {}
    for scan in scans:
        for name, seen in scan.fields.items():
            members.setdefault(name, MemberStats()).merge(seen)
    packed = members.keys() == {"msgpack"}
    compressed = {scan.compressed for scan in scans}
    payload = sum(scan.payload for scan in scans)
    tar_bytes = None if True in compressed else sum(scan.stored for scan in scans)
    fields, schema = _described(located, files, members, samples, packed=packed)
    return DatasetInfo(
        url=located.url,
        name=None,
        scanned=True,
        samples=samples,
        bytes=sum(scan.stored for scan in scans),
        payload=payload,
        overhead=_overhead(payload, tar_bytes),
        encoding="msgpack" if packed else "files",
        compression=None,
        fields=fields,
        schema=schema,
        shards=[
            ShardInfo(scan.shard.url, scan.samples, scan.stored, scan.payload, scan.first_key, scan.last_key)
            for scan in scans
        ],
        skipped=sum(scan.skipped for scan in scans),
    )


def _scan_all(shards: Sequence[Shard], files: Files) -> list[_Scan]:
    if len(shards) == 1:
        return [_scan(shards[0], files)]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(_CONNECTIONS, len(shards)), "scan") as pool:
        return list(pool.map(lambda shard: _scan(shard, files), shards))


def _scan(shard: Shard, files: Files) -> _Scan:
    found = _Scan(shard)
    with OpenTar(files, shard.input) as tar:
        found.compressed = not tar.seekable
        for item in tar.reader.runs():
            if isinstance(item, Member):
                found.add(item.name, item.size, is_file=item.kind == "file")
            else:
                found.add_run(item)
        found.stored = shard.size if shard.size is not None else archive_bytes(tar.reader.end or 0)
    return found


def _described(
    located: Located, files: Files, members: Mapping[str, MemberStats], samples: int, *, packed: bool
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Fields and schema: of packed samples from the first ones, as only decoding tells."""
    if not packed:
        fields = {name: seen.as_json(name) for name, seen in members.items()}
        for name, example in _examples(located, files).items():
            fields.setdefault(name, {})["example"] = example
        return fields, member_schema(members, samples)
    stats: dict[str, FieldStats] = {}
    head = first_samples(located, files, _DECODED)
    rows = unpack_rows(content(sample.fields["msgpack"]) for sample in head) or []
    for names, group in groupby(rows, tuple):
        observe_rows(stats, names, list(group))
    fields = {name: seen.as_json() for name, seen in stats.items()}
    for name, example in _examples(located, files).items():
        fields.setdefault(name, {})["example"] = example
    return fields, json_schema(stats, len(rows))


def _examples(located: Located, files: Files) -> dict[str, Any]:
    """The first sample's fields; large members unread."""
    return next(map(values, first_samples(located, files, 1)), {})


def first_samples(located: Located, files: Files, count: int) -> Iterator[Sample]:
    """The first *count* samples, from as many shards as that takes. A blob is good until the next sample."""
    source = TarSource(files, [shard.input for shard in located.shards])
    return islice(source.samples(), count)


def find_sample(located: Located, files: Files, key: str) -> Sample:
    """The sample with a key; shards whose first and last key embrace it are looked at first.

    Raises
    ------
    NotFoundError : no shard has it.
    """

    def unlikely(shard: Shard) -> bool:
        return shard.row is not None and not shard.row.first_key <= key <= shard.row.last_key

    for shard in sorted(located.shards, key=unlikely):
        for sample in TarSource(files, [shard.input]).samples():
            if sample.key == key:
                return sample
    raise NotFoundError(
        f"there is no sample {key!r}", url=located.url, hint="atdata-cli inspect REF --head 3 shows what keys look like"
    )


def is_packed(sample: Sample) -> bool:
    """Whether a sample is one msgpack map."""
    return sample.fields.keys() == {"msgpack"}


def values(sample: Sample) -> dict[str, Any]:
    """A sample's fields: decoded if it is a packed one, else the members as they are."""
    if is_packed(sample):
        rows = unpack_rows([content(sample.fields["msgpack"])])
        if rows:
            return rows[0]
    return dict(sample.fields)
