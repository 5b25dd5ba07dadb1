"""Between what is published and the entry record of it, and back from anybody's entry record."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from atdata_cli.atproto.records import EntryRecord, SchemaRecord, Size, has_room, now
from atdata_cli.atproto.storage import (
    Blob,
    BlobShard,
    Checksum,
    HttpShard,
    S3Shard,
    Storage,
    StorageBlobs,
    StorageExternal,
    StorageHttp,
    StorageS3,
)
from atdata_cli.atproto.values import LARGEST_INTEGER, blob_cid, sha256_in
from atdata_cli.errors import IntegrityError, UsageError
from atdata_cli.indexes.base import Entry, EntryShard, Publication
from atdata_cli.indexes.facts import facts, with_facts
from atdata_cli.refs import expand_all, redact, refuse_unsafe, scheme

__all__ = ["check_places", "entry_of", "entry_record", "storage_of"]

_ELSEWHERE = "copy the dataset to S3 or a web server first, or give --blobs to put its shards into your PDS"


def entry_record(publication: Publication, storage: Storage, schema_ref: str) -> EntryRecord:
    """The record of a publication whose shards are in *storage*.

    Where the record would be too large, it goes without the first keys of the shards, which nobody needs to read them.
    """
    record = EntryRecord(
        name=publication.name,
        schema_ref=schema_ref,
        storage=storage,
        created_at=now(),
        description=publication.description or None,
        tags=tuple(publication.tags or ()),
        license=publication.license or None,
        size=Size(publication.samples, publication.bytes, len(publication.shards)),
        metadata=_metadata(publication, storage, keys=True),
    )
    return record if has_room(record) else replace(record, metadata=_metadata(publication, storage, keys=False))


def _metadata(publication: Publication, storage: Storage, *, keys: bool) -> dict[str, Any]:
    """What an entry tells for want of a manifest, with the shards told as briefly as can be.

    A row a shard: samples, first key, and the bytes where the storage does not tell them.
    """
    told = facts(publication)
    of_blobs = isinstance(storage, StorageBlobs)
    rows = [[shard.samples, (shard.first_key or "") if keys else "", shard.bytes] for shard in publication.shards]
    told["shards"] = [row[:2] for row in rows] if of_blobs else rows
    if any(shard.samples is None for shard in publication.shards):
        del told["shards"]
    return told


def storage_of(publication: Publication, did: str) -> Storage:
    """Where the shards of a publication are, as its record says.

    Parameters
    ----------
    did : of the publisher.

    Raises
    ------
    UsageError : nobody else could read them, or must not.
    """
    if publication.blobs:
        return StorageBlobs(tuple(_future_blob(shard) for shard in publication.shards))
    urls = [shard.url for shard in publication.shards]
    kind = check_places(urls, publication.endpoint, allow_local_url=publication.allow_local_url)
    if kind == "at":
        return StorageBlobs(tuple(_present_blob(shard, publication, did) for shard in publication.shards))
    if kind == "s3":
        return _s3(publication)
    return StorageHttp(tuple(HttpShard(shard.url, Checksum.sha256(_hash(shard))) for shard in publication.shards))


def check_places(urls: Sequence[str], endpoint: str | None, *, allow_local_url: bool) -> str:
    """The scheme of the shards' URLs, if an entry may name them.

    Parameters
    ----------
    urls : of the shards.
    endpoint : of the S3 server that has them.
    allow_local_url : take servers that others cannot reach.

    Raises
    ------
    UsageError : nobody else could read them, or must not.
    """
    kinds = {"http" if scheme(url) == "https" else scheme(url) for url in urls}
    if len(kinds) > 1:
        raise UsageError(
            "the shards are in several kinds of places, and an entry names one",
            url=urls[0],
            hint="copy them into one place with atdata-cli copy",
        )
    kind = kinds.pop()
    if kind in {"", "file"}:
        raise UsageError("nobody else can read a path on this machine", url=urls[0], hint=_ELSEWHERE)
    if kind not in {"at", "s3", "http"}:
        raise UsageError(f"an entry cannot name '{kind}:' URLs, only S3, HTTPS and blobs", url=urls[0], hint=_ELSEWHERE)
    named = urls if kind == "http" else [endpoint] if kind == "s3" and endpoint is not None else []
    for url in named:
        _check_public(url, allow_local_url=allow_local_url)
    return kind


def _future_blob(shard: EntryShard) -> BlobShard:
    """A shard as it will be in the PDS: its CID follows from its bytes."""
    digest = _hash(shard)
    return BlobShard(Blob(blob_cid(digest), shard.bytes or 0), Checksum.sha256(digest))


def _present_blob(shard: EntryShard, publication: Publication, did: str) -> BlobShard:
    if not shard.url.startswith(f"at://{did}/"):
        raise UsageError(
            "this blob is in the repository of another account, and would be deleted with its last entry there",
            url=shard.url,
            hint="--blobs copies the shards into your own PDS",
        )
    ref = publication.blob_refs.get(shard.url)
    blob = Blob.from_json(ref) if ref is not None else Blob(shard.url.rpartition("/")[2], shard.bytes or 0)
    return BlobShard(blob, Checksum.sha256(_hash(shard)))


def _hash(shard: EntryShard) -> str:
    if shard.sha256 is None:
        raise IntegrityError(
            "nobody has checked this shard: its hash is not known",
            url=shard.url,
            hint="atdata-cli inspect --verify checks it; or write the dataset with this program",
        )
    return shard.sha256


def _s3(publication: Publication) -> StorageS3:
    named = [shard.url.removeprefix("s3://").partition("/") for shard in publication.shards]
    bucket = named[0][0]
    if any(name[0] != bucket for name in named):
        raise UsageError(
            "the shards are in several buckets, and an entry names one",
            url=publication.shards[0].url,
            hint="copy them into one bucket with atdata-cli copy",
        )
    return StorageS3(
        bucket=bucket,
        shards=tuple(
            S3Shard(key, Checksum.sha256(_hash(shard)))
            for (_, _, key), shard in zip(named, publication.shards, strict=True)
        ),
        region=publication.region,
        endpoint=publication.endpoint,
    )


def _check_public(url: str, *, allow_local_url: bool) -> None:
    """Refuse what others must not see, or cannot reach."""
    if redact(url) != url or urlsplit(url).username is not None:
        raise UsageError(
            "the URL holds a password, a signature or a token, and a record is public",
            url=url,
            hint="publish the store's own URLs, or public ones",
        )
    host = (urlsplit(url).hostname or "").rstrip(".")
    if not allow_local_url and _is_local(host):
        raise UsageError(
            f"nobody else can reach {host!r}",
            url=url,
            hint="give the public name of the server, --blobs, or --allow-local-url to publish it all the same",
        )


def _is_local(host: str) -> bool:
    """Whether a host means another machine, or none, to others: loopback, private addresses, names without a dot."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        # "127.1" and "2130706433" are addresses to most programs.
        odd_address = re.fullmatch(r"(0x[0-9a-f]+|[0-9]+)(\.(0x[0-9a-f]+|[0-9]+))*", host, re.IGNORECASE)
        local_name = "." not in host or host.endswith((".localhost", ".local", ".internal", ".localdomain"))
        return odd_address is not None or local_name


def entry_of(
    record: EntryRecord,
    *,
    uri: str,
    did: str,
    name: str | None = None,
    version: str | None = None,
    schema: SchemaRecord | None = None,
) -> Entry:
    """A record as every index gives it out; without its shards, and with the reason, where no reader may follow them.

    Parameters
    ----------
    uri, did : of the record and of its author.
    name, version : of the label that led to it.
    schema : the record that it refers to, if it could be read.
    """
    metadata = dict(record.metadata or {})
    storage = record.storage
    s3 = storage if isinstance(storage, StorageS3) else None
    size = record.size or Size()
    shards: Sequence[EntryShard] = ()
    problem = None
    try:
        shards = _with_rows(_shards(storage, did), metadata.get("shards"))
    except UsageError as error:
        problem = f"this entry names what is not followed: {error.message}"
    found = Entry(
        uri=uri,
        key=uri.rpartition("/")[2],
        name=name or record.name,
        version=version,
        shards=shards,
        schema=schema.schema if schema else None,
        schema_ref=record.schema_ref,
        samples=size.samples,
        bytes=size.bytes,
        description=record.description,
        tags=tuple(record.tags),
        license=record.license,
        metadata={"contentMetadata": record.content_metadata} if record.content_metadata else {},
        created_at=record.created_at,
        endpoint=s3.endpoint if s3 else None,
        region=s3.region if s3 else None,
        blob_refs=_blob_refs(storage, did),
        problem=problem,
    )
    return with_facts(found, metadata)


def _shards(storage: Storage, did: str) -> list[EntryShard]:
    """The shards of an entry.

    Raises
    ------
    UsageError : they are where no reader may follow.
    """
    match storage:
        case StorageBlobs():
            return [_blob(shard, did) for shard in storage.shards]
        case StorageS3():
            if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{1,254}", storage.bucket):
                raise UsageError(f"{storage.bucket!r} is no bucket")
            return [EntryShard(f"s3://{storage.bucket}/{s.key}", _sha256(s.checksum)) for s in storage.shards]
        case StorageHttp():
            return [EntryShard(_readable(s.url), _sha256(s.checksum)) for s in storage.shards]
        case StorageExternal():
            return [EntryShard(_readable(url)) for url in expand_all(storage.shards)]


def _blob(shard: BlobShard, did: str) -> EntryShard:
    blob = shard.blob
    digest = sha256_in(blob.cid) or (_sha256(shard.checksum) if shard.checksum else None)
    return EntryShard(f"at://{did}/blob/{blob.cid}", digest, blob.size or None)


def _sha256(checksum: Checksum) -> str | None:
    """The hash, if it is one that can be checked."""
    digest = checksum.digest.lower()
    return digest if checksum.algorithm == "sha256" and re.fullmatch("[0-9a-f]{64}", digest) else None


def _readable(url: str) -> str:
    """A URL of a record, if a reader may open it: nobody's record makes this program read a file of this machine."""
    refuse_unsafe(url)
    if scheme(url) in {"", "file", "memory"}:
        raise UsageError("a path on the machine of its publisher")
    return url


def _with_rows(shards: list[EntryShard], rows: Any) -> list[EntryShard]:
    """Shards with what the entry's metadata tell of each; others' rows of another form do not count."""
    if not isinstance(rows, list) or len(rows) != len(shards):
        return shards
    return [_with_row(shard, row) for shard, row in zip(shards, rows, strict=True)]


def _with_row(shard: EntryShard, row: Any) -> EntryShard:
    if not isinstance(row, list) or len(row) not in (2, 3):
        return shard
    samples, first_key, size = row[0], row[1], row[2] if len(row) == 3 else shard.bytes
    if not _is_count(samples) or not isinstance(first_key, str) or not (size is None or _is_count(size)):
        return shard
    return EntryShard(shard.url, shard.sha256, size, samples, first_key or None)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_INTEGER


def _blob_refs(storage: Storage, did: str) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(storage, StorageBlobs):
        return {}
    blobs: Sequence[Blob] = [shard.blob for shard in storage.shards]
    return {f"at://{did}/blob/{blob.cid}": blob.as_json() for blob in blobs}
