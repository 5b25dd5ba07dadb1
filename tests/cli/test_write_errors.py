"""What goes wrong is told in one line, with the right exit code, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, environment, rows


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["photos"], 2, ["SOURCE and DEST"]),
        ([], 2, ["SOURCE and DEST"]),
        (["photos", "out.tar"], 2, ["out.tar", "not a tar"]),
        (["photos", "rows.jsonl"], 2, ["rows.jsonl", "DEST is a file"]),
        (["photos", "-"], 2, ["standard output"]),
        (["photos", "photos/shards"], 2, ["photos/shards", "DEST is inside SOURCE"]),
        (["photos", "photos"], 2, ["DEST is inside SOURCE"]),
        (["photos", "s4://bucket/x"], 2, ["s4", "s3"]),
        (["pipe:cat rows.jsonl", "out"], 2, ["pipe"]),
        (["rows.jsonl", "pipe:cat > x"], 2, ["pipe"]),
        (["missing", "out"], 3, ["missing"]),
        (["*.nothing", "out"], 3, ["*.nothing"]),
        (["empty", "out"], 3, ["empty: there are no samples"]),
        (["empty.jsonl", "out"], 3, ["empty.jsonl: there are no samples"]),
        (["mixed", "out"], 2, ["mixed", "--from"]),
        (["photos", "rows.jsonl", "out"], 2, ["--join"]),
        (["rows.jsonl", "http://localhost:1/x"], 2, ["http"]),
        (["rows.jsonl", "out", "--from", "xml"], 2, ["xml"]),
        (["rows.jsonl", "out", "--name", "a/b"], 2, ["a/b"]),
        (["rows.jsonl", "out", "--fields", "nope"], 2, ["nope"]),
        (["rows.jsonl", "out", "--embed", "imgae"], 2, ["--embed", "imgae", "'text'"]),
        (["rows.jsonl", "out", "--embed", "text", "--fields", "id"], 2, ["--embed", "text"]),
        (["rows.jsonl", "out", "--key", "nope"], 2, ["--key", "nope", "'text'"]),
        (["photos", "out", "--from", "csv"], 1, ["photos"]),
        (["rows.jsonl", "out", "--split-from", "nope"], 2, ["--split-from", "nope"]),
        (["rows.jsonl", "out", "--max-count", "0"], 2, ["--max-count"]),
        (["rows.jsonl", "out", "--shards", "2", "--max-size", "1G"], 2, ["--shards"]),
        (["photos", "out", "--key", "id"], 2, ["--key"]),
        (["rows.jsonl", "out", "--min-samples", "9999"], 3, ["--min-samples"]),
        (["rows.jsonl", "out", "--schema", "photos"], 2, ["photos"]),
        (["rows.jsonl", "out", "--schema", "rows.jsonl"], 2, ["rows.jsonl"]),
        (["rows.jsonl", "out", "--rejects", "nowhere/r.jsonl"], 3, ["nowhere/r.jsonl"]),
        (["rows.jsonl", "out", "--rejects", "-"], 2, ["--rejects"]),
        (["rows.jsonl", "out", "-o", "novalue"], 2, ["KEY=VALUE"]),
        (["rows.jsonl", "out", "-o", "foo=bar"], 2, ["--store-option", "on disk"]),
        (["bad.jsonl", "out"], 1, ["bad.jsonl:2"]),
        (["noext", "out"], 1, ["noext/README"]),
        (["cut.jsonl.gz", "out"], 1, ["cut.jsonl.gz"]),
        (["cut.tar", "out"], 6, ["cut.tar"]),
        (["fifo", "out"], 2, ["fifo"]),
    ],
)
def test_clean_failures(cli, photos, rows_file, tmp_path, arguments, code, words):
    import gzip
    import tarfile

    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a.jpg").write_bytes(b"x")
    (tmp_path / "mixed" / "b.jsonl").write_text("{}")
    (tmp_path / "noext").mkdir()
    (tmp_path / "noext" / "README").write_text("x")
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\nnonsense\n')
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(rows_file.read_bytes())[:5000])
    with tarfile.open(tmp_path / "whole.tar", "w") as archive:
        archive.add(photos, "photos")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[:9000])
    os.mkfifo(tmp_path / "fifo")
    before = everything(tmp_path)
    ran = cli("write", *arguments)
    ran.failed(code, *words)
    assert everything(tmp_path) - before <= {".out", ".err"}


def test_places_that_cannot_be_written(cli, rows_file, tmp_path):
    if os.geteuid() == 0:
        # Root may write anywhere; a folder of /proc is read-only even for it.
        cli("write", "rows.jsonl", "/proc/atdata").failed(3, "/proc/atdata")
    else:
        (tmp_path / "locked").mkdir(mode=0o500)
        cli("write", "rows.jsonl", "locked/out").failed(4, "locked")
    (tmp_path / "file").write_text("x")
    cli("write", "rows.jsonl", "file/below").failed(2, "file")


def test_a_full_disk_leaves_what_is_finished(cli, tmp_path):
    """A small file system of its own: fills up in the middle of the third shard."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        # Without the right to mount, the same refusal comes from a limit on the size of files.
        pytest.fail(f"this test needs the right to mount a tmpfs: {mounted.stderr!r}")
    try:
        (tmp_path / "r.jsonl").write_text("".join(json.dumps({"x": "y" * 900}) + "\n" for _ in range(4000)))
        cli("write", "r.jsonl", "disk/out", "--max-count", "1000").failed(1, "disk/out", "No space left")
        assert {name for name in everything(disk / "out") if not name.startswith(".atdata")} < {
            f"shard-00000{number}.tar" for number in range(4)
        }
        assert cli("abort", "disk/out").code == 0
        assert everything(disk) <= {"out"}
        # Where nothing was finished, nothing stays.
        cli("write", "r.jsonl", "disk/out", "--max-count", "4000").failed(1, "disk/out", "No space left")
        assert everything(disk) <= {"out"}
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_unreadable_file_is_told_before_anything_is_written(cli, photos, tmp_path):
    broken = photos / "cat" / "99.jpg"
    broken.symlink_to("nowhere")
    ran = cli("write", "photos", "out")
    assert ran.code in (0, 1)
    assert "99.jpg" in ran.err or "1 " in ran.err


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_shard(tmp_path, sent):
    home = tmp_path / "home"
    home.mkdir()
    process = subprocess.Popen(
        [COMMAND, "write", "-", "out", "--from", "jsonl", "--max-count", "4000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(home),
    )
    assert process.stdin is not None
    data = "".join(json.dumps(row) + "\n" for row in rows(500) * 36).encode()
    process.stdin.write(data)
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "shard-000001.tar").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(sent)
    out, err = process.communicate(timeout=30)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[sent], err
    assert b"Traceback" not in err
    assert out == b""
    left = everything(tmp_path / "out")
    assert "manifest.json" not in left
    assert not [name for name in left if ".part" in name]
    for name in left:
        if name.startswith(".atdata"):
            continue
        # Shards that were finished are whole.
        assert subprocess.run(["tar", "tf", tmp_path / "out" / name], capture_output=True, check=False).returncode == 0


def test_a_closed_pipe_is_not_an_error_message(cli, rows_file, tmp_path):
    home = tmp_path / "home"
    command = f"{COMMAND} write rows.jsonl out --max-count 1 | head -1; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment(home), capture_output=True, text=True, check=False
    )
    assert ran.stdout == "out/shard-000000.tar\n"
    assert "Traceback" not in ran.stderr
    assert "Broken" not in ran.stderr
    assert ran.returncode in (0, 141)
    assert (tmp_path / "out" / "manifest.json").exists()
