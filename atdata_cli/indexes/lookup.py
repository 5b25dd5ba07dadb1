"""From any reference to shards that can be read: the one function behind all commands that read.

What an index says is other people's word. Its URLs are opened only where that can do no harm, and the server that it
names for a bucket gets no credentials but those that the user configured for that very server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from atdata_cli.errors import AtdataError, IntegrityError, NotFoundError, UsageError
from atdata_cli.indexes.registry import IndexOptions, open_index
from atdata_cli.refs import (
    LOCAL_INDEX,
    Reference,
    basename,
    in_index,
    local_path,
    parent,
    parse,
    redact,
    refuse_unsafe,
    scheme,
)
from atdata_cli.shards.manifest import Manifest, ShardRow
from atdata_cli.shards.reader import Located, Shard, dataset_in, dataset_shards, locate
from atdata_cli.sources.base import InputFile
from atdata_cli.stores.inputs import StoreFiles
from atdata_cli.stores.registry import StoreOptions, open_store

if TYPE_CHECKING:
    from atdata_cli.indexes.base import Entry, EntryShard
    from atdata_cli.stores.s3 import S3DataStore

__all__ = ["Found", "lookup", "source_shards"]

_PUBLIC = ("https", "http", "s3", "at")  # where shards of other people's entries may be
# The hosts of S3 itself; others below amazonaws.com belong to whoever rents them.
_AMAZON = re.compile(r"s3(?:[.-](?:dualstack\.)?[a-z0-9-]+)?\.amazonaws\.com")
_REGION = re.compile(r"[A-Za-z0-9-]{1,50}")


@dataclass(frozen=True, slots=True)
class Found:
    """What a reference leads to.

    Attributes
    ----------
    located : the shards, and the manifest that says what they hold, if there is one.
    entry : that an index has of it, if it was found there.
    warnings : what a person should know.
    """

    located: Located
    entry: Entry | None = None
    warnings: Sequence[str] = ()


def lookup(text: str, files: StoreFiles, indexes: IndexOptions | None = None, *, with_manifest: bool = True) -> Found:
    """Find the shards of a dataset: a place, a name in an index, an entry, or a blob.

    Parameters
    ----------
    text : the reference, as typed.
    files : how shards are read; told how to reach those of the entry.
    indexes : how indexes are reached.
    with_manifest : look for the manifest beside the shards of an entry, which tells more than the entry; without, the
        stores are not asked at all.

    Raises
    ------
    NotFoundError : there is nothing.
    IntegrityError : the dataset is unfinished, its manifest damaged, or the entry is.
    UsageError : it names a whole index, or an index that this version does not know.
    """
    reference = parse(text)
    if reference.kind == "place":
        if scheme(text) == "s3":
            files.reach(text, files.options.at(text))  # an entry may have named another server for this bucket
        return Found(locate(reference, files))
    if reference.kind == "blob":
        return Found(_blob(reference, files))
    if reference.kind == "index":
        raise UsageError("this names a whole index", url=text, hint=f"a dataset in it is {text.rstrip('/')}/NAME")
    index = open_index(reference.authority, indexes)
    entry = index.get(reference.key) if reference.key else index.find(reference.name, reference.version)
    return _of_entry(reference, entry, files, with_manifest=with_manifest)


def source_shards(
    text: str, files: StoreFiles, indexes: IndexOptions | None = None, *, warn: Callable[[str], None] | None = None
) -> Sequence[InputFile] | None:
    """For sources: the shards of a dataset in a folder or an index; None for a folder that is none.

    Raises
    ------
    NotFoundError, IntegrityError, UsageError : see :func:`lookup`.
    """
    if not in_index(text):
        return dataset_shards(files, text)
    found = lookup(text, files, indexes, with_manifest=False)
    if warn is not None:
        for warning in found.warnings:
            warn(warning)
    return [shard.input for shard in found.located.shards]


def _blob(reference: Reference, files: StoreFiles) -> Located:
    info = files.info(reference.text)
    if info is None:
        raise NotFoundError(
            "there is no such blob",
            url=reference.text,
            hint="servers delete blobs that no record holds; ask its publisher to publish it again",
        )
    from atdata_cli.atproto.values import sha256_in

    return Located(reference.text, [Shard(reference.text, info.size, sha256=sha256_in(reference.key))])


# --- entries ---


def _of_entry(reference: Reference, entry: Entry, files: StoreFiles, *, with_manifest: bool) -> Found:
    if not entry.shards:
        raise NotFoundError(
            "the entry names no shards", url=reference.text, hint="its publisher has to publish it again"
        )
    for shard in entry.shards:
        _check_url(shard.url, reference)
    warnings = _reach(entry, files)
    if with_manifest:
        located, changed = _with_manifest(entry, files)
        if located is not None:
            return Found(located, entry, warnings)
        warnings += changed
    return Found(_from_entry(reference, entry), entry, warnings)


def _check_url(url: str, reference: Reference) -> None:
    """Refuse what an entry must not make this program open: commands, and files of this machine for other people."""
    refuse_unsafe(url)
    if reference.authority != LOCAL_INDEX and scheme(url) not in _PUBLIC:
        raise IntegrityError(
            "the entry names a shard that is at no public place", url=url, hint=f"tell {reference.authority}"
        )


def _reach(entry: Entry, files: StoreFiles) -> list[str]:
    """Tell *files* how the server that an entry names is reached; what a person should know of it."""
    buckets = sorted({"/".join(shard.url.split("/")[:3]) for shard in entry.shards if scheme(shard.url) == "s3"})
    if not buckets:
        return []
    endpoint = entry.endpoint
    if endpoint is not None:
        _check_endpoint(endpoint, entry)
    if endpoint is None or _same_server(_configured(buckets[0], files.options), endpoint):
        for bucket in buckets:
            files.reach(bucket, files.options)
        return []
    if all(_known(bucket, endpoint, files) for bucket in buckets):
        return []
    region = entry.region if entry.region and _REGION.fullmatch(entry.region) else "us-east-1"
    anonymous = StoreOptions(endpoint, region=region, anonymous=True, options=files.options.options)
    for bucket in buckets:
        files.reach(bucket, anonymous)
    if files.options.anonymous:
        return []
    return [
        f"the shards are on {redact(endpoint)}, which is not the configured server: it is asked without credentials "
        f"(--endpoint-url {redact(endpoint)} sends them)"
    ]


def _known(bucket: str, endpoint: str, files: StoreFiles) -> bool:
    """Whether one of the user's named stores is this bucket on this server; if so, it is reached as that is."""
    for place, options in files.options.known:
        if place == bucket and options.endpoint_url and _same_server(options.endpoint_url, endpoint):
            files.reach(bucket, options)
            return True
    return False


def _check_endpoint(endpoint: str, entry: Entry) -> None:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        usable = usable and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise IntegrityError(
            "the entry names a server that is none", url=endpoint, hint=f"tell the author of {entry.uri}"
        )


def _configured(bucket: str, options: StoreOptions) -> str | None:
    """The S3 server that the user has configured, by option, environment or profile; None for AWS."""
    return cast("S3DataStore", open_store(bucket, options)[0]).endpoint_url


def _same_server(mine: str | None, named: str) -> bool:
    """Whether an entry names the server that the user has configured."""
    if mine is None:
        return _is_amazon(named)
    return _server(mine) == _server(named)


def _server(url: str) -> tuple[str, str, int, str]:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").rstrip("."), port, parts.path.rstrip("/")


def _is_amazon(endpoint: str) -> bool:
    """Whether it is S3 itself, over TLS."""
    from urllib.parse import urlsplit

    parts = urlsplit(endpoint)
    return parts.scheme == "https" and parts.port in (None, 443) and bool(_AMAZON.fullmatch(parts.hostname or ""))


def _with_manifest(entry: Entry, files: StoreFiles) -> tuple[Located | None, list[str]]:
    """The dataset in the folder of the shards, if its manifest names these very shards."""
    folders = {parent(shard.url) for shard in entry.shards}
    if len(folders) != 1 or scheme(entry.shards[0].url) == "at":
        return None, []
    folder = folders.pop()
    try:
        located = dataset_in(folder, files)
    except IntegrityError as error:
        return None, [f"the manifest beside the shards cannot be used: {error.message}"]
    except AtdataError:  # nobody may look for it, perhaps; the shards themselves will tell
        return None, []
    if located is None:
        return None, []
    if [_plain(shard.url) for shard in located.shards] == [_plain(shard.url) for shard in entry.shards] and all(
        said.sha256 in (None, shard.expected_sha256) for said, shard in zip(entry.shards, located.shards, strict=True)
    ):
        return located, []
    return None, [f"{redact(folder)} has changed since this was published: its manifest names other data"]


def _plain(url: str) -> str:
    return local_path(url) if scheme(url) == "file" else url


def _from_entry(reference: Reference, entry: Entry) -> Located:
    """The dataset as far as its entry tells."""
    manifest = _told(entry)
    rows: Sequence[ShardRow | None] = manifest.shards if manifest is not None else [None] * len(entry.shards)
    shards = [
        Shard(said.url, said.bytes, row, entry.split, said.sha256) for said, row in zip(entry.shards, rows, strict=True)
    ]
    parts: Mapping[str, Manifest] = {} if manifest is None else {"": manifest}
    return Located(reference.text, shards, manifest, parts)


def _told(entry: Entry) -> Manifest | None:
    """What a manifest would say; None if the entry does not tell enough."""
    from atdata_cli.indexes.typemap import fields_of

    rows = [row for row in map(_row, entry.shards) if row is not None]
    samples, size, payload = entry.samples, entry.bytes, entry.payload
    if len(rows) != len(entry.shards) or entry.encoding is None or samples is None or size is None or payload is None:
        return None
    return Manifest(
        name=entry.name,
        samples=samples,
        bytes=size,
        payload=payload,
        encoding=entry.encoding,
        job=entry.job or "",
        shards=rows,
        fields=fields_of(entry.schema or {}, samples),
        schema=entry.schema or {},
        compression=entry.compression,
        split=entry.split,
    )


def _row(said: EntryShard) -> ShardRow | None:
    if said.sha256 is None or said.bytes is None or said.samples is None:
        return None
    return ShardRow(
        basename(said.url), said.samples, said.bytes, said.sha256, said.first_key or "", said.last_key or ""
    )
