"""What a dataset holds: from its manifest, or from the headers of its tars where nobody wrote one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

from atdata_cli.errors import NotFoundError
from atdata_cli.samples.codec import unpack_rows
from atdata_cli.samples.schema import FieldStats, MemberStats, json_schema, member_schema, observe_rows
from atdata_cli.shards.headers import scan_shards
from atdata_cli.shards.reader import Located, Shard
from atdata_cli.sources.base import Files, Sample, content
from atdata_cli.sources.tars import TarSource

__all__ = ["DatasetInfo", "ShardInfo", "find_sample", "first_samples", "inspect", "is_packed", "values"]

# Packed samples say what their fields are only when they are decoded: this many of the first are.
_DECODED = 100


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


def inspect(located: Located, files: Files, *, jobs: int | None = 1) -> DatasetInfo:
    """What *located* holds; reads the manifest and one sample, or the headers of all shards.

    Parameters
    ----------
    jobs : processes that read headers, where there are many; None: as many as there are cores.

    Raises
    ------
    IntegrityError : a tar is damaged.
    NotFoundError : there is no sample to show.
    """
    return _from_manifest(located, files) if located.manifest is not None else _from_headers(located, files, jobs)


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


def _from_headers(located: Located, files: Files, jobs: int | None) -> DatasetInfo:
    scans = scan_shards(located.shards, files, jobs=jobs)
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
