"""What is remembered of inputs: believed only when nothing can have changed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from atdata_cli.sources.base import FileInfo
from atdata_cli.stores.inputs import StoreFiles
from atdata_cli.stores.seen import SeenInputs


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def old(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    before = time.time() - 100
    os.utime(path, (before, before))
    return path


def look(folder: Path, dest: Path) -> SeenInputs:
    files, seen = StoreFiles(), SeenInputs(str(dest))
    files.told = seen.see
    list(files.walk(str(folder)))
    return seen


def test_the_same_files_are_known_again(tmp_path: Path) -> None:
    for name in "ab":
        old(tmp_path / "in" / name)
    first = look(tmp_path / "in", tmp_path / "out")
    assert not first.are_those_of(b"manifest")
    first.remember(b"manifest")
    assert look(tmp_path / "in", tmp_path / "out").are_those_of(b"manifest")
    assert look(tmp_path / "in", tmp_path / "link" / ".." / "out").are_those_of(b"manifest")
    assert not look(tmp_path / "in", tmp_path / "out").are_those_of(b"another")
    assert not look(tmp_path / "in", tmp_path / "elsewhere").are_those_of(b"manifest")


@pytest.mark.parametrize("what", ["content", "mtime set back", "replaced", "one more", "one less", "renamed", "fresh"])
def test_whatever_changes_is_noticed(tmp_path: Path, what: str) -> None:
    a, b = (old(tmp_path / "in" / name) for name in "ab")
    seen = look(tmp_path / "in", tmp_path / "out")
    seen.remember(b"manifest")
    times = a.stat()
    if what in ("content", "mtime set back"):
        a.write_text("y")
        if what == "mtime set back":
            os.utime(a, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif what == "replaced":
        (tmp_path / "new").write_text("y")
        os.utime(tmp_path / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
        (tmp_path / "new").replace(a)
    elif what == "one more":
        old(tmp_path / "in" / "c")
    elif what == "one less":
        b.unlink()
    elif what == "renamed":
        b.rename(tmp_path / "in" / "c")
    else:
        os.utime(a)
    assert not look(tmp_path / "in", tmp_path / "out").are_those_of(b"manifest")


def test_files_that_were_just_written_are_not_remembered(tmp_path: Path, home: Path) -> None:
    old(tmp_path / "in" / "a")
    (tmp_path / "in" / "b").write_text("x")
    look(tmp_path / "in", tmp_path / "out").remember(b"manifest")
    assert not home.exists()


@pytest.mark.parametrize(
    "info", [FileInfo("-", "other"), FileInfo("https://h/x", "file", 5), FileInfo("s3://b/x", "file", 5, None)]
)
def test_what_tells_no_version_is_not_remembered(tmp_path: Path, home: Path, info: FileInfo) -> None:
    seen = look(old(tmp_path / "in" / "a").parent, tmp_path / "out")
    seen.see(info)
    seen.remember(b"manifest")
    assert not home.exists()


def test_a_cache_that_cannot_be_used_does_no_harm(tmp_path: Path, home: Path) -> None:
    old(tmp_path / "in" / "a")
    home.write_text("a file where the folder should be")
    seen = look(tmp_path / "in", tmp_path / "out")
    seen.remember(b"manifest")
    assert not seen.are_those_of(b"manifest")
    home.unlink()
    seen.remember(b"manifest")
    (file,) = home.rglob("*.json")
    for text in (b"", b"[" * 100_000, b"{}", b"\xff"):
        file.write_bytes(text)
        assert not seen.are_those_of(b"manifest")
