"""Where the shards of an entry are: the four kinds of storage that the lexicons of ``science.alt.dataset`` know."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from atdata_cli.atproto.values import (
    check_text,
    check_uri,
    each,
    given,
    read_cid,
    read_count,
    read_list,
    read_member,
    read_optional,
    read_optional_text,
    read_text,
)
from atdata_cli.errors import UsageError

__all__ = [
    "MAX_BLOB_BYTES",
    "TAR",
    "Blob",
    "BlobShard",
    "Checksum",
    "HttpShard",
    "S3Shard",
    "Storage",
    "StorageBlobs",
    "StorageExternal",
    "StorageHttp",
    "StorageS3",
    "read_storage",
    "without_shards",
]

TAR = "application/x-tar"
"""The one media type of a shard in a PDS."""

MAX_BLOB_BYTES = 52_428_800
"""Largest shard that the lexicon allows in a PDS, whatever the server takes."""

_NAMESPACE = "science.alt.dataset"


@dataclass(frozen=True, slots=True)
class Checksum:
    """Hash of a shard: ``science.alt.dataset.entry#shardChecksum``.

    Attributes
    ----------
    algorithm : ``sha256`` in what this program writes.
    digest : hex.
    """

    algorithm: str
    digest: str

    @classmethod
    def sha256(cls, digest: str) -> Checksum:
        """The usual one."""
        return cls("sha256", digest)

    def as_json(self) -> dict[str, Any]:  # noqa: D102
        return {"algorithm": self.algorithm, "digest": self.digest}

    @classmethod
    def from_json(cls, value: Any) -> Checksum:  # noqa: D102
        return cls(read_text(value, "algorithm"), read_text(value, "digest"))

    def check(self, where: str) -> None:  # noqa: D102
        check_text(self.algorithm, f"{where}.algorithm", 20, least=1)
        check_text(self.digest, f"{where}.digest", 128)
        if not re.fullmatch("(?:[0-9a-f]{2})+", self.digest):
            raise UsageError(f"{where}.digest is no hash in lower-case hex")


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob reference, exactly as ``uploadBlob`` returned it.

    Attributes
    ----------
    cid : of the bytes; follows from their SHA-256.
    size : bytes.
    media_type : what the server says it is.
    """

    cid: str
    size: int
    media_type: str = TAR

    def as_json(self) -> dict[str, Any]:
        """These four keys and no other: with one more or less, the server would not tie the blob to the record."""
        return {"$type": "blob", "ref": {"$link": self.cid}, "mimeType": self.media_type, "size": self.size}

    @classmethod
    def from_json(cls, value: Any) -> Blob:
        """Also the older form, which has no size (``{"cid": …, "mimeType": …}``); its size is 0."""
        if isinstance(value, dict) and "ref" not in value and "cid" in value:
            return cls(read_cid(value["cid"]), 0, read_text(value, "mimeType"))
        return cls(
            read_cid(read_member(value, "ref").get("$link")), read_count(value, "size"), read_text(value, "mimeType")
        )

    def check(self, where: str) -> None:  # noqa: D102
        if self.media_type != TAR:
            raise UsageError(
                f"{where} is {self.media_type!r} to the server, and the lexicon takes {TAR} only",
                hint="write the shards uncompressed, without --compress",
            )
        if not 0 <= self.size <= MAX_BLOB_BYTES:
            raise UsageError(
                f"{where} has {self.size:,} bytes, and the lexicon allows {MAX_BLOB_BYTES:,}",
                hint="write smaller shards, with --max-size",
            )


@dataclass(frozen=True, slots=True)
class BlobShard:
    """A shard in a PDS: ``science.alt.dataset.storageBlobs#blobEntry``."""

    blob: Blob
    checksum: Checksum | None = None

    def as_json(self) -> dict[str, Any]:  # noqa: D102
        return {"blob": self.blob.as_json(), **given(checksum=self.checksum and self.checksum.as_json())}

    @classmethod
    def from_json(cls, value: Any) -> BlobShard:
        """Also a bare blob reference, as early records have it."""
        if isinstance(value, dict) and "blob" not in value:
            return cls(Blob.from_json(value))
        return cls(Blob.from_json(read_member(value, "blob")), read_optional(value, "checksum", Checksum.from_json))

    def check(self, where: str) -> None:  # noqa: D102
        self.blob.check(f"{where}.blob")
        if self.checksum is not None:
            self.checksum.check(f"{where}.checksum")


@dataclass(frozen=True, slots=True)
class S3Shard:
    """An object in S3: ``science.alt.dataset.storageS3#shardEntry``."""

    key: str
    checksum: Checksum

    def as_json(self) -> dict[str, Any]:  # noqa: D102
        return {"key": self.key, "checksum": self.checksum.as_json()}

    @classmethod
    def from_json(cls, value: Any) -> S3Shard:  # noqa: D102
        return cls(read_text(value, "key"), Checksum.from_json(read_member(value, "checksum")))

    def check(self, where: str) -> None:  # noqa: D102
        check_text(self.key, f"{where}.key", 1024, least=1)
        self.checksum.check(f"{where}.checksum")


@dataclass(frozen=True, slots=True)
class HttpShard:
    """A shard on a web server: ``science.alt.dataset.storageHttp#shardEntry``."""

    url: str
    checksum: Checksum

    def as_json(self) -> dict[str, Any]:  # noqa: D102
        return {"url": self.url, "checksum": self.checksum.as_json()}

    @classmethod
    def from_json(cls, value: Any) -> HttpShard:  # noqa: D102
        return cls(read_text(value, "url"), Checksum.from_json(read_member(value, "checksum")))

    def check(self, where: str) -> None:  # noqa: D102
        check_uri(self.url, f"{where}.url", 2000)
        self.checksum.check(f"{where}.checksum")


@dataclass(frozen=True, slots=True)
class StorageBlobs:
    """Shards in the publisher's PDS: ``science.alt.dataset.storageBlobs``."""

    type: ClassVar[str] = f"{_NAMESPACE}.storageBlobs"
    shards: Sequence[BlobShard]

    def as_json(self) -> dict[str, Any]:  # noqa: D102
        return {"$type": self.type, "blobs": [shard.as_json() for shard in self.shards]}

    @classmethod
    def from_json(cls, value: Any) -> StorageBlobs:  # noqa: D102
        return cls(each(value, "blobs", BlobShard.from_json))

    def check(self, where: str) -> None:  # noqa: D102
        _check_shards(self.shards, f"{where}.blobs")


@dataclass(frozen=True, slots=True)
class StorageS3:
    """Shards in S3: ``science.alt.dataset.storageS3``.

    Attributes
    ----------
    region, endpoint : None where they are Amazon's defaults.
    """

    type: ClassVar[str] = f"{_NAMESPACE}.storageS3"
    bucket: str
    shards: Sequence[S3Shard]
    region: str | None = None
    endpoint: str | None = None

    def as_json(self) -> dict[str, Any]:  # noqa: D102
        where = given(region=self.region, endpoint=self.endpoint)
        return {"$type": self.type, "bucket": self.bucket, **where, "shards": [s.as_json() for s in self.shards]}

    @classmethod
    def from_json(cls, value: Any) -> StorageS3:  # noqa: D102
        return cls(
            bucket=read_text(value, "bucket"),
            shards=each(value, "shards", S3Shard.from_json),
            region=read_optional_text(value, "region"),
            endpoint=read_optional_text(value, "endpoint"),
        )

    def check(self, where: str) -> None:  # noqa: D102
        check_text(self.bucket, f"{where}.bucket", 255, least=1)
        check_text(self.region, f"{where}.region", 50)
        if self.endpoint is not None:
            check_uri(self.endpoint, f"{where}.endpoint", 500)
        _check_shards(self.shards, f"{where}.shards")


@dataclass(frozen=True, slots=True)
class StorageHttp:
    """Shards on web servers, each with its URL: ``science.alt.dataset.storageHttp``."""

    type: ClassVar[str] = f"{_NAMESPACE}.storageHttp"
    shards: Sequence[HttpShard]

    def as_json(self) -> dict[str, Any]:  # noqa: D102
        return {"$type": self.type, "shards": [shard.as_json() for shard in self.shards]}

    @classmethod
    def from_json(cls, value: Any) -> StorageHttp:  # noqa: D102
        return cls(each(value, "shards", HttpShard.from_json))

    def check(self, where: str) -> None:  # noqa: D102
        _check_shards(self.shards, f"{where}.shards")


@dataclass(frozen=True, slots=True)
class StorageExternal:
    """URLs, perhaps with braces, without checksums: ``science.alt.dataset.storageExternal``, which is deprecated.

    Read, never written.
    """

    type: ClassVar[str] = f"{_NAMESPACE}.storageExternal"
    shards: Sequence[str]

    def as_json(self) -> dict[str, Any]:  # noqa: D102
        return {"$type": self.type, "urls": list(self.shards)}

    @classmethod
    def from_json(cls, value: Any) -> StorageExternal:  # noqa: D102
        urls = read_list(value, "urls")
        if not all(isinstance(url, str) for url in urls):
            raise ValueError('"urls" holds something that is no text')
        return cls(tuple(urls))

    def check(self, where: str) -> None:  # noqa: D102
        raise UsageError(f"{where} is of a kind that is deprecated", hint="storageS3 and storageHttp replace it")


Storage = StorageBlobs | StorageS3 | StorageHttp | StorageExternal
_STORAGES: Mapping[str, Callable[[Any], Storage]] = {
    StorageBlobs.type: StorageBlobs.from_json,
    StorageS3.type: StorageS3.from_json,
    StorageHttp.type: StorageHttp.from_json,
    StorageExternal.type: StorageExternal.from_json,
}


def read_storage(value: Any) -> Storage:
    """The storage of a record, whichever of the four kinds it is.

    Raises
    ------
    ValueError : it is none of them, or damaged.
    """
    kind = read_text(value, "$type")
    if kind not in _STORAGES:
        raise ValueError(f"storage of the kind {kind[:100]!r} is unknown to this version")
    return _STORAGES[kind](value)


def without_shards(storage: Storage) -> Storage:
    """The same place with no shards in it."""
    return replace(storage, shards=()) if isinstance(storage, StorageS3) else type(storage)(())


def _check_shards(shards: Sequence[BlobShard | S3Shard | HttpShard], where: str) -> None:
    if not shards:
        raise UsageError(
            "the dataset has no shards: there is nothing to publish",
            hint="name the folder or prefix that holds the shards",
        )
    for number, shard in enumerate(shards):
        shard.check(f"{where}[{number}]")
