"""``write --depfile``: make runs a rule again if, and only if, something that it read has changed."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atdata_cli.cli.depfile import Depfile
from atdata_cli.errors import UsageError
from atdata_cli.sources.base import InputFile, Source
from tests.cli.conftest import COMMAND, Cli, environment

MAKE = shutil.which("make") or "make"


def up_to_date(folder: str | Path, *goal: str) -> bool:
    """Whether make has nothing to do."""
    ran = subprocess.run([MAKE, "-q", *goal], cwd=folder, capture_output=True, check=False)
    assert not ran.stderr
    assert ran.returncode in (0, 1), ran
    return ran.returncode == 0


class Names(Source):
    """A source that has read files of these names."""

    def __init__(self, names: Iterable[str]) -> None:
        self.inputs = [InputFile(name, name, 0) for name in names]

    def count(self) -> int:
        return len(self.inputs)


def check_names(folder: str, names: Iterable[str]) -> list[str]:
    """Make notices changes of these files; those are returned of which it is said that it cannot."""
    paths = {name: os.path.join(folder, name) for name in names}
    for path in paths.values():
        Path(path).touch()
        os.utime(path, (1000, 1000))
    depfile = Depfile(os.path.join(folder, "out.d"), "out")
    here = Path.cwd()
    os.chdir(folder)
    try:
        depfile.write(Names(names))
    finally:
        os.chdir(here)
    assert depfile.newest == (0 if not paths else 1000 * 10**9)
    Path(folder, "Makefile").write_text("out:\n\ttouch out\n-include out.d\n")
    target = Path(folder, "out")
    target.touch()
    os.utime(target, (2000, 2000))
    assert up_to_date(folder)
    for name, path in paths.items():
        if name in depfile.unnamed:
            continue
        os.utime(path, (3000, 3000))
        assert not up_to_date(folder), name
        os.unlink(path)
        assert not up_to_date(folder), name
        Path(path).touch()
        os.utime(path, (1000, 1000))
        assert up_to_date(folder), name
    return depfile.unnamed


HOSTILE = [
    *(
        "a b",
        "a  b",
        " a",
        "a#b",
        "#",
        "a$b",
        "$",
        "a$$b",
        "${x}",
        "$(shell touch PWNED).jpg",
        "a:b",
        "a%b",
        "%",
        "%.o",
    ),
    *(
        "a*b",
        "a?b",
        "a[b",
        "a]b",
        "[ab]",
        "a|b",
        "a=b",
        "a+=b",
        "a:=b",
        "a!=b",
        "=",
        "year=2024",
        "a\\b",
        "\\a",
        "a\\ b",
    ),
    *("a\\\\#b", "a\\:b", "a\\%b", "a'b", 'a"b', "a(b", "(1).jpg", "a (1).jpg", "include", "export", "define"),
    *(
        ".PHONY",
        ".x",
        "-x",
        "a!b",
        "a&b",
        "&",
        "a,b",
        "a{b}",
        "a`b",
        "<a>",
        "a@b",
        "a^b",
        "é",
        "\udcff",
        "a\udcffb",
        "日本",
    ),
]


def test_names_that_mean_something_to_make(tmp_path: Path) -> None:
    assert check_names(str(tmp_path), HOSTILE) == ["&"]
    assert not (tmp_path / "PWNED").exists()


# Not all together: make takes a*b that has gone for a file that is named a\\*b.
ALPHABETS = ("ab.$#%()|;:=&~ '\"\\\t-+!", "ab.$#%*?[]():= ")


@settings(max_examples=40)
@given(
    st.sampled_from(ALPHABETS).flatmap(
        lambda text: st.lists(st.text(text, min_size=1, max_size=6), max_size=4, unique=True)
    )
)
def test_make_notices_or_it_is_said_that_it_cannot(names: list[str]) -> None:
    taken = {"-", ".", "..", "out", "out.d", "Makefile"}
    with tempfile.TemporaryDirectory() as folder:
        check_names(folder, [name for name in names if name not in taken])


def test_a_target_that_make_cannot_have() -> None:
    with pytest.raises(UsageError, match="make cannot have"):
        Depfile("x.d", "out;rm/manifest.json")


@pytest.mark.parametrize(
    ("name", "written"),
    [("a b", "a\\ b"), ("a=b", "a$(or =)b"), ("a%b", "a\\%b"), ("a$b#c:d", "a$$b\\#c\\:d")],
)
def test_targets_with_odd_names(tmp_path: Path, name: str, written: str) -> None:
    (tmp_path / "input").touch()
    (tmp_path / name).touch()
    Depfile(str(tmp_path / "x.d"), name).write(Names([str(tmp_path / "input")]))
    os.utime(tmp_path / name, (1000, 1000))
    (tmp_path / "Makefile").write_text(f"{written}:\n\ttrue\n-include x.d\n")
    goal = () if "=" in name else (name,)  # on the command line that is a variable
    assert not up_to_date(tmp_path, *goal)
    os.utime(tmp_path / name)
    assert up_to_date(tmp_path, *goal)


class Project:
    """A folder with a Makefile whose one rule runs ``write``."""

    def __init__(self, folder: Path, arguments: str, then: str = "") -> None:
        self.folder = folder
        (folder / "home").mkdir(exist_ok=True)
        command = f"{COMMAND} write {arguments} --if-exists update --prune --quiet --depfile data.d {then}"
        (folder / "Makefile").write_text(f"out/manifest.json:\n\t{command}\n-include data.d\n")

    def make(self) -> bool:
        """Whether the rule was run."""
        env = environment(self.folder / "home")
        ran = subprocess.run([MAKE], cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return str(COMMAND) in ran.stdout

    def check(self, change: str) -> None:
        """The rule is run once after something has changed, and the dataset is what a fresh run makes."""
        assert self.make(), change
        assert not self.make(), change

    @property
    def keys(self) -> int:
        samples: int = json.loads((self.folder / "out" / "manifest.json").read_text())["samples"]
        return samples


def test_a_folder(tmp_path: Path, photos: Path) -> None:
    (photos / "empty").mkdir()
    project = Project(tmp_path, "photos out")
    project.check("nothing was there")
    assert project.keys == 30
    (photos / "cat" / "00.json").write_text('{"label": "dog"}')
    project.check("a file")
    (photos / "dog" / "31.jpg").write_bytes(b"new")
    project.check("a new file")
    assert project.keys == 31
    (photos / "empty" / "32.jpg").write_bytes(b"new")
    project.check("the first file of a folder")
    (photos / "dog" / "31.jpg").unlink()
    project.check("a file that has gone")
    assert project.keys == 31
    shutil.rmtree(photos / "empty")
    project.check("a folder that has gone")
    (photos / ".hidden").touch()
    before = (tmp_path / "data.d").stat()
    project.check("what makes no difference")
    after = (tmp_path / "data.d").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert stat.S_IMODE(after.st_mode) == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_glob(tmp_path: Path) -> None:
    for name in ("2023", "2024"):
        (tmp_path / "by" / f"year={name}").mkdir(parents=True)
        (tmp_path / "by" / f"year={name}" / "rows.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "by" / "other").mkdir()
    project = Project(tmp_path, "'by/*/rows.jsonl' out --name rows")
    project.check("nothing was there")
    (tmp_path / "by" / "other" / "rows.jsonl").write_text('{"a": 2}\n')
    project.check("one that matches now, in an old folder")
    (tmp_path / "by" / "year=2025").mkdir()
    (tmp_path / "by" / "year=2025" / "rows.jsonl").write_text('{"a": 2}\n')
    project.check("one that matches now, in a new folder")
    assert project.keys == 4
    (tmp_path / "by" / "year=2025" / "rows.jsonl").unlink()
    project.check("one that has gone")
    assert project.keys == 3


def test_the_files_that_a_table_names(tmp_path: Path, photos: Path) -> None:
    table = tmp_path / "table.jsonl"
    rows = [{"image": f"photos/cat/{n:02d}.jpg", "n": n} for n in (0, 2, 4)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    project = Project(tmp_path, "table.jsonl out --embed image")
    project.check("nothing was there")
    (photos / "cat" / "04.jpg").write_bytes(b"changed")
    project.check("a file that the table names")
    (photos / "cat" / "06.jpg").write_bytes(b"changed")
    assert not project.make(), "the table does not name it"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    project.check("the table")
    assert project.keys == 2
    assert "04.jpg" not in (tmp_path / "data.d").read_text()


def test_what_else_is_read(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "labels.csv").write_text("".join(f"{n:02d}.jpg,{n}\n" if n else "file,n\n" for n in range(30)))
    (photos / "cat" / "00.jpg").unlink()
    options = "--join labels.csv --on file --include '*.jpg' --on-error skip"
    project = Project(tmp_path, f"photos out {options}", "|| [ $$? = 7 ]")
    project.check("nothing was there")
    (tmp_path / "labels.csv").write_text((tmp_path / "labels.csv").read_text().replace("05.jpg,5", "05.jpg,6"))
    assert project.make(), "the joined table"
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "schema.json").write_text('{"type": "object", "properties": {"a": {"type": "integer"}}}')
    (tmp_path / "list").write_text("rows.jsonl\n")
    (tmp_path / "atdata.toml").write_text("[write]\nmax-count = 5\n")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "data.d").unlink()
    project = Project(tmp_path, "--files-from list out --schema schema.json")
    project.check("nothing was there")
    told = (tmp_path / "data.d").read_text()
    for name in ("list", "rows.jsonl", "schema.json", "atdata.toml"):
        assert f"\n{name}:\n" in told
    (tmp_path / "schema.json").write_text((tmp_path / "schema.json").read_text() + " ")
    project.check("the schema")


def test_a_dataset_as_source(tmp_path: Path, rows_file: Path, cli: Cli) -> None:
    assert cli("write", "rows.jsonl", "first").code == 0
    project = Project(tmp_path, "first out --max-count 100")
    project.check("nothing was there")
    rows_file.write_text('{"id": 1}\n')
    assert cli("write", "rows.jsonl", "first", "--if-exists", "update").code == 0
    project.check("its manifest")
    assert project.keys == 1


def test_a_name_in_the_local_index_as_source(tmp_path: Path, rows_file: Path, cli: Cli) -> None:
    assert cli("write", "rows.jsonl", "first").code == 0
    assert cli("write", "rows.jsonl", "second", "--max-count", "100", "--fields", "id").code == 0
    assert cli("publish", "first", "@local/rows").code == 0
    project = Project(tmp_path, "@local/rows out")
    project.check("nothing was there")
    assert cli("publish", "second", "@local/rows").code == 0
    project.check("the name")


def test_where_it_cannot_be(cli: Cli, rows_file: Path, tmp_path: Path) -> None:
    cli("write", "rows.jsonl", "s3://bucket/x", "--depfile", "d").failed(2, "--depfile-target")
    cli("write", "rows.jsonl", "out", "--depfile-target", "d").failed(2, "--depfile FILE")
    cli("write", "rows.jsonl", "out", "--depfile", "-").failed(2, "needs a file")
    cli("write", "rows.jsonl", "out", "--depfile", "no/such/d").failed(3, "no/such/d", "no such file")
    assert cli("write", "rows.jsonl", "out", "--depfile", "d", "--dry-run").code == 0
    assert not {"out", "d", "no"} & set(os.listdir(tmp_path))
    assert cli("write", "rows.jsonl", "out", "--depfile", "/dev/null").code == 0
    assert Path("/dev/null").is_char_device()


def test_streams_and_urls(cli: Cli, tmp_path: Path, s3_bucket: str, s3_env: dict[str, str]) -> None:
    dest = f"s3://{s3_bucket}/out"
    options = ("--depfile", "x.d", "--depfile-target", "stamps/$x#", "--name", "rows")
    ran = cli("write", "-", dest, "--from", "jsonl", *options, stdin=b'{"a": "b"}\n', env=s3_env)
    assert ran.code == 0, ran.err
    assert (tmp_path / "x.d").read_text() == "stamps/$$x\\#:\n\n"
    ran = cli("write", dest, "out", "--depfile", "x.d", env=s3_env)
    assert (ran.code, (tmp_path / "x.d").read_text()) == (0, "out/manifest.json:\n\n")
    (tmp_path / "b").write_bytes(b"")
    ran = cli("write", "-", "two", "--from", "jsonl", "--embed", "a", "--depfile", "x.d", stdin=b'{"a": "b"}\n')
    assert ran.code == 0, ran.err
    assert "name the table as a file" in ran.err
