"""Runs on machines that lack something, or change under their feet: one line says what, and nothing is damaged.

What was finished stays, so that the same command goes on from there as soon as it can.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atdata_cli.stores.testing import pattern
from tests.cli.test_write import tree
from tests.cli.test_write_s3 import objects
from tests.e2e.test_interrupts import uploads
from tests.torture.conftest import longer
from tests.torture.runs import Tool

MIB = 1 << 20
ARGUMENTS = ("--max-count", "4", "--no-progress")


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.fail(f"this test needs the right to mount a tmpfs: {mounted.stderr!r}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def source(tool: Tool) -> Path:
    """12 samples of 300 kB: three shards of 1.2 MB."""
    folder = tool.folder / "src"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02d}.bin").write_bytes(pattern(300_000, seed=number))
    return folder


@pytest.fixture
def whole(tool: Tool, source: Path) -> dict[str, bytes]:
    """What has to come out in the end."""
    assert tool("write", "src", "whole", *ARGUMENTS).code == 0
    return tree(tool.folder / "whole")


def unfinished(tool: Tool, dest: str, shards: set[str]) -> None:
    """Assert that nobody takes what is there for a dataset, that these shards are there, and no temporary file."""
    tool("inspect", dest, "--verify").failed(6, "unfinished")
    left = tree(tool.folder / dest)
    assert {name for name in left if not name.startswith(".atdata/")} == shards
    assert not [name for name in left if name.endswith(".part")]


class TestDisks:
    def test_full(self, tool, whole):
        with disk(tool.folder / "disk", "size=3m"):
            for _ in range(2):
                ran = tool("write", "src", "disk/out", *ARGUMENTS)
                ran.failed(1, "disk/out/shard-000002.tar", "No space left", "free some space", "same command")
                assert len(ran.err.splitlines()) == 1
                unfinished(tool, "disk/out", {"shard-000000.tar", "shard-000001.tar"})
            before = (tool.folder / "disk/out/shard-000000.tar").stat()
            subprocess.run(["mount", "-o", "remount,size=10m", tool.folder / "disk"], check=True)
            ran = tool("write", "src", "disk/out", *ARGUMENTS)
            assert (ran.code, "1 shard uploaded" in ran.err) == (0, True), ran.err
            assert tree(tool.folder / "disk/out") == whole
            assert (tool.folder / "disk/out/shard-000000.tar").stat().st_mtime_ns == before.st_mtime_ns

    @pytest.mark.parametrize("inodes", [4, 7, *longer(5, 6, 8)])
    def test_without_room_for_names(self, tool, whole, inodes):
        """Every file is one, marks and the manifest, too."""
        with disk(tool.folder / "disk", f"size=20m,nr_inodes={inodes}"):
            tool("write", "src", "disk/out", *ARGUMENTS).failed(1, "disk/out", "No space left", "same command")
            assert not [name for name in tree(tool.folder / "disk") if name.endswith(".part")]
            subprocess.run(["mount", "-o", "remount,nr_inodes=100", tool.folder / "disk"], check=True)
            assert tool("write", "src", "disk/out", *ARGUMENTS).code == 0
            assert tree(tool.folder / "disk/out") == whole

    def test_full_while_it_is_updated(self, tool, whole, source):
        with disk(tool.folder / "disk", "size=6m"):
            assert tool("write", "src", "disk/out", *ARGUMENTS).code == 0
            for number in range(0, 12, 4):
                (source / f"{number:02d}.bin").write_bytes(pattern(300_000, seed=100 + number))
            update = ("write", "src", "disk/out", *ARGUMENTS, "--if-exists", "update")
            tool(*update).failed(1, "disk/out/", "No space left")
            assert tool("inspect", "disk/out", "--verify").code == 0
            assert {name: data for name, data in tree(tool.folder / "disk/out").items() if name in whole} == whole
            subprocess.run(["mount", "-o", "remount,size=20m", tool.folder / "disk"], check=True)
            assert "the others were there" in tool(*update).err
            assert tool("inspect", "disk/out", "--verify").code == 0

    def test_a_limit_on_files(self, tool, whole):
        """As a quota is: the file cannot grow, whatever room there is."""
        ran = tool("write", "src", "out", *ARGUMENTS, limits="-f 1500")  # blocks of 512 bytes
        ran.failed(1, "out/shard-000000.tar", "File too large", "--max-size")
        assert tool("write", "src", "out", *ARGUMENTS).code == 0
        assert tree(tool.folder / "out") == whole

    @pytest.mark.parametrize("point", [0.3, 0.6, 0.85])
    def test_read_only_all_at_once(self, tool, whole, source, point):
        """A disk with errors is mounted anew without anybody asking for it."""
        total = tool.kill_at(1 << 60)
        assert tool("write", "src", "measured", *ARGUMENTS, env=total).code == 0
        with disk(tool.folder / "disk", "size=20m"):
            folder = tool.folder / "disk"
            # A mount with files that are open for writing cannot become read-only. A second one that is so already can
            # be put over it, in one step that leaves nobody the time to open a file.
            view = tool.folder / "view"
            view.mkdir()
            subprocess.run(["mount", "--bind", folder, view], check=True)
            try:
                subprocess.run(["mount", "-o", "remount,bind,ro", view], check=True)
                readonly = f"mount --bind {view} {folder}"
                point_in_bytes = int(tool.counted(total) * point)
                ran = tool("write", "src", "disk/out", *ARGUMENTS, env=tool.at(point_in_bytes, readonly))
                ran.failed(1, "disk/out", "Read-only file system", "same command")
                assert "manifest.json" not in tree(folder)
                assert tool("inspect", "disk/out", "--verify").code in (3, 6)
                subprocess.run(["umount", folder], check=True)
            finally:
                subprocess.run(["umount", view], check=True)
            assert tool("write", "src", "disk/out", *ARGUMENTS).code == 0
            assert tree(folder / "out") == whole

    def test_a_stream_that_finds_no_room_to_be_kept(self, tool):
        """Over a dataset each shard of a stream is put aside until it is known whether it is there."""
        (tool.folder / "rows.jsonl").write_text("".join(json.dumps({"x": str(n) * 9000}) + "\n" for n in range(4000)))
        (tool.folder / "other.jsonl").write_text("".join(json.dumps({"x": str(n) * 8999}) + "\n" for n in range(4000)))
        stream = ("write", "-", "out", "--from", "jsonl", "--max-count", "1000", "--if-exists", "update")
        assert tool(*stream, stdin=tool.folder / "rows.jsonl").code == 0
        before = tree(tool.folder / "out")
        with disk(tool.folder / "tmp", "size=5m"):
            ran = tool(*stream, stdin=tool.folder / "other.jsonl", env={"TMPDIR": str(tool.folder / "tmp")})
            ran.failed(1, str(tool.folder / "tmp"), "No space left", "TMPDIR")
            assert tree(tool.folder / "tmp") == {}
        now = tree(tool.folder / "out")
        assert {name: now[name] for name in before} == before
        assert tool(*stream, stdin=tool.folder / "other.jsonl").code == 0
        assert tool("inspect", "out", "--verify").code == 0


@pytest.mark.parametrize("where", ["disk", "s3"])
class TestLimits:
    @pytest.mark.parametrize("files", [8, 14, *longer(6, 7, 9, 10, 11, 12, 13, 15, 16, 18, 20, 24, 28)])
    def test_of_open_files(self, tool, whole, store, s3_bucket, s3_server, where, files):
        self.check(tool, whole, store, s3_bucket, s3_server, where, f"-n {files}")

    @pytest.mark.parametrize("megabytes", [200, *longer(120, 160, 300, 420, 600, 800)])
    def test_of_memory(self, tool, whole, store, s3_bucket, s3_server, where, megabytes):
        self.check(tool, whole, store, s3_bucket, s3_server, where, f"-v {megabytes << 10}")

    def check(self, tool, whole, store, bucket, server, where, limits):
        dest = "out" if where == "disk" else f"s3://{bucket}/out"
        ran = tool("write", "src", dest, *ARGUMENTS, limits=limits)
        if ran.code:
            # A library that ends the process by itself has the last word; one that drops a connection is believed.
            assert (ran.code, ran.out) in ((1, ""), (5, "")), ran.err
            words = ("ulimit", "Memory allocation") if ran.code == 1 else ("again",)
            assert any(word in ran.err.splitlines()[-1] for word in words), ran.err
        assert tool("write", "src", dest, *ARGUMENTS).code == 0
        assert (tree(tool.folder / "out") if where == "disk" else objects(store, "out")) == whole
        assert uploads(server, bucket) == []


CHANGES: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "vanishes": ("rm {0}", 3, ("11.bin", "no such file")),
    "shrinks": ("truncate -s 1000 {0}", 1, ("11.bin", "changed while it was read")),
    "grows": ("truncate -s 400000 {0}", 1, ("11.bin", "changed while it was read")),
    "is replaced": ("head -c 200000 /dev/zero >{0}", 1, ("11.bin", "changed while it was read")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_source_that_changes_while_it_is_read(tool, source, whole, change):
    """Not yet read when it happens; what was finished is of the data as it was, and stays out of sight."""
    command, code, words = CHANGES[change]
    ran = tool("write", "src", "out", *ARGUMENTS, env=tool.at(1_500_000, command.format(source / "11.bin")))
    ran.failed(code, *words)
    assert "manifest.json" not in tree(tool.folder / "out")
    assert tool("inspect", "out", "--verify").code in (3, 6)
    (source / "11.bin").write_bytes(pattern(300_000, seed=11))
    ran = tool("write", "src", "out", *ARGUMENTS)
    assert ran.code == 0, ran.err
    assert tree(tool.folder / "out") == whole


@pytest.mark.parametrize("change", ["truncate -s 3000000 {0}", "rm {0}", "cat {0} >>{0}.new; mv {0}.new {0}"])
def test_rows_that_change_while_they_are_read(tool, change):
    path = tool.folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": n, "text": f"{n:06d}" * 100}) + "\n" for n in range(40_000)))
    text = path.read_bytes()
    ran = tool("write", path, "out", "--max-count", "1000", env=tool.at(1_500_000, change.format(path)))
    if ran.code:  # a file that was replaced or removed is open still, and read to its end
        ran.failed(1, "rows.jsonl")
        assert "manifest.json" not in tree(tool.folder / "out")
    path.write_bytes(text)
    assert tool("write", path, "out", "--max-count", "1000").code == 0
    assert tool("write", path, "whole", "--max-count", "1000").code == 0
    assert tree(tool.folder / "out") == tree(tool.folder / "whole")


@pytest.mark.parametrize("jump", ["+400d", "-400d"])
@pytest.mark.parametrize("where", ["disk", "s3"])
def test_a_clock_that_jumps(tool, whole, store, s3_bucket, where, jump):
    """Into another year and back in the middle of a run: on disk nothing depends on it, S3 does not take signatures."""
    faketime = shutil.which("faketime")
    assert faketime is not None, "this test needs faketime"
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    clock = tool.folder / "clock"
    clock.write_text("+0\n")
    env = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    if where == "disk":
        ran = tool("write", "src", "out", *ARGUMENTS, env={**env, **tool.at(1_500_000, f"echo {jump} >{clock}")})
        assert (ran.code, ran.err.count("\n")) == (0, 1), ran.err
        assert tree(tool.folder / "out") == whole
        again = tool("write", "src", "out", *ARGUMENTS, "--exit-unchanged", env=env)
        assert again.code == 9
    else:
        clock.write_text(f"{jump}\n")
        dest = f"s3://{s3_bucket}/out"
        ran = tool("write", "src", dest, *ARGUMENTS, env=env)
        ran.failed(4, "clock")
        assert objects(store, "out") == {}
        clock.write_text("+0\n")
        assert tool("write", "src", dest, *ARGUMENTS, env=env).code == 0
        assert objects(store, "out") == whole
