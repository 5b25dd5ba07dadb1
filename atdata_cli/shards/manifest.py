"""``manifest.json``: what a dataset consists of, written last.

Stable text: sorted keys, no time, no host, no path outside the dataset. Readers need nothing but this and the
tars, and ignore fields that they do not know.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from atdata_cli.errors import IntegrityError

__all__ = ["FORMAT", "MANIFEST", "VERSION", "Manifest", "ShardRow", "SplitRow"]

FORMAT = "atdata-manifest"
VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class ShardRow:
    """One shard.

    Attributes
    ----------
    name : file name, beside the manifest.
    samples : how many.
    bytes : size as stored.
    sha256 : of the stored bytes, hex.
    first_key, last_key : keys of its first and last sample.
    """

    name: str
    samples: int
    bytes: int
    sha256: str
    first_key: str
    last_key: str


@dataclass(frozen=True, slots=True)
class SplitRow:
    """One split of a dataset, as the root manifest names it.

    Attributes
    ----------
    manifest : its manifest, relative to the root one.
    sha256 : of that manifest, hex, so that the root one vouches for everything.
    samples, bytes, payload, shards : its totals.
    """

    manifest: str
    sha256: str
    samples: int
    bytes: int
    payload: int
    shards: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A dataset, or one split of it, or the root of several splits.

    Attributes
    ----------
    name : the dataset's name.
    samples, bytes, payload : totals; bytes as stored, payload the sum of all members' sizes.
    shards : in order; empty in the root of several splits.
    fields : field name to kind and ranges.
    schema : draft-07 JSON Schema of a sample.
    encoding : ``msgpack`` or ``files``.
    compression : ``gz`` or None.
    split : which split this is, or None.
    splits : split name to its row, in the root of several splits only.
    rejected : inputs left out.
    job : identity of input and options, see ``atdata_cli.shards.job``.
    options : the options behind it that are not the default, to tell what differs.
    """

    name: str
    samples: int
    bytes: int
    payload: int
    encoding: str
    job: str
    shards: Sequence[ShardRow] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] = field(default_factory=dict)
    compression: str | None = None
    split: str | None = None
    splits: Mapping[str, SplitRow] | None = None
    rejected: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def dumps(self) -> builtins.bytes:
        """The file's content."""
        import orjson

        document: dict[str, Any] = {"format": FORMAT, "version": VERSION}
        for name in self.__dataclass_fields__:
            document[name] = getattr(self, name)
        document["shards"] = [asdict(row) for row in self.shards]
        if self.splits is None:
            del document["splits"]
        else:
            document["splits"] = {name: asdict(row) for name, row in self.splits.items()}
            del document["shards"]
        option = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        return orjson.dumps(document, option=option)

    @classmethod
    def loads(cls, text: builtins.bytes, *, url: str) -> Manifest:
        """Read a manifest; it comes from a store and is not to be trusted.

        Raises
        ------
        IntegrityError : it is no manifest, or one of a version that this program does not know.
        """
        import orjson

        try:
            document = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise IntegrityError(f"this is no manifest: {error}", url=url) from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise IntegrityError(f'this is no dataset manifest: "format" is not "{FORMAT}"', url=url)
        if document.get("version") != VERSION:
            raise IntegrityError(
                f"the manifest is of version {document.get('version')!r}, this program reads version {VERSION}",
                url=url,
                hint="upgrade atdata-cli",
            )
        try:
            return cls._from_document(document)
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"the manifest is damaged: {error}", url=url) from error

    @classmethod
    def _from_document(cls, document: Mapping[str, Any]) -> Manifest:
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        known["shards"] = tuple(_shard_row(row) for row in document.get("shards", ()))
        if known.get("splits") is not None:
            if not isinstance(known["splits"], dict):
                raise TypeError("splits must be an object")
            known["splits"] = {name: _split_row(name, row) for name, row in known["splits"].items()}
        manifest = cls(**known)
        _check_types(manifest, ("name", "encoding", "job"), ("samples", "bytes", "payload", "rejected"))
        if not isinstance(manifest.schema, dict) or not isinstance(manifest.fields, dict):
            raise TypeError("fields and schema must be objects")
        return manifest


def _check_types(parsed: Any, texts: Sequence[str], counts: Sequence[str]) -> None:
    for name in texts:
        if type(getattr(parsed, name)) is not str:
            raise TypeError(f"{name!r} must be text")
    for name in counts:
        count = getattr(parsed, name)
        if type(count) is not int or count < 0:
            raise TypeError(f"{name!r} must be a number of things")


def _split_row(name: str, row: Mapping[str, Any]) -> SplitRow:
    parsed = SplitRow(**{key: row[key] for key in SplitRow.__dataclass_fields__})
    _check_types(parsed, ("manifest", "sha256"), ("samples", "bytes", "payload", "shards"))
    # It names a folder beside the manifest.
    if not name or "/" in name or "\\" in name or name.startswith("."):
        raise ValueError(f"{name!r} is no split's name")
    return parsed


def _shard_row(row: Mapping[str, Any]) -> ShardRow:
    parsed = ShardRow(**{key: row[key] for key in ShardRow.__dataclass_fields__})
    _check_types(parsed, ("name", "sha256", "first_key", "last_key"), ("samples", "bytes"))
    # Names are relative to the manifest, in one folder: anything else would reach outside the dataset.
    if not parsed.name or "/" in parsed.name or "\\" in parsed.name or parsed.name.startswith("."):
        raise ValueError(f"{parsed.name!r} is no shard name")
    return parsed
