"""The manifests of a dataset, from what is known of its shards, and their way into the store."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atdata_cli.errors import NotFoundError
from atdata_cli.samples.schema import FieldStats, MemberStats, json_schema, member_schema, merge_stats
from atdata_cli.shards.destination import Destination, Held
from atdata_cli.shards.job import Encoding, Job, WriteOptions
from atdata_cli.shards.making import Finished
from atdata_cli.shards.manifest import MANIFEST, Manifest, SplitRow
from atdata_cli.shards.series import FinishedShard

__all__ = ["Facts", "check_enough", "manifests", "publish"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a manifest tells besides the shards.

    Attributes
    ----------
    destination, held : where it goes, and what was there before.
    job, options : that the shards are of.
    encoding : of samples, where there are none that tell.
    rejected : inputs left out.
    """

    destination: Destination
    held: Held
    job: Job
    options: WriteOptions
    encoding: Encoding
    rejected: int


def check_enough(total: int, options: WriteOptions) -> None:
    """Check that there are as many samples as were asked for.

    Raises
    ------
    NotFoundError : there are none, or fewer than ``--min-samples``.
    """
    if not total and not options.allow_empty:
        raise NotFoundError("there are no samples", hint="--allow-empty writes a dataset without any")
    if total < options.min_samples:
        raise NotFoundError(
            f"there are {total} samples, fewer than --min-samples {options.min_samples}",
            hint="nothing was written; look at the source",
        )


def manifests(facts: Facts, finished: Finished, *, splits: bool) -> tuple[Manifest, dict[str, Manifest]]:
    """The root manifest, and each folder's: of the one series of shards, or of each split's, in the root's order."""
    in_order = sorted(finished.items(), key=lambda item: item[0] or "")
    parts = {split or "": _manifest(facts, series, split) for split, series in in_order}
    if not splits:
        return parts[""], parts
    return _root(facts, parts, [shard for series in finished.values() for shard in series]), parts


def publish(destination: Destination, held: Held, root: Manifest, parts: Mapping[str, Manifest]) -> None:
    """Put the manifests, the root last: from then on the dataset is there, and is the new one."""
    for split, row in (root.splits or {}).items():
        # Only an earlier run of this job can have put one of this name: over other data of the same size.
        destination.publish(row.manifest, parts[split], over=destination.version(row.manifest))
    destination.publish(MANIFEST, root, over=held.version)


def _manifest(facts: Facts, series: Sequence[FinishedShard], split: str | None) -> Manifest:
    described = _described(facts, series)
    rows = tuple(shard.row for shard in series)
    return Manifest(
        name=facts.options.name,
        samples=sum(shard.row.samples for shard in series),
        bytes=sum(shard.row.bytes for shard in series),
        payload=sum(shard.payload for shard in series),
        shards=rows,
        compression=facts.options.compress,
        split=split,
        rejected=0 if split is not None else facts.rejected,
        job=facts.job.id,
        options=facts.job.options,
        replaced=facts.held.replaced(split or "", rows),
        **described,
    )


def _described(facts: Facts, series: Sequence[FinishedShard]) -> dict[str, Any]:
    """Encoding, fields and schema: merged from what each shard saw."""
    samples = sum(shard.row.samples for shard in series)
    if (samples == 0 and facts.encoding == "msgpack") or (
        samples and all(shard.packed is not None for shard in series)
    ):
        packed: dict[str, FieldStats] = {}
        for shard in series:
            merge_stats(packed, shard.packed or {})
        fields = {name: seen.as_json() for name, seen in packed.items()}
        schema = facts.options.schema or json_schema(packed, samples)
        return {"encoding": "msgpack", "fields": fields, "schema": schema}
    members: dict[str, MemberStats] = {}
    for shard in series:
        for name, seen in shard.members.items():
            members.setdefault(name, MemberStats()).merge(seen)
    fields = {name: seen.as_json(name) for name, seen in members.items()}
    return {"encoding": "files", "fields": fields, "schema": member_schema(members, samples)}


def _root(facts: Facts, parts: Mapping[str, Manifest], shards: Sequence[FinishedShard]) -> Manifest:
    rows = {
        split: SplitRow(
            manifest=facts.destination.split_manifest(split, manifest.dumps(), facts.job, facts.held),
            sha256=hashlib.sha256(manifest.dumps()).hexdigest(),
            samples=manifest.samples,
            bytes=manifest.bytes,
            payload=manifest.payload,
            shards=len(manifest.shards),
        )
        for split, manifest in parts.items()
    }
    whole = _manifest(facts, shards, None)
    return dataclasses.replace(whole, shards=(), splits=rows, replaced=facts.held.replaced("", ()))
