"""From a dataset that was found to what is published of it, the same for every index; refused is what none may hold."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, cast

from atdata_cli import config
from atdata_cli.errors import IntegrityError, NotFoundError, UsageError, lost_shard, resized_shard
from atdata_cli.indexes.base import EntryShard, Publication
from atdata_cli.indexes.entryrecord import check_places
from atdata_cli.indexes.facts import check_metadata
from atdata_cli.indexes.typemap import schema_name
from atdata_cli.refs import basename, join, local_path, redact, refuse_unsafe, scheme
from atdata_cli.shards.manifest import Manifest, ShardRow
from atdata_cli.shards.reader import Located, Shard
from atdata_cli.shards.transfer import TransferProgress
from atdata_cli.sources.base import content
from atdata_cli.stores.inputs import StoreFiles
from atdata_cli.stores.registry import open_store
from atdata_cli.words import count

if TYPE_CHECKING:
    from atdata_cli.stores.s3 import S3DataStore

__all__ = ["prepare", "public_url"]

_CONNECTIONS = 16
_BATCH = 1000
_BLOCK = 4 << 20


def prepare(
    located: Located,
    files: StoreFiles,
    *,
    name: str,
    version: str | None = None,
    split: str | None = None,
    verify: bool = False,
    jobs: int | None = None,
    progress: TransferProgress | None = None,
    public: bool = False,
    schema: Mapping[str, Any] | None = None,
    **said: Any,
) -> Publication:
    """What is published of a dataset.

    Parameters
    ----------
    located, files : the dataset, and how it is read.
    name, version : of the target.
    split : which of its splits; an entry holds one.
    verify : read every byte before. A dataset without a manifest is published only so.
    jobs : processes that verify.
    progress : told how far that is.
    public : others are to read it: places that they cannot reach are refused before anything is read.
    schema : JSON Schema to publish instead of the dataset's own.
    **said : further fields of :class:`Publication`: description, tags, license, metadata, allow_local_url, blobs, …

    Raises
    ------
    IntegrityError : it is unfinished or damaged, or nobody has checked it: no manifest.
    NotFoundError : it has no shards, or no such split.
    UsageError : several splits at once, or URLs that no index may hold.
    """
    check_metadata(said.get("metadata") or {})
    located = _one_split(located, split)
    shards = [dataclasses.replace(shard, url=public_url(shard.url)) for shard in located.shards]
    if not shards:
        raise NotFoundError(
            "the dataset has no shards", url=located.url, hint="name the folder or prefix that holds the shards"
        )
    endpoint, region = _server(shards[0].url, files)
    if public and not said.get("blobs"):
        check_places([shard.url for shard in shards], endpoint, allow_local_url=bool(said.get("allow_local_url")))
    if located.manifest is None and not verify:
        raise IntegrityError(
            "nobody has checked these shards: no manifest was named with them",
            url=located.url,
            hint="name the folder of their manifest.json; or --verify reads every byte, and publishes what it finds",
        )
    if verify:
        _verify(located, files, jobs, progress)
    else:
        _check_sizes(located.shards, files)
    manifest = located.manifest or _scanned(located, files)
    rows = [shard.row for shard in located.shards] if located.manifest is not None else list(manifest.shards)
    return Publication(
        name=name,
        version=version,
        located=located,
        files=files,
        shards=tuple(_entry_shard(shard, row) for shard, row in zip(shards, rows, strict=True)),
        schema=schema if schema is not None else manifest.schema,
        schema_name=schema_name(name),
        fields=manifest.fields,
        encoding=manifest.encoding,
        compression=manifest.compression,
        split=manifest.split,
        samples=manifest.samples,
        bytes=manifest.bytes,
        payload=manifest.payload,
        job=manifest.job or None,
        endpoint=endpoint,
        region=region,
        **said,
    )


def _entry_shard(shard: Shard, row: ShardRow | None) -> EntryShard:
    if row is None:
        return EntryShard(shard.url, sha256=shard.sha256, bytes=shard.size)
    return EntryShard(shard.url, row.sha256, row.bytes, row.samples, row.first_key or None, row.last_key or None)


def _one_split(located: Located, split: str | None) -> Located:
    """The dataset itself, or the one split of it that is wanted."""
    splits = {part.split: (folder, part) for folder, part in located.parts.items() if part.split is not None}
    if split is not None:
        if split not in splits:
            hint = "it has " + ", ".join(map(str, splits)) if splits else "it has no splits"
            raise NotFoundError(f"there is no split {split!r}", url=located.url, hint=hint)
        folder, part = splits[split]
        shards = [shard for shard in located.shards if shard.split == split]
        return Located(join(located.url, folder) if folder else located.url, shards, part, {"": part})
    if located.manifest is not None and located.manifest.splits is not None:
        raise UsageError(
            "an entry holds one split: loaded by its name, several would be mixed",
            url=located.url,
            hint=f"publish each under a name of its own: --split {next(iter(located.manifest.splits))} and so on",
        )
    return located


def public_url(url: str) -> str:
    """A URL that means the same everywhere, and tells no secrets.

    Raises
    ------
    UsageError : no index may hold this.
    """
    refuse_unsafe(url)
    kind = scheme(url)
    is_path = kind in ("", "file") or ("//" not in url and os.path.lexists(url))
    plain = os.path.abspath(local_path(url)) if is_path else url
    if kind == "memory":
        raise UsageError("what is in memory is gone when this program ends", url=url, hint="copy it to a store first")
    if redact(plain) != plain:
        raise UsageError(
            "the URL holds a password, a signature or a token, which do not belong into an index",
            url=url,
            hint="publish the store's own URLs (s3://BUCKET/PREFIX), or public ones",
        )
    try:
        plain.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError("the name of this shard is not valid Unicode", url=url, hint="rename it") from None
    return plain


def _server(url: str, files: StoreFiles) -> tuple[str | None, str | None]:
    """Endpoint and region of the S3 server of a shard, as far as they were named."""
    if scheme(url) != "s3":
        return None, None
    options = files.options_for(url)
    store = cast("S3DataStore", open_store(url, options)[0])
    return store.endpoint_url, options.region or config.s3_region()


# --- looking at it before ---


def _check_sizes(shards: Sequence[Shard], files: StoreFiles) -> None:
    """Look whether every shard is there, with its size."""

    def check(shard: Shard) -> None:
        found = files.info(shard.url)
        if found is None or found.kind == "folder":
            raise lost_shard(shard.url)
        if shard.row is not None and found.size is not None and found.size != shard.row.bytes:
            raise resized_shard(shard.url, found.size, shard.row.bytes)

    if all(scheme(shard.url) in ("", "file") for shard in shards):
        for shard in shards:
            check(shard)
        return
    with ThreadPoolExecutor(min(_CONNECTIONS, len(shards)), "sizes") as pool:
        for _ in pool.map(check, shards):
            pass


def _verify(located: Located, files: StoreFiles, jobs: int | None, progress: TransferProgress | None) -> None:
    from atdata_cli.shards.verify import verify

    report = verify(located, files, jobs=jobs, progress=progress)
    if report.failure is not None:
        raise report.failure
    if report.problems:
        first = report.problems[0]
        raise IntegrityError(
            f"{count(len(report.problems), 'problem')}, first: {first.detail}",
            url=first.shard,
            hint="inspect --verify lists them all; nothing was published",
        )


# --- a dataset without a manifest ---


def _scanned(located: Located, files: StoreFiles) -> Manifest:
    """What a manifest would say: reads every byte once more, and decodes every packed sample."""
    from atdata_cli.samples.schema import FieldStats, json_schema, observe_rows
    from atdata_cli.shards.scan import inspect

    info = inspect(located, files)
    rows = []
    for shard in info.shards:
        name = basename(shard.url)
        digest = _sha256(files, shard.url)
        rows.append(ShardRow(name, shard.samples, shard.bytes, digest, shard.first_key, shard.last_key))
    fields: Mapping[str, Any] = {
        name: {key: value for key, value in known.items() if key != "example"} for name, known in info.fields.items()
    }
    schema = info.schema
    if info.encoding == "msgpack":
        stats: dict[str, FieldStats] = {}
        for names, rows_alike in groupby(_unpacked(located, files), tuple):
            for batch in _batched(rows_alike):
                observe_rows(stats, names, batch)
        fields = {name: seen.as_json() for name, seen in stats.items()}
        schema = json_schema(stats, info.samples)
    return Manifest(
        name="",
        samples=info.samples,
        bytes=info.bytes,
        payload=info.payload,
        encoding=info.encoding,
        job="",
        shards=rows,
        fields=fields,
        schema=schema,
        compression=info.compression,
    )


def _unpacked(located: Located, files: StoreFiles) -> Iterator[dict[str, Any]]:
    """All packed samples, decoded."""
    from atdata_cli.samples.codec import unpack_rows
    from atdata_cli.sources.tars import TarSource

    for sample in TarSource(files, [shard.input for shard in located.shards]).samples():
        rows = unpack_rows([content(sample.fields["msgpack"])])
        if rows is None:
            raise IntegrityError(
                f"the sample {sample.key!r} is no map with text keys",
                url=located.url,
                hint="write the dataset again from its source",
            )
        yield from rows


def _batched(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, _BATCH)):
        yield batch


def _sha256(files: StoreFiles, url: str) -> str:
    digest = hashlib.sha256()
    with files.open(url) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
