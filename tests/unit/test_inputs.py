"""Where sources read."""

import http.server
import io
import os
import pickle
import sys
import threading

import fsspec
import pytest

from atdata_cli.errors import NotFoundError, UsageError
from atdata_cli.sources.base import FileInfo
from atdata_cli.stores.inputs import StoreFiles


@pytest.fixture
def files():
    return StoreFiles()


def tree(root, *names):
    for name in names:
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(os.path.basename(os.fsencode(name)))


def walked(files, url):
    return {name: info.kind for name, info in files.walk(url)}


def test_what_a_path_is(files, tmp_path):
    tree(tmp_path, "a.csv", "folder/b")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "link").symlink_to("a.csv")
    root = str(tmp_path)
    for url in (f"{root}/a.csv", f"file://{root}/link"):
        found = files.info(url)
        assert found == FileInfo(url, "file", 5, found.version)
    assert files.info(f"{root}/folder/").kind == "folder"
    assert [files.info(f"{root}/{name}").kind for name in ("pipe", "dangling", "self")] == ["other"] * 3
    assert files.info("/dev/null").kind == "other"
    assert files.info("-").kind == "other"
    assert files.info(f"{root}/none") is None
    assert files.info(f"{root}/a.csv/none") is None
    for bad in ("a\0b", "\ud800"):
        with pytest.raises(UsageError):
            files.info(bad)


def test_walk(files, tmp_path):
    tree(tmp_path, "a", "x/y/z.jpg", ".hidden", "x/.git/config", "x/.git/more", os.fsdecode(b"caf\xe9"))
    os.mkfifo(tmp_path / "x" / "pipe")
    (tmp_path / "x" / "dangling").symlink_to("nowhere")
    (tmp_path / "link").symlink_to("x/y")
    assert walked(files, str(tmp_path)) == {
        "a": "file",
        "x/y/z.jpg": "file",
        "link/z.jpg": "file",
        "x/pipe": "other",
        "x/dangling": "other",
        os.fsdecode(b"caf\xe9"): "file",
    }
    assert files.hidden() == 2
    for name, info in files.walk(str(tmp_path)):
        assert os.path.realpath(info.url) == os.path.realpath(tmp_path / name)
        if info.kind == "file":
            with files.open(info.url) as file:
                data = file.read()
            assert data == os.path.basename(os.fsencode(name))
            assert info.size == len(data)
    with pytest.raises(NotFoundError):
        list(files.walk(f"{tmp_path}/none"))


def test_walk_does_not_run_in_circles(files, tmp_path):
    tree(tmp_path, "x/a", "other/b")
    (tmp_path / "x" / "up").symlink_to("..")
    (tmp_path / "x" / "here").symlink_to(".")
    (tmp_path / "other" / "x").symlink_to("../x")
    found = walked(files, str(tmp_path))
    assert found["x/a"] == found["other/x/a"] == "file"
    assert found["x/up"] == found["x/here"] == found["other/x/here"] == "other"
    assert files.glob(f"{tmp_path}/**/a") == [f"{tmp_path}/other/x/a", f"{tmp_path}/x/a"]


def test_glob(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree(
        ".",
        "b.csv",
        "a.csv",
        "B.csv",
        "é.csv",
        ".c.csv",
        "x/d.csv",
        "x/y/e.csv",
        "x/.h/f.csv",
        "run:7.csv",
        "-",
    )
    assert files.glob("*.csv") == ["./run:7.csv", "B.csv", "a.csv", "b.csv", "é.csv"]
    assert files.glob("?") == ["./-", "x"]
    assert files.glob("./[ab].csv") == ["./a.csv", "./b.csv"]
    assert files.glob("**/*.csv") == [
        "./run:7.csv",
        "B.csv",
        "a.csv",
        "b.csv",
        "x/d.csv",
        "x/y/e.csv",
        "é.csv",
    ]
    assert files.glob("x/**") == ["x/d.csv", "x/y/e.csv"]
    assert files.glob(f"{tmp_path}/x/*/e.csv") == [f"{tmp_path}/x/y/e.csv"]
    assert files.glob(".*.csv") == [".c.csv"]
    assert files.glob("*/") == ["x"]
    assert files.glob("none*") == []
    assert files.glob("none") == []
    assert files.glob("a.csv") == ["a.csv"]
    assert files.glob("a.csv/*") == []
    for found in files.glob("*"):
        assert files.info(found) is not None


def test_a_name_that_exists_is_that_name(files, tmp_path):
    tree(tmp_path, "data[1].csv", "data1.csv", "*.csv", "set[1]/a.csv", "a b\n{1}.csv", "s3:x.csv")
    assert files.glob(f"{tmp_path}/data[1].csv") == [f"{tmp_path}/data[1].csv"]
    assert files.glob(f"{tmp_path}/*.csv") == [f"{tmp_path}/*.csv"]
    assert files.glob(f"{tmp_path}/set[1]/*") == [f"{tmp_path}/set[1]/a.csv"]
    os.chdir(tmp_path)
    assert files.info("s3:x.csv").kind == "file"


def test_glob_agrees_with_the_standard_library(files, tmp_path, monkeypatch):
    import glob

    monkeypatch.chdir(tmp_path)
    tree(".", "a/b/c.x", "a/c.x", "c.x", "a/b/[.x", "a/]b/d.y", "a/-.x", "z/a/b/c.x", "a/.d/c.x")
    patterns = [
        "*",
        "*/*",
        "a/**/c.x",
        "**/b/*",
        "a/[a-b]/*",
        "a/[!b]*/*",
        "a/b/[[].x",
        "*/?/c.x",
        "a/[]b]/*",
        "[-]",
    ]
    for pattern in patterns:
        expected = sorted(set(glob.glob(pattern, recursive=True)), key=os.fsencode)
        assert files.glob(pattern) == expected, pattern


def test_standard_input_and_pipes(files, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abc")))
    assert files.open("-").read() == b"abc"
    reader, writer = os.pipe()
    os.write(writer, b"from a process substitution")
    os.close(writer)
    with files.open(f"/dev/fd/{reader}") as file:
        assert file.read() == b"from a process substitution"
    os.close(reader)
    with pytest.raises(UsageError, match="folder"):
        files.open(str(tmp_path))
    with pytest.raises(NotFoundError) as error:
        files.open(f"{tmp_path}/none")
    assert error.value.url == f"{tmp_path}/none"


def test_commands_are_refused(files):
    for act in (files.info, files.walk, files.glob, files.open):
        with pytest.raises(UsageError, match="refused"):
            act("pipe:cat /etc/passwd")


def test_a_file_system_of_fsspec(files):
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    for name in ("a.csv", "x/b.csv", "x/y/c.csv", "x/.git/config", "x/.git/more", ".h", "data[1].csv"):
        fs.pipe_file(f"/in/{name}", name.encode())
    assert files.info("memory://in").kind == "folder"
    assert files.info("memory://in/a.csv") == FileInfo("memory://in/a.csv", "file", 5)
    assert files.info("memory://in/none") is None
    found = dict(files.walk("memory://in/"))
    assert sorted(found) == ["a.csv", "data[1].csv", "x/b.csv", "x/y/c.csv"]
    assert found["x/b.csv"] == FileInfo("memory://in/x/b.csv", "file", 7)
    assert files.hidden() == 2
    with pytest.raises(NotFoundError):
        list(files.walk("memory://none"))
    assert files.glob("memory://in/*.csv") == ["memory://in/a.csv", "memory://in/data[1].csv"]
    assert files.glob("memory://in/**/*.csv") == [
        "memory://in/a.csv", "memory://in/data[1].csv", "memory://in/x/b.csv", "memory://in/x/y/c.csv",
    ]  # fmt: skip
    assert files.glob("memory://in/x/**") == ["memory://in/x/b.csv", "memory://in/x/y/c.csv"]
    assert files.glob("memory://in/data[1].csv") == ["memory://in/data[1].csv"]
    assert files.glob("memory://in/none*") == []
    with files.open("memory://in/x/b.csv") as file:
        assert file.read() == b"x/b.csv"
    with pytest.raises(NotFoundError):
        files.open("memory://in/none")
    assert isinstance(pickle.loads(pickle.dumps(files)), StoreFiles)


def test_a_web_server(files, tmp_path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            pass

    tree(tmp_path, "set/manifest.json", "v1.0/manifest.json", "photos/a.jpg", "plain", "rows.csv")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        assert files.info(f"{root}/rows.csv?x=1") == FileInfo(f"{root}/rows.csv?x=1", "file", 8)
        assert files.info(f"{root}/none") is None
        assert files.info(f"{root}/set/").kind == "folder"
        with files.open(f"{root}/rows.csv") as file:
            assert file.read() == b"rows.csv"
        assert files.glob(f"{root}/rows.csv") == [f"{root}/rows.csv"]
        assert files.info(f"{root}/set").kind == "folder"
        assert files.info(f"{root}/v1.0").kind == "folder"
        assert files.info(f"{root}/photos").kind == "folder"  # the server says so
        assert files.info(f"{root}/photos/").kind == "folder"
        assert files.info(f"{root}/plain").kind == "file"
        with pytest.raises(UsageError, match="lists no folders"):
            files.glob(f"{root}/*.csv")
        with pytest.raises(UsageError, match="does not list"):
            list(files.walk(f"{root}/set/"))
        server.shutdown()
