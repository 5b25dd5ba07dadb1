"""Where shards end, and which split a sample goes to. Neither depends on how many jobs do the work."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from atdata_cli.errors import UsageError
from atdata_cli.samples.tar import archive_bytes

__all__ = [
    "DEFAULT_MAX_BYTES",
    "DEFAULT_MAX_COUNT",
    "MAX_SPLITS",
    "Limits",
    "Splits",
    "check_split_name",
    "even_limits",
    "shard_name",
]

DEFAULT_MAX_COUNT = 10_000
DEFAULT_MAX_BYTES = 1 << 30
MAX_SPLITS = 100  # each has an open shard, with a buffer and a file or upload of its own
_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def shard_name(index: int, *, gzip: bool = False) -> str:
    """``shard-000000.tar`` for the first; webdataset's readers expect the ending ``.tar.gz`` of compressed ones."""
    return f"shard-{index:06d}.tar" + (".gz" if gzip else "")


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends a shard.

    Attributes
    ----------
    max_count : samples a shard at most.
    max_bytes : tar bytes a shard at most, headers and padding included; a single larger sample gets a shard of its own.
    even : (shards, samples) to spread a known number of samples evenly; the larger shards come first.
    hard : whether the store takes no larger shards than *max_bytes*, so that one is an error.
    by_record : count the records of the input instead, rejected ones included: a shard's place in the input is then
        known before any record is read, whatever becomes of those before it.
    """

    max_count: int | None = DEFAULT_MAX_COUNT
    max_bytes: int | None = DEFAULT_MAX_BYTES
    even: tuple[int, int] | None = None
    hard: bool = False
    by_record: bool = False

    def quota(self, index: int) -> float:
        """How many samples shard *index* may hold; ``inf`` where only bytes limit it."""
        if self.even is not None:
            shards, samples = self.even
            if index >= shards - 1:
                return math.inf
            return samples // shards + (index < samples % shards)
        return math.inf if self.max_count is None else self.max_count

    def takes(self, samples: int, members: int) -> bool:
        """Whether the bytes of a shard's members, which are those of more than no samples, are few enough."""
        return (
            not samples or self.max_bytes is None or self.even is not None or archive_bytes(members) <= self.max_bytes
        )


def even_limits(
    samples: int,
    *,
    shards: int | None,
    multiple_of: int | None,
    max_count: int | None,
    hard_limit: int | None = None,
    by_record: bool = False,
) -> Limits:
    """Limits that spread *samples* evenly, to within one.

    Parameters
    ----------
    samples : how many there are.
    shards : how many shards to make; None to take as few as *max_count* allows.
    multiple_of : round the number of shards up to a multiple of this.
    max_count : samples a shard at most, if *shards* is None.
    hard_limit : tar bytes of the largest shard that the store takes.
    by_record : see :class:`Limits`.

    Raises
    ------
    UsageError : fewer samples than shards; an empty shard breaks readers.
    """
    wanted = shards or math.ceil(samples / (max_count or DEFAULT_MAX_COUNT))
    if multiple_of:
        wanted = math.ceil(wanted / multiple_of) * multiple_of
    if samples and wanted > samples:
        raise UsageError(
            f"{samples} samples cannot fill {wanted} shards",
            hint="ask for fewer shards: an empty shard breaks readers",
        )
    even = max(wanted, 1), samples
    return Limits(max_count=None, max_bytes=hard_limit, even=even, hard=hard_limit is not None, by_record=by_record)


@dataclass(frozen=True, slots=True)
class Splits:
    """How samples are divided.

    Attributes
    ----------
    shares : split name to its share, in order; empty if the data names the split.
    by : field whose value keeps samples together; None for the key.
    source : field whose value is the split's name.
    """

    shares: Mapping[str, float]
    by: str | None = None
    source: str | None = None

    @classmethod
    def parse(cls, text: str | None, *, by: str | None, source: str | None) -> Splits | None:
        """From ``train=0.9,val=0.1`` and the two field options; None if there is no split.

        Raises
        ------
        UsageError : shares that are no numbers or do not add up to 1, bad names, options that exclude each other.
        """
        if source is not None:
            if text is not None or by is not None:
                raise UsageError("--split-from takes the split from the data: leave out --split and --split-by")
            return cls({}, source=source)
        if text is None:
            if by is not None:
                raise UsageError("--split-by needs --split", hint="for example --split train=0.9,val=0.1")
            return None
        shares: dict[str, float] = {}
        for part in text.split(","):
            name, _, share = part.partition("=")
            shares[check_split_name(name.strip())] = _share(share, part)
        if (
            not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-9)
            or len(shares) != text.count("=")
            or len(shares) < 2
        ):
            raise UsageError(
                f"--split {text}: two or more different names whose shares add up to 1 are needed",
                hint="for example --split train=0.9,val=0.1",
            )
        return cls(shares, by=by)

    def of(self, text: str) -> str:
        """The split of a sample whose key, or ``by`` field, is *text*.

        The first 8 bytes of the SHA-256 as a fraction of 2^64, laid over the shares in their order: a sample stays
        where it is when others are added.
        """
        import hashlib

        point = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2.0**64
        edge = 0.0
        for name, share in self.shares.items():
            edge += share
            if point < edge:
                return name
        return name


def _share(text: str, part: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise UsageError(
            f"--split: {part!r} is not NAME=SHARE with a share between 0 and 1", hint="as --split train=0.8,val=0.2"
        )
    return share


def check_split_name(name: str) -> str:
    """Return *name* if it can be a folder of the dataset.

    Raises
    ------
    UsageError : otherwise.
    """
    # Its folder is beside the root manifest and, on a disk that ignores case, must not be it.
    if not _SPLIT_NAME.fullmatch(name) or name.startswith("shard-") or name.lower() == "manifest.json":
        raise UsageError(
            f"{name!r} cannot name a split",
            hint="letters, digits, '.', '_' and '-', at most 64, not 'shard-…' or 'manifest.json'",
        )
    return name
