"""``atdata-cli prune`` and ``abort``: what no manifest names, and what an unfinished job left, is removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from atdata_cli.cli import options as opt
from atdata_cli.cli.output import Output, count
from atdata_cli.errors import UsageError

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

    Updates leave the shards that they replace, for those who read the manifest of before; from now on their reads fail.
    """
    output = Output(as_json=json, quiet=quiet, verbose=verbose, no_progress=no_progress, color=color)
    opt.use_network(retries, timeout, ca_bundle)
    destination = _destination(dest, opt.store_options(endpoint_url, profile, region, store_option))
    _tell(output, destination, destination.prune(dry_run=dry_run), dry_run=dry_run)


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

    A finished dataset there stays as it is. A run that still writes there would lose its work: end it first.
    """
    output = Output(as_json=json, quiet=quiet, verbose=verbose, no_progress=no_progress, color=color)
    opt.use_network(retries, timeout, ca_bundle)
    destination = _destination(dest, opt.store_options(endpoint_url, profile, region, store_option))
    _tell(output, destination, destination.abort(dry_run=dry_run), dry_run=dry_run)


def _destination(dest: str, stores: StoreOptions) -> Destination:
    from atdata_cli.shards.destination import Destination
    from atdata_cli.shards.protocols import ShardStore
    from atdata_cli.stores.registry import open_store

    store, prefix = open_store(dest, stores)
    if not isinstance(store, ShardStore) or not store.writable:
        raise UsageError("nothing can be deleted in this store", url=dest)
    return Destination(store, prefix)


def _tell(output: Output, destination: Destination, names: Sequence[str], *, dry_run: bool) -> None:
    urls = [destination.store.url(name) for name in names]
    if output.as_json:
        output.document({"status": "planned" if dry_run else "removed", "removed": urls})
        return
    if not output.quiet:
        output.data(urls)
    output.say(f"{'would remove' if dry_run else 'removed'} {count(len(urls), 'object')}")
