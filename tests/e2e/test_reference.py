"""Against the real ``atdata`` library: it reads what this program wrote, its index takes our stores, and back.

The scripts run in the reference library's own environment. Each counts what it checked, so that a reader that ends
early without an error is noticed.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import environment
from tests.cli.test_write import manifest_of
from tests.e2e.conftest import packed
from tests.servers.reference import python

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

Reference = Callable[..., Any]

# Samples of every kind, with the reference library's types; `same` tells them apart to the last bit and type.
SAMPLES = """
import json, os, sys
import atdata
import numpy as np
from numpy.typing import NDArray

@atdata.packable
class Sample:
    image: NDArray
    ids: NDArray
    label: str
    raw: bytes
    tags: list[str]
    n: int
    score: float
    ok: bool

def make(count):
    for n in range(count):
        image = np.arange(12, dtype=np.float32).reshape(3, 4) * n
        ids = np.arange(n % 5, dtype=np.int64) - n
        yield Sample(image, ids, f"naïve {n}", bytes([n % 256]) * n, ["a", "b"][: n % 3], n << 40, n / 7, n % 2 == 0)

def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and a == b

def check(expected, got):
    count = 0
    for a, b in zip(expected, got, strict=True):
        assert vars(a).keys() == vars(b).keys(), (vars(a), vars(b))
        for name in vars(a):
            assert same(getattr(a, name), getattr(b, name)), (count, name, getattr(a, name), getattr(b, name))
        count += 1
    return count

def done(value):
    print("RESULT", json.dumps(value))
"""


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    """Run a script in the reference library's environment, in *tmp_path*; what it gave to ``done``."""
    home = tmp_path / "reference-home"
    home.mkdir()

    def run(script: str, *arguments: str, env: Mapping[str, str] | None = None) -> Any:
        ran = subprocess.run(
            [python(), "-c", SAMPLES + script, *arguments],
            cwd=tmp_path,
            env=environment(home, env),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        # The reference library prints to stdout as it writes.
        last = ran.stdout.strip().splitlines()[-1]
        assert last.startswith("RESULT "), ran.stdout
        return json.loads(last.removeprefix("RESULT "))

    return run


def json_rows(count: int) -> list[dict[str, Any]]:
    """Rows with every row of the type mapping that JSON has."""
    return [
        {
            "text": f"naïve café {number} 🐈 \u0000",
            "large": 2**64 - 1 - number,
            "small": -(2**63) + number,
            "fraction": number / 7,
            "number": number if number % 2 else number + 0.5,
            "ok": number % 3 == 0,
            "nothing": None,
            "maybe": None if number % 4 else "here",
            "words": ["a", "b", "c"][: number % 4],
            "nested": [[1, 2], [], [number, [3.5]]],
            "mixed": [1, "two", None, True, 2.5, {"k": [1]}],
            "map": {"a": number, "b": {"c": [None, "x"]}, "ü": {}},
            "varying": [number, "text", None, [1], {"a": 1}][number % 5],
        }
        for number in range(count)
    ]


ROW_TYPE = """
@atdata.packable
class Row:
    text: str
    large: int
    small: int
    fraction: float
    number: float
    ok: bool
    nothing: object
    maybe: str | None
    words: list[str]
    nested: list
    mixed: list
    map: dict
    varying: object

def plain(value):
    # JSON tells 1, 1.0 and true apart, and floats to the last bit.
    return json.dumps(value, sort_keys=True)

def check_rows(dataset):
    count = 0
    with open("rows.jsonl") as lines:
        for line, sample in zip(lines, dataset.ordered(), strict=True):
            got = sample.to_dict() if isinstance(sample, atdata.DictSample) else vars(sample)
            assert plain(got) == plain(json.loads(line)), (count, got, line)
            count += 1
    return count
"""


def test_rows_of_every_json_type_typed_and_untyped(cli, reference, tmp_path):
    rows = json_rows(1003)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert cli("write", "rows.jsonl", "one").lines == ["one/shard-000000.tar"]
    assert len(cli("write", "rows.jsonl", "many", "--max-count", "250").lines) == 5
    assert cli("write", "rows.jsonl", "gz", "--max-count", "250", "--compress", "gz").code == 0
    script = """
names = [f"many/shard-{number:06d}.tar" for number in range(5)]
counts = []
for kind in (Row, atdata.DictSample):
    for url in (
        "one/shard-000000.tar",
        "many/shard-{000000..000004}.tar",
        "{" + ",".join(names) + "}",
        "gz/shard-{000000..000004}.tar.gz",
    ):
        counts.append(check_rows(atdata.Dataset[kind](url)))
    for path in ("many", "many/*.tar", "one/shard-000000.tar"):
        counts.append(check_rows(atdata.load_dataset(path, kind, split="train")))
counts.append(check_rows(atdata.Dataset[atdata.DictSample]("one/shard-000000.tar").as_type(Row)))

class Shards:
    # A source that lists its shards, the library's other way to name several.
    def list_shards(self):
        return names
    @property
    def shards(self):
        return ((name, open(name, "rb")) for name in names)
    def open_shard(self, name):
        return open(name, "rb")

counts.append(check_rows(atdata.Dataset[Row](Shards())))
done(counts)
"""
    counts = reference(ROW_TYPE + script)
    assert counts == [1003] * 16


def test_parquet_columns_of_lists_are_arrays(cli, reference, tmp_path):
    count = 517
    columns = {
        "image": pa.array([np.arange(12, dtype=np.float32) * n for n in range(count)], pa.list_(pa.float32())),
        "ids": pa.array([list(range(-n, -n + n % 5)) for n in range(count)], pa.list_(pa.int64())),
        "grid": pa.array([[[n, 1, 2], [3, 4, -n]] for n in range(count)], pa.list_(pa.list_(pa.int16(), 3), 2)),
        "flags": pa.array([[n % 2 == 0, True] for n in range(count)], pa.list_(pa.bool_(), 2)),
        "maybe": pa.array([None if n % 3 else [n + 0.5] for n in range(count)], pa.list_(pa.float64())),
        "words": pa.array([["a", "b"][: n % 3] for n in range(count)], pa.list_(pa.string())),
        "raw": pa.array([bytes([n % 256]) * (n % 50) for n in range(count)], pa.binary()),
        "label": pa.array([f"naïve {n}" for n in range(count)]),
        "large": pa.array([2**64 - 1 - n for n in range(count)], pa.uint64()),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=100)
    ran = cli("write", "t.parquet", "out", "--max-count", "200")
    assert ran.code == 0, ran.err
    fields = manifest_of(tmp_path / "out")["fields"]
    assert {name: fields[name].get("dtypes") for name in ("image", "ids", "grid", "flags", "maybe")} == {
        "image": ["float32"], "ids": ["int64"], "grid": ["int16"], "flags": ["bool"], "maybe": ["float64"],
    }  # fmt: skip
    script = """
@atdata.packable
class Row:
    image: NDArray
    ids: NDArray
    grid: NDArray
    flags: NDArray
    maybe: NDArray | None
    words: list[str]
    raw: bytes
    label: str
    large: int

def expected(n):
    return {
        "image": np.arange(12, dtype=np.float32) * n,
        "ids": np.arange(-n, -n + n % 5, dtype=np.int64),
        "grid": np.array([[n, 1, 2], [3, 4, -n]], dtype=np.int16),
        "flags": np.array([n % 2 == 0, True]),
        "maybe": None if n % 3 else np.array([n + 0.5]),
        "words": ["a", "b"][: n % 3],
        "raw": bytes([n % 256]) * (n % 50),
        "label": f"naïve {n}",
        "large": 2**64 - 1 - n,
    }

url = "out/shard-{000000..000002}.tar"
count = 0
for n, row in enumerate(atdata.Dataset[Row](url).ordered()):
    for name, value in expected(n).items():
        assert same(value, getattr(row, name)), (n, name, value, getattr(row, name))
    count += 1
untyped = list(atdata.Dataset[atdata.DictSample](url).ordered())
for n, row in enumerate(untyped):
    assert row.keys() == list(expected(n)), row.keys()
    # Untyped, the library leaves arrays packed.
    assert same(atdata._helpers.bytes_to_array(row["grid"]), expected(n)["grid"])
batches = [len(batch.label) for batch in atdata.Dataset[Row](url).ordered(batch_size=100)]
done([count, len(untyped), sum(batches)])
"""
    assert reference(script) == [count] * 3


STORE = """
import atdata_cli

def open_store():
    if sys.argv[1] == "local":
        return atdata_cli.LocalStore("store")
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT", "AWS_REGION")
    return atdata_cli.S3DataStore({name: os.environ[name] for name in names}, bucket=sys.argv[2])

store = open_store()
"""


@pytest.fixture(params=["local", "s3"])
def either_store(request: pytest.FixtureRequest) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment that make ``STORE`` open each of our stores."""
    if request.param == "local":
        return ["local"], {}
    server = request.getfixturevalue("s3_server")
    return ["s3", request.getfixturevalue("s3_bucket")], server.credentials


def test_our_stores_write_a_dataset_of_the_library(reference, either_store, tmp_path):
    arguments, env = either_store
    script = """
dataset = atdata.write_samples(make(257), "theirs/data.tar", maxcount=100)
assert len(dataset.list_shards()) == 3
urls = store.write_shards(dataset, prefix="training/v1", maxcount=50)
again = store.write_shards(dataset, prefix="training/v1", maxcount=50)
assert again == urls and again.checksums == urls.checksums
assert isinstance(urls, list) and list(urls.checksums) == urls
readable = [store.read_url(url) for url in urls]
count = check(make(257), (sample for url in readable for sample in atdata.Dataset[Sample](url).ordered()))
# Its own store fits our protocol, as ours does.
assert isinstance(atdata.stores.LocalDiskStore("theirs"), atdata_cli.AbstractDataStore)
done([count, len(urls), urls[0], isinstance(store, atdata_cli.AbstractDataStore), store.supports_streaming()])
"""
    count, shards, first, is_store, streams = reference(STORE + script, *arguments, env=env)
    assert (count, shards, is_store, streams) == (257, 6, True, True)
    root = str(tmp_path / "store") if arguments == ["local"] else f"s3://{arguments[1]}"
    assert first == f"{root}/training/v1/shard-000000.tar"


def test_our_stores_drop_into_the_library_s_index(reference, either_store):
    arguments, env = either_store
    script = """
import hashlib, urllib.request

def open_index():
    return atdata.Index(provider="sqlite", path="index.db", data_store=store, atmosphere=None)

index = open_index()
written = index.write_samples(make(120), name="written")
dataset = atdata.write_samples(make(230), "theirs/data.tar", maxcount=100)
inserted = index.insert_dataset(dataset, name="inserted", metadata={"split": "train"})
many = store.write_shards(dataset, prefix="many", maxcount=100)
assert len(many) == 3

index = open_index()  # all comes from the file
counts = []
for name, count in (("written", 120), ("inserted", 230)):
    for kind in (Sample, None):
        loaded = atdata.load_dataset(f"@local/{name}", kind, index=index, split="train")
        counts.append(check(make(count), loaded.ordered()) if kind else check_loaded(count, loaded))
    entry = index.get_dataset(name)
    for url, checksum in entry.metadata["checksums"].items():
        readable = store.read_url(url)
        data = urllib.request.urlopen(readable).read() if "://" in readable else open(readable, "rb").read()
        assert hashlib.sha256(data).hexdigest() == checksum
assert index.get_dataset("inserted").metadata["split"] == "train"

# An entry of several shards, which the library joins into one brace string of what read_url gives.
from atdata.index._entry import LocalDatasetEntry
entry = LocalDatasetEntry(name="many", schema_ref=written.schema_ref, data_urls=many)
index._provider.store_entry(entry)
index.label("many", entry.cid)
loaded = atdata.load_dataset("@local/many", Sample, index=open_index(), split="train")
counts.append(check(make(230), loaded.ordered()))
done(counts)
"""
    checker = """
def check_loaded(count, loaded):
    # The type is made from the schema in the index.
    assert loaded.sample_type is not Sample
    return check(make(count), loaded.ordered())
"""
    assert reference(STORE + checker + script, *arguments, env=env) == [120, 120, 230, 230, 230]


THEIRS = """
from atdata.stores import LocalDiskStore, S3DataStore
dataset = atdata.write_samples(make(150), "src/data.tar")
"""

CHECK_OURS = """
count = check(make(150), atdata.Dataset[Sample](sys.argv[1]).ordered())
done(count)
"""


def check_recognised(folder: Path) -> None:
    """The manifest knows the library's arrays and values for what they are."""
    manifest = manifest_of(folder)
    assert (manifest["encoding"], manifest["samples"]) == ("msgpack", 150)
    kinds = {name: field["kind"] for name, field in manifest["fields"].items()}
    assert kinds == {
        "image": "ndarray", "ids": "ndarray", "label": "string", "raw": "bytes",
        "tags": "array", "n": "integer", "score": "number", "ok": "boolean",
    }  # fmt: skip
    fields, properties = manifest["fields"], manifest["schema"]["properties"]
    assert (fields["image"]["dtypes"], fields["image"]["shape"]) == (["float32"], [3, 4])
    assert (fields["ids"]["dtypes"], fields["ids"]["shape"]) == (["int64"], [None])
    assert properties["image"]["$ref"].endswith("ndarray")
    assert properties["raw"] == {"type": "string", "format": "byte", "contentEncoding": "base64"}
    assert properties["tags"] == {"type": "array", "items": {"type": "string"}}
    assert manifest["schema"]["required"] == sorted(kinds)


def test_shards_of_the_library_s_disk_store_are_a_source(cli, reference, tmp_path):
    urls = reference(THEIRS + 'done(list(LocalDiskStore("theirs").write_shards(dataset, prefix="p", maxcount=60)))\n')
    assert len(urls) == 3
    for source, out in ((urls, "a"), (["theirs/p"], "b"), (["theirs/p/*.tar"], "c")):
        ran = cli("write", *source, out, "--name", "d", "--max-count", "40")
        assert ran.code == 0, ran.err
        assert len(ran.lines) == 4
        check_recognised(tmp_path / out)
        assert reference(CHECK_OURS, f"{out}/shard-{{000000..000003}}.tar") == 150
    assert packed(tmp_path / "a") == packed(tmp_path / "b") == packed(tmp_path / "c")


def test_shards_of_the_library_s_s3_store_are_a_source(cli, reference, s3_server, s3_env, s3_bucket, tmp_path):
    script = """
urls = S3DataStore(dict(os.environ), bucket=sys.argv[1]).write_shards(dataset, prefix="theirs/v1", maxcount=60)
done(list(urls))
"""
    urls = reference(THEIRS + script, s3_bucket, env=s3_server.credentials)
    assert len(urls) == 3
    for source, out in ((urls, "a"), ([f"s3://{s3_bucket}/theirs/v1/"], "b")):
        ran = cli("write", *source, out, "--name", "d", "--max-count", "40", env=s3_env)
        assert ran.code == 0, ran.err
        check_recognised(tmp_path / out)
        assert reference(CHECK_OURS, f"{out}/shard-{{000000..000003}}.tar") == 150
