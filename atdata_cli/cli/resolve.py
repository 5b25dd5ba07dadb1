"""``atdata-cli resolve``: URLs that WebDataset opens as they are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from atdata_cli.cli.choices import Color, UrlFormat
from atdata_cli.cli.given import index_options, store_options, use_network
from atdata_cli.cli.output import Output, count, dumped, print_bytes
from atdata_cli.errors import UsageError, from_os_error

if TYPE_CHECKING:
    from atdata_cli.cli import options as opt
    from atdata_cli.shards.reader import Shard
    from atdata_cli.sources.base import Files
    from atdata_cli.stores.resolve import ResolvedShard

__all__ = ["resolve"]


def resolve(
    refs: opt.References,
    format_: opt.UrlFormatOption = None,
    null: opt.NulSeparated = False,
    file: opt.OutputFile = None,
    expires: opt.Expires = None,
    no_sign_request: opt.NoSignRequest = False,
    canonical: opt.Canonical = False,
    check: opt.CheckUrls = False,
    split: opt.SplitName = None,
    index: opt.IndexFile = None,
    endpoint_url: opt.EndpointUrl = None,
    profile: opt.Profile = None,
    region: opt.Region = None,
    store_option: opt.LongStoreOption = None,
    retries: opt.Retries = None,
    timeout: opt.Timeout = None,
    ca_bundle: opt.CaBundle = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    no_progress: opt.NoProgress = False,
    color: opt.ColorWhen = Color.AUTO,
) -> None:
    """Print URLs that WebDataset opens as they are, one a line: presigned for S3, paths for files on disk.

    Whoever has a presigned URL can read the shard until it expires: keep them as secret as credentials.
    """
    from atdata_cli.indexes.lookup import lookup
    from atdata_cli.stores.inputs import StoreFiles
    from atdata_cli.stores.resolve import ResolvedShard, Resolver, chosen_shards

    form = _form(format_, null=null, json=json)
    if canonical and expires is not None:
        raise UsageError("--expires is for signed URLs; --canonical ones never expire")
    output = Output(as_json=form == UrlFormat.JSON, quiet=quiet, verbose=verbose, no_progress=no_progress, color=color)
    use_network(retries, timeout, ca_bundle)
    options = store_options(endpoint_url, profile, region, store_option, anonymous=no_sign_request)
    files = StoreFiles(options)
    indexes = index_options(index, options)
    shards: list[Shard] = []
    for ref in refs:
        if ref == "-":
            raise UsageError("standard input is no place that has a URL", hint="a file of this name is ./-")
        found = lookup(ref, files, indexes, with_manifest=False)
        for warning in found.warnings:
            output.warn(warning)
        shards += chosen_shards(found.located, split)
    if canonical:
        resolved = [ResolvedShard(shard, shard.url) for shard in shards]
    else:
        resolver = Resolver(files, expires=expires)
        resolved = resolver.resolve(shards)
        for warning in resolver.warnings:
            output.warn(warning)
    if check:
        _check(resolved, files, output)
    ends = sorted(one.end for one in resolved if one.end is not None)
    if ends:
        output.detail(f"the URLs are good until {ends[0]:%Y-%m-%d %H:%M:%S} UTC")
    _write(_text(resolved, form, "\0" if null else "\n"), file)


def _form(chosen: UrlFormat | None, *, null: bool, json: bool) -> UrlFormat:
    if json and chosen not in {None, UrlFormat.JSON}:
        raise UsageError(f"--json and --format {chosen} are two answers to one question")
    form = UrlFormat.JSON if json else chosen or UrlFormat.LINES
    if null and form == UrlFormat.JSON:
        raise UsageError("--null separates URLs; a JSON document has its own separators")
    return form


def _check(resolved: Sequence[ResolvedShard], files: Files, output: Output) -> None:
    """Open every URL; tell of all that fail."""
    from atdata_cli.stores.probe import failures, worst

    failed = failures(resolved, files)
    if not failed:
        output.detail(f"{count(len(resolved), 'shard')} opened")
        return
    gravest = worst(failed)
    if len(failed) > 1:
        for error in failed:
            output.problem(f"{error.url}: {error.message}")
        gravest.message = f"{count(len(failed), 'shard')} of {len(resolved):,} failed, first here: {gravest.message}"
    raise gravest


def _text(resolved: Sequence[ResolvedShard], form: UrlFormat, end: str) -> str:
    """What is printed."""
    from atdata_cli.stores.resolve import as_wds, compress

    if form == UrlFormat.JSON:
        return dumped({"shards": [_document(one) for one in resolved]}) + "\n"
    for one in resolved:
        if end in one.url:
            raise UsageError(
                "this name has a line break in it",
                url=one.shard.url,
                hint="-0 ends names with NUL bytes, --json quotes",
            )
    urls = [one.url for one in resolved]
    items = {UrlFormat.LINES: lambda: urls, UrlFormat.BRACES: lambda: compress(urls)}
    return "".join(item + end for item in items.get(form, lambda: [as_wds(urls)])())


def _document(one: ResolvedShard) -> dict[str, Any]:
    shard: Shard = one.shard
    return {
        "url": one.url,
        "canonical": shard.url,
        "split": shard.split,
        "samples": shard.row.samples if shard.row else None,
        "bytes": shard.size,
        "sha256": shard.expected_sha256,
        "expires": one.end.isoformat().replace("+00:00", "Z") if one.end else None,
    }


def _write(text: str, path: str | None) -> None:
    """To stdout, or to a file for its owner's eyes only, which appears whole."""
    data = text.encode("utf-8", "surrogateescape")
    if path is None or path == "-":
        print_bytes(data)
        return
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe, or /dev/stdout
            with open(path, "wb") as stream:
                stream.write(data)
        else:
            _replace(os.path.realpath(path), data)
    except OSError as error:
        raise from_os_error(error, path, doing="write to") from error


def _replace(path: str, data: bytes) -> None:
    from atdata_cli.stores.local import temporary_name

    folder, name = os.path.split(path)
    temporary = os.path.join(folder, temporary_name(name))
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
