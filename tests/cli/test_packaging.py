"""What an index would get: a wheel and a sdist that hold all they should, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from atdata_cli import __version__
from atdata_cli.cli.app import COMMANDS
from tests.distribution import Distribution

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def test_the_wheel(built: Distribution) -> None:
    names = set(zipfile.ZipFile(built.wheel).namelist())
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
    assert built.wheel.stat().st_size < 1_000_000


def test_the_sdist(built: Distribution) -> None:
    with tarfile.open(built.sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "Makefile", "action.yml", "man/generate.py"} <= names
    assert {"completions/generate.py", "tests/conftest.py", "pyproject.toml"} <= names
    assert not [name for name in names if re.search(r"\.pyc$|\.venv|\.build|demo-out|__pycache__", name)]


def test_an_index_would_take_them(built: Distribution) -> None:
    line = [sys.executable, "-m", "twine", "check", "--strict", str(built.sdist), str(built.wheel)]
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


def test_the_lock_has_what_the_project_asks_for() -> None:
    """``make lock`` was run after the last change of pyproject.toml."""
    locked: dict[str, list[Requirement]] = {}
    for line in (REPOSITORY / "dev.lock").read_text().splitlines():
        if not line.startswith("#"):
            pin = Requirement(line)
            locked.setdefault(canonicalize_name(pin.name), []).append(pin)
    asked = [
        *PROJECT["project"]["dependencies"],
        *(line for lines in PROJECT["project"]["optional-dependencies"].values() for line in lines),
        *(line for name in ("check", "test") for line in PROJECT["dependency-groups"][name]),
    ]
    for requirement in map(Requirement, asked):
        pins = locked.get(canonicalize_name(requirement.name))
        assert pins, f"dev.lock has no {requirement.name}: run `make lock`"
        for pin in pins:
            (version,) = (one.version for one in pin.specifier)
            assert requirement.specifier.contains(version, prereleases=True), f"{pin}: run `make lock`"
        here = [pin for pin in pins if pin.marker is None or Marker(str(pin.marker)).evaluate()]
        assert len(here) == 1


# --- releases ---


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A repository in which version 1.2.3 is ready."""
    folder = tmp_path / "release"
    (folder / "atdata_cli").mkdir(parents=True)
    (folder / "atdata_cli" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (folder / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-01-02\n\n- New.\n")
    for line in (
        ("init", "-q"),
        ("add", "."),
        ("commit", "-q", "-m", "x"),
        ("tag", "v1.2.3"),
    ):
        git(folder, *line)
    return folder


def git(folder: Path, *line: str) -> None:
    who = (
        "-c",
        "user.name=x",
        "-c",
        "user.email=x@example.org",
        "-c",
        "tag.gpgsign=false",
        "-c",
        "commit.gpgsign=false",
    )
    subprocess.run(["git", *who, *line], cwd=folder, check=True)


def checked(folder: Path) -> tuple[int, str]:
    line = [sys.executable, REPOSITORY / ".ci" / "release.py", folder]
    ran = subprocess.run(line, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def test_a_release_that_is_ready(release: Path) -> None:
    assert checked(release) == (0, "release: 1.2.3 can go out\n")


@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        ("atdata_cli/__init__.py", "1.2.3", "1.2.4", "the first version is [1.2.3] - 2026-01-02, not [1.2.4]"),
        ("atdata_cli/__init__.py", "1.2.3", "1.2", "1.2 is no version"),
        (
            "CHANGELOG.md",
            "[Unreleased]\n",
            "[Unreleased]\n\n- More.\n",
            "what is under Unreleased belongs under [1.2.3]",
        ),
        ("CHANGELOG.md", " - 2026-01-02", "", "not [1.2.3] with a date"),
        ("CHANGELOG.md", "- New.", "- Newer.", "this commit has no tag v1.2.3"),
    ],
)
def test_a_release_that_is_not_ready(release: Path, file: str, before: str, after: str, said: str) -> None:
    path = release / file
    path.write_text(path.read_text().replace(before, after))
    assert "not all is committed" in checked(release)[1]
    git(release, "commit", "-q", "-a", "-m", "y")
    code, text = checked(release)
    assert code == 1
    assert said in text
