"""What the README says is what the program does."""

from __future__ import annotations

import re
from pathlib import Path

from atdata_cli.cli.app import COMMANDS
from atdata_cli.errors import ExitCode

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_exit_codes_of_readme_help_and_code_agree(cli):
    table = re.findall(r"^\| (\d+) \| (.+) \|$", README, re.MULTILINE)
    assert table == [(str(int(code)), code.meaning) for code in ExitCode]
    helped = " ".join(cli("write", "--help").out.split())
    for code in ExitCode:
        assert f"{int(code)} {code.meaning}" in helped


def test_every_option_that_the_readme_shows_exists(cli):
    helped = "".join(cli(command, "--help").out for command in COMMANDS)
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", README))
    assert shown
    assert {option for option in shown if not re.search(rf"{option}\b", helped)} == set()
