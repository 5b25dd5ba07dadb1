"""Man pages, completions and help say the same, for they are made from the same definitions."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from atdata_cli.cli.app import COMMANDS
from atdata_cli.cli.parser import app
from atdata_cli.config import VARIABLES
from atdata_cli.errors import ExitCode
from man.catalog import commands, root
from man.examples import EXAMPLES
from man.generate import literal

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted((REPOSITORY / "man").glob("man?/*"))


def plain(name: str) -> str:
    """A page as it is read."""
    section = name.rpartition(".")[2]
    path = REPOSITORY / "man" / f"man{section}" / name
    ran = subprocess.run(["mandoc", "-Tutf8", path], capture_output=True, text=True, check=True)
    return re.sub(r".\x08", "", ran.stdout)


@pytest.mark.parametrize("generator", ["man.generate", "completions.generate"])
def test_what_is_committed_is_what_the_program_says(generator, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", generator, "--check"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    # By a stranger, too: in another locale, on another day, with nothing at home.
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(tmp_path), "COLUMNS": "40", "NO_COLOR": "1"}
    subprocess.run([sys.executable, "-m", generator, "--check"], cwd=REPOSITORY, env=env, check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages_are_clean(page):
    for tool, *line in (["mandoc", "-Tlint", "-W", "warning"], ["groff", "-ww", "-man", "-Tutf8", "-z"]):
        assert shutil.which(tool), f"{tool} is not installed: make test installs it"
        ran = subprocess.run([tool, *line, page], capture_output=True, text=True, check=False)
        assert ran.stdout + ran.stderr == "", ran


def test_state_is_described_in_formats(cli, tmp_path):
    page = plain("atdata-cli-formats.5")
    page = page[page.index("State of an unfinished job") :]
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    for part in ("1/2", "alone"):
        assert cli("write", "rows.jsonl", part[0], "--part", part).code == 0
        state = tmp_path / part[0] / ".atdata"
        for path in (path for path in state.rglob("*") if path.is_file()):
            where = str(path.relative_to(state)).replace("1-of-2.json", "PART.json").replace("alone.json", "PART.json")
            where = re.sub(r"-[0-9a-f]{8}/", "/", where.replace("alone.begun", "NAME.begun"))
            assert f".atdata/{where.replace('000000', 'NNNNNN')}" in page
            document = json.loads(path.read_text())
            if "shards" not in where:
                assert [
                    name for name in {*document, *document.get("rows", {})} if not re.search(rf"\b{name}\b", page)
                ] == []


def test_every_option_is_in_help_page_and_completions(cli):
    shells = {
        path.name: path.read_text()
        for path in (REPOSITORY / "completions").iterdir()
        if path.suffix != ".py" and path.is_file()
    }
    assert len(shells) == 3
    for command in commands():
        helped = cli(command.name, "--help").out
        page = plain(f"atdata-cli-{command.name}.1")
        for option in command.options:
            assert re.search(rf"(^|[ ,/]){re.escape('--' + option.long)}\b", helped, re.MULTILINE), option
            assert f"--{option.long}" in page, option
            assert option.help, option
            assert f"--{option.long}" in shells["atdata-cli.bash"]
            assert f"--{option.long}" in shells["_atdata-cli"]
            assert re.search(rf"-l {option.long}\b", shells["atdata-cli.fish"])
            for choice in option.choices:
                assert all(choice in text for text in shells.values())


def test_every_option_is_in_a_test():
    """And every command, so that nothing is offered that nobody has tried."""
    here = Path(__file__)
    tests = "\n".join(path.read_text() for path in here.parents[1].rglob("*.py") if path != here)
    untested = {
        f"{command.name} --{option.long}"
        for command in commands()
        for option in command.options
        if option.long not in {"help"} and not re.search(rf"--{option.long}(?![a-z-])", tests)
    }
    assert untested == set()


def test_every_variable_and_exit_code_is_in_the_pages():
    page = " ".join(plain("atdata-cli.1").split())
    for name, variable in VARIABLES.items():
        assert f"{name} {variable.meaning}"[:50] in page, name
    for command in [root(), *commands()]:
        page = " ".join(plain(f"atdata-cli-{command.name}.1" if command.name else "atdata-cli.1").split())
        for code in ExitCode:
            assert f"{int(code)} {code.meaning}" in page, (command.name, code)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_lines_that_the_program_takes(name):
    group = typer.main.get_command(app)
    for _, line in EXAMPLES[name]:
        words = shlex.split(line)
        arguments = words[words.index("atdata-cli") + 1 :]
        arguments = arguments[: next((at for at, word in enumerate(arguments) if word in {"|", ">"}), None)]
        assert arguments[0] == name
        command = group.load(name)  # type: ignore[attr-defined]
        command.make_parser(typer.Context(command)).parse_args(arguments[1:])  # type: ignore[attr-defined]
        assert literal(line) in (REPOSITORY / "man" / "man1" / f"atdata-cli-{name}.1").read_text()


@pytest.mark.parametrize(
    ("shell", "file"), [("bash", "atdata-cli.bash"), ("zsh", "_atdata-cli"), ("fish", "atdata-cli.fish")]
)
def test_completions_are_scripts(shell, file):
    assert shutil.which(shell), f"{shell} is not installed: make test installs it"
    ran = subprocess.run([shell, "-n", REPOSITORY / "completions" / file], capture_output=True, text=True, check=False)
    assert ran.stdout + ran.stderr == "", ran
