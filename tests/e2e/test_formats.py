"""Every input format and every way to name it, through the installed command, compared with what was put in."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from atdata_cli.samples.codec import bytes_to_array
from tests.cli.conftest import COMMAND, Cli, environment, rows
from tests.cli.test_write import manifest_of
from tests.e2e.conftest import members, packed

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def write(cli: Cli, *arguments: str | Path, **how: Any) -> str:
    """A write that must go well; what it said."""
    ran = cli("write", *arguments, **how)
    assert ran.code == 0, ran.err
    return ran.err


def files_of(folder: Path) -> list[tuple[str, dict[str, bytes]]]:
    """All samples of a written folder, as webdataset reads them."""
    return members(sorted(folder.glob("*.tar")))


def jsonl(items: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(item) + "\n" for item in items).encode()


TABLE = [
    # Four columns whose text would change as numbers or dates, four that are what they look like.
    ("zip", "day", "phone", "huge", "count", "ratio", "ok", "note"),
    ("007", "2024-02-29", "+49 30 1", "12345678901234567890123", "1", "0.5", "true", "plain"),
    ("10115", "2024-03-01", "0", "1", "-20", "2", "false", 'with "quotes", and\na line'),
    ("000", "1999-12-31", "00", "2", "", "1e3", "true", ""),
]
TABLE_ROWS = [
    {"zip": "007", "day": "2024-02-29", "phone": "+49 30 1", "huge": "12345678901234567890123",
     "count": 1, "ratio": 0.5, "ok": True, "note": "plain"},
    {"zip": "10115", "day": "2024-03-01", "phone": "0", "huge": "1",
     "count": -20, "ratio": 2.0, "ok": False, "note": 'with "quotes", and\na line'},
    {"zip": "000", "day": "1999-12-31", "phone": "00", "huge": "2",
     "count": None, "ratio": 1000.0, "ok": True, "note": None},
]  # fmt: skip


def test_csv_and_tsv_keep_what_is_no_number(cli, tmp_path):
    import csv

    for name, delimiter in (("t.csv", ","), ("t.tsv", "\t")):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows(TABLE)
        write(cli, name, f"out-{name}")
        got = packed(tmp_path / f"out-{name}")
        assert got == TABLE_ROWS
        assert [type(value) for value in got[1].values()] == [type(value) for value in TABLE_ROWS[1].values()]
        write(cli, "-", f"stdin-{name}", "--from", name[2:], stdin=(tmp_path / name).read_bytes())
        assert packed(tmp_path / f"stdin-{name}") == TABLE_ROWS
    write(cli, "t.csv", "plain", "--no-infer", "--null", "000", "--fields", "zip,count,ok")
    assert packed(tmp_path / "plain") == [
        {"zip": "007", "count": "1", "ok": "true"},
        {"zip": "10115", "count": "-20", "ok": "false"},
        {"zip": None, "count": None, "ok": "true"},
    ]


def test_a_csv_cell_that_breaks_the_type_of_its_column(cli, tmp_path):
    lines = ["n,name", *(f"{number},x" for number in range(10_500)), "n/a,late"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    cli("write", "t.csv", "out").failed(1, "t.csv:10502", "n", "--no-infer")
    assert not (tmp_path / "out").exists()
    assert cli("write", "t.csv", "out", "--on-error", "skip").code == 7
    assert packed(tmp_path / "out") == [{"n": number, "name": "x"} for number in range(10_500)]


def arrow_table() -> pa.Table:
    day = datetime.date(2024, 2, 29)
    return pa.table(
        {
            "id": pa.array(range(300), pa.int64()),
            "vector": pa.array([[n, n + 0.5] for n in range(300)], pa.list_(pa.float32())),
            "words": pa.array([["a", "b"][: n % 3] for n in range(300)]),
            "day": pa.array([day + datetime.timedelta(n) for n in range(300)]),
            "cost": pa.array([None if n % 7 else f"{n}.10" for n in range(300)]).cast(pa.decimal128(9, 2)),
            "raw": pa.array([bytes([n % 256]) for n in range(300)]),
            "place": pa.array([{"x": n % 100, "y": None} for n in range(300)]),
        }
    )


def check_arrow(folder: Path, fields: tuple[str, ...] | None = None) -> None:
    """Assert that a folder holds :func:`arrow_table`, or some columns of it."""
    day = datetime.date(2024, 2, 29)
    got = packed(folder)
    for row in got:
        if "vector" in row:
            array = bytes_to_array(row["vector"])
            assert array is not None
            assert str(array.dtype) == "float32"
            row["vector"] = array.tolist()
    expected = [
        {
            "id": n,
            "vector": [n, n + 0.5],
            "words": ["a", "b"][: n % 3],
            "day": (day + datetime.timedelta(n)).isoformat(),
            "cost": None if n % 7 else f"{n}.10",
            "raw": bytes([n % 256]),
            "place": {"x": n % 100, "y": None},
        }
        for n in range(300)
    ]
    if fields is not None:
        expected = [{name: row[name] for name in fields} for row in expected]
    assert got == expected


def test_parquet_and_arrow(cli, tmp_path):
    table = arrow_table()
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=64)
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=50)
    streamed = io.BytesIO()
    with pa.ipc.new_stream(streamed, table.schema) as stream:
        stream.write_table(table, max_chunksize=50)
    for name in ("t.parquet", "t.arrow"):
        write(cli, name, f"out-{name}", "--max-count", "90")
        check_arrow(tmp_path / f"out-{name}")
        write(cli, name, f"some-{name}", "--fields", "vector,id")
        check_arrow(tmp_path / f"some-{name}", ("vector", "id"))
    write(cli, "-", "stream", "--from", "arrow", stdin=streamed.getvalue())
    check_arrow(tmp_path / "stream")
    for name, kind in (("t.arrow", "arrow"), ("t.parquet", "parquet")):  # their index is at the end
        data = (tmp_path / name).read_bytes()
        cli("write", "-", f"stdin-{kind}", "--from", kind, stdin=data).failed(2, "write it to")


def test_a_msgpack_stream(cli, tmp_path):
    items = [{**row, "raw": bytes([number % 256]), "large": 2**64 - 1} for number, row in enumerate(rows(400))]
    data = b"".join(map(msgpack.packb, items))
    (tmp_path / "t.msgpack").write_bytes(data)
    write(cli, "t.msgpack", "file")
    write(cli, "-", "stdin", "--from", "msgpack", stdin=data)
    assert packed(tmp_path / "file") == packed(tmp_path / "stdin") == items


def test_compressed_rows(cli, tmp_path):
    items = rows(3000)
    data = jsonl(items)
    half = len(data) // 2
    # Both formats allow several compressed pieces one after another.
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(data[:half]) + gzip.compress(data[half:]))
    compress = zstandard.ZstdCompressor().compress
    (tmp_path / "a.jsonl.zst").write_bytes(compress(data[:half]) + compress(data[half:]))
    for name in ("a.jsonl.gz", "a.jsonl.zst"):
        write(cli, name, f"out-{name}")
        assert packed(tmp_path / f"out-{name}") == items
        write(cli, "-", f"stdin-{name}", "--from", "jsonl", stdin=(tmp_path / name).read_bytes())
        assert packed(tmp_path / f"stdin-{name}") == items
    assert manifest_of(tmp_path / "out-a.jsonl.gz")["name"] == "a"


def expected_photos(photos: Path) -> list[tuple[str, dict[str, bytes]]]:
    """The samples of the ``photos`` fixture."""
    keys = sorted(str(path.relative_to(photos).with_suffix("")) for path in photos.rglob("*.jpg"))
    return [(key, {name: (photos / f"{key}.{name}").read_bytes() for name in ("jpg", "json")}) for key in keys]


@pytest.mark.parametrize("form", ["gnu", "ustar", "pax", "v7"])
def test_tars_made_by_gnu_tar(cli, photos, tmp_path, form):
    (tmp_path / "in").mkdir()
    # Long names need the extensions of each format; v7 and ustar cannot hold them.
    if form in ("gnu", "pax"):
        long = photos / "cat" / ("long" * 40 + ".jpg")
        long.write_bytes(b"long")
        long.with_suffix(".json").write_bytes(b"{}")
    for name in ("cat", "dog"):
        archive = f"in/{name}.tar"
        tar = ["tar", f"--format={form}", "--sort=name", "-C", photos, "-cf", archive, name]
        subprocess.run(tar, cwd=tmp_path, check=True)
    write(cli, "in", "out", "--max-count", "7", "--name", "d")
    assert files_of(tmp_path / "out") == expected_photos(photos)
    for ending, program in ((".gz", "gzip"), (".zst", "")):
        packed_folder = tmp_path / f"in{ending}"
        packed_folder.mkdir()
        for name in ("cat", "dog"):
            data = (tmp_path / "in" / f"{name}.tar").read_bytes()
            data = gzip.compress(data) if program else zstandard.ZstdCompressor().compress(data)
            (packed_folder / f"{name}.tar{ending}").write_bytes(data)
        write(cli, f"in{ending}", f"out{ending}", "--max-count", "7", "--name", "d")
        assert files_of(tmp_path / f"out{ending}") == expected_photos(photos)
    data = (tmp_path / "in" / "cat.tar").read_bytes()
    write(cli, "-", "stdin", "--from", "tar", stdin=data)
    assert files_of(tmp_path / "stdin") == [one for one in expected_photos(photos) if one[0].startswith("cat/")]


class Ranges(SimpleHTTPRequestHandler):
    """Python's server, which knows no ranges; with them unless the query is ``plain``."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if wanted is None or self.path.endswith("?plain") or not path.is_file():
            super().do_GET()
            return
        data = path.read_bytes()
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        piece = data[int(first) : int(last or len(data)) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(piece) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(piece)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client has seen enough
            self.wfile.write(piece)

    def copyfile(self, *files: Any) -> None:
        with contextlib.suppress(ConnectionError):
            super().copyfile(*files)

    def log_message(self, *_args: object) -> None:
        return


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server for *tmp_path*; its URL."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_sources_at_urls(cli, photos, rows_file, web, tmp_path):
    write(cli, "photos", "shards", "--max-count", "8")
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(rows_file.read_bytes()))
    pq.write_table(arrow_table(), tmp_path / "t.parquet")
    for number, place in enumerate((f"file://{tmp_path}", f"file:{tmp_path}", web)):
        for name in ("rows.jsonl", "rows.jsonl.gz"):
            write(cli, f"{place}/{name}", f"{number}-{name}")
            assert packed(tmp_path / f"{number}-{name}") == rows(2500)
        write(cli, f"{place}/t.parquet", f"{number}-parquet", "--fields", "id,vector")
        check_arrow(tmp_path / f"{number}-parquet", ("id", "vector"))
        write(cli, f"{place}/shards/shard-{{000000..000003}}.tar", f"{number}-tars")
        assert files_of(tmp_path / f"{number}-tars") == expected_photos(photos)
        for name in ("shards/", "shards/manifest.json"):
            write(cli, f"{place}/{name}", "dataset", "--max-count", "9")
            assert files_of(tmp_path / "dataset") == expected_photos(photos)
            assert manifest_of(tmp_path / "dataset")["name"] == "shards"
            shutil.rmtree(tmp_path / "dataset")
    for number, place in enumerate((f"file://{tmp_path}", f"file:{tmp_path}")):
        write(cli, f"{place}/photos", f"{number}-photos")
        write(cli, f"{place}/photos/", f"{place}/dest-{number}")
        assert files_of(tmp_path / f"{number}-photos") == expected_photos(photos)
        assert files_of(tmp_path / f"dest-{number}") == expected_photos(photos)
    cli("write", f"{web}/none.jsonl", "none").failed(3, f"{web}/none.jsonl")
    write(cli, f"{web}/rows.jsonl?plain", "no-ranges")
    assert packed(tmp_path / "no-ranges") == rows(2500)
    # A query is a signature or a token: no part of the name, but of how the file is opened.
    for name in ("cat/00.json", "dog/29.jpg"):
        write(cli, f"{web}/photos/{name}?token=a/b.c", f"one-{name[4:]}")
        key, field = name[4:].split(".")
        assert files_of(tmp_path / f"one-{name[4:]}") == [(key, {field: (photos / name).read_bytes()})]
    cli("write", f"{web}/t.parquet?plain", "none").failed(2, f"{web}/t.parquet?plain", "ranges", "download it")


def test_a_file_system_in_memory_is_a_source_and_a_destination(photos, tmp_path):
    """It ends with its process, so a script fills it, runs the command's own entry point, and looks."""
    program = """
import sys, fsspec
from atdata_cli.__main__ import main
memory = fsspec.filesystem("memory")
memory.put("photos", "/in/photos", recursive=True)
sys.argv = ["atdata-cli", "write", "memory://in/photos", "memory://out/shards", "--max-count", "8"]
try:
    main()
except SystemExit as stop:
    assert stop.code == 0, stop.code
memory.get("/out/shards", "copy", recursive=True)
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)
    assert files_of(tmp_path / "copy") == expected_photos(photos)
    assert manifest_of(tmp_path / "copy")["samples"] == 30


def test_choosing_files_and_fields(cli, photos, rows_file, tmp_path):
    everything = expected_photos(photos)
    write(cli, "photos", "include", "--include", "cat/**", "--include", "*9.jp*g")
    assert files_of(tmp_path / "include") == [
        (key, fields if key.startswith("cat/") else {"jpg": fields["jpg"]})
        for key, fields in everything
        if key.startswith("cat/") or key.endswith("9")
    ]
    write(cli, "photos", "exclude", "--exclude", "dog/", "--exclude", "*.json")
    assert files_of(tmp_path / "exclude") == [
        (key, {"jpg": fields["jpg"]}) for key, fields in everything if key.startswith("cat/")
    ]
    write(cli, "photos", "fields", "--fields", "json")
    assert files_of(tmp_path / "fields") == [(key, {"json": fields["json"]}) for key, fields in everything]
    write(cli, "rows.jsonl", "rows", "--fields", "text,id")
    assert packed(tmp_path / "rows") == [{"text": row["text"], "id": row["id"]} for row in rows(2500)]
    assert list(packed(tmp_path / "rows")[0]) == ["text", "id"]
    cli("write", "photos", "none", "--include", "*.png").failed(3)


def test_hidden_files_pipes_and_loops_in_a_folder(cli, photos, tmp_path):
    expected = expected_photos(photos)
    (photos / ".DS_Store").write_bytes(b"x")
    (photos / "cat" / "._00.jpg").write_bytes(b"x")
    (photos / ".git").mkdir()
    (photos / ".git" / "x.jpg").write_bytes(b"x")
    os.mkfifo(photos / "pipe.jpg")  # reading it would wait for ever
    (photos / "dog" / "loop").symlink_to("..")
    (photos / "self.jpg").symlink_to("self.jpg")
    said = write(cli, "photos", "out")
    assert files_of(tmp_path / "out") == expected
    assert "3 hidden files and folders were skipped" in said
    assert "pipe.jpg" in said
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "linked.jpg").write_bytes(b"linked")
    (photos / "more").symlink_to("../elsewhere")
    write(cli, "photos", "linked")
    assert files_of(tmp_path / "linked") == [*expected, ("more/linked", {"jpg": b"linked"})]


NAMES = [
    *(
        "with space",
        "ünïcode-é",
        "e\u0301-composed",
        "日本語/写真",
        "emoji 🐈",
        "a'quote\"",
        "semi;colon",
        "per%20cent",
    ),
    *("#hash?query", "[bracket]", "{a,b}", "back`tick$HOME", "~tilde", "-dash", "back\\slash", "long" * 50),
]


def test_unusual_names(cli, tmp_path):
    folder = tmp_path / "in put é"
    expected = []
    for name in NAMES:
        path = folder / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        expected.append((name, {"txt": name.encode()}))
    expected.sort(key=lambda sample: sample[0].encode())
    ran = cli("write", "in put é", "out")
    assert ran.code == 0, ran.err
    assert files_of(tmp_path / "out") == expected
    listed = subprocess.run(
        ["tar", "--quoting-style=literal", "-tf", "out/shard-000000.tar"],
        cwd=tmp_path, capture_output=True, text=True, check=True, env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
    ).stdout  # fmt: skip
    assert listed.splitlines() == [f"{name}.txt" for name, _ in expected]
    write(cli, "out", "again")
    assert files_of(tmp_path / "again") == expected


@pytest.mark.parametrize("name", ["new\nline", "tab\there", os.fsdecode(b"latin-\xe9"), "escape\x1b[2J"])
def test_names_that_readers_take_for_another_are_named(cli, tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.txt").write_text("good")
    (tmp_path / "in" / f"{name}.txt").write_text("bad")
    ran = cli("write", "in", "out")
    ran.failed(1, "in/", "rename it")
    assert not any(ord(character) < 32 for character in ran.err.replace("\n", ""))
    assert not (tmp_path / "out").exists()
    assert cli("write", "in", "out", "--on-error", "skip").code == 7
    assert files_of(tmp_path / "out") == [("good", {"txt": b"good"})]


def test_a_pipe_and_a_process_substitution_are_read_once(tmp_path):
    """As a shell gives them: a name below ``/dev/fd`` that can neither be rewound nor opened again."""
    (tmp_path / "rows.jsonl").write_bytes(jsonl(rows(2500)))
    command = f"{COMMAND} write --from jsonl <(cat rows.jsonl) out --name rows"
    home = tmp_path / "home"
    ran = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment(home), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert packed(tmp_path / "out") == rows(2500)
