"""What each name on the command line becomes."""

import json
import os

import pytest

from atdata_cli.errors import NotFoundError, UsageError
from atdata_cli.shards.reader import dataset_shards
from atdata_cli.sources.registry import KINDS, ReadOptions, open_source
from atdata_cli.stores.inputs import StoreFiles


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        return tmp_path

    return make


def opened(*names, **options):
    files = StoreFiles()
    source = open_source(names, files, ReadOptions(**options), dataset_shards=lambda url: dataset_shards(files, url))
    return type(source).__name__, [item.name for item in source.inputs]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rows.jsonl", "JsonlSource"),
        ("ROWS.JSONL.GZ", "JsonlSource"),
        ("rows.ndjson.zst", "JsonlSource"),
        ("rows.csv", "CsvSource"),
        ("rows.tsv.bz2", "TsvSource"),
        ("rows.parquet", "ParquetSource"),
        ("rows.pq", "ParquetSource"),
        ("rows.arrow", "ArrowSource"),
        ("rows.feather", "ArrowSource"),
        ("rows.msgpack", "MsgpackSource"),
        ("shard.tar", "TarSource"),
        ("shard.tgz", "TarSource"),
        ("shard.tar.zst", "TarSource"),
        ("cat.jpg", "FolderSource"),
        ("data.json", "FolderSource"),
    ],
)
def test_a_file_is_what_its_name_says(place, name, kind):
    place(name)
    assert opened(name) == (kind, [name])
    assert opened(f"./{name}") == (kind, [name])
    assert opened(os.path.abspath(name)) == (kind, [name])
    assert opened("file://" + os.path.abspath(name)) == (kind, [name])


def test_from_wins_over_the_name(place):
    place("data.txt")
    assert opened("data.txt", kind="jsonl") == ("JsonlSource", ["data.txt"])
    assert opened("data.txt", kind="files") == ("FolderSource", ["data.txt"])
    assert opened("-", kind="csv") == ("CsvSource", ["-"])


@pytest.mark.parametrize(
    ("names", "kind", "inputs"),
    [
        (["in/b.jsonl", "in/a/c.jsonl"], "JsonlSource", ["a/c.jsonl", "b.jsonl"]),
        (["in/b.tar", "in/a.tar"], "TarSource", ["a.tar", "b.tar"]),
        (["in/a.jpg", "in/a.json"], "FolderSource", ["a.jpg", "a.json"]),
        (["in/a.jsonl", "in/.hidden/b.csv", "in/.c.csv"], "JsonlSource", ["a.jsonl"]),
        (["in/a.tar", "in/manifest.json"], "TarSource", ["a.tar"]),
    ],
)
def test_a_folder_is_what_its_files_are(place, names, kind, inputs):
    place(*names)
    assert opened("in") == (kind, inputs)
    assert opened("in/") == (kind, inputs)


def test_an_empty_folder_is_a_folder_of_files(place):
    (place() / "in").mkdir()
    assert opened("in") == ("FolderSource", [])


def test_a_mixed_folder_has_to_be_told(place):
    place("in/a.jsonl", "in/b.csv", "in/c.jpg")
    with pytest.raises(UsageError, match="mixes") as told:
        opened("in")
    assert "--from" in told.value.message
    assert opened("in", kind="csv") == ("CsvSource", ["b.csv"])
    assert opened("in", kind="files") == ("FolderSource", ["a.jsonl", "b.csv", "c.jpg"])


def test_include_and_exclude_choose_before_the_kind_is_found(place):
    place("in/a.jsonl", "in/b.jsonl", "in/README.md", "in/old/c.jsonl")
    assert opened("in", exclude=("*.md", "old/")) == ("JsonlSource", ["a.jsonl", "b.jsonl"])
    assert opened("in", include=("b.*",)) == ("JsonlSource", ["b.jsonl"])
    assert opened("in", include=("*.md",)) == ("FolderSource", ["README.md"])


def test_several_names_stay_in_their_order(place):
    place("b.jsonl", "a.jsonl", "c/1.jsonl")
    assert opened("b.jsonl", "c", "a.jsonl")[1] == ["b.jsonl", "1.jsonl", "a.jsonl"]


def test_globs_and_braces_are_sorted_bytewise_and_counted_up(place):
    place("x10.csv", "x9.csv", "X.csv", "é.csv", "s-000.tar", "s-001.tar")
    assert opened("*.csv")[1] == ["X.csv", "x10.csv", "x9.csv", "é.csv"]
    assert opened("s-{000..001}.tar") == ("TarSource", ["s-000.tar", "s-001.tar"])
    assert opened("{x9,X}.csv")[1] == ["x9.csv", "X.csv"]


@pytest.mark.parametrize(
    ("names", "inputs"),
    [
        (["photos/*/*.jpg"], ["cat/00.jpg", "cat/01.jpg", "dog/00.jpg"]),
        (["photos/**/*.jpg"], ["cat/00.jpg", "cat/01.jpg", "dog/00.jpg"]),
        (["./photos/../photos//*/*.jpg"], ["cat/00.jpg", "cat/01.jpg", "dog/00.jpg"]),
        (["photos/{cat,dog}/*0.jpg"], ["cat/00.jpg", "dog/00.jpg"]),
        (["photos/c*/*.jpg"], ["cat/00.jpg", "cat/01.jpg"]),
        (["photos/cat/*.jpg"], ["00.jpg", "01.jpg"]),
        (["photos/dog/00.jpg", "photos/cat/00.jpg"], ["dog/00.jpg", "cat/00.jpg"]),
        (["photos/{dog,cat}/00.jpg"], ["dog/00.jpg", "cat/00.jpg"]),
        (["photos/cat/01.jpg", "photos/cat/00.jpg"], ["01.jpg", "00.jpg"]),
        (["photos/cat/01.jpg"], ["01.jpg"]),
        (["labels", "photos/*/01.jpg", "photos/dog/00.jpg"], ["x.txt", "cat/01.jpg", "00.jpg"]),
    ],
)
def test_files_are_called_by_the_folder_that_they_share(place, names, inputs):
    folder = place("photos/cat/00.jpg", "photos/cat/01.jpg", "photos/dog/00.jpg", "labels/x.txt")
    assert opened(*names) == ("FolderSource", inputs)
    assert opened(*(f"{folder}/{name}" for name in names)) == ("FolderSource", inputs)
    assert opened(*(f"file://{folder}/{name}" for name in names)) == ("FolderSource", inputs)


def test_a_name_that_exists_is_no_pattern(place):
    place("a[1].csv", "a1.csv", "{b}.csv", "*.csv")
    assert opened("a[1].csv")[1] == ["a[1].csv"]
    assert opened("{b}.csv")[1] == ["{b}.csv"]
    assert opened("*.csv")[1] == ["*.csv"]


@pytest.mark.parametrize("name", ["missing", "*.nothing", "missing-{0..3}.csv", "in/missing.csv"])
def test_what_is_not_there(place, name):
    place("in/a.csv")
    with pytest.raises(NotFoundError) as told:
        opened(name)
    assert told.value.url


def test_different_kinds_are_told_with_what_helps(place):
    place("rows.jsonl", "rows.csv", "in/a.jpg")
    with pytest.raises(UsageError, match=r"jsonl is jsonl, .* is csv"):
        opened("rows.jsonl", "rows.csv")
    with pytest.raises(UsageError) as told:
        opened("in", "rows.csv")
    assert "--join" in (told.value.hint or "")


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["-"], {}, "--from"),
        (["-"], {"kind": "files"}, "one stream, not files pack them: tar"),
        (["rows.csv"], {"kind": "xml"}, "xml"),
        (["rows.csv"], {"join": "rows.csv"}, "--on"),
        (["rows.csv"], {"on": "a"}, "--join"),
        (["rows.csv"], {"join": "rows.csv", "on": "a"}, "files of a folder"),
        (["in"], {"join": "in/a.jpg", "on": "a"}, "row file"),
        (["in"], {"include": ("[",), "exclude": ("[z-a]",)}, "pattern"),
        (["pipe:cat rows.csv"], {}, "pipe"),
        (["fifo"], {}, "--from"),
    ],
)
def test_what_means_nothing(place, names, options, words):
    os.mkfifo(place("rows.csv", "in/a.jpg") / "fifo")
    with pytest.raises(UsageError) as told:
        opened(*names, **options)
    assert words in f"{told.value.message} {told.value.hint}"


def test_every_kind_that_is_offered_is_read(place):
    place("x.y")
    assert all(opened("x.y", kind=kind)[1] == ["x.y"] for kind in KINDS)


def test_options_that_change_samples_are_part_of_the_job():
    assert ReadOptions().identity() == {}
    assert ReadOptions(kind="csv", null="NA", infer=False, on="f").identity() == {
        "from": "csv",
        "null": "NA",
        "no_infer": True,
        "on": "f",
    }


def test_a_dataset_is_read_through_its_manifest(place):
    folder = place("in/shard-000000.tar", "in/left-over.tar", "in/notes.txt")
    row = {"name": "shard-000000.tar", "samples": 1, "bytes": 0, "sha256": "", "first_key": "", "last_key": ""}
    manifest = {
        "format": "atdata-manifest",
        "version": 1,
        "name": "x",
        "samples": 1,
        "bytes": 0,
        "payload": 0,
        "encoding": "files",
        "job": "",
        "shards": [row],
    }
    (folder / "in" / "manifest.json").write_text(json.dumps(manifest))
    assert opened("in") == ("TarSource", ["shard-000000.tar"])
