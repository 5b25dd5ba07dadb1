"""``atdata-cli write`` on disk: what it makes, what it prints, what it leaves alone."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import msgpack
import pytest
import webdataset

from tests.cli.conftest import rows

# webdataset's readers leave their files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def read_back(folder: Path) -> list[dict]:
    """All samples, by webdataset, in the manifest's order."""
    urls = [str(folder / row["name"]) for row in manifest_of(folder)["shards"]]
    return list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_becomes_shards_that_every_reader_reads(cli, photos, tmp_path):
    ran = cli("write", "photos/", "out/", "--max-count", "8")
    assert ran.code == 0, ran.err
    assert ran.lines == [f"out/shard-{number:06d}.tar" for number in range(4)]
    expected = {
        str(path.relative_to(photos).with_suffix("")): {
            "jpg": path.read_bytes(),
            "json": path.with_suffix(".json").read_bytes(),
        }
        for path in photos.rglob("*.jpg")
    }
    samples = read_back(tmp_path / "out")
    assert [sample["__key__"] for sample in samples] == sorted(expected)
    for sample in samples:
        assert {name: sample[name] for name in ("jpg", "json")} == expected[sample["__key__"]]
    for shard in (tmp_path / "out").glob("*.tar"):
        listed = subprocess.run(["tar", "tf", shard], capture_output=True, text=True, check=True).stdout.split()
        with tarfile.open(shard) as archive:
            assert archive.getnames() == listed
            for name in listed:
                content = subprocess.run(["tar", "xOf", shard, name], capture_output=True, check=True).stdout
                assert content == archive.extractfile(name).read() == (photos / name).read_bytes()


def test_the_manifest_tells_the_truth(cli, photos, tmp_path):
    assert cli("write", "photos", "out", "--max-count", "8").code == 0
    manifest = manifest_of(tmp_path / "out")
    assert (manifest["format"], manifest["version"], manifest["name"]) == ("atdata-manifest", 1, "photos")
    assert (manifest["samples"], manifest["encoding"], manifest["compression"]) == (30, "files", None)
    assert manifest["payload"] == sum(path.stat().st_size for path in photos.rglob("*.*"))
    assert manifest["bytes"] == sum(row["bytes"] for row in manifest["shards"])
    for row in manifest["shards"]:
        data = (tmp_path / "out" / row["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row["bytes"], row["sha256"])
    assert manifest["shards"][0]["first_key"] == "cat/00"
    assert manifest["shards"][-1]["last_key"] == "dog/29"
    assert manifest["fields"]["jpg"] == {"kind": "image", "samples": 30, "bytes": 16095, "size": [0, 1073]}
    assert manifest["schema"]["required"] == ["jpg", "json"]
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert str(tmp_path) not in text


def test_rows_become_msgpack_samples(cli, rows_file, tmp_path):
    ran = cli("write", "rows.jsonl", "out", "--max-count", "1000")
    assert ran.code == 0, ran.err
    assert len(ran.lines) == 3
    samples = read_back(tmp_path / "out")
    assert [sample["__key__"] for sample in samples] == [f"{number:010d}" for number in range(2500)]
    assert [msgpack.unpackb(sample["msgpack"]) for sample in samples] == rows(2500)
    manifest = manifest_of(tmp_path / "out")
    assert manifest["encoding"] == "msgpack"
    assert manifest["fields"]["id"] == {"kind": "integer", "samples": 2500, "nulls": 0, "range": [0, 2499]}
    assert manifest["fields"]["maybe"]["nulls"] == 2000
    assert manifest["schema"]["properties"]["maybe"] == {"type": ["string", "null"]}
    assert manifest["schema"]["properties"]["tags"] == {"type": "array", "items": {"type": "string"}}
    assert manifest["schema"]["required"] == sorted(rows(1)[0])


def test_the_same_command_gives_the_same_bytes_anywhere(cli, rows_file, photos, tmp_path):
    for source, options in (("rows.jsonl", ["--max-count", "700"]), ("photos", ["--max-size", "30K"])):
        elsewhere = tmp_path / "some" / "where"
        elsewhere.mkdir(parents=True, exist_ok=True)
        assert cli("write", source, "one", *options).code == 0
        assert cli("write", tmp_path / source, tmp_path / "two", *options, cwd=elsewhere).code == 0
        assert tree(tmp_path / "one") == tree(tmp_path / "two")
        subprocess.run(["rm", "-r", tmp_path / "one", tmp_path / "two"], check=True)


def test_shards_end_by_exact_tar_bytes(cli, photos, tmp_path):
    assert cli("write", "photos", "out", "--max-size", "20480").code == 0
    shards = manifest_of(tmp_path / "out")["shards"]
    assert len(shards) > 2
    assert {row["bytes"] for row in shards} <= {10240, 20480}
    assert sum(row["samples"] for row in shards) == 30


def test_shards_can_be_even(cli, rows_file, photos, tmp_path):
    assert cli("write", "rows.jsonl", "a", "--shards", "7").code == 0
    counts = [row["samples"] for row in manifest_of(tmp_path / "a")["shards"]]
    assert len(counts) == 7
    assert max(counts) - min(counts) <= 1
    assert cli("write", "photos", "b", "--shards-multiple-of", "4", "--max-count", "10").code == 0
    counts = [row["samples"] for row in manifest_of(tmp_path / "b")["shards"]]
    assert counts == [8, 8, 7, 7]
    cli("write", "photos", "c", "--shards", "31").failed(2, "cannot fill 31 shards")
    assert not (tmp_path / "c").exists()


def test_a_finished_write_is_unchanged(cli, rows_file, tmp_path):
    first = cli("write", "rows.jsonl", "out")
    before = tree(tmp_path / "out")
    again = cli("write", "rows.jsonl", "out")
    assert (again.code, again.out) == (0, first.out)
    assert "unchanged" in again.err
    assert tree(tmp_path / "out") == before
    cli("write", "rows.jsonl", "out", "--if-exists", "fail").failed(8, "out", "holds the same dataset")


def test_another_job_is_refused_and_told_apart(cli, rows_file, tmp_path):
    assert cli("write", "rows.jsonl", "out").code == 0
    before = tree(tmp_path / "out")
    cli("write", "rows.jsonl", "out", "--max-count", "9").failed(8, "--max-count default there, 9 here")
    text = rows_file.read_text()
    rows_file.write_text(text.replace('"id": 7,', '"id": 8,'))
    cli("write", "rows.jsonl", "out").failed(8, "other data of the same names and sizes")
    rows_file.write_text(text + '{"id": 1}\n')
    cli("write", "rows.jsonl", "out").failed(8, "the input has other names or sizes")
    assert tree(tmp_path / "out") == before


def test_a_lost_shard_of_a_finished_dataset_is_told(cli, rows_file, tmp_path):
    assert cli("write", "rows.jsonl", "out").code == 0
    (tmp_path / "out" / "shard-000000.tar").unlink()
    cli("write", "rows.jsonl", "out").failed(6, "shard-000000.tar", "is missing")


def test_shards_of_somebody_else_are_left_alone(cli, rows_file, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "shard-000000.tar").write_bytes(b"precious")
    cli("write", "rows.jsonl", "out").failed(8, "shards without a manifest")
    assert tree(tmp_path / "out") == {"shard-000000.tar": b"precious"}


def test_an_unfinished_write_is_started_over(cli, rows_file, tmp_path):
    assert cli("write", "rows.jsonl", "out", "--max-count", "500").code == 0
    expected = tree(tmp_path / "out")
    job = json.loads(expected["manifest.json"])["job"]
    (tmp_path / "out" / "manifest.json").unlink()
    (tmp_path / "out" / ".atdata").mkdir()
    (tmp_path / "out" / ".atdata" / "job.json").write_text(json.dumps({"job": job}))
    (tmp_path / "out" / "shard-000001.tar").write_bytes(b"half")
    cli("write", "out", "elsewhere").failed(6, "unfinished")
    assert cli("write", "rows.jsonl", "out", "--max-count", "500").code == 0
    assert tree(tmp_path / "out") == expected
    cli("write", "rows.jsonl", "out", "--max-count", "400").failed(8)


def test_gzip_is_reproducible_and_readable(cli, rows_file, tmp_path):
    assert cli("write", "rows.jsonl", "a", "--compress", "gz").lines == ["a/shard-000000.tar.gz"]
    assert cli("write", "rows.jsonl", "b", "--compress", "gz").code == 0
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert [msgpack.unpackb(sample["msgpack"]) for sample in read_back(tmp_path / "a")] == rows(2500)
    assert subprocess.run(["gzip", "-t", tmp_path / "a" / "shard-000000.tar.gz"], check=False).returncode == 0


def test_splits_are_folders_with_a_root_manifest(cli, rows_file, tmp_path):
    ran = cli("write", "rows.jsonl", "out", "--split", "train=0.9,val=0.1", "--max-count", "1000")
    assert ran.code == 0, ran.err
    root = manifest_of(tmp_path / "out")
    parts = {name: manifest_of(tmp_path / "out" / name) for name in root["splits"]}
    assert "shards" not in root
    assert sum(part["samples"] for part in parts.values()) == root["samples"] == 2500
    for name, row in root["splits"].items():
        assert parts[name]["split"] == name
        assert row["sha256"] == hashlib.sha256((tmp_path / "out" / row["manifest"]).read_bytes()).hexdigest()
    assert 200 < parts["val"]["samples"] < 300
    keys = {name: {sample["__key__"] for sample in read_back(tmp_path / "out" / name)} for name in parts}
    assert not keys["train"] & keys["val"]
    assert cli("write", "rows.jsonl", "out", "--split", "train=0.9,val=0.1", "--max-count", "1000").code == 0
    # A finished split dataset is one source again.
    assert cli("write", "out", "joined").code == 0
    assert len(read_back(tmp_path / "joined")) == 2500


def test_splits_by_group_and_from_the_data(cli, tmp_path):
    (tmp_path / "g.jsonl").write_text(
        "".join(json.dumps({"who": n % 20, "part": ("train", "test")[n % 2], "n": n}) + "\n" for n in range(400))
    )
    assert cli("write", "g.jsonl", "by", "--split", "a=0.5,b=0.5", "--split-by", "who").code == 0
    groups = [
        {msgpack.unpackb(sample["msgpack"])["who"] for sample in read_back(tmp_path / "by" / name)} for name in "ab"
    ]
    assert groups[0].isdisjoint(groups[1])
    ran = cli("write", "g.jsonl", "from", "--split-from", "part")
    assert ran.code == 0
    assert ran.lines == cli("resolve", "from").lines == ["from/test/shard-000000.tar", "from/train/shard-000000.tar"]
    assert {msgpack.unpackb(s["msgpack"])["n"] % 2 for s in read_back(tmp_path / "from" / "test")} == {1}
    (tmp_path / "h.jsonl").write_text('{"part": "../../up"}\n')
    cli("write", "h.jsonl", "up", "--split-from", "part").failed(1, "h.jsonl:1", "cannot name a split")


def test_stdin_and_commands(cli, rows_file, tmp_path):
    data = rows_file.read_bytes()
    assert cli("write", "-", "a", "--from", "jsonl", "--name", "rows", stdin=data).code == 0
    assert cli("write", "--stdin-from-command", "--from", "jsonl", "b", "--", "cat", "rows.jsonl").code == 0
    assert manifest_of(tmp_path / "a")["name"] == "rows"
    assert manifest_of(tmp_path / "b")["name"] == "dataset"
    assert tree(tmp_path / "a")["shard-000000.tar"] == tree(tmp_path / "b")["shard-000000.tar"]
    cli("write", "--stdin-from-command", "--from", "jsonl", "c", "--", "sh", "-c", "head -5 rows.jsonl; exit 3").failed(
        1, "3"
    )
    assert not list((tmp_path / "c").rglob("*")) if (tmp_path / "c").exists() else True
    cli("write", "-", "d", stdin=data).failed(2, "--from")


def test_fields_that_turn_up_late_are_known_from_the_start(cli, tmp_path):
    late = [{"a": number} for number in range(12_000)] + [{"a": 1, "late": "x"}]
    (tmp_path / "late.jsonl").write_text("".join(json.dumps(row) + "\n" for row in late))
    assert cli("write", "late.jsonl", "out", "--max-count", "5000").code == 0
    samples = [msgpack.unpackb(sample["msgpack"]) for sample in read_back(tmp_path / "out")]
    assert samples == [{"a": number, "late": None} for number in range(12_000)] + [{"a": 1, "late": "x"}]
    ran = cli("write", "-", "s", "--from", "jsonl", stdin=(tmp_path / "late.jsonl").read_bytes())
    ran.failed(1, "12001", "late", "--fields")
    assert not list((tmp_path / "s").rglob("*")) if (tmp_path / "s").exists() else True


def test_embedded_files_and_nothing_outside(cli, photos, tmp_path):
    table = [{"image": f"photos/cat/{number:02d}.jpg", "label": number} for number in range(0, 30, 2)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    assert cli("write", "t.jsonl", "out", "--embed", "image").code == 0
    samples = read_back(tmp_path / "out")
    for sample, row in zip(samples, table, strict=True):
        assert sample["jpg"] == (tmp_path / row["image"]).read_bytes()
        assert json.loads(sample["json"]) == {"label": row["label"]}
    for hostile in ("../secret.jpg", "/etc/passwd", "link.jpg", "photos/none.jpg"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "secret.jpg").write_bytes(b"secret")
        link = tmp_path / "data" / "link.jpg"
        if not link.exists():
            link.symlink_to("../secret.jpg")
        (tmp_path / "data" / "h.jsonl").write_text(json.dumps({"image": hostile}) + "\n")
        cli("write", "data/h.jsonl", "bad", "--embed", "image").failed(1, "data/h.jsonl:1", hostile)
        assert not (tmp_path / "bad").exists()
    assert cli("write", "data/h.jsonl", "none", "--embed", "image", "--on-error", "skip", "--allow-empty").code == 7


def test_a_table_joined_to_a_folder(cli, photos, tmp_path):
    for path in photos.rglob("*.json"):
        path.unlink()
    lines = ["file,label,score"] + [
        f"{p.relative_to(photos)},{p.parent.name},0.5" for p in sorted(photos.rglob("*.jpg"))
    ]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    assert cli("write", "photos", "out", "--join", "labels.csv", "--on", "file").code == 0
    samples = read_back(tmp_path / "out")
    assert len(samples) == 30
    assert json.loads(samples[0]["json"]) == {"label": "cat", "score": 0.5}
    cli("write", "photos", "on", "--join", "labels.csv", "--on", "nope").failed(2, "--on: no row has 'nope'", "'score'")
    ran = cli("write", "photos", "labels.csv", "both")
    ran.failed(2, "--join")


def test_resharding_keeps_samples(cli, rows_file, photos, tmp_path):
    for source in ("rows.jsonl", "photos"):
        assert cli("write", source, f"1-{source}", "--max-count", "13").code == 0
        assert cli("write", f"1-{source}", f"2-{source}", "--max-count", "7").code == 0
        one, two = read_back(tmp_path / f"1-{source}"), read_back(tmp_path / f"2-{source}")
        for sample in one + two:
            sample.pop("__url__")
            sample.pop("__local_path__", None)
        assert one == two
        before, after = manifest_of(tmp_path / f"1-{source}"), manifest_of(tmp_path / f"2-{source}")
        assert before["fields"] == after["fields"]
        assert before["schema"] == after["schema"]
        assert before["encoding"] == after["encoding"]


def test_rejects_are_listed_skipped_and_counted(cli, tmp_path):
    good = [json.dumps({"n": number}) for number in range(20)]
    bad = {3: "{broken", 8: "[1, 2]", 11: '{"n": 123456789012345678901234567890}', 17: '{"n": "\\ud800"}'}
    for line, text in bad.items():
        good[line - 1] = text
    (tmp_path / "r.jsonl").write_text("\n".join(good) + "\n")
    ran = cli("write", "r.jsonl", "out")
    ran.failed(1, "4 samples cannot be written", "--on-error skip")
    for line in bad:
        assert f"r.jsonl:{line}: " in ran.err
    assert not (tmp_path / "out").exists()
    ran = cli("write", "r.jsonl", "out", "--on-error", "skip", "--rejects", "bad.jsonl")
    assert ran.code == 7
    rejects = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [reject["where"] for reject in rejects] == [f"r.jsonl:{line}" for line in bad]
    assert rejects[0]["record"] == "{broken"
    assert all(reject["reason"] for reject in rejects)
    manifest = manifest_of(tmp_path / "out")
    assert (manifest["samples"], manifest["rejected"]) == (16, 4)
    # Rejected records keep their number, so that the others' keys stay.
    assert [sample["__key__"] for sample in read_back(tmp_path / "out")][:4] == [f"{n:010d}" for n in (0, 1, 3, 4)]
    cli("write", "r.jsonl", "max", "--on-error", "skip", "--max-errors", "2").failed(1, "--max-errors")
    told = cli("write", "r.jsonl", "told", "--on-error", "skip", "--json").document["rejects"]
    assert told == [{"where": reject["where"], "reason": reject["reason"]} for reject in rejects]
    (tmp_path / "many.jsonl").write_text("{}\n" + "broken\n" * 14)
    ran = cli("write", "many.jsonl", "few", "--on-error", "skip")
    assert ran.err.endswith("14 samples rejected (4 not shown; --rejects FILE keeps all)\n")
    (tmp_path / "n.jsonl").write_text("1\n" * 3000)
    cli("write", "n.jsonl", "n").failed(1, "n.jsonl:1: the first 1,000 samples", "there may be more")


def test_keys_from_fields_and_templates(cli, tmp_path):
    (tmp_path / "k.jsonl").write_text("".join(json.dumps({"id": f"x{n}", "n": n}) + "\n" for n in range(5)))
    assert cli("write", "k.jsonl", "a", "--key", "id").code == 0
    assert [sample["__key__"] for sample in read_back(tmp_path / "a")] == [f"x{n}" for n in range(5)]
    assert cli("write", "k.jsonl", "b", "--key", "{stem}/{id}-{row}").code == 0
    assert read_back(tmp_path / "b")[2]["__key__"] == "k/x2-0000000002"
    cli("write", "k.jsonl", "c", "--key", "{id.__class__}").failed(2)
    (tmp_path / "d.jsonl").write_text('{"id": "a"}\n{"id": "b"}\n{"id": "a"}\n{"id": "x.y"}\n{"id": null}\n')
    ran = cli("write", "d.jsonl", "d", "--key", "id")
    ran.failed(1, "3 samples cannot be written")
    assert "d.jsonl:3: duplicate key 'a', first at d.jsonl:1" in ran.err
    assert "d.jsonl:4: " in ran.err
    assert "x_y" in ran.err
    (tmp_path / "own.jsonl").write_text('{"__key__": "mine", "n": 1}\n{"__key__": "yours", "n": 2}\n')
    assert cli("write", "own.jsonl", "own").code == 0
    assert [sample["__key__"] for sample in read_back(tmp_path / "own")] == ["mine", "yours"]


def test_dry_run_plans_and_writes_nothing(cli, rows_file, photos, tmp_path):
    for source, options in (("rows.jsonl", ["--max-count", "900"]), ("photos", ["--max-size", "20K"])):
        plan = cli("write", source, "out", *options, "--dry-run", "--json")
        assert plan.code == 0, plan.err
        assert not (tmp_path / "out").exists()
        real = cli("write", source, "out", *options, "--json")
        for document in (planned := plan.document, written := real.document):
            for shard in document["shards"]:
                shard.pop("sha256")
        assert planned.pop("uploaded") == {"shards": 0, "bytes": 0}
        assert written.pop("uploaded")["bytes"] == written["bytes"]
        assert planned.pop("status") == "planned"
        assert written.pop("status") == "written"
        assert planned == written
        subprocess.run(["rm", "-r", tmp_path / "out"], check=True)
    told = cli("write", "photos", "out", "--max-count", "8", "-n")
    assert told.lines == [f"out/shard-{number:06d}.tar" for number in range(4)]
    for word in ("30 samples in 4 shards", "tar overhead", "cat/00 … cat/14", "--max-count"):
        assert word in told.err
    (tmp_path / "bad.jsonl").write_text("{nope\n")
    cli("write", "bad.jsonl", "out", "-n").failed(1, "bad.jsonl:1")


def test_a_given_schema_converts_and_checks(cli, tmp_path):
    schema = {
        "type": "object",
        "properties": {
            "zip": {"type": "string"},
            "n": {"type": "integer", "minimum": 0},
            "blob": {"type": "string", "format": "byte"},
            "vector": {
                "$ref": "https://alt.science/schemas/atdata-ndarray-bytes/1.0.0#/$defs/ndarray",
                "dtype": "float32",
            },
        },
        "required": ["n"],
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    (tmp_path / "s.jsonl").write_text('{"n": 1, "zip": "007", "blob": "aGk=", "vector": [1, 2.5]}\n{"n": 2}\n')
    assert cli("write", "s.jsonl", "out", "--schema", "schema.json").code == 0
    first, second = (msgpack.unpackb(sample["msgpack"]) for sample in read_back(tmp_path / "out"))
    assert first == {"zip": "007", "n": 1, "blob": b"hi", "vector": b"\x03<f4\x01\x02" + b"\0" * 7 + b"\0\0\x80?\0\0 @"}
    assert second == {"zip": None, "n": 2, "blob": None, "vector": None}
    assert manifest_of(tmp_path / "out")["schema"] == schema
    (tmp_path / "t.jsonl").write_text('{"n": -1}\n')
    cli("write", "t.jsonl", "bad", "--schema", "schema.json").failed(1, "t.jsonl:1", "field n")
    (tmp_path / "z.csv").write_text("zip,n\n007,1\n")
    assert cli("write", "z.csv", "csv", "--schema", "schema.json").code == 0
    assert msgpack.unpackb(read_back(tmp_path / "csv")[0]["msgpack"])["zip"] == "007"


def test_lists_of_sources(cli, tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"from": name}) + "\n")
    (tmp_path / "list").write_text("b.jsonl\na.jsonl\n")
    (tmp_path / "list0").write_bytes(b"b.jsonl\0a.jsonl\0")

    def order(out: str) -> list[str]:
        return [msgpack.unpackb(sample["msgpack"])["from"] for sample in read_back(tmp_path / out)]

    assert cli("write", "--files-from", "list", "l").code == 0
    assert order("l") == ["b", "a"]
    assert cli("write", "--files0-from", "-", "l0", stdin=(tmp_path / "list0").read_bytes()).code == 0
    assert order("l0") == ["b", "a"]
    assert cli("write", "*.jsonl", "g").code == 0
    assert order("g") == ["a", "b"]
    assert cli("write", "{b,a}.jsonl", "br").code == 0
    assert order("br") == ["b", "a"]


def test_files_of_several_folders(cli, photos, tmp_path):
    chosen = sorted(photos.glob("*/*.jpg"), reverse=True)
    keys = [str(path.relative_to(photos).with_suffix("")) for path in chosen]
    listed = "".join(f"photos/{key}.jpg\0" for key in keys).encode()
    assert cli("write", "--files0-from", "-", "l", "--json", stdin=listed).document["name"] == chosen[0].stem
    assert [sample["__key__"] for sample in read_back(tmp_path / "l")] == keys
    assert cli("write", *map(str, chosen), "l", "--json").document["status"] == "unchanged"
    assert cli("write", "photos/*/*.jpg", "g").code == 0
    assert [sample["__key__"] for sample in read_back(tmp_path / "g")] == keys[::-1]


def test_output_modes(cli, rows_file, tmp_path):
    ran = cli("write", "rows.jsonl", "q", "--quiet")
    assert (ran.code, ran.err, ran.out) == (0, "", "")
    document = cli("write", "rows.jsonl", "j", "--json").document
    assert document["status"] == "written"
    assert document["manifest"] == "j/manifest.json"
    assert [shard["url"] for shard in document["shards"]] == ["j/shard-000000.tar"]
    failed = cli("write", "nothing.jsonl", "x", "--json")
    error = json.loads(failed.err.strip().splitlines()[-1])["error"]
    assert (failed.code, error["exit"], error["code"], error["url"]) == (3, 3, "not-found", "nothing.jsonl")
    assert "\x1b" not in cli("write", "rows.jsonl", "f", env={"FORCE_COLOR": "1", "GITHUB_ACTIONS": "1"}).out
    assert "\x1b" not in cli("write", "--help", env={"FORCE_COLOR": "1", "GITHUB_ACTIONS": "1"}).out


@pytest.mark.parametrize("arguments", [["--help"], ["write", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(cli, arguments):
    heavy = "s3fs aiobotocore botocore atproto webdataset numpy pyarrow fsspec orjson msgpack zstandard rich asyncio"
    program = f"""
import sys
sys.argv = ["atdata-cli", *{arguments}]
from atdata_cli.__main__ import main
try:
    main()
except SystemExit:
    pass
print("HEAVY", sorted(set("{heavy} fastjsonschema pydantic".split()) & set(sys.modules)), file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "HEAVY []" in ran.stderr


def test_a_shard_of_another_size_than_its_manifest_says_is_no_source(cli, rows_file, tmp_path):
    assert cli("write", "rows.jsonl", "one").code == 0
    with (tmp_path / "one" / "shard-000000.tar").open("ab") as shard:
        shard.write(bytes(512))
    cli("write", "one", "two").failed(6, "shard-000000.tar", "bytes")
    assert not (tmp_path / "two").exists()


def test_a_folder_whose_names_tell_nothing_needs_a_format(cli, rows_file, tmp_path):
    (tmp_path / "parts").mkdir()
    for number in range(2):
        (tmp_path / "parts" / f"part-{number:05d}").write_bytes(rows_file.read_bytes())
    assert cli("write", "parts", "out", "--from", "jsonl").code == 0
    assert manifest_of(tmp_path / "out")["samples"] == 5000


def test_only_wanted_fields_of_a_folder_are_looked_at(cli, photos, tmp_path):
    (photos / "cat" / "00.JSON").write_text("{}")
    cli("write", "photos", "all").failed(1, "differ")
    assert cli("write", "photos", "out", "--fields", "jpg").code == 0
    assert manifest_of(tmp_path / "out")["fields"].keys() == {"jpg"}
