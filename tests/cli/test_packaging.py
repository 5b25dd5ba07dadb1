"""What an index would get: a wheel and a sdist that hold all they should, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from atdata_cli import __version__
from atdata_cli.cli.app import COMMANDS

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    line = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    subprocess.run(line, check=True, capture_output=True)
    return folder


def test_the_wheel(built):
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    data = f"atdata_cli-{__version__}.data/data/share/"
    shared = {name.removeprefix(data) for name in names if name.startswith(data)}
    pages = {f"man/man1/atdata-cli-{name}.1" for name in COMMANDS}
    assert shared == pages | {
        "man/man1/atdata-cli.1",
        "man/man5/atdata-cli-formats.5",
        "man/man7/atdata-cli-recipes.7",
        "bash-completion/completions/atdata-cli",
        "zsh/site-functions/_atdata-cli",
        "fish/vendor_completions.d/atdata-cli.fish",
    }
    rest = {name for name in names if not name.startswith((data, f"atdata_cli-{__version__}.dist-info/"))}
    assert rest == {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "atdata_cli").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wheel.stat().st_size < 1_000_000


def test_the_sdist(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "Makefile", "action.yml", "man/generate.py"} <= names
    assert {"completions/generate.py", "tests/conftest.py", "pyproject.toml"} <= names
    assert not [name for name in names if re.search(r"\.pyc$|\.venv|\.build|demo-out|__pycache__", name)]


def test_an_index_would_take_them(built):
    line = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())]
    ran = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_version_changelog_and_tag_agree():
    """What is released is in the changelog under its version; a tag vX.Y.Z is on a commit of that version."""
    changes = (REPOSITORY / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[Unreleased\]$", changes, re.MULTILINE)
    released = re.findall(r"^## \[([0-9][^]]*)\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$", changes, re.MULTILINE)
    assert released == sorted(released, key=lambda text: [int(part) for part in text.split(".")], reverse=True)
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+(\.dev[0-9]+)?", __version__)
    ran = subprocess.run(
        ["git", "tag", "--points-at", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    for tag in ran.stdout.split():
        if tag.startswith("v"):
            assert tag == f"v{__version__}"
            assert __version__ in released
