"""What checking a dataset finds, and the messages between those who check shards and the one who puts it together."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from atdata_cli.errors import AtdataError
from atdata_cli.shards.manifest import ShardRow

__all__ = [
    "Expected",
    "FieldSet",
    "KeyBatch",
    "Kind",
    "Message",
    "Problem",
    "Report",
    "ShardResult",
    "ShardTask",
    "Tick",
    "listed",
    "repeat_kind",
]

Kind = Literal[
    # the dataset
    "damaged-manifest",  # totals that do not add up, a schema that cannot be used, a changed manifest of a split
    "missing-shard",
    "unknown-shard",  # a shard beside the manifest that it does not name
    "shard-gap",  # numbers left out in the names of shards
    # a shard as a file
    "unreadable",  # the store failed
    "size",
    "hash",
    "compression",  # compressed data is damaged
    # its structure
    "not-a-tar",
    "truncated",
    "bad-checksum",  # of a header
    "bad-header",  # its content makes no sense, or is a sparse file
    "empty-block",  # a lone one between members, where many readers stop
    "no-end",  # the two empty blocks are not there
    "trailing-bytes",  # behind them
    "empty",  # no sample in it
    # its samples
    "count",
    "first-key",
    "last-key",
    "duplicate-key",
    "split-sample",  # a key comes back, with other fields
    "duplicate-member",
    "too-many-fields",
    "missing-field",
    "unsafe-name",
    "no-field",  # a name without an extension
    "no-content",  # a link or a device
    "not-msgpack",
    "schema",
    # more than are listed
    "more",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong.

    Attributes
    ----------
    kind : what, see :data:`Kind`.
    shard : URL; of the manifest where it is the manifest's.
    key : of the sample, as far as there is one; as stored, so not always printable.
    offset : in the uncompressed tar: of the first header of the member or sample, or of the damage.
    detail : one line for a person.
    """

    kind: Kind
    shard: str
    key: str | None
    offset: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What a manifest says of the samples of its shards."""

    encoding: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to check.

    Attributes
    ----------
    index : its place in the dataset.
    url, size : of the shard; size as far as it is known.
    row : what its manifest says of it.
    part : which manifest, a key of the expectations; None without.
    sha256 : what an index says of it, where there is no row.
    """

    index: int
    url: str
    size: int | None
    row: ShardRow | None
    part: str | None
    sha256: str | None = None


class FieldSet(NamedTuple):
    """The samples of one shard that have the same fields: how many, and the first of them (key, offset)."""

    samples: int
    examples: list[tuple[str, int]]


@dataclass(slots=True)
class Tick:
    """Progress since the last one."""

    samples: int
    bytes: int


@dataclass(slots=True)
class KeyBatch:
    """Keys of some samples of a shard, in their order.

    Attributes
    ----------
    shard : index.
    keys : how many.
    lowest, highest : of them.
    ascending : each is above the one before it.
    packed : keys, offsets and field sets (tuples of names).
    """

    shard: int
    keys: int
    lowest: str
    highest: str
    ascending: bool
    packed: bytes

    @staticmethod
    def pack(keys: Sequence[str], offsets: Sequence[int], sets: Sequence[tuple[str, ...]]) -> bytes:
        """What goes into ``packed``; equal sets are stored once."""
        return pickle.dumps((keys, offsets, sets), protocol=5)

    @staticmethod
    def unpack(packed: bytes) -> tuple[list[str], list[int], list[tuple[str, ...]]]:
        """Keys, offsets and field sets."""
        unpacked: tuple[list[str], list[int], list[tuple[str, ...]]] = pickle.loads(packed)  # noqa: S301 - our own
        return unpacked


@dataclass(slots=True)
class ShardResult:
    """All about one shard.

    Attributes
    ----------
    shard : index.
    problems : the first ones; ``omitted`` counts the others.
    samples, bytes : samples seen, bytes read as stored.
    sets : the combinations of fields, if there is no manifest to say what they should be.
    failure : why it could not be read, or not to its end.
    """

    shard: int
    problems: list[Problem] = field(default_factory=list)
    omitted: int = 0
    samples: int = 0
    bytes: int = 0
    sets: dict[tuple[str, ...], FieldSet] = field(default_factory=dict)
    failure: AtdataError | None = None


Message = Tick | KeyBatch | ShardResult

# Takes kind, key, offset and detail of a problem of the shard at hand.
Report = Callable[[Kind, str | None, int | None, str], None]


def repeat_kind(fields: Iterable[str], earlier: Iterable[str]) -> Literal["split-sample", "duplicate-key"]:
    """What a key that comes back is: the rest of a sample, or another one."""
    return "split-sample" if set(fields).isdisjoint(earlier) else "duplicate-key"


def listed(names: Iterable[str]) -> str:
    """Some names for a message."""
    ordered = sorted(names)
    text = ", ".join(repr(name[:80]) for name in ordered[:5])
    return text if len(ordered) <= 5 else f"{text} and {len(ordered) - 5} more"
