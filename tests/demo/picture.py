"""The picture of the README: a real run on a real terminal, as SVG. ``python -m tests.demo.picture DATA PICTURE``.

DATA is what ``tests/demo/prepare.py`` makes. ``make picture`` does it all.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.style import Style
from rich.text import Text

from tests.servers.terminal import Terminal, search_path

LINES = (
    "atdata-cli write weather.csv shards/ --max-count 500",
    "atdata-cli write weather.csv shards/ --max-count 500",
    "atdata-cli inspect shards/",
    "atdata-cli publish shards/ @local/weather --license CC0-1.0",
    "atdata-cli resolve shards/ --format braces",
)
COLUMNS, ROWS = 96, 46
# Nothing is loaded from anywhere when the picture is looked at.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
NAMES = {"brown": "yellow", "default": None}


def picture(data: Path) -> str:
    """Run the lines where the data are; the picture of it."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        home = Path(folder)
        (home / "weather.csv").symlink_to((data / "weather.csv").absolute())
        command = Path(sys.executable).with_name("atdata-cli")
        with Terminal("bash", home, search_path(command)) as terminal:
            terminal.type("PS1='$ '\r")
            terminal.resize(COLUMNS, ROWS)
            terminal.type("clear\r")
            terminal.wait(lambda text: text.strip() == "$")
            for line in LINES:
                terminal.type(f"{line}\r")
                terminal.wait(lambda text, line=line: line in text)
                terminal.wait(lambda text: text.endswith("\n$"))
            text = _styled(terminal)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor")
    console.print(text)
    return console.export_svg(title="atdata-cli", code_format=FORMAT, unique_id="atdata-cli")


def _styled(terminal: Terminal) -> Text:
    """What is to be seen, without the last prompt."""
    text = Text()
    for row in range(len(terminal.text.splitlines()) - 1):
        line = terminal.screen.buffer[row]
        shown = Text()
        for style, cells in groupby((line[column] for column in range(COLUMNS)), key=_style):
            shown.append("".join(cell.data for cell in cells), style)
        shown.rstrip()
        text.append_text(shown).append("\n")
    text.rstrip()
    return text


def _style(cell: Any) -> Style:
    color = NAMES.get(cell.fg, cell.fg)
    color = f"#{color}" if color and re.fullmatch("[0-9a-f]{6}", color) else color
    return Style(color=color, bold=cell.bold)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(picture(Path(sys.argv[1])), encoding="utf-8")
