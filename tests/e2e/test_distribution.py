"""What is published: what is in it, that it installs everywhere, and what has to be true before it goes out."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from atdata_cli import __version__
from tests.distribution import ROOT, Distribution
from tests.servers.reference import candidates

BIN = Path(sys.executable).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked() -> set[str]:
    """What git has, or would take."""
    line = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def test_the_wheel_holds_the_program_its_pages_and_its_completions(built: Distribution) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        names = set(wheel.namelist())
        told = Parser().parsestr(wheel.read(f"atdata_cli-{__version__}.dist-info/METADATA").decode())
    code = {name for name in names if name.startswith("atdata_cli/")}
    assert code == {name for name in tracked() if name.startswith("atdata_cli/")}
    assert "atdata_cli/py.typed" in code
    data = f"atdata_cli-{__version__}.data/data/share/"
    shared = {name.removeprefix(data) for name in names if name.startswith(data)}
    pages = {name for name in tracked() if re.fullmatch(r"man/man\d/.*", name)}
    assert {f"man/man1/atdata-cli{name}.1" for name in ("", "-write", "-resolve")} <= pages
    shells = {
        "bash-completion/completions/atdata-cli",
        "zsh/site-functions/_atdata-cli",
        "fish/vendor_completions.d/atdata-cli.fish",
    }
    assert shared == pages | shells
    about = {name for name in names if ".dist-info/" in name}
    assert {name.rpartition("/")[2] for name in about} == {"METADATA", "WHEEL", "entry_points.txt", "LICENSE", "RECORD"}
    assert len(names) == len(code) + len(shared) + len(about)
    assert (told["Version"], told["Requires-Python"]) == (__version__, PROJECT["project"]["requires-python"])


def test_the_sdist_is_what_is_committed_and_nothing_else(built: Distribution) -> None:
    with tarfile.open(built.sdist) as sdist:
        names = {member.name.partition("/")[2] for member in sdist if member.isfile()}
    ours = names - {"PKG-INFO"}
    assert ours - tracked() == set()
    assert {"Makefile", "LICENSE", "pyproject.toml", "tests/conftest.py", "man/generate.py"} <= ours


def test_what_the_index_shows_is_valid(built: Distribution) -> None:
    line = [sys.executable, "-m", "twine", "check", "--strict", str(built.sdist), str(built.wheel)]
    ran = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def interpreters() -> dict[str, str]:
    """One of each version from the oldest that the project takes, of those that this machine has."""
    program = "import sys; print('3.%d' % sys.version_info[1])"
    found: dict[str, str] = {}
    for path in candidates():
        ran = subprocess.run([path, "-c", program], capture_output=True, text=True, check=False)
        version = ran.stdout.strip()
        if ran.returncode == 0 and int(version[2:]) >= 11:
            found.setdefault(version, path)
    return found


def clean(home: Path) -> dict[str, str]:
    """The environment of somebody who has nothing of this project; the index is this machine's."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_"))}
    cache = {"UV_CACHE_DIR": str(Path.home() / ".cache" / "uv")}
    return {"PATH": f"{home}/.local/bin:{BIN}:/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8", **cache, **kept}


def first_line() -> list[str]:
    """The first thing that the README lets a reader do."""
    line = re.search(r"^(?:\$ )?(atdata-cli write .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert line is not None
    return shlex.split(line[1], comments=True)


def use(command: Path, home: Path) -> None:
    """Do what the README says first."""
    line = first_line()
    (home / line[2]).mkdir(exist_ok=True)
    (home / line[2] / "a.jpg").write_bytes(b"\xff\xd8")
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home)}
    ran = subprocess.run([command, *line[1:]], cwd=home, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "wrote 1 sample in 1 shard" in ran.stderr
    assert ran.stdout.endswith("shard-000000.tar\n")
    shutil.rmtree(home / line[3])


def test_it_installs_everywhere(built: Distribution, tmp_path: Path) -> None:
    """On every Python that is here, with uv; as a program of its own, with pipx and uv tool."""
    env = clean(tmp_path)
    found = interpreters()
    assert found
    for version, python in found.items():
        place = tmp_path / version
        for line in (
            [BIN / "uv", "venv", "--quiet", "--python", python, place],
            [BIN / "uv", "pip", "install", "--quiet", "--python", place, built.wheel],
        ):
            subprocess.run(line, env=env, check=True, capture_output=True)
        use(place / "bin" / "atdata-cli", tmp_path)
        assert (place / "share/man/man1/atdata-cli.1").exists()
    subprocess.run([BIN / "pipx", "install", built.wheel], env=env, cwd=tmp_path, check=True, capture_output=True)
    use(tmp_path / ".local/bin/atdata-cli", tmp_path)
    assert (tmp_path / ".local/share/man/man1/atdata-cli.1").exists()  # where man looks
    line = [BIN / "uv", "tool", "run", "--quiet", "--from", built.wheel, "atdata-cli", "--version"]
    ran = subprocess.run(line, env=env, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert ran.stdout == f"atdata-cli {__version__}\n"


# --- releases, and the environment of the project ---


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
    line = [sys.executable, ROOT / ".ci" / "release.py", folder]
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


def test_the_version_stands_in_one_place() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "atdata_cli/__init__.py"


def test_the_lock_has_what_the_project_asks_for() -> None:
    """``make lock`` was run after the last change of pyproject.toml."""
    locked: dict[str, list[Requirement]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
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
        assert pins, f"constraints.txt has no {requirement.name}: run `make lock`"
        for pin in pins:
            (version,) = (one.version for one in pin.specifier)
            assert requirement.specifier.contains(version, prereleases=True), f"{pin}: run `make lock`"
        here = [pin for pin in pins if pin.marker is None or Marker(str(pin.marker)).evaluate()]
        assert len(here) == 1
