"""In real shells on a real terminal: completion, progress, signals, the size of the window."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, cli  # noqa: F401 - a fixture
from tests.servers.terminal import Terminal, search_path

pytestmark = pytest.mark.xdist_group("shells")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    (home / "rows.jsonl").write_text('{"a": 1}\n')
    config = home / ".config" / "atdata-cli" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[stores.prod]\nurl = "s3://my-bucket/sets"\n')
    return home


@pytest.fixture(params=["bash", "zsh", "fish"])
def shell(request: pytest.FixtureRequest, home: Path) -> Iterator[Terminal]:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    with Terminal(request.param, home, search_path(COMMAND)) as terminal:
        yield terminal


def test_completion(shell: Terminal):
    """Commands, options, choices, values, paths, schemes, named stores and buckets, names in the local index."""
    assert "atdata-cli resolve" in shell.complete("atdata-cli reso")
    offered = shell.complete("atdata-cli p", "\t\t")
    assert re.search(r"prune.*publish|publish.*prune", offered, re.DOTALL), offered
    assert "--shards-multiple-of" in shell.complete("atdata-cli write --shards-m")
    assert "--encoding msgpack" in shell.complete("atdata-cli write --encoding ms")
    assert "--if-exists update" in shell.complete("atdata-cli write --if-exists u")
    assert "--from parquet" in shell.complete("atdata-cli write --from pa")
    assert "rows.jsonl" in shell.complete("atdata-cli write ro")
    assert "write photos" in shell.complete("atdata-cli write phot")
    assert "--schema rows.jsonl" in shell.complete("atdata-cli write --schema ro")
    assert "--engine dask://" in shell.complete("atdata-cli write --engine da")
    assert re.search(r"auto.*1/2|1/2.*auto", shell.complete("atdata-cli write --part ", "\t\t"))
    assert "inspect https://" in shell.complete("atdata-cli inspect htt")
    assert "inspect prod:" in shell.complete("atdata-cli inspect pro")
    assert "inspect s3://my-bucket/" in shell.complete("atdata-cli inspect s3://m")
    assert "--no-sign-request" in shell.complete("atdata-cli resolve prod:x --no-si")


def test_names_in_the_local_index(shell: Terminal, home: Path):
    if shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not installed")
    shell.type("atdata-cli write rows.jsonl out -q && atdata-cli publish out @local/letters -q && echo DO''NE\r")
    shell.wait_for("^DONE")
    assert "inspect @local/letters" in shell.complete("atdata-cli inspect @local/le")
    for line in ("unpublish", "publish out", "publish --tag x out --dry-run"):
        offered = shell.complete(f"atdata-cli {line} ", "\t\t")
        assert f"{line} @local/" in offered
        assert "rows.jsonl" not in offered
        assert f"{line} @local/letters" in shell.complete(f"atdata-cli {line} @local/le")
    assert "publish --tag x out" in shell.complete("atdata-cli publish --tag x ou")


def slow(seconds: int) -> str:
    """A line that takes its time, in every shell's language."""
    return f"sleep {seconds} | atdata-cli write - out --from jsonl --allow-empty"


def test_progress_while_the_window_changes(shell: Terminal):
    shell.type(slow(3) + "\r")
    shell.wait_for(r"writing · 0 shards")
    assert shell.screen.cursor.hidden
    shell.resize(60, 20)
    shell.wait_for(r"writing · 0 shards.{0,60}$")
    shell.resize(120, 40)
    text = shell.wait_for(r"^wrote 0 samples")
    assert "writing" not in text.splitlines()[-1]
    shell.wait(lambda text: text.endswith("READY>"))
    assert not shell.screen.cursor.hidden


def test_ctrl_c_and_the_same_line_again(shell: Terminal, request: pytest.FixtureRequest):
    status = "$status" if "fish" in request.node.name else "$?"
    shell.type(slow(60) + "\r")
    shell.wait_for(r"writing")
    shell.type("\x03")
    shell.wait_for(r"atdata-cli: interrupted \(run the same command again")
    shell.type(f"echo code {status}\r")
    shell.wait_for(r"^code 130$")
    assert not shell.screen.cursor.hidden
    assert "Traceback" not in shell.text


def test_ctrl_z_and_fg(shell: Terminal):
    shell.type(slow(4) + "\r")
    shell.wait_for(r"writing")
    shell.type("\x1a")
    shell.wait_for(r"(?i)stopped|suspended")
    shell.type("fg\r")
    shell.wait_for(r"^wrote 0 samples")


def test_a_pager_that_has_seen_enough(shell: Terminal):
    shell.type("atdata-cli config | head -1\r")
    text = shell.wait_for(r"^user file")
    shell.wait(lambda text: text.endswith("READY>"))
    assert "Traceback" not in text
    assert "Broken" not in text
