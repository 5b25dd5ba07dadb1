"""``atdata-cli publish`` and ``unpublish``: a dataset gets a name in an index, or loses it."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from atdata_cli.cli import options as opt
from atdata_cli.cli.listing import plain_records, record_lines
from atdata_cli.cli.output import Output, count, human_bytes
from atdata_cli.cli.said import said
from atdata_cli.errors import AtdataError, ExitCode, UsageError
from atdata_cli.refs import LOCAL_INDEX, Reference, parse, printable, redact
from atdata_cli.words import totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atdata_cli.indexes.base import Entry, Publication, Published, Withdrawal
    from atdata_cli.stores.inputs import StoreFiles

__all__ = ["publish", "unpublish"]


def publish(
    ref: opt.Reference,
    target: opt.Target,
    description: opt.Description = None,
    tag: opt.Tags = None,
    license_: opt.License = None,
    metadata: opt.Metadata = None,
    schema: opt.PublishedSchema = None,
    split: opt.PublishedSplit = None,
    verify: opt.VerifyFirst = False,
    jobs: opt.Jobs = None,
    blobs: opt.Blobs = False,
    allow_local_url: opt.AllowLocalUrl = False,
    index: opt.IndexFile = None,
    endpoint_url: opt.EndpointUrl = None,
    profile: opt.Profile = None,
    region: opt.Region = None,
    store_option: opt.StoreOption = None,
    exit_unchanged: opt.ExitUnchanged = False,
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
    """Put a dataset into an index under a name, and print the URI of its entry.

    The shards stay where they are. The same dataset under the same name is "unchanged"; another one moves the name.
    """
    from atdata_cli.indexes.lookup import lookup
    from atdata_cli.indexes.publication import prepare, public_url
    from atdata_cli.indexes.registry import open_index
    from atdata_cli.shards.transfer import Stages
    from atdata_cli.stores.inputs import StoreFiles

    output = Output(as_json=json, quiet=quiet, verbose=verbose, no_progress=no_progress, color=color)
    opt.use_network(retries, timeout, ca_bundle)
    named = _target(target)
    if ref == "-":
        raise UsageError("standard input is no dataset that stays", hint="write it to a store first")
    if parse(ref).kind == "place":
        public_url(ref)  # told before anything is asked of its server
    stores = opt.store_options(endpoint_url, profile, region, store_option)
    progress = Stages()
    indexes = replace(opt.index_options(index, stores), progress=progress)
    into = open_index(named.authority, indexes)
    files = StoreFiles(stores)
    found = lookup(ref, files, indexes)
    for warning in found.warnings:
        output.warn(warning)
    with output.progress(progress) if verify else nullcontext():
        publication = prepare(
            found.located,
            files,
            name=named.name,
            version=named.version,
            split=split,
            verify=verify,
            jobs=jobs,
            progress=progress.transfer("verifying"),
            public=named.authority != LOCAL_INDEX,
            schema=_schema(files, schema),
            **said(files, description=description, tags=tag, license_=license_, metadata=metadata),
            allow_local_url=allow_local_url,
            blobs=blobs,
        )
    with output.progress(progress) if blobs else nullcontext():
        published = into.publish(publication, dry_run=dry_run)
    for warning in published.warnings:
        output.warn(warning)
    _report(output, publication, published)
    unchanged = published.status == "unchanged" or (dry_run and not published.records)
    if exit_unchanged and unchanged:
        raise typer.Exit(ExitCode.UNCHANGED)


def _target(text: str) -> Reference:
    reference = parse(text)
    if reference.kind != "dataset":
        raise UsageError(
            "this is no name in an index", url=text, hint="@local/NAME or @HANDLE/NAME, with @VERSION if it has one"
        )
    return reference


def _schema(files: StoreFiles, path: str | None) -> Mapping[str, Any] | None:
    if path is None:
        return None
    from atdata_cli.samples.check import RowSchema

    with files.open(path) as reader:
        return RowSchema.parse(reader.read(), url=path).document


def _report(output: Output, publication: Publication, published: Published) -> None:
    if output.as_json:
        output.document(_document(publication, published))
        return
    shards = published.shards or publication.shards
    whole = totals(publication.samples, len(shards), publication.bytes)
    if published.status == "planned":
        output.say(f"would publish {whole}, as {published.uri}:" if published.records else f"unchanged: {whole}")
        output.data(list(record_lines(published.records)))
        return
    if not output.quiet:
        output.data([printable(published.uri)])
    if published.status == "unchanged":
        output.say(f"unchanged: {whole}", style="2")
    else:
        output.say(f"{published.status} {whole}", style="32")


def _document(publication: Publication, published: Published) -> dict[str, Any]:
    return {
        "status": published.status,
        "uri": published.uri,
        "samples": publication.samples,
        "bytes": publication.bytes,
        "shards": [{"url": shard.url, "sha256": shard.sha256} for shard in published.shards or publication.shards],
        "records": plain_records(published.records),
        "warnings": list(published.warnings),
    }


def unpublish(
    target: opt.Target,
    yes: opt.Yes = False,
    index: opt.IndexFile = None,
    retries: opt.Retries = None,
    timeout: opt.Timeout = None,
    ca_bundle: opt.CaBundle = None,
    dry_run: opt.DryRun = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    color: opt.ColorWhen = opt.Color.AUTO,
) -> None:
    """Take a name out of an index, with the entries that no other name leads to; say first what goes."""
    from atdata_cli.indexes.registry import IndexOptions, open_index

    output = Output(as_json=json, quiet=quiet, verbose=verbose, no_progress=True, color=color)
    opt.use_network(retries, timeout, ca_bundle)
    named = _target(target)
    into = open_index(named.authority, IndexOptions(file=index))
    withdrawal = into.plan_withdrawal(named.name, named.version)
    for line in _losses(withdrawal):
        output.say(line)
    for warning in withdrawal.warnings:
        output.warn(warning)
    if not dry_run:
        if not yes:
            _confirm(withdrawal)
        into.withdraw(withdrawal)
    if output.as_json:
        output.document(_withdrawn(withdrawal, "planned" if dry_run else "withdrawn"))
    elif not dry_run:
        output.say(f"withdrawn: {withdrawal.target}", style="32")


def _losses(withdrawal: Withdrawal) -> list[str]:
    """What goes, and what does not, for a person."""
    lines = [f"the name {label}" for label in withdrawal.labels]
    lines += [f"the entry {entry.key}: {_totals(entry)}" for entry in withdrawal.entries]
    if withdrawal.deleted:
        size = human_bytes(withdrawal.deleted_bytes)
        lines.append(f"{count(len(withdrawal.deleted), 'blob')} of {size}, deleted at once and for good:")
        lines += [f"  {redact(shard.url)}" for shard in withdrawal.deleted]
    else:
        lines.append("the shards stay where they are")
    return [f"{withdrawal.target} goes, and with it:", *(f"  {line}" for line in lines)]


def _totals(entry: Entry) -> str:
    if entry.problem is not None:
        return printable(entry.problem)
    samples = "" if entry.samples is None else f"{count(entry.samples, 'sample')} in "
    return samples + count(len(entry.shards), "shard")


def _confirm(withdrawal: Withdrawal) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("nobody is there to be asked", url=withdrawal.target, hint="--yes says that it is meant")
    print("Withdraw it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise AtdataError("not confirmed: nothing was withdrawn", url=withdrawal.target, hint="answer y, or say --yes")


def _withdrawn(withdrawal: Withdrawal, status: str) -> dict[str, Any]:
    return {
        "status": status,
        "target": withdrawal.target,
        "labels": list(withdrawal.labels),
        "entries": [entry.key for entry in withdrawal.entries],
        "deleted": [redact(shard.url) for shard in withdrawal.deleted],
    }
