"""The local index against the real ``atdata`` library: it loads what was published here, and the other way round."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from atdata_cli import LocalStore
from atdata_cli.indexes.registry import IndexOptions, open_index
from atdata_cli.indexes.typemap import _joins, _loads_as_attribute
from tests.e2e.test_reference import reference
from tests.unit.test_local_index import publication

__all__ = ["reference"]

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

# Every row of the type mapping; run here and in the library's process.
MAKE_ROWS = """
import numpy as np

def make_rows(count):
    for n in range(count):
        yield {
            "text": f"naïve café {n} \\U0001f408",
            "integer": n - 7,
            "large": 2**64 - 1 - n,
            "fraction": n / 7,
            "number": n if n % 2 else n + 0.5,
            "ok": n % 3 == 0,
            "raw": bytes([n % 256]) * (n % 50),
            "image": np.arange(12, dtype=np.float32).reshape(3, 4) * n,
            "maybe_image": None if n % 3 else np.arange(n % 5, dtype=np.int16),
            "any_array": np.arange(4, dtype=[np.uint8, np.float64][n % 2]),
            "words": ["a", "b", "c"][: n % 4],
            "empty": [],
            "nested": [[1, 2], [], [n, [3.5]]],
            "mixed": [1, "two", None, True, 2.5, {"k": [1]}],
            "objects": [{"a": n}, {"b": None}],
            "map": {"a": n, "b": {"c": [None, "x", b"\\x00"]}, "ü": {}},
            "nothing": None,
            "maybe_text": None if n % 4 else "here",
            "maybe_integer": None if n % 2 else n,
            "maybe_words": None if n % 5 else ["w"],
            "varying": [n, "text", None, [1], {"a": 1}][n % 5],
            "text_or_bytes": "text" if n % 2 else b"bytes",
        }
"""

# What the local index says of each, and whether it may be None.
FIELD_TYPES = {
    "text": ("str", False), "integer": ("int", False), "large": ("int", False), "fraction": ("float", False),
    "number": ("float", False), "ok": ("bool", False), "raw": ("bytes", False), "image": ("ndarray float32", False),
    "maybe_image": ("ndarray int16", False), "any_array": ("ndarray", False), "words": ("array of str", False),
    "empty": ("array", False), "nested": ("array of array", False), "mixed": ("array", False),
    "objects": ("array of str", False), "map": ("str", False), "nothing": ("str", True), "maybe_text": ("str", True),
    "maybe_integer": ("int", True), "maybe_words": ("array of str", True), "varying": ("str", True),
    "text_or_bytes": ("str", False),
}  # fmt: skip

CHECK_ROWS = """
def alike(a, b):
    if isinstance(a, np.ndarray):
        return same(a, b)
    # Types to the last, too: 1, 1.0 and True are equal, but not the same.
    return repr(a) == repr(b)

def check_rows(count, dataset):
    seen = 0
    for expected, sample in zip(make_rows(count), dataset.ordered(), strict=True):
        if isinstance(sample, atdata.DictSample):  # leaves arrays packed
            got = {
                name: atdata._helpers.bytes_to_array(value) if isinstance(expected[name], np.ndarray) else value
                for name, value in sample.to_dict().items()
            }
        else:
            got = vars(sample)
        assert got.keys() == expected.keys(), (got.keys(), expected.keys())
        for name, value in expected.items():
            assert alike(value, got[name]), (seen, name, value, got[name])
        seen += 1
    return seen
"""

COUNT = 230


@pytest.fixture
def rows_of_every_type(tmp_path: Path) -> Path:
    """A dataset with every row of the type mapping, from Python."""
    scope: dict[str, Any] = {}
    exec(MAKE_ROWS, scope)
    LocalStore(tmp_path).write_shards(scope["make_rows"](COUNT), prefix="every", maxcount=1000)
    return tmp_path / "every"


@pytest.fixture
def their_home(tmp_path: Path) -> dict[str, str]:
    """Where the library has its index, for the command."""
    return {"ATDATA_INDEX": str(tmp_path / "reference-home" / ".atdata" / "index.db")}


def described(field: Mapping[str, Any]) -> tuple[str, bool]:
    kind = field["fieldType"]["$type"].removeprefix("local#")
    inner = field["fieldType"].get("items")
    detail = field["fieldType"].get("dtype") or (
        inner and (inner.get("primitive") or inner["$type"].rpartition("#")[2])
    )
    if kind == "primitive":
        return field["fieldType"]["primitive"], field["optional"]
    return kind + (f" of {detail}" if inner else f" {detail}" if detail else ""), field["optional"]


def test_every_row_of_the_type_mapping_from_disk(cli, reference, rows_of_every_type, their_home, tmp_path):
    assert len(cli("write", rows_of_every_type, "out", "--max-count", "100").lines) == 3
    ran = cli("publish", "out", "@local/every@1.0.0", "--tag", "t", env=their_home)
    assert (ran.code, ran.lines) == (0, ["atdata://local/dataset/every@1.0.0"]), ran.err
    assert "warning" not in ran.err
    with sqlite3.connect(their_home["ATDATA_INDEX"]) as db:
        ((schema,),) = db.execute("SELECT schema_json FROM schemas").fetchall()
    db.close()
    fields = json.loads(schema)["fields"]
    assert {field["name"]: described(field) for field in fields} == FIELD_TYPES
    assert [field["optional"] for field in fields] == sorted(field["optional"] for field in fields)
    script = """
count = int(sys.argv[1])
index = atdata.Index()
counts = []
for ref in ("@local/every", "@local/every@1.0.0"):
    for arguments in ({}, {"index": index}):
        typed = atdata.load_dataset(ref, split="train", **arguments)
        assert typed.sample_type.__name__ == "EverySample", typed.sample_type
        counts.append(check_rows(count, typed))
        counts.append(check_rows(count, atdata.load_dataset(ref, atdata.DictSample, split="train", **arguments)))
batches = atdata.load_dataset("@local/every", split="train").ordered(batch_size=50)
counts.append(sum(len(batch.text) for batch in batches))
entry = index.get_dataset("every")
assert entry.cid == entry._generate_cid()
assert entry.metadata["tags"] == ["t"] and len(entry.metadata["checksums"]) == 3
labels = sorted((name, version or "") for name, _, version in index.list_labels())
done([counts, labels, [schema["name"] for schema in index.list_schemas()]])
"""
    counts, labels, schemas = reference(MAKE_ROWS + CHECK_ROWS + script, str(COUNT))
    assert counts == [COUNT] * 9
    assert labels == [["every", ""], ["every", "1.0.0"]]
    assert schemas == ["EverySample"]


def test_every_row_of_the_type_mapping_from_s3(
    cli, reference, rows_of_every_type, their_home, s3_server, s3_bucket, s3_env
):
    env = {**s3_env, **their_home}
    ran = cli("write", rows_of_every_type, f"s3://{s3_bucket}/every", "--max-count", "100", env=env)
    assert ran.code == 0, ran.err
    ran = cli("publish", f"s3://{s3_bucket}/every", "@local/every", env=env)
    assert ran.code == 0, ran.err
    script = """
import atdata_cli
from atdata.stores import S3DataStore

count, bucket = int(sys.argv[1]), sys.argv[2]
credentials = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT")}
credentials["AWS_REGION"] = "us-east-1"
counts = []
for store in (S3DataStore(credentials, bucket=bucket), atdata_cli.S3DataStore(credentials, bucket=bucket)):
    index = atdata.Index(data_store=store, atmosphere=None)
    counts.append(check_rows(count, atdata.load_dataset("@local/every", index=index, split="train")))
    counts.append(check_rows(count, atdata.load_dataset("@local/every", atdata.DictSample, index=index, split="train")))
done(counts)
"""
    counts = reference(MAKE_ROWS + CHECK_ROWS + script, str(COUNT), s3_bucket, env=s3_server.credentials)
    assert counts == [COUNT] * 4


def test_what_the_library_puts_into_its_index_is_read(cli, reference, their_home, tmp_path):
    script = """
import shutil
from atdata.stores import LocalDiskStore

store = LocalDiskStore("store")
index = atdata.Index(data_store=store, atmosphere=None)
written = index.write_samples(make(120), name="written")
dataset = atdata.write_samples(make(230), os.path.abspath("theirs/data.tar"), maxcount=100)
index.insert_dataset(dataset, name="inserted", metadata={"split": "train", "custom": {"a": 1}}, version="2.0.0")
plain = atdata.Index(atmosphere=None)  # keeps the pattern of what it did not write itself
plain.insert_dataset(atdata.Dataset[Sample](os.path.abspath("theirs/data-{000000..000002}.tar")), name="pattern")
plain.add_entry(dataset, name="added")
plain.label("nick", index.get_dataset("written").cid)
done(list(dataset.list_shards()))
"""
    shards = reference(script)
    assert len(shards) == 3
    listed = cli("inspect", "@local", "--json", env=their_home).document["datasets"]
    assert [(one["name"], one["version"], len(one["shards"])) for one in listed] == [
        ("added", None, 3), ("inserted", "2.0.0", 1), ("nick", None, 1), ("pattern", None, 3), ("written", None, 1),
    ]  # fmt: skip
    for name, samples in (
        ("written", 120),
        ("inserted@2.0.0", 230),
        ("inserted", 230),
        ("nick", 120),
        ("pattern", 230),
    ):
        urls = cli("resolve", f"@local/{name}", env=their_home).lines
        assert all(Path(tmp_path, url).is_file() for url in urls), urls
        document = cli("inspect", f"@local/{name}", "--json", env=their_home).document
        assert (document["samples"], document["encoding"]) == (samples, "msgpack")
        assert document["fields"]["image"]["kind"] == "ndarray"
        ran = cli("inspect", f"@local/{name}", "--verify", env=their_home)
        assert ran.code == 0, (ran.out, ran.err)
    assert document["entry"]["schema_ref"] == "atdata://local/schema/Sample@1.0.0"
    # A byte that changed is found by the checksum in the index: there is no manifest.
    (changed,) = cli("resolve", "@local/written", env=their_home).lines
    path = tmp_path / changed
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    ran = cli("inspect", "@local/written", "--verify", env=their_home)
    assert ran.code == 6
    assert "the index says" in ran.out
    # And its own dataset can be published again, and written.
    before = index_rows(their_home, "SELECT * FROM schemas")
    assert cli("publish", "@local/inserted", "@local/ours", env=their_home).code == 6
    ran = cli("publish", "@local/inserted", "@local/ours", "--verify", env=their_home)
    assert ran.code == 0, ran.err
    assert before == index_rows(their_home, "SELECT * FROM schemas WHERE name = 'Sample'")
    counts = reference('done([check(make(230), atdata.load_dataset("@local/ours", split="train").ordered())])')
    assert counts == [230]
    assert cli("write", "@local/inserted", "again", env=their_home).code == 0
    assert json.loads((tmp_path / "again" / "manifest.json").read_bytes())["samples"] == 230


def index_rows(home: Mapping[str, str], query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(home["ATDATA_INDEX"]) as db:
        found = db.execute(query).fetchall()
    db.close()
    return found


def layout(path: Path) -> Iterator[tuple[Any, ...]]:
    """Columns and indexes of a database, whatever the text that made them."""
    with sqlite3.connect(path) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall():
            yield table, db.execute(f"PRAGMA table_info({table})").fetchall()
            for _, name, unique, origin, partial in db.execute(f"PRAGMA index_list({table})").fetchall():
                yield table, name, unique, origin, partial, db.execute(f"PRAGMA index_info({name})").fetchall()
        yield tuple(db.execute("PRAGMA journal_mode").fetchall())
    db.close()


def test_the_tables_are_the_library_s(reference, tmp_path):
    open_index("local", IndexOptions(file=str(tmp_path / "ours.db"))).publish(publication(version="1.0.0"))
    before = list(layout(tmp_path / "ours.db"))
    script = """
atdata.Index(provider="sqlite", path="theirs.db", atmosphere=None)
index = atdata.Index(provider="sqlite", path="ours.db", atmosphere=None)
entry, = index.list_datasets()
done([entry.name, entry.data_urls, entry.cid == entry._generate_cid(), len(index.list_labels()),
      [field.name for field in index.get_schema_record(entry.schema_ref).fields]])
"""
    urls = [shard.url for shard in publication().shards]
    assert reference(script) == ["rows", urls, True, 2, ["id", "text"]]
    assert list(layout(tmp_path / "theirs.db")) == before == list(layout(tmp_path / "ours.db"))


def test_field_names_that_a_class_can_have(reference):
    script = """
import keyword
from atdata._schema_codec import _schema_to_type
from atdata.dataset import PackableSample
import msgpack

names = [*dir(PackableSample), *keyword.kwlist, *keyword.softkwlist, *json.loads(sys.argv[1])]
loads = {}
for number, name in enumerate(names):
    fields = [{"name": n, "fieldType": {"$type": "local#primitive", "primitive": "str"}} for n in (name, "zz")]
    try:
        cls = _schema_to_type({"name": "T", "version": f"1.0.{number}", "fields": fields}, use_cache=False)
        sample = cls.from_bytes(msgpack.packb({name: "x", "zz": "y"}))
        repr(sample), sample == sample
        loads[name] = getattr(sample, name) == "x" and sample.zz == "y" and vars(sample) == {name: "x", "zz": "y"}
        loads[name] = loads[name] and msgpack.unpackb(sample.packed) == {name: "x", "zz": "y"}
    except Exception:
        loads[name] = False
done(loads)
"""
    more = "self cls _x __x __x__ field str object MISSING a.b a-b 1a é ﬁ ª x² ℌ e\u0301 class_ data _field"
    loads = reference(script, json.dumps(["", *more.split(), "__dict__", "__slots__", "__class__"]))
    assert len(loads) > 90
    wrong = {name: able for name, able in loads.items() if _loads_as_attribute(name) != able}
    # Names between underscores are left to Python, though some would do.
    assert all(able and name.startswith("__") for name, able in wrong.items()), wrong


def test_shards_that_the_library_finds_in_one_pattern(reference):
    lists = [
        "/a/s-0.tar", "/a/s-0.tar /a/s-1.tar", "/a/s-{0,1}.tar", "/a,b/s-0.tar /a,b/s-1.tar", "/a/s,0.tar /a/s,1.tar",
        "/a/0,0.tar /a/1,1.tar", "/a/s.tar /a/s-1.tar", "/x/a.tar /y/a.tar", "/a/s-000000.tar /a/s-000001-ab12.tar",
        "/a/s-000000.tar /a/s-000000-ab12.tar", "/a/1.tar /a/11.tar", "a.tar b.tar.gz", "x y", "/a/{x,y}.tar /a/z.tar",
        "s3://b/k/0.tar s3://b/k/1.tar s3://b/k/10.tar", "/a/aa.tar /a/a.tar", "/a..b/0.tar /a..b/1.tar",
        "/a/0..3.tar /a/1..4.tar", "/a/$x/0.tar /a/$x/1.tar",
    ]  # fmt: skip
    lists = [urls.split(" ") for urls in lists]
    script = """
import braceexpand
from atdata._hf_api import _shards_to_wds_url
done([list(braceexpand.braceexpand(_shards_to_wds_url(urls))) == urls for urls in json.loads(sys.argv[1])])
"""
    found = reference(script, json.dumps(lists))
    assert dict(zip(map(str, lists), found, strict=True)) == {str(urls): _joins(urls) for urls in lists}


OURS = """
import sys
from tests.unit.test_local_index import publication
from atdata_cli.indexes.registry import IndexOptions, open_index

index = open_index("local", IndexOptions(file=sys.argv[1]))
for turn in range(20):
    assert index.publish(publication(f"ours-{turn}", shards=turn + 1)).status == "published"
    assert index.publish(publication("both", shards=turn + 1)).status in ("published", "updated")
"""


def test_the_library_and_this_program_write_at_once(reference, tmp_path):
    path = str(tmp_path / "index.db")
    theirs = """
index = atdata.Index(provider="sqlite", path=sys.argv[1], atmosphere=None)
dataset = atdata.write_samples(make(3), "one.tar")
for turn in range(20):
    index.insert_dataset(dataset, name=f"theirs-{turn}")
    index.insert_dataset(dataset, name="both")
done(len(index.list_labels()))
"""
    ours = subprocess.Popen([sys.executable, "-c", OURS, path], stderr=subprocess.PIPE)
    try:
        reference(theirs, path)
    finally:
        _, errors = ours.communicate(timeout=120)
    assert ours.returncode == 0, errors.decode()
    index = open_index("local", IndexOptions(file=path))
    names = [entry.name for entry in index.entries()]
    assert sorted(names) == sorted(["both", *(f"{who}-{turn}" for who in ("ours", "theirs") for turn in range(20))])
    assert index_rows({"ATDATA_INDEX": path}, "PRAGMA integrity_check") == [("ok",)]
