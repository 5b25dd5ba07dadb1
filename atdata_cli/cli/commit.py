"""``atdata-cli commit``: of the parts that several runs have written, one dataset."""

from __future__ import annotations

import posixpath

import typer

from atdata_cli.cli import options as opt
from atdata_cli.cli.imports import import_webdataset
from atdata_cli.cli.output import Output, count
from atdata_cli.cli.places import writable_store
from atdata_cli.errors import ExitCode, UsageError
from atdata_cli.refs import MANIFEST, in_index
from atdata_cli.words import totals

__all__ = ["commit"]


def commit(
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
    """Make one dataset of the parts in DEST (write --part), and print its shards' URLs.

    Checks that all parts are done, that their shards are there and that no two have a key in common, then puts the
    manifest. Nothing is copied.
    """
    import_webdataset()
    from atdata_cli.shards.partwrite import commit as commit_parts

    output = Output(as_json=json, quiet=quiet, verbose=verbose, no_progress=no_progress, color=color)
    opt.use_network(retries, timeout, ca_bundle)
    if in_index(dest):
        raise UsageError("parts are in a store", url=dest, hint="commit there, then publish")
    stores = opt.store_options(endpoint_url, profile, region, store_option)
    store, prefix = writable_store(dest, stores, doing="written")
    done = commit_parts(store, prefix, dry_run=dry_run)
    manifest = done.result.manifest
    urls = [store.url(name) for name, _ in done.result.shards()]
    url = store.url(posixpath.join(prefix, MANIFEST))
    if output.as_json:
        output.document(
            {
                "status": done.result.status,
                "manifest": url,
                "parts": done.parts,
                "samples": manifest.samples,
                "bytes": manifest.bytes,
                "rejected": manifest.rejected,
                "shards": urls,
            }
        )
    elif not output.quiet:
        output.data(urls)
    what = {"written": "committed", "planned": "would commit", "unchanged": "unchanged:"}[done.result.status]
    output.say(f"{what} {totals(manifest.samples, len(urls), manifest.bytes)}, {url}")
    if manifest.rejected and done.result.status == "written":
        output.say(f"{count(manifest.rejected, 'sample')} rejected")
        raise typer.Exit(ExitCode.REJECTED)
