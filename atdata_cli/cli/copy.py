"""``atdata-cli copy``: a dataset's shards, byte for byte, from any store to any store."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from atdata_cli.cli import options as opt
from atdata_cli.cli.output import Output, count, human_bytes
from atdata_cli.cli.places import check_apart, check_dest
from atdata_cli.errors import UsageError
from atdata_cli.refs import MANIFEST, in_index, scheme

if TYPE_CHECKING:
    from atdata_cli.shards.copy import CopyResult
    from atdata_cli.shards.protocols import ShardStore
    from atdata_cli.stores.registry import StoreOptions

__all__ = ["copy"]


def copy(
    ref: opt.Reference,
    dest: opt.Dest,
    jobs: opt.CopyJobs = 4,
    if_exists: opt.IfCopiedOption = opt.IfCopied.RESUME,
    index: opt.IndexFile = None,
    endpoint_url: opt.EndpointUrl = None,
    profile: opt.Profile = None,
    region: opt.Region = None,
    store_option: opt.DestOption = None,
    source_endpoint_url: opt.SourceEndpointUrl = None,
    source_profile: opt.SourceProfile = None,
    source_region: opt.SourceRegion = None,
    source_no_sign_request: opt.SourceUnsigned = False,
    source_store_option: opt.SourceOption = None,
    retries: opt.Retries = None,
    timeout: opt.Timeout = None,
    ca_bundle: opt.CaBundle = None,
    dry_run: opt.DryRun = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    no_progress: opt.NoProgress = False,
    color: opt.ColorWhen = opt.Color.AUTO,
) -> None:
    """Copy a dataset's shards to DEST, byte for byte, and print their new URLs, one a line.

    Each shard is checked on its way and appears only if it is right; the manifest comes last. The same command again
    copies what is missing.
    """
    from atdata_cli.indexes.lookup import lookup
    from atdata_cli.shards.copy import copy_dataset
    from atdata_cli.shards.protocols import ShardStore
    from atdata_cli.shards.transfer import TransferProgress
    from atdata_cli.stores.inputs import StoreFiles
    from atdata_cli.stores.registry import open_store

    output = Output(as_json=json, quiet=quiet, verbose=verbose, no_progress=no_progress, color=color)
    opt.use_network(retries, timeout, ca_bundle)
    writing = opt.store_options(endpoint_url, profile, region, store_option, operand="dest")
    reading = opt.store_options(
        source_endpoint_url or endpoint_url,
        source_profile or profile,
        source_region or region,
        source_store_option,
        operand="ref",
        prefix="source_",
        anonymous=source_no_sign_request,
    )
    if scheme(dest) == "s3":
        # Each shard under way holds a part; several smaller ones are as fast as few large ones.
        named = {
            place: dataclasses.replace(one, options={"part_size": "8M", **one.options})
            for place, one in writing.named.items()
        }
        writing = dataclasses.replace(writing, options={"part_size": "8M", **writing.options}, named=named)
    _check_places(ref, dest, reading, writing)
    files = StoreFiles(reading)
    found = lookup(ref, files, opt.index_options(index, reading))
    for warning in found.warnings:
        output.warn(warning)
    store, prefix = open_store(dest, writing)
    if not isinstance(store, ShardStore):
        raise UsageError("this store takes samples only, not shards", url=dest, hint="write REF DEST shards them anew")
    progress = TransferProgress()
    with output.progress(progress):
        result = copy_dataset(
            found.located,
            files,
            store,
            prefix,
            jobs=jobs,
            progress=progress,
            if_exists=if_exists.value,
            dry_run=dry_run,
        )
    _report(result, store, output)


def _check_places(ref: str, dest: str, reading: StoreOptions, writing: StoreOptions) -> None:
    if ref == "-":
        raise UsageError("standard input is no dataset", hint="a file of this name is ./-")
    if in_index(dest):
        raise UsageError(
            "an index is no place to copy to",
            url=dest,
            hint="publish REF @HANDLE/NAME --blobs copies shards into a PDS",
        )
    check_dest(dest)
    if reading.at(ref).endpoint_url == writing.at(dest).endpoint_url:  # else equal names are those of different buckets
        check_apart(ref, dest)


def _report(result: CopyResult, store: ShardStore, output: Output) -> None:
    if output.as_json:
        output.document(_document(result, store))
        return
    if not output.quiet:
        output.data([store.url(shard.name) for shard in result.shards])
    copied = [shard for shard in result.shards if shard.copied]
    where = posixpath.join(result.prefix, MANIFEST) if result.manifest else result.prefix
    url = store.url(where) + ("" if result.manifest else " (there is no manifest)")
    if result.status == "unchanged":
        output.say(f"unchanged, 0 copied: {_amount([shard.bytes for shard in result.shards])}, {url}", style="2")
        return
    verb, style = ("would copy", "") if result.status == "planned" else ("copied", "32")
    there = len(result.shards) - len(copied)
    before = f" ({there:,} of {len(result.shards):,} {'is' if there == 1 else 'are'} there already)" if there else ""
    output.say(f"{verb} {_amount([shard.bytes for shard in copied])}{before}, {url}", style=style)
    for shard in result.shards:
        output.detail(f"{shard.sha256 or '-'}  {shard.bytes or '-'}  {store.url(shard.name)}")


def _amount(sizes: Sequence[int | None]) -> str:
    total = "of unknown size" if None in sizes else human_bytes(sum(size or 0 for size in sizes))
    return f"{count(len(sizes), 'shard')}, {total}"


def _document(result: CopyResult, store: ShardStore) -> dict[str, Any]:
    """The JSON document of a run; ``bytes`` and ``sha256`` are null in a plan where nothing tells them."""
    copied = [shard.bytes for shard in result.shards if shard.copied]
    manifest = result.manifest
    return {
        "status": result.status,
        "name": manifest.name if manifest else None,
        "manifest": store.url(posixpath.join(result.prefix, MANIFEST)) if manifest else None,
        "samples": manifest.samples if manifest else None,
        "copied": {"shards": len(copied), "bytes": None if None in copied else sum(size or 0 for size in copied)},
        "shards": [
            {
                "url": store.url(shard.name),
                "bytes": shard.bytes,
                "sha256": shard.sha256,
                "copied": shard.copied,
            }
            for shard in result.shards
        ],
    }
