"""Parts of a dataset: written by runs that know nothing of each other, and committed, they are the undivided one."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from atdata_cli.errors import DataError, ExitCode, IntegrityError, NotFoundError, OccupiedError, UsageError
from atdata_cli.refs import parse
from atdata_cli.shards.feed import Rejects
from atdata_cli.shards.job import WriteOptions
from atdata_cli.shards.parts import NamedPart, NumberedPart, Part, parse_part
from atdata_cli.shards.partwrite import commit, write_part
from atdata_cli.shards.reader import locate
from atdata_cli.shards.verify import verify
from atdata_cli.shards.write import WriteResult, write
from atdata_cli.sources.registry import ReadOptions, open_source
from atdata_cli.stores.inputs import StoreFiles
from atdata_cli.stores.local import LocalStore
from tests.unit import test_divided as cases

DIVISIBLE = [
    "rows",
    "rows evenly",
    "rows as files",
    "rows gzipped",
    "some fields",
    "own keys",
    "bad rows skipped",
    "new fields",
    "csv",
    "quoted csv",
    "parquet",
    "photos by size",
    "photos evenly",
    "photos in splits",
    "shuffled photos",
    "tars skipping",
]


def run_part(
    folder: Path, sources: list[Path], part: Part, writing: Mapping[str, Any], reading: Mapping[str, Any], **rest: Any
) -> WriteResult:
    """One part, by a run that shares nothing with the others but the folder."""
    source = open_source([str(path) for path in sources], StoreFiles(), ReadOptions(**reading))
    return write_part(source, LocalStore(folder), "out", WriteOptions(name="d", **writing), part, **rest)


@pytest.mark.parametrize("case", DIVISIBLE)
def test_numbered_parts_are_the_whole(case: str, tmp_path: Path) -> None:
    make, reading, writing = cases.CASES[case]
    given = tmp_path / "given"
    given.mkdir()
    sources = make(given)
    options = WriteOptions(name="d", **writing)
    rejects = Rejects(skip=options.on_error == "skip")
    source = open_source([str(path) for path in sources], StoreFiles(), ReadOptions(**reading))
    whole = write(source, LocalStore(tmp_path / "whole"), "out", options, rejects=rejects)
    for number in (2, 3, 1):
        run_part(tmp_path / "parts", sources, NumberedPart(number, 3), writing, reading)
    committed = commit(LocalStore(tmp_path / "parts"), "out")
    assert committed.parts == 3
    assert committed.result.manifest.dumps() == whole.manifest.dumps()
    assert cases.tree(tmp_path / "parts") == cases.tree(tmp_path / "whole")
    assert commit(LocalStore(tmp_path / "parts"), "out").result.status == "unchanged"


def rows(folder: Path, count: int = 40, first: int = 0, name: str = "r.jsonl", **more: Any) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps({"n": n, **more}) + "\n" for n in range(first, first + count)))
    return path


SMALL = {"max_count": 4}


def test_a_part_can_be_repeated_and_resumed(tmp_path: Path) -> None:
    source = rows(tmp_path)
    out = tmp_path / "out"
    first = run_part(tmp_path, [source], NumberedPart(1, 2), SMALL, {})
    assert first.status == "written"
    assert len(first.stored) == 5
    assert run_part(tmp_path, [source], NumberedPart(1, 2), SMALL, {}).status == "unchanged"
    # It was killed before it said that it was done, and lost a shard.
    (out / ".atdata/parts/1-of-2.json").unlink()
    lost = first.stored[0].name
    (out / lost).unlink()
    again = run_part(tmp_path, [source], NumberedPart(1, 2), SMALL, {})
    assert [row.name for row in again.stored] == [lost]
    with pytest.raises(IntegrityError, match="1 of 2 parts is not done: 2/2") as caught:
        commit(LocalStore(tmp_path), "out")
    assert caught.value.exit_code == ExitCode.INTEGRITY
    run_part(tmp_path, [source], NumberedPart(2, 2), SMALL, {})
    planned = commit(LocalStore(tmp_path), "out", dry_run=True)
    assert not (out / "manifest.json").exists()
    done = commit(LocalStore(tmp_path), "out")
    assert done.result.manifest == planned.result.manifest
    assert not (out / ".atdata").exists()
    assert run_part(tmp_path, [source], NumberedPart(2, 2), SMALL, {}).status == "unchanged"


def test_the_plan_spares_the_others_the_scan(tmp_path: Path) -> None:
    source = rows(tmp_path)
    run_part(tmp_path, [source], NumberedPart(1, 2), SMALL, {})
    plan = json.loads((tmp_path / "out/.atdata/plan.json").read_bytes())
    assert plan["parts"] == 2
    assert [shard for _, shard, _, _, _ in plan["rows"]["pieces"]] == list(range(10))
    # The second part reads its own rows only: what is wrong elsewhere does not concern it.
    text = source.read_bytes()
    source.write_bytes(b"x" * text.index(b"\n") + text[text.index(b"\n") :])
    assert run_part(tmp_path, [source], NumberedPart(2, 2), SMALL, {}).manifest.samples == 20


def test_other_runs_are_kept_apart(tmp_path: Path) -> None:
    source = rows(tmp_path)
    run_part(tmp_path, [source], NumberedPart(1, 2), SMALL, {})
    with pytest.raises(OccupiedError, match="2 parts"):
        run_part(tmp_path, [source], NumberedPart(1, 3), SMALL, {})
    with pytest.raises(OccupiedError, match="--max-count 4 there, 5 here"):
        run_part(tmp_path, [source], NumberedPart(2, 2), {"max_count": 5}, {})
    with pytest.raises(OccupiedError):
        run_part(tmp_path, [source], NamedPart("a"), SMALL, {})


def test_what_cannot_be_divided(tmp_path: Path) -> None:
    source = rows(tmp_path)
    packed = tmp_path / "r.jsonl.gz"
    packed.write_bytes(gzip.compress(source.read_bytes()))
    split = {"split": "a=0.5,b=0.5", **SMALL}
    for name, writing in ((packed, SMALL), (source, split), (source, {"shuffle": True, **SMALL})):
        with pytest.raises(UsageError, match="cannot be divided"):
            run_part(tmp_path, [name], NumberedPart(1, 2), writing, {})
    assert not (tmp_path / "out").exists()


def test_parts_with_inputs_of_their_own(tmp_path: Path) -> None:
    for name, first in (("b", 0), ("a", 40)):
        run_part(tmp_path, [rows(tmp_path, 10, first, f"{name}.jsonl")], NamedPart(name), SMALL, {})
    assert run_part(tmp_path, [tmp_path / "a.jsonl"], NamedPart("a"), SMALL, {}).status == "unchanged"
    committed = commit(LocalStore(tmp_path), "out")
    manifest = committed.result.manifest
    assert (committed.parts, manifest.samples, len(manifest.shards)) == (2, 20, 6)
    assert manifest.shards[0].first_key == "a/0000000000"
    assert manifest.shards[-1].last_key == "b/0000000009"
    assert manifest.fields["n"]["range"] == [0, 49]
    assert verify(locate(parse(str(tmp_path / "out")), StoreFiles()), StoreFiles(), jobs=1).problems == ()
    # What is one part's may change, and be written again, alone.
    again = tmp_path / "again"
    for name in ("a", "b", "b"):
        source = rows(tmp_path, 10 + (name == "b"), 0, f"{name}.jsonl")
        run_part(again, [source], NamedPart(name), SMALL, {})
    assert commit(LocalStore(again), "out").result.manifest.samples == 21


def test_a_part_that_began_is_waited_for(tmp_path: Path) -> None:
    run_part(tmp_path, [rows(tmp_path, 10)], NamedPart("a"), SMALL, {})
    bad = tmp_path / "bad.jsonl"
    bad.write_text("nonsense\n" * 3)
    with pytest.raises(DataError):
        run_part(tmp_path, [rows(tmp_path, 9, name="x.jsonl"), bad], NamedPart("b"), SMALL, {})
    (tmp_path / "out/.atdata/parts/b.begun").write_text("{}")
    with pytest.raises(IntegrityError, match="1 of 2 parts is not done: b"):
        commit(LocalStore(tmp_path), "out")


@pytest.mark.parametrize("numbered", [True, False])
def test_keys_of_two_parts(tmp_path: Path, numbered: bool) -> None:
    source = tmp_path / "k.jsonl"
    source.write_text("".join(json.dumps({"__key__": f"k{n % 36}"}) + "\n" for n in range(40)))
    other = tmp_path / "o.jsonl"
    other.write_text('{"__key__": "k3"}\n')
    if numbered:
        parts: list[tuple[Path, Part]] = [(source, NumberedPart(1, 2)), (source, NumberedPart(2, 2))]
    else:
        some = tmp_path / "some.jsonl"
        some.write_text("".join(source.read_text().splitlines(keepends=True)[:30]))
        parts = [(some, NamedPart("x")), (other, NamedPart("y"))]
    for path, part in parts:
        run_part(tmp_path, [path], part, SMALL, {})
    with pytest.raises(DataError, match="is in two parts"):
        commit(LocalStore(tmp_path), "out")


def test_nothing_to_commit(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        commit(LocalStore(tmp_path), "out")


def test_damaged_state_is_told(tmp_path: Path) -> None:
    source = rows(tmp_path)
    for number in (1, 2):
        run_part(tmp_path, [source], NumberedPart(number, 2), SMALL, {})
    part = tmp_path / "out/.atdata/parts/2-of-2.json"
    good = part.read_text()
    for bad in ("", "[]", good.replace('"shard-', '"../shard-'), good.replace('"kinds"', '"k"')):
        part.write_text(bad)
        with pytest.raises(IntegrityError):
            commit(LocalStore(tmp_path), "out")
    part.write_text(good)
    plan = tmp_path / "out/.atdata/plan.json"
    plan.write_text(plan.read_text().replace('"parts"', '"p"'))
    with pytest.raises(IntegrityError):
        commit(LocalStore(tmp_path), "out")


def test_names_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "CI_NODE_INDEX", "CI_NODE_TOTAL"):
        monkeypatch.delenv(name, raising=False)
    assert parse_part("2/5") == NumberedPart(2, 5)
    assert parse_part("eu-west") == NamedPart("eu-west")
    for bad in ("0/5", "6/5", "1/0", "", "a/b", "../x", "-x", "a.b", "1/2/3"):
        with pytest.raises(UsageError):
            parse_part(bad)
    with pytest.raises(UsageError, match="no job of an array"):
        parse_part("auto")
    monkeypatch.setenv("CI_NODE_INDEX", "2")
    monkeypatch.setenv("CI_NODE_TOTAL", "4")
    assert parse_part("auto") == NumberedPart(2, 4)
    slurm = {"ID": "14", "COUNT": "3", "MIN": "10", "STEP": "4"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert parse_part("auto") == NumberedPart(2, 3)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "many")
    with pytest.raises(UsageError, match="makes no sense"):
        parse_part("auto")
