"""Whether what is here can be released: ``python .ci/release.py [FOLDER]``, which ``make release-check`` runs.

The version stands in ``atdata_cli/__init__.py`` and nowhere else; the first one of CHANGELOG.md, with a date, and the
tag of the commit, ``vVERSION``, are the same; nothing waits under Unreleased; all is committed.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Say all that is in the way."""
    folder = Path(arguments[0]) if arguments else Path(__file__).parents[1]
    found = list(problems(folder))
    for problem in found:
        print(f"release: {problem}", file=sys.stderr)
    if not found:
        print(f"release: {version(folder)} can go out")
    return int(bool(found))


def version(folder: Path) -> str:
    """The one that the package says, read and not run."""
    tree = ast.parse((folder / "atdata_cli" / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise SystemExit("release: atdata_cli/__init__.py has no __version__")


def problems(folder: Path) -> Iterator[str]:
    """Each in a line, with what to do."""
    this = version(folder)
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", this):
        yield f"{this} is no version of the form 1.2.3 or 1.2.3rc1"
    changes = (folder / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", changes, flags=re.MULTILINE)[1:]
    waiting = next((text for text in sections if text.startswith("[Unreleased]")), "")
    if len(waiting.splitlines()) > 1 and waiting.partition("\n")[2].strip():
        yield f"CHANGELOG.md: what is under Unreleased belongs under [{this}] - YYYY-MM-DD"
    first = next((text for text in sections if not text.startswith("[Unreleased]")), "")
    if not re.match(rf"\[{re.escape(this)}\] - \d{{4}}-\d{{2}}-\d{{2}}$", first, re.MULTILINE):
        told = first.partition("\n")[0] or "none"
        yield f"CHANGELOG.md: the first version is {told}, not [{this}] with a date"
    if git(folder, "status", "--porcelain"):
        yield "git: not all is committed"
    tags = git(folder, "tag", "--points-at", "HEAD").split()
    if f"v{this}" not in tags:
        yield f"git: this commit has no tag v{this}: git tag -a v{this}"
    for tag in tags:
        if re.match(r"v\d", tag) and tag != f"v{this}":
            yield f"git: this commit has the tag {tag}, too"


def git(folder: Path, *arguments: str) -> str:
    """What git prints."""
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
