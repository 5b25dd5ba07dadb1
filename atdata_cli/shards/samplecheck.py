"""The samples of one shard: which fields they have, and what is in packed ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from atdata_cli.errors import DataError
from atdata_cli.samples.rowcheck import Misfit, RowCheck, decode, skim
from atdata_cli.samples.tar import Member, TarReader
from atdata_cli.shards.problems import Expected, FieldSet, Kind, Report, listed

__all__ = ["FieldRules", "PackedRows"]

_BATCH = 2048  # samples
_BATCH_BYTES = 2 << 20  # of packed samples that are decoded together: a byte can become 72 bytes of objects
_MOST_SETS = 1024
_MOST_EXAMPLES = 1000
_MOST_PROBLEMS = 10_000


class FieldRules:
    """Which fields the samples have, compared with the manifest, or counted where there is none."""

    def __init__(self, expected: Expected | None) -> None:
        self.expected = expected
        self.good_fields: set[str] = set()
        self.sets: dict[tuple[str, ...], FieldSet] = {}
        self._required: frozenset[str] = frozenset()
        self._known: frozenset[str] | None = None
        self._judged: dict[tuple[str, ...], list[tuple[Kind, str]]] = {}
        if expected is not None and expected.encoding == "msgpack":
            self._required = self._known = frozenset({"msgpack"})
        elif expected is not None:
            properties, required = expected.schema.get("properties"), expected.schema.get("required")
            if isinstance(properties, dict):
                self._known = frozenset(properties)
            if isinstance(required, list):
                self._required = frozenset(name for name in required if isinstance(name, str))

    def observe(
        self,
        keys: Sequence[str],
        offsets: Sequence[int],
        sets: Sequence[tuple[str, ...]],
        problem: Report,
    ) -> None:
        """Take in some samples."""
        for fields in set(sets):
            if not fields:
                continue
            if self.expected is None:
                self._count(fields, keys, offsets, sets)
                continue
            for kind, detail in self._judge(fields):
                for index, other in enumerate(sets):
                    if other == fields:
                        problem(kind, keys[index], offsets[index], detail)

    def _judge(self, fields: tuple[str, ...]) -> list[tuple[Kind, str]]:
        judged = self._judged.get(fields)
        if judged is None:
            judged = []
            missing = self._required.difference(fields)
            extra = frozenset() if self._known is None else frozenset(fields) - self._known
            if missing:
                judged.append(("missing-field", f"without {listed(missing)}"))
            if extra:
                judged.append(("schema", f"{listed(extra)}: not in the manifest's schema"))
            if len(self._judged) < _MOST_SETS:
                self._judged[fields] = judged
        return judged

    def _count(
        self,
        fields: tuple[str, ...],
        keys: Sequence[str],
        offsets: Sequence[int],
        sets: Sequence[tuple[str, ...]],
    ) -> None:
        seen = self.sets.get(fields)
        if seen is None:
            if len(self.sets) >= _MOST_SETS or len(fields) > 256:
                return
            seen = FieldSet(0, [])
        if len(seen.examples) < _MOST_EXAMPLES:
            places = [(keys[index], offsets[index]) for index, other in enumerate(sets) if other == fields]
            seen.examples.extend(places[: _MOST_EXAMPLES - len(seen.examples)])
        self.sets[fields] = FieldSet(seen.samples + sets.count(fields), seen.examples)


class PackedRows:
    """The packed samples of a shard: decoded, and compared with the schema, some at a time.

    Without a manifest they are only decoded, and that counts only if every member is one.

    Attributes
    ----------
    wanted : whether more are to be given.
    """

    def __init__(self, problem: Report, expected: Expected | None) -> None:
        self._report = problem
        self._sure = expected is not None
        self.wanted = expected is None or expected.encoding == "msgpack"
        self._check = _row_check(expected) if expected is not None and self.wanted else None
        self._payloads: list[bytes] = []
        self._places: list[tuple[str, int]] = []
        self._bytes = 0
        self._held: list[tuple[Kind, str, int, str]] = []

    def add(self, key: str, field_: str, member: Member, reader: TarReader) -> None:
        """Take in the current member."""
        if field_ != "msgpack":
            if not self._sure:
                self.wanted = False
                self._held.clear()
            return
        if member.size > _BATCH_BYTES:
            self._skim(key, member, reader)
            return
        self._payloads.append(reader.read())
        self._places.append((key, member.header))
        self._bytes += member.size
        if self._bytes >= _BATCH_BYTES or len(self._payloads) >= _BATCH:
            self._flush()

    def finish(self) -> None:
        """Look at what is left."""
        self._flush()
        if self.wanted:
            for problem in self._held:
                self._report(*problem)

    def _flush(self) -> None:
        rows: list[dict[str, Any]] = []
        places: list[tuple[str, int]] = []
        for row, place in zip(decode(self._payloads), self._places, strict=True):
            if isinstance(row, dict):
                rows.append(row)
                places.append(place)
            else:
                self._problem("not-msgpack", place, row)
        if self._check is not None:
            self._problems(self._check.misfits(rows), places)
        self._payloads, self._places, self._bytes = [], [], 0

    def _skim(self, key: str, member: Member, reader: TarReader) -> None:
        place = (key, member.header)
        with reader.open() as payload:
            fields = skim(payload)
        if isinstance(fields, str):
            self._problem("not-msgpack", place, fields)
        elif self._check is not None:
            self._problems(self._check.type_misfits(fields), [place])

    def _problems(self, misfits: Iterator[Misfit], places: Sequence[tuple[str, int]]) -> None:
        for misfit in misfits:
            self._problem(misfit.kind, places[misfit.row], misfit.detail)  # type: ignore[arg-type]

    def _problem(self, kind: Kind, place: tuple[str, int], detail: str) -> None:
        if self._sure:
            self._report(kind, place[0], place[1], detail)
        elif len(self._held) < _MOST_PROBLEMS:
            self._held.append((kind, place[0], place[1], detail))


_compiled: dict[int, tuple[Expected, RowCheck | None]] = {}


def _row_check(expected: Expected) -> RowCheck | None:
    """The schema, compiled once in each process; None if it cannot be, which is reported for the manifest."""
    known = _compiled.get(id(expected))
    if known is None or known[0] is not expected:
        try:
            check: RowCheck | None = RowCheck(expected.schema)
        except DataError:
            check = None
        known = _compiled[id(expected)] = (expected, check)
    return known[1]
