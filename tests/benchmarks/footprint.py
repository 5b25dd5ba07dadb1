"""What an installed package takes on the disk, with all that it needs: ``python footprint.py NAME``.

Run by the interpreter of the environment that has it.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote


def _requirements(package: Distribution) -> list[str]:
    """Names that it requires without extras. Markers of other systems name packages that are not there anyway."""
    return [
        match[0]
        for line in package.requires or ()
        if "extra ==" not in line and (match := re.match(r"[A-Za-z0-9._-]+", line))
    ]


def _bytes(package: Distribution) -> int:
    """Size of its files, compiled ones not counted."""
    paths = [Path(str(path.locate())) for path in package.files or ()]
    editable = json.loads(package.read_text("direct_url.json") or "{}")
    if editable.get("dir_info", {}).get("editable"):
        folder = unquote(editable["url"].removeprefix("file://"))
        paths += Path(folder, package.name.replace("-", "_")).rglob("*")
    return sum(path.stat().st_size for path in paths if path.is_file() and path.suffix != ".pyc")


def footprint(name: str) -> dict[str, int]:
    """Bytes of the package, bytes of all, and how many packages that are."""
    waiting, found = [name], {}
    while waiting:
        wanted = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if wanted in found:
            continue
        try:
            package = distribution(wanted)
        except PackageNotFoundError:
            continue
        found[wanted] = _bytes(package)
        waiting += _requirements(package)
    return {"own": found.get(name, 0), "all": sum(found.values()), "packages": len(found)}


if __name__ == "__main__":
    print(json.dumps(footprint(sys.argv[1])))
