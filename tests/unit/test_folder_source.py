from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from atdata_cli.errors import NotFoundError, UsageError
from atdata_cli.sources.files import FolderSource
from atdata_cli.sources.patterns import name_filter
from tests.unit.local_files import LocalFiles


def fill(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return str(folder)


def plan(source: FolderSource) -> list[tuple[str, list[str]]]:
    return [(sample.key, list(sample.fields)) for sample in source.samples()]


def problems(source: FolderSource) -> dict[str, str]:
    return {os.path.basename(problem.where): problem.reason for problem in source.preflight().problems}


def folder_source(roots: Sequence[Path | str], **options: Sequence[str]) -> FolderSource:
    return FolderSource(LocalFiles(), [str(root) for root in roots], **options)


def test_samples_are_sorted_bytewise_by_key_and_field(tmp_path: Path) -> None:
    fill(
        tmp_path,
        "b/2.jpg",
        "b/2.json",
        "a-1.jpg",
        "a.jpg",
        "Z.jpg",
        "a.seg.png",
        "é.jpg",
        "z.jpg",
        "b/10.jpg",
    )
    source = folder_source([tmp_path])
    assert plan(source) == [
        ("Z", ["jpg"]),
        ("a", ["jpg", "seg.png"]),
        ("a-1", ["jpg"]),
        ("b/10", ["jpg"]),
        ("b/2", ["jpg", "json"]),
        ("z", ["jpg"]),
        ("é", ["jpg"]),
    ]
    assert source.count() == 7
    assert source.size() == source.position() == sum(item.size or 0 for item in source.inputs)
    names = [item.name for item in source.inputs]
    assert names[:3] == ["Z.jpg", "a.jpg", "a.seg.png"]
    assert len(names) == len(source.inputs) == 9
    assert source.inputs[-1].name == "é.jpg"
    assert [item.name for item in source.inputs[1:3]] == ["a.jpg", "a.seg.png"]


def test_blobs_open_late_and_say_where_they_are(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "b.txt")
    source = folder_source([tmp_path])
    first, second = (sample.fields["txt"] for sample in source.samples())
    assert not isinstance(first, bytes)
    assert not isinstance(second, bytes)
    with first.open() as file:
        assert file.read() == b"a.txt"
    assert (first.size, first.where) == (5, str(tmp_path / "a.txt"))  # type: ignore[attr-defined]
    os.unlink(tmp_path / "b.txt")
    with pytest.raises(NotFoundError) as caught:
        second.open()
    assert caught.value.url == str(tmp_path / "b.txt")


def test_roots_keep_their_order_and_share_samples(tmp_path: Path) -> None:
    images = fill(tmp_path / "images", "b.jpg", "a.jpg")
    labels = fill(tmp_path / "labels", "b.txt", "a.txt", "0.txt")
    source = folder_source([images, labels])
    assert plan(source) == [("a", ["jpg", "txt"]), ("b", ["jpg", "txt"]), ("0", ["txt"])]
    assert any("2 samples have files from more than one source" in line for line in source.preflight().warnings)
    assert [item.url for item in source.inputs][1] == str(tmp_path / "labels" / "a.txt")


def test_single_files_keep_the_order_of_the_list(tmp_path: Path) -> None:
    fill(tmp_path, "b.jpg", "a.jpg", "a.json", "b.json")
    names = ["b.jpg", "a.jpg", "a.json", "b.json"]
    source = folder_source([tmp_path / name for name in names])
    assert plan(source) == [("b", ["jpg", "json"]), ("a", ["jpg", "json"])]
    assert source.preflight().warnings == []


def test_duplicates_across_roots_name_both_paths(tmp_path: Path) -> None:
    one = fill(tmp_path / "1", "a.jpg", "b.jpg")
    two = fill(tmp_path / "2", "a.jpg", "c.jpg")
    source = folder_source([one, two])
    (problem,) = source.preflight().problems
    assert problem.where == str(tmp_path / "2/a.jpg")
    assert str(tmp_path / "1/a.jpg") in problem.reason
    assert plan(source) == [("b", ["jpg"]), ("c", ["jpg"])]


def test_every_problem_is_named_and_its_sample_left_out(tmp_path: Path) -> None:
    fill(
        tmp_path,
        "good.jpg",
        "README",
        "end.",
        "x/3.14.txt",
        "IMG.0001.jpg",
        "a._x",
        "case.jpg",
        "case.JPG",
        "case.a.png",
        "bad\nname.jpg",
        "twice.jpg",
        "twice._y",
    )
    with open(os.path.join(os.fsencode(tmp_path), b"l\xff.jpg"), "wb"):
        pass
    source = folder_source([tmp_path])
    found = problems(source)
    assert set(found) == {
        *("README", "end.", "3.14.txt", "IMG.0001.jpg", "a._x", "bad\nname.jpg", "twice._y", "l\udcff.jpg"),
        "case.jpg",
    }
    assert "'README.txt'" in found["README"]
    assert "'x/3_14.txt'" in found["3.14.txt"]
    assert "'IMG_0001.jpg'" in found["IMG.0001.jpg"]
    assert "UTF-8" in found["l\udcff.jpg"]
    assert "control character" in found["bad\nname.jpg"]
    assert "differ only by case" in found["case.jpg"]
    assert plan(source) == [("good", ["jpg"])]
    assert [item.name for item in source.inputs] == ["good.jpg"]


def test_dotted_fields_are_fine_until_they_are_data(tmp_path: Path) -> None:
    few = fill(tmp_path / "few", *(f"{key}.{field}" for key in "ab" for field in ("seg.png", "depth.png", "tar.gz")))
    assert folder_source([few]).preflight().problems == []
    many = fill(tmp_path / "many", "ok.jpg", *(f"img.person{number}.jpg" for number in range(33)))
    source = folder_source([many])
    assert len(source.preflight().problems) == 33
    assert plan(source) == [("ok", ["jpg"])]


def test_warnings(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "a.json", "b.jpg", "c.JPG", "c.json", ".hidden", ".cache/x.jpg", "manifest.json")
    os.mkfifo(tmp_path / "pipe.jpg")
    source = folder_source([tmp_path])
    text = "\n".join(source.preflight().warnings)
    assert "2 hidden files and folders" in text
    assert "1 device, pipe or socket was skipped: " + str(tmp_path / "pipe.jpg") in text
    assert "manifest.json was skipped" in text
    assert "'JPG', 'jpg' differ only by case" in text
    assert "1 of 3 samples lacks the field 'json', such as b" in text
    shutil.rmtree(tmp_path / ".cache")
    assert "1 hidden file or folder was skipped" in folder_source([tmp_path]).preflight().warnings
    assert source.preflight().problems == []


AS_NOBODY = """
import os, sys
from atdata_cli.sources.files import FolderSource
from atdata_cli.stores.inputs import StoreFiles
if os.geteuid() == 0:
    os.setuid(65534)  # root may read everything
source = FolderSource(StoreFiles(), sys.argv[1:])
print([(os.path.basename(p.where), p.reason) for p in source.preflight().problems], source.count())
"""


def test_unreadable_files_are_found_before_writing() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, "a.jpg", "b.jpg")
        folder.chmod(0o755)
        (folder / "a.jpg").chmod(0)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", AS_NOBODY, name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "[('a.jpg', 'it cannot be read: permission denied; check owner and mode')] 1\n", done.stderr


def test_fields_select_and_lose_nothing_in_silence(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "a.json", "b.json", "README", "3.14.jpg", "3.15.json")
    source = folder_source([tmp_path], fields=["jpg"])
    assert plan(source) == [("a", ["jpg"])]
    assert set(problems(source)) == {"3.14.jpg"}


def test_include_and_exclude(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "a.txt", "x/b.jpg", "x/y/c.jpg", "README")
    assert plan(folder_source([tmp_path], include=["*.jpg"], exclude=["x/*.jpg"])) == [
        ("a", ["jpg"]),
        ("x/y/c", ["jpg"]),
    ]
    assert plan(folder_source([tmp_path], include=["x/"])) == [("x/b", ["jpg"]), ("x/y/c", ["jpg"])]
    assert folder_source([tmp_path], exclude=["README"]).preflight().problems == []


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*.jpg", ["a.jpg", "x/a.jpg", ".jpg"], ["a.jpgx", "a.jpg/b"]),
        ("x/*", ["x/a"], ["x/y/a", "a", "y/x/a"]),
        ("x/**", ["x/a", "x/y/a"], ["a", "xy/a"]),
        ("**/a.*", ["a.b", "x/a.c", "x/y/a.d"], ["xa.b", "x/ba.c"]),
        ("x/**/z", ["x/z", "x/y/z", "x/y/y/z"], ["xz", "x/yz"]),
        ("./x/a", ["x/a"], ["a"]),
        ("/x/a", ["x/a"], ["y/x/a"]),
        ("?.[ab-d]", ["x.a", "x.c"], ["x.e", "xx.a", "x.-"]),
        ("[!a].b", ["c.b"], ["a.b"]),
        ("[]].b", ["].b"], ["a.b"]),
        ("a[b", ["a[b"], ["ab"]),
        ("x/[!a]b", ["x/cb"], ["x/ab", "x//b"]),
        ("a+(b).c", ["a+(b).c"], ["aab.c"]),
    ],
)
def test_patterns(pattern: str, matching: list[str], other: list[str]) -> None:
    wanted = name_filter([pattern], [])
    assert [name for name in matching if not wanted(name)] == []
    assert [name for name in other if wanted(name)] == []


@given(st.text(alphabet="ab*?[]!^-\\/.&|~", max_size=8))
@example("[?--]")
def test_any_text_is_a_pattern(pattern: str) -> None:
    try:
        wanted = name_filter([pattern], [pattern])
    except UsageError:
        return
    assert not wanted("a/b.c")


@given(st.lists(st.sampled_from("ab./_X1"), min_size=1, max_size=10).map("".join))
def test_keys_are_those_that_webdataset_will_read(name: str) -> None:
    from atdata_cli.sources.base import FileInfo

    class One(LocalFiles):
        def info(self, url: str) -> FileInfo | None:
            return FileInfo(url, "folder")

        def walk(self, url: str):  # type: ignore[no-untyped-def]
            yield name, FileInfo(f"remote://{url}/{name}", "file", 3)

    source = FolderSource(One(), ["r"])
    samples = list(source.samples())
    assert len(samples) + len(source.preflight().problems) == (name != "manifest.json")
    for sample in samples:
        ((field, _),) = sample.fields.items()
        assert base_plus_ext(name) == (sample.key, field)


def test_roots_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        folder_source([tmp_path / "none"])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError):
        folder_source([tmp_path / "pipe"])
