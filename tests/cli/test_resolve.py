"""``atdata-cli resolve``: forms, exit codes, files, datasets on disk and on a web server."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from braceexpand import braceexpand

from tests.cli.conftest import environment
from tests.unit.test_http_store import Plain, serve


@pytest.fixture
def data(cli, rows_file, tmp_path) -> Path:
    """A dataset of three shards, and one of two splits."""
    assert cli("write", "rows.jsonl", "out", "--max-count", "1000").code == 0
    assert cli("write", "rows.jsonl", "parts", "--max-count", "500", "--split", "train=0.8,val=0.2").code == 0
    return tmp_path


SHARDS = [f"out/shard-{number:06d}.tar" for number in range(3)]


def test_every_kind_of_reference(cli, data):
    for refs in (
        ["out"],
        ["out/"],
        ["out/manifest.json"],
        ["out/*.tar"],
        ["out/shard-{000000..000002}.tar"],
        SHARDS,
        ["out/shard-000000.tar", "out/shard-00000[12].tar"],
    ):
        ran = cli("resolve", *refs)
        assert (ran.code, ran.err) == (0, ""), refs
        assert [os.path.normpath(line) for line in ran.lines] == SHARDS, refs
    assert cli("resolve", data / "out").lines == [str(data / shard) for shard in SHARDS]
    assert cli("resolve", f"file://{data}/out").lines == [str(data / shard) for shard in SHARDS]
    assert cli("resolve", "out", "--canonical").lines == SHARDS
    assert cli("resolve", "out/shard-000001.tar", "parts", "out").lines[:1] == SHARDS[1:2]
    (data / "run:7.tar").write_bytes((data / SHARDS[0]).read_bytes())
    assert cli("resolve", "run:7.tar", "--check").lines == ["./run:7.tar"]


def test_splits_come_in_the_order_of_the_manifest(cli, data):
    manifest = json.loads((data / "parts" / "manifest.json").read_text())
    lines = cli("resolve", "parts").lines
    assert list(dict.fromkeys(line.split("/")[1] for line in lines)) == list(manifest["splits"])
    for split, row in manifest["splits"].items():
        chosen = cli("resolve", "parts", "--split", split).lines
        assert chosen == [line for line in lines if line.startswith(f"parts/{split}/")]
        assert len(chosen) == row["shards"]
    cli("resolve", "parts", "--split", "test").failed(3, "'test'", "train, val")
    cli("resolve", "out", "--split", "train").failed(3, "out", "no splits")


def test_forms(cli, data):
    assert cli("resolve", "out", "--format", "lines").lines == SHARDS
    assert cli("resolve", "out", "--format", "braces").lines == ["out/shard-{000000..000002}.tar"]
    patterns = cli("resolve", "parts", "--format", "braces").lines
    assert [url for line in patterns for url in braceexpand(line)] == cli("resolve", "parts").lines
    assert cli("resolve", "out", "--format", "wds").lines == ["{" + ",".join(SHARDS) + "}"]
    assert cli("resolve", SHARDS[0], "--format", "wds").lines == SHARDS[:1]
    assert cli("resolve", "out", "-0").out == "".join(f"{shard}\0" for shard in SHARDS)
    assert cli("resolve", "out", "-0", "--format", "wds").out == "{" + ",".join(SHARDS) + "}\0"

    told = cli("resolve", "parts", "--json").document
    assert told == cli("resolve", "parts", "--format", "json").document
    assert [shard["url"] for shard in told["shards"]] == cli("resolve", "parts").lines
    manifest = json.loads((data / "parts" / "train" / "manifest.json").read_text())
    for shard, row in zip(told["shards"], manifest["shards"], strict=False):
        assert shard == {
            "url": f"parts/train/{row['name']}",
            "canonical": f"parts/train/{row['name']}",
            "split": "train",
            "samples": row["samples"],
            "bytes": row["bytes"],
            "sha256": row["sha256"],
            "expires": None,
        }


def test_wrong_usage(cli, data):
    for arguments, words in (
        (["@local"], ["names a whole index", "@local/NAME"]),
        (["@alice.example.org"], ["names a whole index"]),
        (["-"], ["standard input"]),
        (["pipe:cat x.tar"], ["refused"]),
        (["out", "--format", "json", "-0"], ["--null"]),
        (["out", "--canonical", "--expires", "1h"], ["--expires"]),
        (["out", "--store-option", "x"], ["KEY=VALUE"]),
    ):
        cli("resolve", *arguments).failed(2, *words)
    for expires in ("8d", "169h", "0s", "0", "h", "1w", "-1h"):
        ran = cli("resolve", "out", f"--expires={expires}")
        assert (ran.code, ran.out) == (2, ""), expires
    for expires in ("90", "90s", "15m", "1h", "7d"):
        assert cli("resolve", "out", "--expires", expires).code == 0
    ran = cli("resolve", "out", "--json", "--format", "wds")
    assert (ran.code, ran.out) == (2, "")
    assert json.loads(ran.err.splitlines()[-1])["error"]["exit"] == 2


def test_what_is_not_there(cli, data):
    cli("resolve", "nowhere").failed(3, "nowhere")
    cli("resolve", "out/*.tgz").failed(3, "out/*.tgz")
    cli("resolve", "out/shard-{000000..000003}.tar").failed(3, "out/shard-000003.tar")
    (data / "out" / "manifest.json").rename(data / "m")
    (data / "out" / ".atdata").mkdir()
    (data / "out" / ".atdata" / "job.json").write_text("{}")
    cli("resolve", "out").failed(6, "unfinished")


def test_the_file_is_for_its_owner_and_appears_whole(cli, data):
    target = data / "urls"
    target.write_text("old")
    target.chmod(0o644)
    (data / "link").symlink_to("urls")
    ran = cli("resolve", "out", "-o", "link")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert target.read_text().splitlines() == SHARDS
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert (data / "link").is_symlink()
    assert cli("resolve", "out", "--output", "-").lines == SHARDS
    assert cli("resolve", "out", "--output", "/dev/stdout").lines == SHARDS
    cli("resolve", "out", "-o", "no/such/folder").failed(3, "no/such/folder")
    cli("resolve", "out", "-o", "parts").failed(2, "parts")
    cli("resolve", "nowhere", "-o", "urls").failed(3)
    assert target.read_text().splitlines() == SHARDS
    assert not list(data.glob(".urls*"))


def test_check_names_every_shard_that_does_not_open(cli, data):
    assert cli("resolve", "out", "--check").lines == SHARDS
    assert cli("resolve", "out", "--check", "--canonical", "-v").err == "3 shards opened\n"
    whole = (data / SHARDS[1]).read_bytes()
    (data / SHARDS[1]).write_bytes(whole[:-512])
    cli("resolve", "out", "--check").failed(6, SHARDS[1], "manifest")
    (data / SHARDS[1]).write_bytes(b"<" * len(whole))
    cli("resolve", "out", "--check").failed(6, SHARDS[1], "tar")
    cli("resolve", "out/*.tar", "--check").failed(6, SHARDS[1], "tar")
    (data / SHARDS[0]).unlink()
    ran = cli("resolve", "out", "--check")
    ran.failed(6, "2 shards of 3")
    assert [line.split(":")[0] for line in ran.err.splitlines()[:2]] == SHARDS[:2]
    (data / SHARDS[1]).write_bytes(whole)
    cli("resolve", "out", "--check").failed(6, SHARDS[0], "not there")
    assert cli("resolve", "out").code == 0


def test_names_that_no_line_can_hold(cli, data):
    odd = data / "od\nd"
    (data / "out").rename(odd)
    cli("resolve", "od\nd").failed(2, "line break", "-0")
    assert cli("resolve", "od\nd", "-0").out.split("\0")[0] == "od\nd/shard-000000.tar"
    assert cli("resolve", "od\nd", "--json").document["shards"][0]["url"] == "od\nd/shard-000000.tar"
    raw = os.fsdecode(b"b\xff")
    odd.rename(data / raw)
    ran = subprocess.run(
        [Path(sys.executable).with_name("atdata-cli"), "resolve", raw],
        cwd=data,
        env=environment(data / "home"),
        capture_output=True,
        check=True,
    )
    assert ran.stdout.splitlines()[0] == b"b\xff/shard-000000.tar"
    assert cli("resolve", raw, "--json").document["shards"][0]["url"] == f"{raw}/shard-000000.tar"


def test_datasets_on_a_web_server(cli, data):
    server, root = serve(lambda *args: Plain(*args, directory=str(data)))
    try:
        urls = [f"{root}/{shard}" for shard in SHARDS]
        assert cli("resolve", f"{root}/out/", "--check").lines == urls
        assert cli("resolve", f"{root}/out/manifest.json").lines == urls
        assert cli("resolve", f"{root}/out/shard-{{000000..000002}}.tar", "--format", "braces").lines == [
            f"{root}/out/shard-{{000000..000002}}.tar"
        ]
        signed = [f"{url}?X-Amz-Signature=secret" for url in urls]
        assert cli("resolve", *signed, "--check").lines == signed
        (data / SHARDS[2]).write_bytes(b"no tar")
        ran = cli("resolve", *signed, "--check", "-v")
        ran.failed(6, SHARDS[2])
        assert "secret" not in ran.err
    finally:
        server.shutdown()
        server.server_close()


def test_a_dataset_on_disk_needs_no_heavy_library(data):
    heavy = {
        "s3fs",
        "fsspec",
        "aiobotocore",
        "botocore",
        "numpy",
        "webdataset",
        "pyarrow",
        "atproto",
        "aiohttp",
        "rich",
    }
    program = (
        "import sys; sys.argv = ['atdata-cli', *sys.argv[1:]]\n"
        "from atdata_cli.cli.app import main\n"
        "try: main()\n"
        f"finally: print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    for arguments in (["out"], ["out", "--format", "braces"], ["out", "--format", "wds"], ["--help"]):
        ran = subprocess.run(
            [sys.executable, "-c", program, "resolve", *arguments],
            cwd=data,
            env=environment(data / "home", {"PYTHONPATH": str(Path(__file__).parents[2])}),
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stderr == "[]\n"


@pytest.mark.parametrize(
    "cid", ["bafkreid2my", "bafkreibnoelefnzgwbcacyt4vh52ymxvzbjq7mmqhtcnwarfq4lzegsiqb", "bafyreid" + "a" * 51]
)
@pytest.mark.parametrize("command", ["resolve", "inspect", "write"])
def test_a_blob_that_none_can_be_is_told_without_asking(cli, command, cid):
    blob = f"at://did:plc:{'a' * 24}/blob/{cid}"
    ran = cli(command, blob, *(["out"] if command == "write" else []), env={"ATDATA_PLC_URL": "http://127.0.0.1:9"})
    ran.failed(2, "no CID", "copy it whole")
