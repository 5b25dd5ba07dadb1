"""In pipes, cron jobs, CI, containers and odd locales: no terminal, no home, no UTF-8, and words for programs."""

from __future__ import annotations

import json
import os
import pty
import pwd
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atdata_cli import config
from tests import schemas
from tests.cli.conftest import COMMAND

STRICT_C = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def bare(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    """As ``env -i PATH=… atdata-cli …``: nothing else is set."""
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        check=False,
        timeout=60,
    )


def on_terminal(*arguments: str, cwd: Path, stdin: bytes, **env: str) -> str:
    """What a person sees on stderr, of a run whose input takes its time."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, *arguments],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), "TERM": "xterm", **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.flush()
    time.sleep(0.8)  # in which a bar is drawn, if there is one
    process.stdin.close()
    seen = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the terminal's other end is closed
            break
        if not chunk:
            break
        seen += chunk
    os.close(master)
    assert process.wait(60) == 0, seen
    return seen.decode()


def test_with_nothing_but_a_path(tmp_path, rows_file):
    ran = bare("write", "rows.jsonl", "out", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == b"out/shard-000000.tar\n"
    assert bare("inspect", "out", cwd=tmp_path).returncode == 0
    assert bare("resolve", "out", cwd=tmp_path).stdout == b"out/shard-000000.tar\n"


@pytest.mark.parametrize("home", ["/proc", "/dev/null"])
def test_without_a_home_to_write_to(tmp_path, rows_file, home):
    ran = bare("write", "rows.jsonl", "out", cwd=tmp_path, HOME=home)
    assert ran.returncode == 0, ran.stderr
    ran = bare("publish", "out", "@local/rows", cwd=tmp_path, HOME=home)
    assert ran.returncode in {1, 2, 3, 4}
    assert ran.stderr.startswith(b"atdata-cli: "), ran.stderr
    assert b"Traceback" not in ran.stderr


def test_an_empty_home_is_none(monkeypatch):
    monkeypatch.setenv("HOME", "")
    assert config.state_home().startswith(pwd.getpwuid(os.getuid()).pw_dir)
    monkeypatch.delenv("HOME")

    def unknown(_: int) -> object:
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)  # as in a container that runs as a number
    assert config.local_index() == "/nonexistent/.atdata/index.db"


def test_a_dataset_does_not_depend_on_the_locale(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "naïve café.txt").write_text("é")
    for out, env in (("c", STRICT_C), ("utf8", {"LANG": "C.UTF-8"})):
        ran = bare("write", "photos", out, cwd=tmp_path, **env)
        assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "c" / "manifest.json").read_bytes() == (tmp_path / "utf8" / "manifest.json").read_bytes()
    ran = bare("inspect", "c", "--head", "1", cwd=tmp_path, **STRICT_C)
    assert "naïve café" in ran.stdout.decode()
    ran = bare("resolve", "naïve", cwd=tmp_path, **STRICT_C)
    assert ran.returncode == 3
    assert "naïve" in ran.stderr.decode()


def test_another_locale_and_no_way_to_leave_it(tmp_path):
    program = "import sys; sys.executable = '/no/python'; from atdata_cli.cli.app import main; main()"
    line = [sys.executable, "-c", program, "--version"]
    ran = subprocess.run(line, env=STRICT_C, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert re.fullmatch(r"atdata-cli: /no/python: the locale .* \(set PYTHONUTF8=1, .*\)\n", ran.stderr)


def test_progress_and_colour_on_a_terminal(tmp_path, rows_file):
    """Flag over NO_COLOR over FORCE_COLOR over TERM; no bar in a terminal that cannot, or in CI."""
    line = ("write", "-", "out", "--from", "jsonl", "--if-exists", "update")
    rows = rows_file.read_bytes()

    def seen(*options: str, **env: str) -> str:
        return on_terminal(*line, *options, cwd=tmp_path, stdin=rows, **env)

    text = seen()
    assert "writing" in text
    assert "\x1b[32m" in text or "\x1b[2m" in text
    text = seen(NO_COLOR="1")
    assert "writing" in text
    assert "\x1b[2m" not in text
    for env in ({"TERM": "dumb"}, {"CI": "true"}):
        assert "writing" not in seen(**env)
    assert "\x1b" not in seen(TERM="dumb")
    assert "\x1b" in seen("--color", "always", "--no-progress", NO_COLOR="1")
    assert "writing" not in seen("--no-progress")


def test_no_escapes_in_pipes_whatever_the_environment(cli, rows_file):
    for env in ({"CI": "1"}, {"GITHUB_ACTIONS": "true"}, {"TERM": "xterm"}, {"FORCE_COLOR": ""}):
        for line in (["write", "rows.jsonl", "out", "-n"], ["stores"], ["config"], ["write", "--help"]):
            ran = cli(*line, env=env)
            assert "\x1b" not in ran.out + ran.err, (line, env)
    assert "\x1b" in cli("write", "rows.jsonl", "out", env={"FORCE_COLOR": "1"}).err
    assert "\x1b" not in cli("write", "rows.jsonl", "out", env={"FORCE_COLOR": "1", "NO_COLOR": "1"}).err


def test_events(cli, rows_file):
    ran = cli("write", "rows.jsonl", "out", "--json", "--json-events")
    events = [json.loads(line) for line in ran.err.splitlines()]
    ended = [event for event in events if event.get("ended")]
    assert [(event["shards"], event["samples"], event["position"] == event["size"]) for event in ended] == [
        (1, 2500, True)
    ]
    ran = cli("copy", "out", "there", "--json-events")
    assert any("copied 1 shard" in json.loads(line).get("text", "") for line in ran.err.splitlines())
    assert ran.lines == ["there/shard-000000.tar"]
    ran = cli("inspect", "nowhere", "--json-events")
    assert json.loads(ran.err.splitlines()[-1])["error"]["exit"] == ran.code == 3


def test_quiet_prints_nothing(cli, rows_file):
    for line in (
        ["write", "rows.jsonl", "out"],
        ["write", "rows.jsonl", "out"],
        ["copy", "out", "there"],
        ["publish", "out", "@local/rows"],
        ["unpublish", "@local/rows", "--yes"],
        ["prune", "out"],
        ["abort", "out"],
        ["doctor", "out"],
    ):
        ran = cli(*line, "--quiet")
        assert (ran.code, ran.out, ran.err) == (0, "", ""), line
    assert cli("write", "nothing", "out", "-q").err != ""


def test_a_dash_wherever_a_file_is_named(cli, tmp_path, rows_file, photos):
    schema = json.dumps({"type": "object", "properties": {"id": {"type": "integer"}}}).encode()
    assert cli("write", "rows.jsonl", "a", "--schema", "-", stdin=schema).code == 0
    assert cli("write", "--files-from", "-", "b", stdin=b"rows.jsonl\n").code == 0
    names = b"\0".join(os.fsencode(path) for path in sorted(photos.rglob("*.j*"))) + b"\0"
    assert cli("write", "--files0-from", "-", "c", stdin=names).code == 0
    assert cli("publish", "a", "@local/a", "--metadata", "-", stdin=b'{"from": "a pipe"}').code == 0
    assert cli("resolve", "a", "--output", "-").lines == ["a/shard-000000.tar"]
    assert cli("inspect", "a", "--html", "-").out.startswith("<!DOCTYPE html>")
    cli("write", "-", "d", "--from", "jsonl", "--schema", "-", stdin=schema).failed(2, "named twice")
    cli("login", "alice.example.com", "--password-file", "-", stdin=b"\n").failed(2, "the password is empty")
    assert cli("resolve", "c", "a", "-0").out.endswith("a/shard-000000.tar\0")


def test_every_document_has_a_schema():
    from atdata_cli.cli.app import COMMANDS

    assert {path.stem for path in schemas.FOLDER.glob("*.json")} == {*COMMANDS, "events", "error"}
    for path in schemas.FOLDER.glob("*.json"):
        schemas.checker(path.stem)
