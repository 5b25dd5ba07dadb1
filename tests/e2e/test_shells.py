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
