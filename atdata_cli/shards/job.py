"""What a ``write`` does: options, and the identity that tells whether a destination already holds the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, Literal

from atdata_cli.errors import UsageError
from atdata_cli.refs import valid_name
from atdata_cli.shards.plan import DEFAULT_MAX_BYTES, DEFAULT_MAX_COUNT, Splits
from atdata_cli.sources.base import InputFile

__all__ = ["Encoding", "Job", "WriteOptions", "joined"]

Encoding = Literal["files", "msgpack"]
# Part of every job's identity: raise it when the same input and options begin to give other bytes.
_IDENTITY_VERSION = 1
DEFAULT_NAME = "dataset"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """How samples are made and divided.

    Attributes
    ----------
    name : the dataset's name.
    encoding : ``msgpack`` or ``files``; None for the source's usual one.
    key : field that holds the key, or a template such as ``{stem}-{row}``.
    fields : the only fields to keep, in this order; None for all.
    embed : fields of a row that name files to read.
    embed_root : folder or URL that embedded files must be inside; None for the row file's folder.
    schema : JSON Schema that rows are converted by and checked against.
    max_count, max_size : limits of a shard in samples and in tar bytes; None for the defaults.
    hard_limit : whether a shard larger than *max_size* is an error, and rows are cut by their bytes as they come.
    shards : make exactly this many, even to one sample.
    shards_multiple_of : make a multiple of this many.
    split, split_by, split_from : see :class:`~atdata_cli.shards.plan.Splits`.
    shuffle, seed : whether samples come in a random order, which one the seed says.
    compress : ``gz`` or None.
    on_error : what a sample that cannot be written does to the run.
    max_errors : rejects after which a run with ``skip`` fails all the same.
    min_samples : fewer are an error.
    allow_empty : no samples are no error.
    reading : options of the source that change its samples, for the job's identity.
    """

    name: str = DEFAULT_NAME
    encoding: Encoding | None = None
    key: str | None = None
    fields: tuple[str, ...] | None = None
    embed: tuple[str, ...] = ()
    embed_root: str | None = None
    schema: Mapping[str, Any] | None = None
    max_count: int | None = None
    max_size: int | None = None
    hard_limit: bool = False
    shards: int | None = None
    shards_multiple_of: int | None = None
    split: str | None = None
    split_by: str | None = None
    split_from: str | None = None
    shuffle: bool = False
    seed: int | None = None
    compress: Literal["gz"] | None = None
    on_error: Literal["fail", "skip"] = "fail"
    max_errors: int | None = None
    min_samples: int = 0
    allow_empty: bool = False
    reading: Mapping[str, Any] | None = None

    def check(self) -> None:
        """Find what cannot be.

        Raises
        ------
        UsageError : an option that means nothing, or two that exclude each other.
        """
        if not valid_name(self.name):
            raise UsageError(
                f"{self.name!r} cannot name a dataset",
                hint="a letter or digit, then letters, digits, '.', '_' or '-', at most 200",
            )
        for option in ("max_count", "max_size", "shards", "shards_multiple_of"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise UsageError(f"--{option.replace('_', '-')} must be at least 1")
        if self.even and (
            (self.max_size is not None and not self.hard_limit) or (self.shards and self.max_count is not None)
        ):
            raise UsageError(
                "--shards and --shards-multiple-of spread samples evenly: leave out the limits they replace"
            )
        if self.seed is not None and not self.shuffle:
            raise UsageError("--seed says which order --shuffle gives: leave it out, or add --shuffle")
        if self.max_size is not None and self.max_size < 10_240:
            raise UsageError(
                "--max-size is smaller than an empty tar (10240 bytes)", hint="choose some megabytes at least"
            )
        self.splits()

    @property
    def even(self) -> bool:
        """Whether the number of shards is asked for, so that samples must be counted first."""
        return self.shards is not None or self.shards_multiple_of is not None

    @property
    def count_limit(self) -> int:
        """Samples a shard at most."""
        return self.max_count or DEFAULT_MAX_COUNT

    @property
    def size_limit(self) -> int:
        """Tar bytes a shard at most."""
        return self.max_size or DEFAULT_MAX_BYTES

    def splits(self) -> Splits | None:
        """How samples are divided, or None.

        Raises
        ------
        UsageError : see :meth:`Splits.parse`.
        """
        return Splits.parse(self.split, by=self.split_by, source=self.split_from)

    def identity(self) -> dict[str, Any]:
        """The options that change bytes and are not the default, as plain JSON values."""
        return {
            option.name: getattr(self, option.name)
            for option in fields(self)
            if option.name not in _NO_BYTES
            and getattr(self, option.name) not in (option.default, _SAME_AS_NONE.get(option.name))
        }


# Options that decide whether a run succeeds, never what its shards hold.
_NO_BYTES = {"on_error", "max_errors", "min_samples", "allow_empty", "embed_root"}
# Defaults that may also be given as what they stand for.
_SAME_AS_NONE = {"max_count": DEFAULT_MAX_COUNT, "max_size": DEFAULT_MAX_BYTES, "seed": 0}


@dataclass(frozen=True, slots=True)
class Job:
    """Input and options of one ``write``.

    Attributes
    ----------
    id : SHA-256, hex, of the canonical JSON (sorted keys, no spaces) of ``{"input": [[name, size], …], "options":
        {…}, "version": 1}``; equal jobs on equal content give equal bytes.
    options : see :meth:`WriteOptions.identity`.
    """

    id: str
    options: Mapping[str, Any]

    @classmethod
    def of(cls, inputs: Iterable[InputFile], options: WriteOptions) -> Job:
        """Identify a job; inputs are taken in by name and size, never by time or place."""
        identity = options.identity()
        digest = hashlib.sha256(b'{"input":[')
        comma = b""
        rows = ([name, size] for name, _, size in inputs)
        while some := list(islice(rows, _ENCODED_AT_ONCE)):
            digest.update(comma + _canonical(some)[1:-1])
            comma = b","
        digest.update(b'],"options":' + _canonical(identity) + b',"version":%d}' % _IDENTITY_VERSION)
        return cls(digest.hexdigest(), identity)


def joined(jobs: Iterable[str], options: WriteOptions) -> Job:
    """The job of a dataset whose parts have inputs of their own: of these identities, in this order."""
    return Job.of([InputFile(job, "", None) for job in jobs], options)


# Inputs; one by one, a million of them would take seconds.
_ENCODED_AT_ONCE = 1000
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _canonical(value: Any) -> bytes:
    return _ENCODER.encode(value).encode("ascii")
