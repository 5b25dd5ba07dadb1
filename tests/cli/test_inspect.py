"""``atdata-cli inspect``: with a manifest, without one, single samples."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import tarfile
from pathlib import Path

import pexpect
import pytest

from tests.cli.conftest import COMMAND, environment, rows


@pytest.fixture
def datasets(cli, photos, rows_file) -> None:
    assert cli("write", "photos", "p", "--max-count", "8").code == 0
    assert cli("write", "rows.jsonl", "r", "--max-count", "1000").code == 0


def test_a_dataset_answers_from_its_manifest(cli, datasets, tmp_path):
    told = cli("inspect", "p", "--json").document
    assert (told["name"], told["scanned"], told["samples"], told["encoding"]) == ("photos", False, 30, "files")
    assert [shard["samples"] for shard in told["shards"]] == [8, 8, 8, 6]
    assert told["fields"]["jpg"]["samples"] == 30
    assert told["fields"]["json"]["example"] == '{"label": "cat", "n": 0}'
    assert 0 < told["overhead"] < 1
    for ref in ("p/", "p/manifest.json"):
        assert cli("inspect", ref, "--json").document["samples"] == 30
    assert cli("inspect", "r", "--json").document["fields"]["id"]["range"] == [0, 2499]


def test_the_headers_tell_the_same_without_a_manifest(cli, datasets, tmp_path):
    for name in ("p", "r"):
        told = cli("inspect", name, "--json").document
        for ref in (f"{name}/*.tar", f"{name}/shard-{{000000..{len(told['shards']) - 1:06d}}}.tar"):
            scanned = cli("inspect", ref, "--json").document
            assert scanned["scanned"]
            for total in ("samples", "bytes", "payload", "encoding", "overhead"):
                assert scanned[total] == told[total], (ref, total)
            for one, other in zip(scanned["shards"], told["shards"], strict=True):
                assert {k: one[k] for k in ("samples", "bytes", "first_key", "last_key")} == {
                    k: other[k] for k in ("samples", "bytes", "first_key", "last_key")
                }
    assert cli("inspect", "p/*.tar", "--json").document["fields"] == cli("inspect", "p", "--json").document["fields"]
    (tmp_path / "p" / "manifest.json").unlink()
    assert cli("inspect", "p", "--json").document["samples"] == 30


def test_any_number_of_jobs_finds_the_same(cli, tmp_path):
    (tmp_path / "made").mkdir()
    content = bytes(700)
    for name, first, last in (("a", 0, 9_000), ("b", 9_000, 45_000)):
        with tarfile.open(tmp_path / "made" / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(first, last):
                info = tarfile.TarInfo(f"{number // 2:06d}.{'cls' if number % 2 else 'txt'}")
                info.size = number % 700
                tar.addfile(info, io.BytesIO(content))
    assert (tmp_path / "made" / "b.tar").stat().st_size > 32 << 20
    told = [cli("inspect", "made", "--json", "-j", jobs).document for jobs in ("1", "2", "5")]
    assert told[0]["samples"] == 22_500
    assert told[1] == told[2] == told[0]


def test_samples_and_fields(cli, datasets, photos):
    first = cli("inspect", "r", "--head", "3", "--json").document["samples"]
    assert [sample["fields"] for sample in first] == rows(3)
    assert [sample["key"] for sample in first] == ["0000000000", "0000000001", "0000000002"]
    plain = cli("inspect", "r", "--key", "0000001234")
    assert plain.lines[0] == "0000001234"
    assert '"naïve café 1234 🐈"' in plain.out
    home = Path(photos).parent
    ran = subprocess.run(
        [COMMAND, "inspect", "p", "--key", "dog/07", "--field", "jpg"], cwd=home, capture_output=True, check=True
    )
    assert ran.stdout == (photos / "dog" / "07.jpg").read_bytes()
    assert cli("inspect", "r", "--key", "0000000007", "--field", "text").out == rows(8)[7]["text"]
    assert cli("inspect", "r", "--key", "0000000008", "--field", "tags").out == '["a","b"]\n'
    cli("inspect", "r", "--key", "nope").failed(3, "nope")
    cli("inspect", "r", "--key", "0000000008", "--field", "nope").failed(3, "nope", "tags")
    cli("inspect", "r", "--field", "x").failed(2, "--key")
    ran = cli("inspect", "r", "--key", "0000000007", "--field", "text", "--json")
    assert (ran.code, ran.out) == (2, "")
    assert "--key KEY --json" in json.loads(ran.err)["error"]["hint"]


def test_what_cannot_be_inspected(cli, datasets, tmp_path):
    cli("inspect", "nothing").failed(3, "nothing")
    cli("inspect", "photos").failed(3, "photos", "no shards")
    cli("inspect", "pipe:cat x").failed(2, "pipe")
    cli("inspect", "rows.jsonl").failed(2, "rows.jsonl", "these are rows", "write rows.jsonl DEST")
    (tmp_path / "u" / ".atdata").mkdir(parents=True)
    (tmp_path / "u" / ".atdata" / "job.json").write_text("{}")
    cli("inspect", "u").failed(6, "unfinished")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "p" / "shard-000000.tar").read_bytes()[:3000])
    cli("inspect", "cut.tar").failed(6, "cut.tar", "truncated")


def test_names_from_data_carry_no_escapes(cli, tmp_path):
    with tarfile.open(tmp_path / "h.tar", "w") as archive:
        info = tarfile.TarInfo("a\x1b[31mb.t\x1b]0;x\x07xt")
        archive.addfile(info)
        archive.addfile(tarfile.TarInfo("ok.txt"))
    for arguments in (["h.tar"], ["h.tar", "--head", "2"], ["h.tar", "--json"]):
        ran = cli("inspect", *arguments)
        assert "\x1b" not in ran.out + ran.err
        assert "\x07" not in ran.out + ran.err
    (tmp_path / "e.jsonl").write_text(json.dumps({"t": "\x1b[2Jgone"}) + "\n")
    assert cli("write", "e.jsonl", "e").code == 0
    assert "\x1b" not in cli("inspect", "e").out + cli("inspect", "e", "--head", "1").out


def test_a_splits_dataset_and_one_of_its_parts(cli, rows_file):
    assert cli("write", "rows.jsonl", "s", "--split", "a=0.5,b=0.5").code == 0
    told = cli("inspect", "s", "--json").document
    assert sum(told["splits"].values()) == told["samples"] == 2500
    assert {shard["split"] for shard in told["shards"]} == {"a", "b"}
    assert cli("inspect", "s/a", "--json").document["samples"] == told["splits"]["a"]


@pytest.mark.parametrize(
    ("columns", "fields", "shards"),
    [
        (120, ["field", "kind", "samples", "range", "schema", "example"], ["shard", "samples", "size", "keys"]),
        (80, ["field", "kind", "samples", "range", "schema", "example"], ["shard", "samples", "size", "keys"]),
        (60, ["field", "kind", "samples", "range", "schema"], ["shard", "samples", "size", "keys"]),
        (40, ["field", "kind", "schema"], ["shard", "samples"]),
    ],
)
def test_on_a_narrow_terminal_columns_go_and_nothing_wraps(cli, tmp_path, columns, fields, shards):
    lines = [{"id": n, "tags": ["a"] if n else None, "text": f"Line {n} of a text that is long"} for n in range(9)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert cli("write", "rows.jsonl", "s", "--split", "train=0.5,val=0.5").code == 0
    env = environment(tmp_path, {"TERM": "xterm"})
    command = [str(COMMAND), "inspect", "s"]
    shown = pexpect.run(shlex.join(command), cwd=tmp_path, env=env, dimensions=(50, columns)).decode()
    text = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()]
    assert all(len(line) <= columns for line in text)
    head = next(number for number, line in enumerate(text) if line.startswith("field"))
    assert text[head].split() == fields
    rows = {row[0]: row[1:] for row in (re.split("  +", line) for line in text[head + 1 : head + 4])}
    assert list(rows) == ["id", "tags", "text"]
    assert rows["tags"][0] == "list of string"
    assert rows["tags"][fields.index("schema") - 1] == "array|null"
    assert rows["text"][-1].endswith('is long"') == (columns == 120)
    assert rows["text"][-1].endswith("…") == (columns == 80)
    assert text[head + 5].split() == shards
    assert [line.split()[0] for line in text[head + 6 :]] == ["s/train/shard-000000.tar", "s/val/shard-000000.tar"]


def test_the_schema_in_plain_text(cli, datasets, tmp_path):
    told = cli("inspect", "p").lines
    assert next(re.split("  +", line)[4] for line in told if line.startswith("json ")) == "base64 string"
    (tmp_path / "o.json").write_text(
        '{"properties": {"id": {"type": "integer"}, "tags": {"enum": [1]}}, "required": ["id"]}'
    )
    (tmp_path / "o.jsonl").write_text('{"id": 1, "tags": 1}\n')
    assert cli("write", "o.jsonl", "o", "--schema", "o.json").code == 0
    rows = [re.split("  +", line) for line in cli("inspect", "o").lines]
    assert {row[0]: row[4] for row in rows if row[0] in ("id", "tags")} == {
        "id": "integer",
        "tags": "enum, optional",
    }
