"""The records of ``science.alt.dataset``: schema, entry and label, as the lexicons define them.

A personal data server takes any record of a lexicon that it does not know, so all limits are checked here, before
anything is sent: :func:`encoded` does. Reading is lenient about limits (they are the writer's matter) and strict about
types, because records come from anybody.

A lexicon's ``maxLength`` counts bytes of UTF-8 in a text, bytes in ``bytes``, and items in an array. None of these
lexicons counts graphemes.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from atdata_cli.atproto.storage import Storage, read_storage, without_shards
from atdata_cli.atproto.values import (
    LARGEST_INTEGER,
    MAX_RECORD_BYTES,
    check_at_uri,
    check_datetime,
    check_plain,
    check_tags,
    check_text,
    compact,
    given,
    read_count,
    read_list,
    read_member,
    read_object,
    read_optional,
    read_optional_text,
    read_text,
    reading,
)
from atdata_cli.errors import UsageError

__all__ = [
    "ENTRY",
    "LABEL",
    "SCHEMA",
    "EntryRecord",
    "LabelRecord",
    "Record",
    "SchemaRecord",
    "Size",
    "decode_metadata",
    "encode_metadata",
    "encoded",
    "has_room",
    "new_tid",
    "next_version",
    "now",
    "room_for_shards",
    "same_content",
    "tid_at",
]

ENTRY = "science.alt.dataset.entry"
LABEL = "science.alt.dataset.label"
SCHEMA = "science.alt.dataset.schema"

_ENVELOPE_BYTES = 512  # of that, what is around the record: repository, collection, key, swaps
_MAX_METADATA_BYTES = 100_000
_FILLER = "pad"

_SEMVER = (
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?"
)


@dataclass(frozen=True, slots=True)
class Size:
    """How large a dataset is: ``science.alt.dataset.entry#datasetSize``. None where it is not known."""

    samples: int | None = None
    bytes: int | None = None
    shards: int | None = None

    def as_json(self) -> dict[str, Any]:  # noqa: D102
        return given(samples=self.samples, bytes=self.bytes, shards=self.shards)

    @classmethod
    def from_json(cls, value: Any) -> Size:  # noqa: D102
        known = read_object(value)
        return cls(**{name: read_count(known, name) for name in ("samples", "bytes", "shards") if name in known})

    def check(self, where: str) -> None:  # noqa: D102
        for name, least in (("samples", 0), ("bytes", 0), ("shards", 1)):
            value = getattr(self, name)
            if value is not None and not least <= value <= LARGEST_INTEGER:
                raise UsageError(f"{where}.{name} is {value}: it must be at least {least}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryRecord:
    """A dataset: ``science.alt.dataset.entry``.

    Attributes
    ----------
    name : of the dataset.
    schema_ref : AT-URI of its schema record.
    storage : where the shards are.
    created_at : see :func:`now`.
    description, tags, license : for people and searches; a licence is an SPDX identifier or a URL.
    size : totals.
    metadata : anything else; what this program writes there is in ``atdata_cli.indexes.atmosphere``.
    metadata_schema_ref, content_metadata : of others; kept when read, not written.
    """

    type: ClassVar[str] = ENTRY
    name: str
    schema_ref: str
    storage: Storage
    created_at: str
    description: str | None = None
    tags: Sequence[str] = ()
    license: str | None = None
    size: Size | None = None
    metadata: Mapping[str, Any] | None = None
    metadata_schema_ref: str | None = None
    content_metadata: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The record. ``tags`` always, as the reference library writes them; ``metadata`` as ``bytes``."""
        return {
            "$type": ENTRY,
            "name": self.name,
            "schemaRef": self.schema_ref,
            "storage": self.storage.as_json(),
            "createdAt": self.created_at,
            "tags": list(self.tags),
            **given(
                description=self.description,
                license=self.license,
                size=self.size and self.size.as_json(),
                metadata=_as_bytes(encode_metadata(self.metadata)) if self.metadata else None,
                metadataSchemaRef=self.metadata_schema_ref,
                contentMetadata=self.content_metadata,
            ),
        }

    @classmethod
    def from_json(cls, value: Any, *, uri: str) -> EntryRecord:
        """Read the value of a record.

        Raises
        ------
        IntegrityError : it is no entry.
        """
        with reading(value, ENTRY, uri):
            tags = read_list(value, "tags") if value.get("tags") is not None else ()
            return cls(
                name=read_text(value, "name"),
                schema_ref=read_text(value, "schemaRef"),
                storage=read_storage(read_member(value, "storage")),
                created_at=read_text(value, "createdAt"),
                description=read_optional_text(value, "description"),
                tags=tuple(tag for tag in tags if isinstance(tag, str)),
                license=read_optional_text(value, "license"),
                size=read_optional(value, "size", Size.from_json),
                metadata=read_optional(value, "metadata", decode_metadata),
                metadata_schema_ref=read_optional_text(value, "metadataSchemaRef"),
                content_metadata=read_optional(value, "contentMetadata", read_object),
            )

    def check(self) -> None:
        """See :func:`encoded`."""
        check_text(self.name, "name", 200, least=1)
        check_at_uri(self.schema_ref, "schemaRef")
        self.storage.check("storage")
        check_datetime(self.created_at)
        check_text(self.description, "description", 5000)
        check_tags(self.tags)
        check_text(self.license, "license", 200)
        if self.size is not None:
            self.size.check("size")
        if self.metadata and len(encode_metadata(self.metadata)) > _MAX_METADATA_BYTES:
            raise UsageError(
                f"the metadata have {len(encode_metadata(self.metadata)):,} bytes, at most {_MAX_METADATA_BYTES:,} fit",
                hint="keep large metadata in a file of the dataset",
            )
        if self.metadata_schema_ref is not None:
            check_at_uri(self.metadata_schema_ref, "metadataSchemaRef")
        check_plain(self.content_metadata, "contentMetadata")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaRecord:
    """What a sample is: ``science.alt.dataset.schema``.

    Attributes
    ----------
    name : a class name, as the reference library makes a class of it.
    version : semantic version.
    schema : draft-07 JSON Schema of a sample.
    created_at : see :func:`now`.
    arrays : versions of the array formats in use, ``{"ndarrayBytes": "1.0.0"}``.
    description, metadata : for people and searches.
    """

    type: ClassVar[str] = SCHEMA
    name: str
    version: str
    schema: Mapping[str, Any]
    created_at: str
    arrays: Mapping[str, str] | None = None
    description: str | None = None
    metadata: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:  # noqa: D102
        return {
            "$type": SCHEMA,
            "name": self.name,
            "version": self.version,
            "schemaType": "jsonSchema",
            "schema": {
                "$type": f"{SCHEMA}#jsonSchemaFormat",
                **self.schema,
                **given(arrayFormatVersions=self.arrays),
            },
            "createdAt": self.created_at,
            "atdataSchemaVersion": 1,
            **given(description=self.description, metadata=self.metadata),
        }

    @classmethod
    def from_json(cls, value: Any, *, uri: str) -> SchemaRecord:
        """Read the value of a record.

        Raises
        ------
        IntegrityError : it is no schema, or one of a kind or version that this program does not know.
        """
        with reading(value, SCHEMA, uri):
            if value.get("schemaType") != "jsonSchema" or value.get("atdataSchemaVersion", 1) != 1:
                raise ValueError("it is of a kind or version that this version of atdata-cli does not read")
            schema = read_member(value, "schema")
            body = read_object(schema.get("schemaBody", schema))  # early records wrapped it
            return cls(
                name=read_text(value, "name"),
                version=read_text(value, "version"),
                schema={key: part for key, part in body.items() if key not in ("$type", "arrayFormatVersions")},
                created_at=read_text(value, "createdAt"),
                arrays=read_optional(schema, "arrayFormatVersions", read_object),
                description=read_optional_text(value, "description"),
                metadata=read_optional(value, "metadata", read_object),
            )

    def check(self) -> None:
        """See :func:`encoded`."""
        check_text(self.name, "the schema's name", 100, least=1)
        check_text(self.version, "the schema's version", 100)
        if not re.fullmatch(_SEMVER, self.version, re.ASCII):
            raise UsageError(f"{self.version!r} is no semantic version", hint="for example 1.0.0")
        if self.schema.get("$schema") != "http://json-schema.org/draft-07/schema#":
            raise UsageError(
                'the schema must say "$schema": "http://json-schema.org/draft-07/schema#"', hint="add it to the schema"
            )
        if self.schema.get("type") != "object" or not isinstance(self.schema.get("properties"), Mapping):
            raise UsageError('a sample\'s schema must have "type": "object" and "properties"')
        check_plain({key: part for key, part in self.schema.items() if key != "$schema"}, "schema")
        check_text(self.description, "the schema's description", 5000)
        check_plain(self.metadata, "the schema's metadata")
        check_plain(self.arrays, "arrayFormatVersions")
        check_datetime(self.created_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRecord:
    """A name that points to an entry: ``science.alt.dataset.label``.

    Attributes
    ----------
    name : of the dataset.
    dataset_uri : AT-URI of the entry.
    created_at : see :func:`now`; of several with one name the newest counts.
    version : None for the plain label.
    description : of this version.
    """

    type: ClassVar[str] = LABEL
    name: str
    dataset_uri: str
    created_at: str
    version: str | None = None
    description: str | None = None

    def as_json(self) -> dict[str, Any]:  # noqa: D102
        return {
            "$type": LABEL,
            "name": self.name,
            "datasetUri": self.dataset_uri,
            "createdAt": self.created_at,
            **given(version=self.version, description=self.description),
        }

    @classmethod
    def from_json(cls, value: Any, *, uri: str) -> LabelRecord:
        """Read the value of a record.

        Raises
        ------
        IntegrityError : it is no label.
        """
        with reading(value, LABEL, uri):
            return cls(
                name=read_text(value, "name"),
                dataset_uri=read_text(value, "datasetUri"),
                created_at=read_text(value, "createdAt"),
                version=read_optional_text(value, "version"),
                description=read_optional_text(value, "description"),
            )

    def check(self) -> None:
        """See :func:`encoded`."""
        check_text(self.name, "name", 200, least=1)
        check_at_uri(self.dataset_uri, "datasetUri")
        check_text(self.version, "version", 50)
        check_text(self.description, "description", 5000)
        check_datetime(self.created_at)


Record = EntryRecord | SchemaRecord | LabelRecord


def encoded(record: Record) -> bytes:
    """A record as compact JSON, after every limit of its lexicon, of the data model and of servers was checked.

    Raises
    ------
    UsageError : the record may not be sent; says what is wrong and what to do.
    """
    record.check()
    text = compact(record.as_json())
    if len(text) > MAX_RECORD_BYTES - _ENVELOPE_BYTES:
        raise _too_large(record, len(text))
    return text


def has_room(record: EntryRecord) -> bool:
    """Whether an entry is within the limits of size; nothing else is looked at."""
    if record.metadata and len(encode_metadata(record.metadata)) > _MAX_METADATA_BYTES:
        return False
    return len(compact(record.as_json())) <= MAX_RECORD_BYTES - _ENVELOPE_BYTES


def _too_large(record: Record, size: int) -> UsageError:
    limit = MAX_RECORD_BYTES - _ENVELOPE_BYTES
    message = f"the record would have {size:,} bytes, and servers take {limit:,}"
    if not isinstance(record, EntryRecord):
        return UsageError(message, hint="shorten descriptions and leave out what readers need not know")
    shards = len(record.storage.shards)
    return UsageError(
        f"{shards:,} shards are too many for one entry: {message}",
        hint=f"about {room_for_shards(record):,} shards fit: make them larger, or divide the dataset into several",
    )


def room_for_shards(record: EntryRecord) -> int:
    """How many shards like those of *record* fit into one entry."""
    shards = record.storage.shards
    if not shards:
        return 0
    whole = len(compact(record.as_json()))
    without = len(compact(replace(record, storage=without_shards(record.storage), metadata=_small(record)).as_json()))
    each = (whole - without) / len(shards)
    return int((MAX_RECORD_BYTES - _ENVELOPE_BYTES - without) / each)


def _small(record: EntryRecord) -> dict[str, Any]:
    """The metadata without what grows with the shards."""
    return {key: value for key, value in (record.metadata or {}).items() if key != "shards"}


def same_content(a: Record, b: Record) -> bool:
    """Whether two records say the same, whenever they were made."""
    return type(a) is type(b) and replace(a, created_at="") == replace(b, created_at="")


def now() -> str:
    """This moment, as a record says it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_SORTABLE = "234567abcdefghijklmnopqrstuvwxyz"


def new_tid() -> str:
    """A new record key."""
    return tid_at(time.time_ns() // 1000, secrets.randbelow(1 << 10))


def tid_at(moment: int, clock: int) -> str:
    """The record key of a moment: 13 characters that sort by time.

    From the AT Protocol's specification of TIDs; the SDK checks them and makes none.

    Parameters
    ----------
    moment : microseconds since 1970.
    clock : identifier of the clock, 10 bits.
    """
    number = moment << 10 | clock
    return "".join(_SORTABLE[number >> shift & 31] for shift in range(60, -1, -5))


def next_version(versions: Sequence[str]) -> str:
    """The version after the highest of *versions* (semantic ones; others do not count)."""
    numbers = [tuple(map(int, match.groups()[:3])) for match in map(_parsed_version, versions) if match]
    if not numbers:
        return "1.0.0"
    major, minor, patch = max(numbers)
    return f"{major}.{minor}.{patch + 1}"


def _parsed_version(version: str) -> re.Match[str] | None:
    return re.fullmatch(_SEMVER, version, re.ASCII) if len(version) <= 100 else None


# Metadata


def encode_metadata(metadata: Mapping[str, Any]) -> bytes:
    """The msgpack map of an entry's metadata.

    A server gives bytes back as base64 without padding, on which the reference library fails. So the map is filled up
    to a length that needs none.

    Raises
    ------
    UsageError : a value that msgpack cannot hold.
    """
    import msgpack

    for filling in range(4):
        filled = dict(metadata) if filling == 0 else {**metadata, _FILLER: " " * (filling - 1)}
        try:
            packed: bytes = msgpack.packb(filled)
        except (TypeError, ValueError, OverflowError, UnicodeEncodeError) as error:
            raise UsageError(f"the metadata cannot be packed: {error}") from error
        if len(packed) % 3 == 0:
            return packed
    raise AssertionError("of three lengths in a row one is divisible by three")


def decode_metadata(value: Any) -> dict[str, Any]:
    """The metadata of an entry: bytes as in the lexicon, or an object, as the reference library writes it.

    Of an object, ``custom`` is opened up, and names are as the reference library gives them out.

    Raises
    ------
    ValueError : it is neither.
    """
    if isinstance(value, dict) and "$bytes" in value:
        import msgpack

        try:
            found = msgpack.unpackb(_from_base64(value["$bytes"]))
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ValueError("the metadata are no msgpack map") from error
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            raise ValueError("the metadata are no msgpack map")
        return {key: part for key, part in found.items() if key != _FILLER}
    plain = dict(read_object(value))
    custom = plain.pop("custom", None)
    if isinstance(custom, dict):
        plain = {**custom, **plain}
    return plain


def _as_bytes(data: bytes) -> dict[str, Any]:
    return {"$bytes": base64.b64encode(data).decode("ascii").rstrip("=")}


def _from_base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError("no base64")
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
