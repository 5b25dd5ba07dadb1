"""Input made to do harm: one line, the right exit code, nothing outside of DEST, no more memory than is known."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import socket
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
import zstandard

from tests import measure
from tests.cli.conftest import Ran
from tests.torture.conftest import longer
from tests.torture.runs import Tool

MB = 10**6
MIB = 1 << 20
MOST = 150 * MB  # of memory, where the input is small
MOST_OF_ROWS = 900 * MB  # with a row as long as one may be, 256 MiB


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with all of it."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, member in MEMBERS.items():
        (folder / f"{name}.tar").write_bytes(b"".join(member_blocks(member)) + bytes(1024))
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    special(folder / "special")
    links(folder / "links.tar")
    for name, opened in (("gz", gz), ("zst", zst)):
        with open(folder / f"bomb.jsonl.{name}", "wb") as file, opened(file) as bomb:
            fill(bomb, 320)
        with open(folder / f"bomb.tar.{name}", "wb") as file, opened(file) as bomb:
            large = tarfile.TarInfo("large.bin")
            large.size = 320 * MIB
            bomb.write(large.tobuf(tarfile.USTAR_FORMAT))
            fill(bomb, 320)
            bomb.write(bytes(1024))
    window = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True, compression_level=1)
    stream = zstandard.ZstdCompressor(compression_params=window).compressobj()
    (folder / "window.jsonl.zst").write_bytes(stream.compress(b'{"a": 1}\n') + stream.flush())
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def gz(file: BinaryIO) -> BinaryIO:
    return gzip.GzipFile("", "wb", 1, file)


def zst(file: BinaryIO) -> BinaryIO:
    return zstandard.ZstdCompressor().stream_writer(file, closefd=False)


def fill(file: BinaryIO, mebibytes: int) -> None:
    for _ in range(mebibytes):
        file.write(bytes(MIB))


def member_blocks(name: bytes) -> Iterable[bytes]:
    """A member, whose name a PAX record holds as it is, and a good one."""
    record = b" path=" + name + b"\n"
    size = len(record) + 1
    while len(str(size)) + len(record) != size:
        size += 1
    body = str(size).encode() + record
    before, member, good = tarfile.TarInfo("pax"), tarfile.TarInfo("short.txt"), tarfile.TarInfo("good.txt")
    before.type, before.size, member.size, good.size = tarfile.XHDTYPE, len(body), 3, 3
    yield before.tobuf(tarfile.USTAR_FORMAT) + body.ljust(512, b"\0")
    for one in (member, good):
        yield one.tobuf(tarfile.USTAR_FORMAT) + b"abc".ljust(512, b"\0")


def special(folder: Path) -> None:
    """What is no file, among files; and links that lead nowhere but back."""
    folder.mkdir()
    os.mkfifo(folder / "fifo.txt")
    os.mknod(folder / "device.txt", 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.relpath(folder / "socket.txt"))  # a path of a socket is short
    listener.close()
    (folder / "loop").symlink_to(".")
    (folder / "self.txt").symlink_to("self.txt")
    (folder / "a.txt").write_text("x")


def links(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)
        for number, kind in enumerate(kinds):
            member = tarfile.TarInfo(f"{number}.txt")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        good = tarfile.TarInfo("good.txt")
        good.size = 1
        archive.addfile(good, io.BytesIO(b"x"))


MEMBERS = {
    "parent": b"../x.txt",
    "inner-parent": b"a/../../x.txt",
    "absolute": b"/tmp/x.txt",
    "nul": b"a\0b.txt",
    "newline": b"a\nb.txt",
    "escape": b"\x1b[31mred.txt",
    "c1": "a\x9bb.txt".encode(),
    "not-utf8": b"\xff\xfe.txt",
    "endless": b"d/" * 20_000 + b"x.txt",
}
DEEP = 100_000
FILES = {
    "deep-list.jsonl": b"[" * DEEP + b"]" * DEEP + b"\n",
    "deep-object.jsonl": b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"\n",
    "deep.json": b'{"properties":' * DEEP + b"1" + b"}" * DEEP,
    "deep.msgpack": b"\x81\xa1a" * DEEP + b"\x01",
    "not-utf8.jsonl": b'{"a": "\xff\xfe"}\n',
    "half.jsonl": b'{"a": "\\ud800"}\n',
    "not-utf8.csv": b"a,b\n1,\xff\xfe\n",
    "not-utf8-header.csv": b"a,\xff\n1,2\n",
    "not-utf8.json": b'{"properties": {"\xff": {}}}',
    "not-utf8.list": b"\xff\xfe\n",
    "keys.jsonl": b'{"__key__": "../x"}\n{"__key__": "a\\u0000b"}\n{"__key__": "\\u001b[31m"}\n{"__key__": "/x"}\n',
    "not-utf8-manifest/manifest.json": b'{"format": "atdata-manifest", "version": 1, "name": "\xff"}',
    "deep-manifest/manifest.json": b'{"format": "atdata-manifest", "version": 1, "schema": ' + b"[" * DEEP,
    "not-utf8-state/.atdata/job.json": b"\xff\xfe{",
    "deep-state/.atdata/job.json": b"[" * DEEP,
    "no-index.db": b"\xff\xfe no database" * 100,
    "deep/" + "d/" * 20 + "a.txt": b"x",
    "deeper/" + "d/" * 400 + "a.txt": b"x",
    "good.jsonl": b'{"a": 1}\n',
    "newline\nand\x1b[31m/a.txt": b"x",
    "bad-name/" + os.fsdecode(b"\xff\xfe.txt"): b"x",
}


def run(tool: Tool, hostile: Path, most: int, *arguments: str) -> Ran:
    """Run in a folder of its own beside the hostile one; nothing but DEST may come into being."""
    work = tool.folder / "work"
    work.mkdir(exist_ok=True)
    place = Tool(work, tool.secrets, {**tool.env, "ATDATA_INDEX": str(work / "index.db")})
    named = [str(hostile / word[1:]) if word.startswith("@") and word != "@local" else word for word in arguments]
    peak = tool.folder / "peak"
    before = set(hostile.rglob("*"))
    program = (sys.executable, "-I", "-S", measure.__file__, str(peak), "-")
    ran = place(*named, under=program)
    assert int(peak.read_text()) < most
    assert set(hostile.rglob("*")) == before
    assert {path.name for path in work.iterdir()} <= {".runs", "home", "out", "index.db"}
    assert "\x1b" not in ran.out + ran.err
    assert "\0" not in ran.out + ran.err
    assert max(map(len, ran.err.splitlines()), default=0) < 2000
    return ran


REJECTED = "--on-error skip"
CASES: list[tuple[tuple[str, ...], int, str]] = [
    *((("write", f"@{name}.tar", "out"), 1, REJECTED) for name in MEMBERS if name != "endless"),
    *((("inspect", f"@{name}.tar", "--verify"), 6, "") for name in ("parent", "nul", "escape", "not-utf8")),
    *((("inspect", f"@{name}.tar", "--head", "3"), 0, "") for name in ("newline", "escape", "not-utf8")),
    (("write", "@links.tar", "out"), 1, "a link has no content"),
    (("write", "@special", "out"), 0, "wrote 1 sample"),
    (("write", "@special/self.txt", "out"), 2, "a link"),
    (("write", "@deep", "out"), 0, "wrote 1 sample"),
    (("write", "@deeper", "out"), 0, "wrote 1 sample"),
    (("write", "@deep-list.jsonl", "out"), 1, "depth limit"),
    (("write", "@deep-object.jsonl", "out"), 1, "depth limit"),
    (("write", "@deep.msgpack", "out", "--from", "msgpack"), 1, ""),
    (("write", "@good.jsonl", "out", "--schema", "@deep.json"), 2, "schema"),
    (("write", "@good.jsonl", "out", "--schema", "@not-utf8.json"), 2, "UTF-8"),
    (("write", "@not-utf8.jsonl", "out"), 1, "not UTF-8"),
    (("write", "@half.jsonl", "out"), 1, "surrogate"),
    (("write", "@not-utf8.csv", "out"), 1, "not UTF-8"),
    (("write", "@not-utf8-header.csv", "out"), 1, "not UTF-8"),
    (("write", "--files-from", "@not-utf8.list", "out"), 3, "no such file"),
    (("write", "@keys.jsonl", "out"), 1, REJECTED),
    (("write", "@newline\nand\x1b[31m", "out", "--name", "n"), 0, "wrote 1 sample"),
    (("write", "@bad-name", "out"), 1, "UTF-8"),
    (("inspect", "@not-utf8-manifest"), 6, "UTF-8"),
    (("write", "@deep-manifest", "out"), 6, "manifest.json"),
    (("inspect", "@not-utf8-state"), 6, "unfinished"),
    (("write", "@good.jsonl", "@deep-state"), 8, "atdata-cli abort "),
    (("abort", "@not-utf8-state", "-n"), 0, "to remove"),
    (("inspect", "@local", "--index", "@no-index.db"), 6, "no index"),
    (("write", "@window.jsonl.zst", "out"), 1, "too much memory"),
    (("inspect", "@bomb.tar.gz"), 0, ""),
    (("inspect", "@bomb.tar.gz", "--verify"), 0, ""),
]  # fmt: skip
LARGE: list[tuple[tuple[str, ...], int, str]] = [
    (("write", "@bomb.jsonl.gz", "out"), 1, "longer than 256 MiB"),
    (("write", "@bomb.jsonl.zst", "out"), 1, "longer than 256 MiB"),
]


def told(case: object) -> str | None:
    return " ".join(map(ascii, case)).replace("'", "") if isinstance(case, tuple) else None


@pytest.mark.parametrize(("arguments", "code", "word"), CASES, ids=told)
def test_small_input(tool, hostile, arguments, code, word):
    ran = run(tool, hostile, MOST, *arguments)
    assert (ran.code, word in ran.err) == (code, True), ran.err
    if code not in (0, 6):
        assert ran.out == ""
        assert not (tool.folder / "work" / "out").exists()


@pytest.mark.parametrize(("arguments", "code", "word"), LARGE, ids=told)
def test_rows_without_end(tool, hostile, arguments, code, word):
    ran = run(tool, hostile, MOST_OF_ROWS, *arguments)
    assert (ran.code, word in ran.err) == (code, True), ran.err


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_bomb_that_is_made_into_shards(tool, hostile, ending):
    """Its member is as large as it says, and passes piece by piece."""
    if ending == "zst":
        with open(tool.folder / "bomb.tar", "wb") as file, open(hostile / "bomb.tar.zst", "rb") as bomb:
            zstandard.ZstdDecompressor().copy_stream(bomb, file)
        source = str(tool.folder / "bomb.tar")
    else:
        source = "@bomb.tar.gz"
    ran = run(tool, hostile, 2 * MOST, "write", source, "out", "--compress", "gz")
    assert ran.code == 0, ran.err


@pytest.mark.torture
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["text", "list", "open"])
def test_a_row_of_a_gigabyte(tool, hostile, kind):
    path = tool.folder / "row.jsonl"
    with path.open("wb") as file:
        file.write({"text": b'{"a": "', "list": b'{"a": [1', "open": b'{"a": "'}[kind])
        for _ in range(1024):
            file.write(b",1" * (MIB // 2) if kind == "list" else b"x" * MIB)
        file.write({"text": b'"}\n', "list": b"]}\n", "open": b""}[kind])
    ran = run(tool, hostile, MOST_OF_ROWS, "write", str(path), "out")
    ran.failed(1, "longer than 256 MiB")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [5_000, *longer(100_000)])
def test_very_many_files_in_one_folder(tool, hostile, count):
    folder = tool.folder / "many"
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:06d}.txt").write_bytes(b"x")
    ran = run(tool, hostile, 300 * MB, "write", str(folder), "out")
    assert ran.code == 0, ran.err
    assert json.loads((tool.folder / "work" / "out" / "manifest.json").read_bytes())["samples"] == count


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, *longer(*range(2, 60))])
def test_damage_anywhere(tool, tmp_path, seed):
    """A good dataset with some bytes of any file changed, cut off or made longer: told, or of no consequence."""
    chance = random.Random(seed)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"id": n, "text": "t" * n}) + "\n" for n in range(200)))
    assert tool("write", "rows.jsonl", "ds", "--max-count", "50", "--split", "a=0.5,b=0.5").code == 0
    files = sorted(path for path in (tmp_path / "ds").rglob("*") if path.is_file())
    for _ in range(4):
        victim = chance.choice(files)
        good = victim.read_bytes()
        data = bytearray(good)
        for _ in range(chance.choice([1, 1, 5])):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(3):
                case 0:
                    data[at : at + chance.randrange(1, 9)] = chance.randbytes(chance.randrange(9))
                case 1:
                    del data[at:]
                case _:
                    data[at:at] = chance.choice([b"\0", b"\xff", b"[", b"{", b'"', b"\n"]) * chance.choice(
                        [1, 600, 9000]
                    )
        victim.write_bytes(data)
        checked = tool("inspect", "ds", "--verify")
        assert checked.code == (0 if data == good else 6) or victim.name == "manifest.json", checked.err
        for arguments in (
            ("inspect", "ds"),
            ("inspect", "ds", "--head", "2"),
            ("resolve", "ds"),
            ("copy", "ds", "copied"),
        ):
            ran = tool(*arguments)
            assert ran.code in (0, 1, 3, 6), (victim, ran.err)
        shutil.rmtree(tmp_path / "copied", ignore_errors=True)
        victim.write_bytes(good)
