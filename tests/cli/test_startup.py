"""The program does without torch, which takes seconds to import; the library decides nothing about it.

Nor does it import pydantic, by which typer converts what was typed, for what needs no such help."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

from atdata_cli.cli.app import COMMANDS


@pytest.fixture
def torch(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with a package torch, which leaves a trace when it is imported."""
    package = tmp_path / "packages" / "torch"
    package.mkdir(parents=True)
    trace = "from pathlib import Path\nPath(__file__).with_name('imported').touch()\n"
    (package / "__init__.py").write_text(trace + "raise ModuleNotFoundError('enough')\n")
    return package


def test_the_program_does_not_import_torch(cli, rows_file, torch):
    ran = cli("write", rows_file, "out", env={"PYTHONPATH": str(torch.parent)})
    assert ran.code == 0, ran.err
    assert not (torch / "imported").exists()


def test_the_library_leaves_torch_to_webdataset(torch):
    env = {**os.environ, "PYTHONPATH": str(torch.parent)}
    subprocess.run([sys.executable, "-c", "import atdata_cli.shards.writer"], env=env, check=True)
    assert (torch / "imported").exists()


def test_torch_can_be_imported_after_webdataset(torch):
    program = "from atdata_cli.cli.imports import import_webdataset; import_webdataset(); import torch"
    env = {**os.environ, "PYTHONPATH": str(torch.parent)}
    ran = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert "enough" in ran.stderr
    assert (torch / "imported").exists()


def test_s3fs_is_imported_without_httpx_which_is_there_for_others():
    program = (
        "import sys, atdata_cli.cli.imports as ours; ours.leave_out()\n"
        "import s3fs; print('httpx' in sys.modules)\n"
        "import httpx; print(httpx.Client.__name__)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before = int(version("aiobotocore").partition(".")[0]) < 3  # where it cannot be left out
    assert ran.stdout.split() == [str(before), "Client"]


def test_the_sdk_is_imported_without_its_models_which_are_there_when_they_are_used():
    program = (
        "import sys, atdata_cli.cli.imports as ours; ours.leave_out()\n"
        "from atproto_client import Client, models\n"
        "print([name for name in sys.modules if name.startswith('atproto_client.models.com.atproto.server')])\n"
        "print(Client().com.atproto.server.create_session.__name__, models.ComAtprotoServerCreateSession.Data.__name__)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["[]", "create_session Data"]


def test_commands_are_listed_whole_and_imported_when_used(cli):
    listed = cli("--help").out
    for name, (module, summary) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", listed, re.MULTILINE)
        assert getattr(importlib.import_module(f"atdata_cli.cli.{module}"), name).__doc__
        assert cli(name, "--help").code == 0
    program = "import sys, atdata_cli.cli.parser; print([m for m in sys.modules if m.startswith('atdata_cli')])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "atdata_cli.cli.options" in ran.stdout
    assert not any(f"'atdata_cli.cli.{module}'" in ran.stdout for module, _ in COMMANDS.values())


def test_a_mistyped_command_is_suggested(cli):
    ran = cli("inpsect", "x")
    assert ran.code == 2
    assert "No such command 'inpsect'. Did you mean 'inspect'?" in ran.err


@pytest.mark.parametrize(
    "line",
    [
        ["--version"],
        ["inspect", "--head", "2", "--color", "never", "-o", "a=b", "rows.jsonl"],
        ["write", "rows.jsonl", "out", "--max-size", "1M", "--min-samples", "0", "--encoding", "msgpack", "-n"],
        ["resolve", "--format", "braces", "--expires", "1h", "a", "b"],
    ],
)
def test_plain_options_are_converted_without_pydantic(rows_file, line):
    assert not imports(rows_file.parent, line, "pydantic")


def imports(cwd: Path, line: Sequence[str], module: str, env: Mapping[str, str] | None = None) -> bool:
    """Whether the program imports a module for a command line, whatever comes of it."""
    program = (
        f"import sys, atdata_cli.cli.app as a; sys.argv[1:] = {line!r}\n"
        f"try: a.main()\nfinally: sys.stderr.write(str({module!r} in sys.modules))"
    )
    env = {"HOME": str(cwd), **(env or {})}
    ran = subprocess.run([sys.executable, "-c", program], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert "Traceback" not in ran.stderr
    assert ran.stderr.endswith(("True", "False")), ran.stderr
    return ran.stderr.endswith("True")


def test_what_has_no_options_needs_no_parser(cli, tmp_path, rows_file):
    assert cli("write", rows_file, "out").code == 0
    for line in (["inspect", "out"], ["inspect", "nothing"], ["resolve", "out"], ["resolve", "out", "out"]):
        assert not imports(tmp_path, line, "typer")
    for line in (["inspect", "-v", "out"], ["inspect", "out", "out"], ["inspect", "--", "out"], ["inspect"], []):
        assert imports(tmp_path, line, "typer")
    assert imports(tmp_path, ["inspect", "out"], "typer", {"ATDATA_CLI_RETRIES": "3"})


@pytest.mark.parametrize("command", ["inspect", "resolve"])
def test_the_parser_changes_no_answer(cli, tmp_path, rows_file, command):
    assert cli("write", rows_file, "out").code == 0
    (tmp_path / "empty").mkdir()
    for ref in ("out", "out/*.tar", "rows.jsonl", "empty", "nothing", "", "@local", "@local/x", "pipe:x", "x:y"):
        assert cli(command, ref) == cli(command, "--", ref)
    broken = {"ATDATA_CLI_RETRIES": "many"}
    assert cli(command, "out", env=broken) == cli(command, "--", "out", env=broken)
    cli(command, "out", env=broken).failed(2, "--retries: 'many' is not a whole number (ATDATA_CLI_RETRIES says so)")


@pytest.mark.parametrize("line", [["--version"], ["inspect", "nothing"]])
def test_the_end_is_quick(tmp_path, line):
    program = (
        "import gc, sys, atdata_cli.cli.app as a; sys.argv[1:] = {!r}\n"
        "try: a.main()\n"
        "finally: sys.stderr.write(str(gc.get_freeze_count() > 0))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program.format(line)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.stderr.endswith("True"), ran.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["write", "a", "b", "--max-size", "big"], "--max-size: 'big' is no size"),
        (["write", "a", "b", "--min-samples", "-1"], "--min-samples: must be at least 0"),
        (["inspect", "a", "--head", "0"], "--head: must be at least 1"),
        (["inspect", "a", "--head", "x"], "--head: 'x' is not a whole number (see atdata-cli inspect --help)"),
        (["inspect", "a", "--color", "red"], "--color: 'red' is none of auto, always, never"),
        (["inspect", "a", "-j", "0"], "--jobs: must be at least 1"),
        (["resolve"], "Missing argument 'REF' (see atdata-cli resolve --help)"),
        (["write", "--foo"], "No such option: --foo (see atdata-cli write --help)"),
        (["write", "--max-cuont", "1"], "No such option: --max-cuont (did you mean --max-count?)"),
        (["write", "--max-count"], "Option '--max-count' requires an argument (see atdata-cli write --help)"),
        (["inspect", "d/a.tar", "d/b.tar", "d/c.tar"], "too many arguments: d/b.tar d/c.tar (quote a pattern, to "),
        (["inspect", "d/a.tar", "d/b.tar"], "'d/*.tar'"),
        (["logout", "a", "b"], "too many arguments: b (see atdata-cli logout --help)"),
        (["--foo"], "No such option: --foo (see atdata-cli --help)"),
    ],
)
def test_a_wrong_command_line_is_explained_in_one_line(cli, line, said):
    ran = cli(*line)
    ran.failed(2, said)
    assert ran.err.count("\n") == 1
    if line[0] in COMMANDS:
        error = json.loads(cli(line[0], "--json", *line[1:]).err)["error"]
        assert (error["exit"], error["code"]) == (2, "usage")
        assert said.partition(" (")[0] in error["message"] + error["hint"]


def test_no_arguments_at_all_are_a_question(cli):
    ran = cli()
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage: atdata-cli [OPTIONS] COMMAND")


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("write", "[OPTIONS] SOURCE... DEST"),
        ("resolve", "[OPTIONS] REF..."),
        ("copy", "[OPTIONS] REF DEST"),
        ("stores", "[OPTIONS]"),
    ],
)
def test_help_shows_operands_and_values_as_the_man_pages_do(cli, command, usage):
    told = cli(command, "--help").out
    assert told.startswith(f"Usage: atdata-cli {command} {usage}\n")
    assert not re.search(r"<|{[A-Z]|list\[", told)
    if command == "resolve":
        assert re.search(r"^  --format lines\|braces\|json\|wds ", told, re.MULTILINE)
