"""``atdata-cli prune`` and ``abort``: what no manifest names, and what an unfinished job left, is removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from atdata_cli.cli import options as opt
from atdata_cli.cli.output import Output, count, human_bytes
from atdata_cli.cli.places import writable_store
from atdata_cli.errors import UsageError
from atdata_cli.refs import LOCAL_INDEX, in_index, parse

if TYPE_CHECKING:
    from atdata_cli.shards.destination import Destination
    from atdata_cli.stores.registry import StoreOptions

__all__ = ["abort", "prune"]


def prune(
    dest: opt.Prefix,
    endpoint_url: opt.EndpointUrl = None,
    profile: opt.Profile = None,
    region: opt.Region = None,
    store_option: opt.StoreOption = None,
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
    """Delete the shards in DEST that its manifest does not name, and print their URLs.

    DEST is a folder, a URL prefix, or @HANDLE/NAME. Updates leave the shards that they replace, for those who read the
    manifest of before; from now on their reads fail. Of @HANDLE/NAME go the entries that no name or version leads to
    any more, except the newest, with the blobs that nothing else holds.
    """
    output = Output(as_json=json, quiet=quiet, verbose=verbose, no_progress=no_progress, color=color)
    opt.use_network(retries, timeout, ca_bundle)
    if in_index(dest):
        _prune_entries(output, dest, dry_run=dry_run)
        return
    destination = _destination(dest, opt.store_options(endpoint_url, profile, region, store_option))
    _tell_removed(output, destination, destination.prune(dry_run=dry_run), dry_run=dry_run)


def abort(
    dest: opt.Prefix,
    endpoint_url: opt.EndpointUrl = None,
    profile: opt.Profile = None,
    region: opt.Region = None,
    store_option: opt.StoreOption = None,
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
    """Remove what an unfinished job left in DEST, unfinished uploads included, and print its URLs.

    DEST is a folder, a URL prefix, or @HANDLE/NAME. A finished dataset there stays as it is. A run that still writes
    there would lose its work: end it first.
    """
    output = Output(as_json=json, quiet=quiet, verbose=verbose, no_progress=no_progress, color=color)
    opt.use_network(retries, timeout, ca_bundle)
    if in_index(dest):
        _abandon(output, dest, dry_run=dry_run)
        return
    destination = _destination(dest, opt.store_options(endpoint_url, profile, region, store_option))
    _tell_removed(output, destination, destination.abort(dry_run=dry_run), dry_run=dry_run)


def _destination(dest: str, stores: StoreOptions) -> Destination:
    from atdata_cli.shards.destination import Destination

    store, prefix = writable_store(dest, stores, doing="deleted")
    return Destination(store, prefix)


def _prune_entries(output: Output, dest: str, *, dry_run: bool) -> None:
    """In a PDS: entries of before, which each publication of something else leaves."""
    from atdata_cli.indexes.atmosphere import AtmosphereIndex

    target = parse(dest)
    if target.kind != "dataset" or target.authority == LOCAL_INDEX or target.version is not None:
        raise UsageError(
            "in an index, only whole names of an account are pruned",
            url=dest,
            hint="@HANDLE/NAME; unpublish takes a name or a version away",
        )
    index = AtmosphereIndex(target.authority)
    going = index.plan_pruning(target.name)
    if not dry_run:
        index.withdraw(going)
    urls = [*(entry.uri for entry in going.entries), *(shard.url for shard in going.deleted)]
    blobs = f"{count(len(going.deleted), 'blob')}, {human_bytes(going.deleted_bytes)}"
    _tell(output, urls, f"{count(len(going.entries), 'old record')} and {blobs}", dry_run=dry_run)


def _abandon(output: Output, dest: str, *, dry_run: bool) -> None:
    """In a PDS: the records that hold what was uploaded for an entry that is not there."""
    from atdata_cli.indexes.atmosphere import AtmosphereIndex
    from atdata_cli.indexes.unfinished import abandon

    target = parse(dest)
    if target.kind != "dataset" or target.authority == LOCAL_INDEX:
        raise UsageError("no upload goes there", url=dest, hint="@HANDLE/NAME")
    session = AtmosphereIndex(target.authority).account
    uploads = abandon(session, target.name, dry_run=dry_run)
    urls = [f"at://{session.did}/blob/{blob.cid}" for blob in uploads.deleted]
    size = human_bytes(sum(blob.size for blob in uploads.deleted))
    _tell(output, urls, f"{count(len(urls), 'blob')}, {size}", dry_run=dry_run)
    if uploads.kept:
        output.say(f"other records hold {count(uploads.kept, 'blob')}: kept")


def _tell_removed(output: Output, destination: Destination, names: Sequence[str], *, dry_run: bool) -> None:
    _tell(output, [destination.store.url(name) for name in names], count(len(names), "object"), dry_run=dry_run)


def _tell(output: Output, urls: Sequence[str], what: str, *, dry_run: bool) -> None:
    if output.as_json:
        output.document({"status": "planned" if dry_run else "removed", "removed": list(urls)})
        return
    if not output.quiet:
        output.data(urls)
    output.say(f"{'would remove' if dry_run else 'removed'} {what}" if urls else "nothing to remove")
