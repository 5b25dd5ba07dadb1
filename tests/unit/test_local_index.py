"""The local index: entries, labels and schemas, written once and moved, and what it refuses."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

from atdata_cli.errors import (
    AtdataError,
    IntegrityError,
    NotFoundError,
    OccupiedError,
    TemporaryError,
    UsageError,
)
from atdata_cli.indexes import sqlitefile
from atdata_cli.indexes.base import EntryShard, Index, Publication
from atdata_cli.indexes.registry import IndexOptions, open_index
from atdata_cli.indexes.sqlite import LocalIndex
from atdata_cli.shards.reader import Located
from atdata_cli.stores.inputs import StoreFiles


def publication(name: str = "rows", *, shards: int = 2, digit: str = "a", **changes: Any) -> Publication:
    """Of a dataset with two fields."""
    made = Publication(
        name=name,
        located=Located("/data", []),
        files=StoreFiles(),
        shards=[
            EntryShard(f"/data/shard-{number:06d}.tar", f"{number:x}{digit}" * 32, 1024, 10, "0", "9")
            for number in range(shards)
        ],
        schema={"type": "object", "properties": {"id": {"type": "integer"}, "text": {"type": "string"}}},
        schema_name="RowsSample",
        fields={
            "id": {"kind": "integer", "samples": 20, "nulls": 0},
            "text": {"kind": "string", "samples": 20, "nulls": 0},
        },
        encoding="msgpack",
        samples=20,
        bytes=2048,
        payload=400,
    )
    return replace(made, **changes)


@pytest.fixture
def index(tmp_path: Path) -> LocalIndex:
    made = open_index("local", IndexOptions(file=str(tmp_path / "folder" / "index.db")))
    assert isinstance(made, Index)
    assert isinstance(made, LocalIndex)
    return made


def rows(index: LocalIndex, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(index.path) as db:
        found = db.execute(query).fetchall()
    db.close()
    return found


def test_what_is_published_is_found(index):
    published = index.publish(
        publication(
            description="some rows",
            tags=("a", "b"),
            license="MIT",
            split="train",
            job="j",
            metadata={"by": ["me", 1.5]},
        )
    )
    assert (published.uri, published.status) == ("atdata://local/dataset/rows", "published")
    assert published.warnings == []
    assert [name.split()[0].split("@")[0] for name, _ in published.records] == [
        "atdata://local/schema/RowsSample", "entry", "label",
    ]  # fmt: skip
    entry = index.find("rows")
    assert entry == index.get(entry.key) == next(index.entries())
    assert entry.shards == tuple(publication().shards)
    assert (entry.samples, entry.bytes, entry.payload, entry.encoding) == (20, 2048, 400, "msgpack")
    assert (entry.description, entry.tags, entry.license) == ("some rows", ("a", "b"), "MIT")
    assert (entry.split, entry.job, entry.metadata) == ("train", "j", {"by": ["me", 1.5]})
    assert entry.schema == publication().schema
    assert entry.schema_ref == "atdata://local/schema/RowsSample@1.0.0"


def test_the_same_again_changes_nothing(index):
    index.publish(publication(description="d", tags=("t",), license="MIT", metadata={"a": 1}))
    before = Path(index.path).read_bytes()
    # What is not said stays as it was.
    for again in (publication(), publication(description="d"), publication(tags=("t",), metadata={"a": 1})):
        assert index.publish(again).status == "unchanged"
        assert index.publish(again).records == []
    assert Path(index.path).read_bytes() == before
    assert len(rows(index, "SELECT * FROM labels")) == len(rows(index, "SELECT * FROM schemas")) == 1


def test_what_is_said_replaces_and_an_empty_word_takes_away(index):
    index.publish(publication(description="d", tags=("t",), license="MIT", metadata={"a": 1}))
    assert index.publish(publication(description="e")).status == "updated"
    entry = index.find("rows")
    assert (entry.description, entry.tags, entry.metadata) == ("e", ("t",), {"a": 1})
    index.publish(publication(description="", tags=(), license="", metadata={}))
    entry = index.find("rows")
    assert (entry.description, entry.tags, entry.license, entry.metadata) == (None, (), None, {})


def test_changed_data_makes_a_new_entry_and_moves_the_label(index):
    index.publish(publication(description="d"))
    old = index.find("rows")
    assert index.publish(publication(shards=3, samples=30, bytes=3072)).status == "updated"
    new = index.find("rows")
    assert new.key != old.key
    assert len(new.shards) == 3
    assert new.description == "d"
    assert index.get(old.key).shards == old.shards  # somebody may have its CID
    assert [entry.key for entry in index.entries()] == [new.key]
    # The same places with other bytes are the same entry, by the library's rule, with other checksums.
    assert index.publish(publication(shards=3, samples=30, bytes=3072, digit="b")).status == "updated"
    assert index.find("rows").key == new.key
    assert index.find("rows").shards[0].sha256 == "0b" * 32


def test_versions(index):
    index.publish(publication(version="1.0.0"))
    assert index.publish(publication(version="1.0.0")).status == "unchanged"
    assert index.find("rows").key == index.find("rows", "1.0.0").key
    newer = publication(shards=3, version="2.0.0")
    assert index.publish(newer).status == "published"
    assert index.find("rows").key == index.find("rows", "2.0.0").key != index.find("rows", "1.0.0").key
    with pytest.raises(OccupiedError, match="names another dataset"):
        index.publish(publication(shards=4, version="1.0.0"))
    with pytest.raises(OccupiedError):  # the same places, other bytes
        index.publish(publication(digit="c", version="1.0.0"))
    assert len(index.find("rows").shards) == 3
    # An older version moves the plain name, too: it is what was published last.
    assert index.publish(publication(version="1.0.0")).status == "updated"
    assert len(index.find("rows").shards) == 2
    assert [(entry.name, entry.version) for entry in index.entries()] == [
        ("rows", None), ("rows", "1.0.0"), ("rows", "2.0.0"),
    ]  # fmt: skip
    with pytest.raises(NotFoundError) as caught:
        index.find("rows", "3.0.0")
    assert caught.value.hint is not None
    assert "1.0.0" in caught.value.hint
    with pytest.raises(NotFoundError) as caught:
        index.find("row")
    assert caught.value.hint == "did you mean @local/rows?"


def test_the_newest_label_wins_as_in_the_library(index):
    """The library writes a version alone, without a plain label, and takes the newest of all."""
    index.publish(publication())
    other = index.publish(publication("other", shards=3))
    assert other.status == "published"
    cid = index.find("other").key
    with sqlite3.connect(index.path) as db:
        db.execute("INSERT INTO labels (name, cid, version) VALUES ('rows', ?, '9.0.0')", [cid])
    db.close()
    assert (index.find("rows").key, index.find("rows").version) == (cid, "9.0.0")
    assert index.publish(publication()).status == "updated"
    assert len(index.find("rows").shards) == 2


def test_two_names_for_one_dataset(index):
    index.publish(publication(description="first"))
    second = index.publish(publication("second"))
    assert (second.status, second.warnings) == ("published", [])
    assert index.find("rows").key == index.find("second").key
    assert rows(index, "SELECT name FROM dataset_entries") == [("rows",)]
    third = index.publish(publication("second", description="other"))
    assert third.warnings == ["rows names the same shards: what is said of it changes there, too"]
    withdrawal = index.plan_withdrawal("rows")
    assert (withdrawal.labels, withdrawal.entries) == (("rows",), ())
    index.withdraw(withdrawal)
    assert index.find("second").description == "other"
    # The library finds entries by name, too: nothing of the withdrawn name may be left.
    assert rows(index, "SELECT name FROM dataset_entries") == [("second",)]
    with pytest.raises(NotFoundError):
        index.find("rows")


def test_schemas_get_versions(index):
    def ref(**changes: Any) -> str | None:
        index.publish(publication(**changes))
        return index.find("rows").schema_ref

    text = {"id": {"kind": "string", "samples": 20, "nulls": 0}}
    assert ref() == "atdata://local/schema/RowsSample@1.0.0"
    assert ref(fields=text, schema={}) == "atdata://local/schema/RowsSample@1.0.1"
    assert ref() == "atdata://local/schema/RowsSample@1.0.0"
    assert ref(fields=text, schema={}) == "atdata://local/schema/RowsSample@1.0.1"
    with sqlite3.connect(index.path) as db:
        db.execute("INSERT INTO schemas VALUES ('RowsSample', '2.9.10', '{\"fields\": []}', datetime('now'))")
        db.execute("INSERT INTO schemas VALUES ('RowsSample', 'draft', 'not json', datetime('now'))")
    db.close()
    assert ref(fields={**text, "more": {"kind": "bytes"}}) == "atdata://local/schema/RowsSample@2.9.11"
    assert ("RowsSample", "draft", "not json") in rows(index, "SELECT name, version, schema_json FROM schemas")
    with pytest.raises(UsageError, match="no fields"):
        index.publish(publication(fields={}, schema={}))


def test_a_dry_run_writes_nothing(index):
    planned = index.publish(publication(), dry_run=True)
    assert planned.status == "planned"
    assert not Path(index.path).exists()
    assert index.publish(publication()).records[1:] == planned.records[1:]  # the schema has a time in it
    assert index.publish(publication(), dry_run=True).records == []
    before = Path(index.path).read_bytes()
    changed = index.publish(publication(shards=3), dry_run=True)
    assert [name.split()[0] for name, _ in changed.records] == ["entry", "label"]
    assert Path(index.path).read_bytes() == before


def test_withdrawing(index):
    index.publish(publication(version="1.0.0"))
    index.publish(publication(shards=3, version="2.0.0"))
    first = index.find("rows", "1.0.0")
    withdrawal = index.plan_withdrawal("rows", "1.0.0")
    assert (withdrawal.target, withdrawal.labels) == ("@local/rows@1.0.0", ("rows@1.0.0",))
    assert [entry.key for entry in withdrawal.entries] == [first.key]
    assert (withdrawal.deleted, withdrawal.deleted_bytes) == ((), 0)
    index.publish(publication(version="1.0.1"))  # needs the same entry
    with pytest.raises(OccupiedError, match="changed meanwhile"):
        index.withdraw(withdrawal)
    assert index.find("rows", "1.0.0").key == first.key
    again = index.plan_withdrawal("rows", "1.0.0")
    assert again.entries == ()
    index.withdraw(again)
    assert index.find("rows", "1.0.1").key == first.key
    everything = index.plan_withdrawal("rows")
    assert everything.labels == ("rows", "rows@1.0.1", "rows@2.0.0")
    assert len(everything.entries) == 2
    index.withdraw(everything)
    assert list(index.entries()) == []
    assert rows(index, "SELECT * FROM dataset_entries") == rows(index, "SELECT * FROM labels") == []
    assert len(rows(index, "SELECT * FROM schemas")) == 1
    with pytest.raises(NotFoundError):
        index.plan_withdrawal("rows")


def test_superseded_entries_go_with_the_name(index):
    index.publish(publication())
    index.publish(publication(shards=3))
    index.withdraw(index.plan_withdrawal("rows"))
    assert rows(index, "SELECT * FROM dataset_entries") == []


def test_no_index_and_what_is_none(index, tmp_path):
    for ask in (lambda: index.find("rows"), lambda: list(index.entries()), lambda: index.plan_withdrawal("rows")):
        with pytest.raises(NotFoundError, match="no local index yet"):
            ask()
    assert not Path(index.path).parent.exists()
    text = tmp_path / "text"
    text.write_text("this is no database, and long enough to be looked at" * 20)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE x (y)")
    db.close()
    for path, error in ((text, IntegrityError), (other, UsageError), (tmp_path, AtdataError)):
        with pytest.raises(error) as caught:
            LocalIndex(options=IndexOptions(file=str(path))).find("rows")
        assert caught.value.url == str(path)
    with pytest.raises(IntegrityError):
        LocalIndex(options=IndexOptions(file=str(text))).publish(publication())
    assert text.read_text().startswith("this is no database")


@pytest.mark.parametrize(
    "change",
    [
        "data_urls = x'c1'",
        "data_urls = x'93'",
        "data_urls = 'text'",
        "data_urls = x'8101'",
        "metadata = x'93010203'",
        "metadata = x'81'",
    ],
)
def test_damaged_rows_are_told(index, change):
    index.publish(publication())
    with sqlite3.connect(index.path) as db:
        db.execute(f"UPDATE dataset_entries SET {change}")
    db.close()
    with pytest.raises(IntegrityError, match="damaged"):
        index.find("rows")


def test_foreign_metadata_is_not_trusted(index):
    index.publish(publication())
    hostile = {
        "split": 3, "encoding": "pickle", "samples": -1, "bytes": True, "payload": 1.5, "tags": [1], "shards": [[1]],
        "checksums": {"/data/shard-000000.tar": "xyz", "/data/shard-000001.tar": 5}, "description": ["x"],
        "endpoint": 7, "extra": b"\x00",
    }  # fmt: skip
    with sqlite3.connect(index.path) as db:
        db.execute("UPDATE dataset_entries SET metadata = ?", [msgpack.packb(hostile)])
        db.execute("UPDATE schemas SET schema_json = '[1]'")
    db.close()
    entry = index.find("rows")
    assert (entry.split, entry.encoding, entry.samples, entry.bytes, entry.payload) == (None,) * 5
    assert (entry.tags, entry.description, entry.endpoint, entry.schema) == ((), None, None, None)
    assert [shard.sha256 for shard in entry.shards] == [None, None]
    assert entry.metadata == {"extra": b"\x00"}


def test_another_program_that_holds_the_index_is_waited_for(index, monkeypatch):
    index.publish(publication())
    monkeypatch.setattr(sqlitefile, "_BUSY_SECONDS", 0.2)
    holder = sqlite3.connect(index.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert index.find("rows").samples == 20  # readers do not wait
    with pytest.raises(TemporaryError, match="holds the local index"):
        index.publish(publication(shards=3))
    holder.execute("ROLLBACK")
    holder.close()
    assert index.publish(publication(shards=3)).status == "updated"


WRITER = """
import sys
from tests.unit.test_local_index import publication
from atdata_cli.indexes.registry import IndexOptions, open_index

index = open_index("local", IndexOptions(file=sys.argv[1]))
number = int(sys.argv[2])
sys.stdin.readline()
for turn in range(5):
    index.publish(publication(f"own-{number}", shards=turn + 1))
    index.publish(publication("shared", shards=number + 1, fields={f"field{number}": {"kind": "string"}}))
    index.publish(publication(f"versioned-{number}", shards=turn + 1, version=f"1.0.{turn}"))
"""


def test_eight_processes_publish_at_once_into_an_index_that_none_has_made(index):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, index.path, str(number)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for number in range(8)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors.decode()
    assert rows(index, "PRAGMA integrity_check") == [("ok",)]
    assert rows(index, "PRAGMA journal_mode") == [("wal",)]
    found = {(entry.name, entry.version): len(entry.shards) for entry in index.entries()}
    assert len(found) == 8 + 1 + 8 * 6
    for number in range(8):
        assert found[f"own-{number}", None] == 5
        assert [found[f"versioned-{number}", f"1.0.{turn}"] for turn in range(5)] == [1, 2, 3, 4, 5]
    # Each got a version of the schema, none was lost or written over.
    schemas = rows(index, "SELECT version, schema_json FROM schemas WHERE name = 'RowsSample' ORDER BY version")
    assert [version for version, _ in schemas] == [f"1.0.{number}" for number in range(9)]
    assert {json.loads(text)["version"] for _, text in schemas} == {version for version, _ in schemas}


READER = """
import os, sys
import difflib, msgpack, libipld
from tests.unit.test_local_index import publication
from atdata_cli.errors import AuthError
from atdata_cli.indexes.registry import IndexOptions
from atdata_cli.indexes.sqlite import LocalIndex

if os.geteuid() == 0:
    os.seteuid(65534)  # root may write anywhere
index = LocalIndex(options=IndexOptions(file=sys.argv[1]))
assert index.find("rows").samples == 20
try:
    index.publish(publication(shards=3))
except AuthError:
    print("refused")
"""


def test_an_index_that_nobody_can_write_is_read():
    with tempfile.TemporaryDirectory() as above:  # pytest's own folders are closed to others
        folder = Path(above) / "folder"
        index = LocalIndex(options=IndexOptions(file=str(folder / "index.db")))
        index.publish(publication())
        for left in folder.glob("index.db-*"):
            left.unlink()
        Path(above).chmod(0o755)
        folder.chmod(0o555)
        try:
            ran = subprocess.run(
                [sys.executable, "-c", READER, index.path], capture_output=True, text=True, check=False
            )
        finally:
            folder.chmod(0o755)
        assert (ran.returncode, ran.stdout) == (0, "refused\n"), ran.stderr
