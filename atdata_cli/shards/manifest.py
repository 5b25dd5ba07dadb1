"""``manifest.json``: what a dataset consists of, written last.

Stable text: sorted keys, no time, no host, no path outside the dataset. Readers need nothing but this and the
tars, and ignore fields that they do not know.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from atdata_cli.errors import IntegrityError, UsageError
from atdata_cli.refs import MANIFEST

__all__ = [
    "FORMAT",
    "MANIFEST",
    "STATE",
    "VERSION",
    "Manifest",
    "ShardRow",
    "SplitRow",
    "is_split_manifest",
    "shard_row",
]

FORMAT = "atdata-manifest"
VERSION = 1
_ANEW = "get it anew from where the dataset came from; or remove it and write the dataset again"
STATE = ".atdata"
"""The folder beside it that an unfinished job keeps its marks in."""


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
    manifest : its manifest, relative to the root one: ``SPLIT/manifest.json``, or ``SPLIT/manifest-JOB8.json`` after an
        update, so that all splits change in one step, with the root one.
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
    replaced : names of shards beside it that an update left for readers of earlier manifests, until they are pruned.
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
    replaced: Sequence[str] = ()

    def dumps(self) -> builtins.bytes:
        """The file's content."""
        import orjson

        document: dict[str, Any] = {"format": FORMAT, "version": VERSION}
        for name in self.__dataclass_fields__:
            document[name] = getattr(self, name)
        document["shards"] = [asdict(row) for row in self.shards]
        if not self.replaced:
            del document["replaced"]
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
            raise IntegrityError(f"this is no manifest: {error}", url=url, hint=_ANEW) from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise IntegrityError(
                f'this is no dataset manifest: "format" is not "{FORMAT}"',
                url=url,
                hint="name the folder that holds the shards, or another manifest",
            )
        if document.get("version") != VERSION:
            raise IntegrityError(
                f"the manifest is of version {document.get('version')!r}, this program reads version {VERSION}",
                url=url,
                hint="upgrade atdata-cli",
            )
        try:
            return cls._from_document(document)
        except ValueError as error:
            raise IntegrityError(f"the manifest is damaged: {error}", url=url, hint=_ANEW) from error

    @classmethod
    def _from_document(cls, document: Mapping[str, Any]) -> Manifest:
        optional = {
            name: kind
            for name, kind in (_OPTIONAL | _NULLABLE).items()
            if name in document and not (name in _NULLABLE and document[name] is None)
        }
        known = _typed(document, _REQUIRED | optional)
        known["shards"] = tuple(shard_row(row) for row in known.get("shards", ()))
        for entry in known.get("fields", {}).values():
            _check_field(entry)
        if not all(isinstance(name, str) for name in known.get("replaced", ())):
            raise ValueError(f'"replaced" is {_shown(known["replaced"])}')
        if "splits" in known:
            known["splits"] = {_split_name(name): _split_row(name, row) for name, row in known["splits"].items()}
        return cls(**known)


_REQUIRED = {"name": str, "samples": int, "bytes": int, "payload": int, "encoding": str, "job": str}
_OPTIONAL = {"shards": list, "fields": dict, "schema": dict, "rejected": int, "options": dict, "replaced": list}
_NULLABLE = {"compression": str, "split": str, "splits": dict}
_SHARD_ROW = {"name": str, "samples": int, "bytes": int, "sha256": str, "first_key": str, "last_key": str}
_SPLIT_ROW = {"manifest": str, "sha256": str, "samples": int, "bytes": int, "payload": int, "shards": int}
_FIELD = {"kind": str, "samples": int, "nulls": int, "bytes": int, "kinds": dict, "dtypes": list, "items": dict}
_LARGEST = (1 << 63) - 1


def _typed(row: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    """The values of *row* that *kinds* names, each of the type that it must have; numbers are counts.

    Raises
    ------
    ValueError : one is missing or something else.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{_shown(row)} is no JSON object")  # noqa: TRY004 - every damage is one error
    for name, kind in kinds.items():
        value = row.get(name)
        if type(value) is not kind or (isinstance(value, int) and not 0 <= value <= _LARGEST):
            raise ValueError(f'"{name}" is {"missing" if value is None else _shown(value)}')
    return {name: row[name] for name in kinds}


def _check_field(entry: Any) -> None:
    """Check what is known of one field; unknown entries may be anything.

    Raises
    ------
    ValueError : something is not of the type that it must have.
    """
    _typed(entry, {name: kind for name, kind in _FIELD.items() if isinstance(entry, dict) and name in entry})
    for name in ("range", "length", "size"):
        pair = entry.get(name, [0, 0])
        if not isinstance(pair, list) or len(pair) != 2 or not all(type(end) in (int, float) for end in pair):
            raise ValueError(f'"{name}" is {_shown(pair)}')
    shape = entry.get("shape")
    if shape is not None and (not isinstance(shape, list) or {type(side) for side in shape} - {int, type(None)}):
        raise ValueError(f'"shape" is {_shown(shape)}')
    if not all(isinstance(dtype, str) for dtype in entry.get("dtypes", ())):
        raise ValueError(f'"dtypes" is {_shown(entry["dtypes"])}')
    if "items" in entry:
        _check_field(entry["items"])


def shard_row(row: Any) -> ShardRow:
    """A shard's row as JSON has it; its name is safe to follow.

    Raises
    ------
    ValueError : it is none.
    """
    parsed = ShardRow(**_typed(row, _SHARD_ROW))
    # Names are relative to the manifest, in one folder: anything else would reach outside the dataset.
    unsafe = "/" in parsed.name or "\\" in parsed.name or parsed.name.startswith(".") or not parsed.name.isprintable()
    if not parsed.name or unsafe:
        raise ValueError(f"{_shown(parsed.name)} is no shard name")
    return parsed


def _split_name(name: str) -> str:
    from atdata_cli.shards.plan import check_split_name

    try:
        return check_split_name(name)
    except UsageError as error:
        raise ValueError(f"{_shown(name)} is no split name") from error


def _split_row(split: str, row: Any) -> SplitRow:
    parsed = SplitRow(**_typed(row, _SPLIT_ROW))
    folder, slash, base = parsed.manifest.rpartition("/")
    if folder + slash != f"{split}/" or not (base == MANIFEST or is_split_manifest(base)):
        raise ValueError(f"{_shown(parsed.manifest)} is no manifest of {_shown(split)}")
    return parsed


def is_split_manifest(base: str) -> bool:
    """Whether a file's name, without folder, is that of a split's manifest that an update has put."""
    return re.fullmatch(r"manifest-[0-9a-f]{8}\.json", base) is not None


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
