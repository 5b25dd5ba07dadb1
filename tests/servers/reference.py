"""The reference library ``atdata`` in an environment of its own: it needs Python 3.12 or newer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

VERSION = "0.7.0b1"
OLDEST = (3, 12)
ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-reference"


def candidates() -> Iterator[str]:
    """Interpreters that may be new enough: on PATH, and where version managers keep them."""
    yield sys.executable
    for minor in range(19, OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found:
            yield found
    homes = [
        Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions",
        Path.home() / ".local/share/uv/python",
    ]
    for home in homes:
        yield from sorted(map(str, home.glob("*3.*/bin/python3")), reverse=True)


def find() -> str:
    """A new enough interpreter that really runs (a version manager's shim may not)."""
    program = f"import sys; sys.exit(sys.version_info < {OLDEST})"
    for path in candidates():
        if subprocess.run([path, "-c", program], capture_output=True, check=False).returncode == 0:
            return path
    raise SystemExit("the tests against the reference library need Python 3.12 or newer: install python3.12 or later")


def install(environment: Path, project: Path) -> None:
    """Make the environment, with the reference library and this project in it."""
    interpreter = find()
    print(f"reference library: {interpreter}", file=sys.stderr)
    subprocess.run([interpreter, "-m", "venv", "--clear", str(environment)], check=True)
    pip = [str(environment / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    # The resolver of older ones gives up: boto3 and s3fs agree in few versions of botocore.
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
    subprocess.run([*pip, f"atdata=={VERSION}", "--editable", str(project)], check=True)


def python() -> str:
    """The environment's interpreter, for tests; they fail without it, they never skip."""
    path = ENVIRONMENT / "bin" / "python"
    assert path.exists(), "the reference library is not installed: run `make test`, which installs it"
    return str(path)


if __name__ == "__main__":
    _, verb, where, project_folder = sys.argv
    assert verb == "install"
    install(Path(where), Path(project_folder))
