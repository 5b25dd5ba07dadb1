"""The sdist and the wheel of this project, once for all workers of a test run."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Distribution:
    """What is published."""

    sdist: Path
    wheel: Path


def build(folder: Path) -> Distribution:
    """Build into *folder*, unless another worker has."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not (folder / "dist").exists():
            command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "new"), str(ROOT)]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, ran.stdout + ran.stderr
            (folder / "new").rename(folder / "dist")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    return Distribution(sdist, wheel)
