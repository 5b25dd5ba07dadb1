"""The installed command, run as a person or a script would."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atdata_cli.cli.app import COMMANDS
from tests import schemas

COMMAND = Path(sys.executable).with_name("atdata-cli")


@dataclass(frozen=True)
class Ran:
    """A finished run."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    def failed(self, code: int, *words: str) -> None:
        """Assert a clean failure: the exit code, one line that says it all, no traceback."""
        assert self.code == code, (self.code, self.err)
        assert "Traceback" not in self.err
        last = self.err.strip().splitlines()[-1]
        assert last.startswith("atdata-cli: "), self.err
        for word in words:
            assert word in last, (word, self.err)
        assert self.out == ""


Cli = Callable[..., Ran]


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What cron gives, and a HOME of its own: nothing of the machine's configuration leaks in."""
    base = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    return base | dict(extra or {})


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run ``atdata-cli`` in *tmp_path*."""
    home = tmp_path / "home"
    home.mkdir()

    def run(
        *arguments: str | Path,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 240,
    ) -> Ran:
        out, err = tmp_path / ".out", tmp_path / ".err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [str(COMMAND), *map(str, arguments)],
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd or tmp_path,
                env=environment(home, env),
            )
            if stdin is not None and process.stdin is not None:
                with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                    pipe.write(stdin)
            code = process.wait(timeout)
        ran = Ran(code, out.read_text(), err.read_text())
        if arguments and arguments[0] in COMMANDS:
            schemas.check([*map(str, arguments)], ran.out, ran.err)
        for name in ("AWS_SECRET_ACCESS_KEY", "ATDATA_PASSWORD", "ATPROTO_APP_PASSWORD"):
            secret = (env or {}).get(name, "")
            assert len(secret) < 8 or secret not in ran.out + ran.err, f"{name} is in the output"
        return ran

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of images with labels, in two classes; the bytes are arbitrary, the sizes odd."""
    folder = tmp_path / "photos"
    for number in range(30):
        kind = ("cat", "dog")[number % 2]
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / f"{number:02d}.jpg").write_bytes(bytes([number]) * (number * 37))
        (folder / kind / f"{number:02d}.json").write_text(json.dumps({"label": kind, "n": number}))
    return folder


def rows(count: int) -> list[dict[str, Any]]:
    """Rows with every JSON kind of value."""
    return [
        {
            "id": number,
            "text": f"naïve café {number} 🐈",
            "score": number / 7,
            "ok": number % 3 == 0,
            "tags": ["a", "b"][: number % 3],
            "maybe": None if number % 5 else "here",
        }
        for number in range(count)
    ]


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    """2,500 rows as JSONL."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(2500)), encoding="utf-8")
    return path
