"""Datasets in parts: independent runs, on any machines, write the shards, and one more puts the manifest.

What they have in common is in the store, below ``.atdata/``: the mark of the job; ``plan.json``, which the first of
them puts, so that the others need not look for where records begin; and ``parts/PART.json`` of each that is done.
Either they divide one input (``I/N``), or each has its own (``NAME``).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atdata_cli import config
from atdata_cli.errors import IntegrityError, OccupiedError, UsageError
from atdata_cli.samples.schema import FieldStats, MemberStats, merge_stats
from atdata_cli.shards.destination import PARTS, PLAN, Destination
from atdata_cli.shards.feed import PreparedRows
from atdata_cli.shards.job import Encoding, Job, WriteOptions
from atdata_cli.shards.making import Finished
from atdata_cli.shards.manifest import shard_row
from atdata_cli.shards.plan import Limits
from atdata_cli.shards.problems import KeyBatch
from atdata_cli.shards.series import FinishedShard
from atdata_cli.sources.pieces import RowPiece, Slice
from atdata_cli.sources.rows import RowFiles

__all__ = ["DonePart", "NamedPart", "NumberedPart", "Part", "Plan", "parse_part"]

_NUMBERED = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_VERSION = 1
_PIECES = 8  # for each part, so that none gets much more than the others
_LARGEST_PIECE = 64 << 20
_DAMAGED = (KeyError, TypeError, ValueError, IndexError, AttributeError)


@dataclass(frozen=True, slots=True)
class NumberedPart:
    """One of several parts of one input, counted from 1."""

    number: int
    of: int

    @property
    def label(self) -> str:
        """What its state is called."""
        return f"{self.number}-of-{self.of}"

    def has(self, piece: int) -> bool:
        """Whether a piece of the input, by its number, is its."""
        return piece % self.of == self.number - 1


@dataclass(frozen=True, slots=True)
class NamedPart:
    """A part with an input of its own."""

    name: str

    @property
    def label(self) -> str:
        """What its state is called."""
        return self.name


Part = NumberedPart | NamedPart


def parse_part(text: str) -> Part:
    """From ``2/5``, a name, or ``auto``: what a SLURM array or a CI matrix says in the environment.

    Raises
    ------
    UsageError : it is none of these, or ``auto`` outside an array.
    """
    if text == "auto":
        return _from_environment()
    match = _NUMBERED.fullmatch(text)
    if match:
        return _checked(int(match[1]), int(match[2]), f"--part {text}")
    if not _NAMED.fullmatch(text):
        raise UsageError(f"--part {text!r}: I/N, auto, or a name of letters, digits, '_' and '-', at most 64")
    return NamedPart(text)


def _from_environment() -> NumberedPart:
    task, count = config.get("SLURM_ARRAY_TASK_ID"), config.get("SLURM_ARRAY_TASK_COUNT")
    first, step = config.get("SLURM_ARRAY_TASK_MIN"), config.get("SLURM_ARRAY_TASK_STEP")
    index, total = config.get("CI_NODE_INDEX"), config.get("CI_NODE_TOTAL")
    try:
        if task and count:
            number, of = (int(task) - int(first or 1)) // int(step or 1) + 1, int(count)
        elif index and total:
            number, of = int(index), int(total)
        else:
            raise UsageError(
                "--part auto: this is no job of an array",
                hint="SLURM sets SLURM_ARRAY_TASK_ID and others, GitLab CI_NODE_INDEX and CI_NODE_TOTAL; or give I/N",
            )
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"--part auto: the environment makes no sense: {error}") from error
    return _checked(number, of, f"--part auto, which is {number}/{of} here")


def _checked(number: int, of: int, said: str) -> NumberedPart:
    if not 1 <= number <= of:
        raise UsageError(f"{said}: parts are counted from 1/{of} to {of}/{of}")
    return NumberedPart(number, of)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a dataset is divided into parts; the same for all of them.

    Attributes
    ----------
    job : of the dataset.
    options : of the job.
    parts : how many there are; 0 if each has an input of its own.
    splits : names of the splits that are known from the beginning, or None.
    encoding : of samples, where there are none that tell.
    limits, prepared, pieces, types : of an input of rows: what ends shards, what the first rows have told, the pieces
        of the input and the types of its columns. Other inputs are divided by names, sizes and headers, which every
        part looks at for itself.
    """

    job: Job
    options: WriteOptions
    parts: int
    splits: Sequence[str] | None
    encoding: Encoding
    limits: Limits | None = None
    prepared: PreparedRows | None = None
    pieces: Sequence[RowPiece] | None = None
    types: Sequence[str] | None = None

    def piece_size(self, size: int) -> int:
        """Input bytes of one piece, of *size* in all."""
        return min(_LARGEST_PIECE, size // (max(1, self.parts) * _PIECES))

    def put(self, destination: Destination, inputs: Sequence[Any]) -> bool:
        """Put the plan where there is none; whether it was put."""
        document: dict[str, Any] = {
            "format": "atdata-plan",
            "version": _VERSION,
            "job": self.job.id,
            "identity": self.job.options,
            "options": dataclasses.asdict(self.options),
            "parts": self.parts,
            "splits": self.splits,
            "encoding": self.encoding,
        }
        if self.prepared is not None and self.limits is not None and self.pieces is not None:
            numbers = {item: number for number, item in enumerate(inputs)}
            document["rows"] = {
                "limits": dataclasses.asdict(self.limits),
                "fields": self.prepared.fields,
                "own_keys": self.prepared.own_keys,
                "types": self.types,
                "pieces": [_dump_piece(piece, numbers) for piece in self.pieces],
            }
        return destination.put_state(PLAN, document, new=True)

    @classmethod
    def read(cls, destination: Destination, source: Any = None) -> Plan | None:
        """The plan that is there, or None.

        Parameters
        ----------
        source : what it is for; None to look at it only.

        Raises
        ------
        IntegrityError : it is damaged.
        """
        document = destination.read_state(PLAN)
        if document is None:
            return None
        try:
            return cls._of(document, source)
        except _DAMAGED as error:
            raise _damaged("the plan", destination, PLAN) from error

    @classmethod
    def _of(cls, document: Mapping[str, Any], source: Any) -> Plan:
        if document["format"] != "atdata-plan" or document["version"] != _VERSION:
            raise ValueError("another format")
        options = _with_tuples(document["options"])
        splits = document["splits"]
        plan = cls(
            Job(str(document["job"]), dict(document["identity"])),
            WriteOptions(**options),
            int(document["parts"]),
            None if splits is None else list(map(str, splits)),
            document["encoding"],
        )
        rows = document.get("rows")
        if rows is None or not isinstance(source, RowFiles):
            return plan
        limits = _with_tuples(rows["limits"])
        if rows["types"] is not None:
            source.take_types(rows["types"])
        return dataclasses.replace(
            plan,
            limits=Limits(**limits),
            prepared=PreparedRows(tuple(map(str, rows["fields"])), bool(rows["own_keys"])),
            pieces=[_load_piece(piece, source) for piece in rows["pieces"]],
            types=rows["types"],
        )

    def check_same(self, other: Plan, destination: Destination) -> None:
        """Check that a part is one of the plan that is there.

        Raises
        ------
        OccupiedError : the dataset there has other parts.
        """
        if (self.parts, self.job.id) != (other.parts, other.job.id):
            there = f"{other.parts} parts" if other.parts else "parts with a name"
            raise OccupiedError(
                f"the dataset that was begun there has {there}",
                url=destination.url,
                hint="use the same N, or names, in all runs",
            )


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _dump_piece(piece: RowPiece, numbers: Mapping[Any, int]) -> list[Any]:
    assert isinstance(piece.source, RowFiles)
    slices = [[numbers[part.item], part.start, part.stop, part.line] for part in piece.source.slices]
    return [slices, piece.shard, piece.shards, piece.record, piece.size]


def _load_piece(row: Sequence[Any], source: RowFiles) -> RowPiece:
    slices, shard, shards, record, size = row
    parts = [Slice(source.inputs[number], start, stop, line) for number, start, stop, line in slices]
    return RowPiece(source.part(parts), int(shard), shards, int(record), int(size))


@dataclass(slots=True)
class DonePart:
    """What a part that is done has made.

    Attributes
    ----------
    part : its label.
    input : identity of its input and options.
    finished : its shards; statistics are those of all of a split, with its first shard.
    rejected : inputs left out.
    keys : lowest, highest and whether they ascend, of runs of keys; None if they are not known, and empty if no two
        can be the same.
    """

    part: str
    input: str
    finished: Finished
    rejected: int
    keys: list[tuple[str, str, bool]] | None = field(default_factory=list)

    def add_keys(self, batch: KeyBatch) -> None:
        """Take in the keys of a piece."""
        assert self.keys is not None
        self.keys.append((batch.lowest, batch.highest, batch.ascending))

    def put(self, destination: Destination) -> None:
        """Say in the store that it is done."""
        document = {
            "format": "atdata-part",
            "version": _VERSION,
            "part": self.part,
            "input": self.input,
            "rejected": self.rejected,
            "keys": self.keys,
            "splits": [[split, *_dump_series(series)] for split, series in self.finished.items()],
        }
        destination.put_state(f"{PARTS}/{self.part}.json", document)

    @classmethod
    def read(cls, destination: Destination, part: str) -> DonePart | None:
        """What the store says of a part, or None if it is not done.

        Raises
        ------
        IntegrityError : that is damaged.
        """
        name = f"{PARTS}/{part}.json"
        document = destination.read_state(name)
        if document is None:
            return None
        try:
            if document["format"] != "atdata-part" or document["version"] != _VERSION:
                raise ValueError("another format")
            keys = document["keys"]
            return cls(
                str(document["part"]),
                str(document["input"]),
                {split: _load_series(*series) for split, *series in document["splits"]},
                int(document["rejected"]),
                None if keys is None else [(str(low), str(high), bool(up)) for low, high, up in keys],
            )
        except _DAMAGED as error:
            raise _damaged("what a part says of itself", destination, name) from error


def _dump_series(series: Sequence[FinishedShard]) -> tuple[list[Any], Any, Any]:
    shards = [[shard.index, dataclasses.asdict(shard.row), shard.payload, shard.tar_bytes] for shard in series]
    packed: dict[str, FieldStats] | None = {}
    members: dict[str, MemberStats] = {}
    for shard in series:
        if packed is not None and shard.packed is not None:
            merge_stats(packed, shard.packed)
        else:
            packed = None
        for name, seen in shard.members.items():
            members.setdefault(name, MemberStats()).merge(seen)
    return (
        shards,
        None if packed is None else {name: seen.dump() for name, seen in packed.items()},
        {name: dataclasses.asdict(seen) for name, seen in members.items()},
    )


def _load_series(shards: Any, packed: Any, members: Any) -> list[FinishedShard]:
    fields = None if packed is None else {str(name): FieldStats.load(seen) for name, seen in packed.items()}
    sizes = {str(name): MemberStats(**{key: int(n) for key, n in seen.items()}) for name, seen in members.items()}
    series = []
    for index, row, payload, tar_bytes in shards:
        series.append(FinishedShard(shard_row(row), int(index), int(payload), int(tar_bytes), fields, sizes, "kept"))
        fields, sizes = None if fields is None else {}, {}
    return series


def _damaged(what: str, destination: Destination, name: str) -> IntegrityError:
    return IntegrityError(
        f"{what} is damaged",
        url=destination.store.url(destination.name(name)),
        hint=f"give the dataset up, and begin anew: {destination.giving_up}",
    )
