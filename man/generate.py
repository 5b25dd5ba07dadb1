"""Make the man pages of section 1 from the program: ``python -m man.generate [--check]``.

The pages are committed; ``make docs`` writes them anew, ``make check`` fails where they are not what the program says.
"""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from atdata_cli import __version__
from atdata_cli.config import SETTINGS, VARIABLES
from atdata_cli.errors import ExitCode
from man.catalog import Command, Option, commands, root
from man.examples import EXAMPLES

HERE = Path(__file__).parent
PAGES = HERE / "man1"
SCHEMAS = HERE.parent / "atdata_cli" / "cli" / "schemas"
WRITTEN = "2026-11-25"  # by hand: the formats and the examples as they are now

FILES = (
    ("~/.config/atdata-cli/config.toml", "your configuration: defaults of options, and named stores"),
    (
        "atdata.toml",
        "a project's configuration: options of write, in [write]; in this folder, or above in the repository",
    ),
    ("~/.atdata/index.db", "the local index, shared with the Python library atdata"),
    ("~/.local/state/atdata-cli/", "sessions that login keeps, for their owner alone"),
    ("~/.cache/atdata-cli/", "what was seen of inputs, which saves reading them again; may be deleted"),
    ("DEST/manifest.json", "what a dataset consists of; see atdata-cli-formats(5)"),
    ("DEST/.atdata/", "marks of an unfinished job"),
)

PROGRAM = (
    "atdata-cli turns folders, JSONL, CSV, Parquet, Arrow, existing tars and streams into WebDataset shards, straight "
    "into any store: a disk, S3, any fsspec file system, a personal data server of the AT Protocol. It publishes "
    "datasets under names, finds, copies and checks them.",
    "What it writes appears whole or not at all, is the same bytes every time, and says of itself what it holds.",
    "Standard output carries data only; everything for people goes to standard error. The same command again goes on "
    "where an interrupted one was.",
)


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or say which are stale."""
    pages = {f"{_page_name(command)}.1": "".join(_page(command)) for command in [root(), *commands()]}
    stale = [name for name, text in pages.items() if _read(PAGES / name) != text]
    stale += sorted(path.name for path in PAGES.glob("*.1") if path.name not in pages)
    if "--check" in arguments:
        if stale:
            print(f"man/: not what the program says: {', '.join(stale)}; run `make docs` and commit", file=sys.stderr)
        return int(bool(stale))
    for name in stale:
        if name in pages:
            (PAGES / name).write_text(pages[name], encoding="utf-8")
        else:
            (PAGES / name).unlink()
    return 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def date() -> str:
    """Of the pages: SOURCE_DATE_EPOCH, the newest release, or when they were written."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch:
        return time.strftime("%Y-%m-%d", time.gmtime(int(epoch)))
    changes = (HERE.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    return max([WRITTEN, *re.findall(r"^## \[[0-9][^]]*\] - ([0-9-]{10})$", changes, re.MULTILINE)])


def _page_name(command: Command) -> str:
    return f"atdata-cli-{command.name}" if command.name else "atdata-cli"


def _page(command: Command) -> Iterator[str]:
    name = _page_name(command)
    yield '.\\" Made by man/generate.py from the program: change that.\n'
    yield f'.TH "{literal(name.upper())}" "1" "{date()}" "atdata\\-cli {__version__}" "User Commands"\n'
    yield from _section("NAME")
    yield f"{literal(name)} \\- {text(command.summary.rstrip('.'))}\n"
    yield from _section("SYNOPSIS")
    yield from _synopsis(command)
    yield from _section("DESCRIPTION")
    yield ".PP\n".join(f"{text(paragraph)}\n" for paragraph in (command.description if command.name else PROGRAM))
    if not command.name:
        yield from _section("COMMANDS")
        for one in commands():
            yield f".TP\n\\fB{literal(_page_name(one))}\\fR(1)\n{text(one.summary)}\n"
    if command.arguments:
        yield from _section("OPERANDS")
        for argument in command.arguments:
            yield f".TP\n\\fI{text(argument.name)}\\fR\n{text(argument.help)}\n"
    yield from _section("OPTIONS")
    for option in command.options:
        yield from _option(option)
    yield from _documents(command)
    yield from _section("EXIT STATUS")
    for code in ExitCode:
        yield f".TP\n\\fB{int(code)}\\fR\n{text(code.meaning)}\n"
    yield from _environment(command)
    yield from _section("FILES")
    for file, meaning in FILES:
        yield f".TP\n\\fI{literal(file)}\\fR\n{text(meaning)}\n"
    yield from _section("EXAMPLES")
    if command.name not in EXAMPLES:
        raise SystemExit(f"man/examples.py has no example of {command.name}")
    for number, (said, line) in enumerate(EXAMPLES[command.name]):
        yield f"{'.PP' + chr(10) if number else ''}{text(said)}\n.PP\n.RS 4\n.EX\n{literal(line)}\n.EE\n.RE\n"
    yield from _section("SEE ALSO")
    others = [one for one in ["", *(one.name for one in commands())] if one != command.name]
    pages = [(f"atdata-cli-{one}" if one else "atdata-cli", 1) for one in others]
    pages += [("atdata-cli-formats", 5), ("atdata-cli-recipes", 7)]
    yield ",\n".join(f"\\fB{literal(page)}\\fR({section})" for page, section in pages) + "\n"


def _section(title: str) -> Iterator[str]:
    yield f'.SH "{title}"\n' if " " in title else f".SH {title}\n"


def _synopsis(command: Command) -> Iterator[str]:
    if not command.name:
        yield "\\fBatdata\\-cli\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n.br\n"
        yield "\\fBatdata\\-cli\\fR [\\fB\\-\\-help\\fR] [\\fB\\-\\-version\\fR]\n"
        return
    operands = [
        f"\\fI{text(one.name)}\\fR" if one.required or one.many else f"[\\fI{text(one.name)}\\fR]"
        for one in command.arguments
    ]
    many = ["..." if one.many and "..." not in one.name else "" for one in command.arguments]
    shown = " ".join(operand + dots for operand, dots in zip(operands, many, strict=True))
    yield f"\\fBatdata\\-cli {literal(command.name)}\\fR [\\fIOPTIONS\\fR] {shown}".rstrip() + "\n"


def _option(option: Option) -> Iterator[str]:
    names = ", ".join(f"\\fB{literal(name)}\\fR" for name in option.names)
    value = f" \\fI{literal(option.value)}\\fR" if option.value else ""
    default = f" Default: {option.default}." if option.default and "default" not in option.help.lower() else ""
    yield f".TP\n{names}{value}\n{text(option.help + default)}\n"


def _documents(command: Command) -> Iterator[str]:
    """What --json prints, from its schema."""
    if not command.name:
        return
    if not (SCHEMAS / f"{command.name}.json").exists():
        raise SystemExit(f"{SCHEMAS.relative_to(HERE.parent)} has no schema of what {command.name} --json prints")
    schema = json.loads((SCHEMAS / f"{command.name}.json").read_text(encoding="utf-8"))
    yield from _section("JSON OUTPUT")
    yield (
        text(f"With --json one document, as {SCHEMAS.name}/{command.name}.json in the package says (JSON Schema).")
        + "\n"
    )
    for form in schema.get("oneOf", [schema]):
        if form is not schema:
            yield f".SS {text(form['title'].capitalize())}\n"
        for name, said in form["properties"].items():
            yield f".TP\n\\fB{literal(name)}\\fR\n{text(said.get('description', 'see there'))}\n"


def _environment(command: Command) -> Iterator[str]:
    """On the program's page all variables; on a command's those of its options, and what every command reads."""
    own = {option.long for option in command.options}
    settings = [
        one for one in SETTINGS.values() if one.name in own and (not one.commands or command.name in one.commands)
    ]
    names = {*(one.variable for one in settings), *(name for one in settings for name in (*one.standard, one.last))}
    yield from _section("ENVIRONMENT")
    for name, variable in VARIABLES.items():
        if not command.name or name in names or name == "ATDATA_CLI_CONFIG":
            yield f".TP\n\\fB{name}\\fR\n{text(variable.meaning)}\n"
    if command.name:
        yield ".PP\nCredentials, accounts, proxies and folders are read from the variables that\n"
        yield "\\fBatdata\\-cli\\fR(1)\nlists.\n"


def text(words: str) -> str:
    """Words, one line to a sentence or so, escaped for roff."""
    lines = []
    for line in textwrap.wrap(words, 110, break_long_words=False, break_on_hyphens=False):
        plain = literal(line)
        lines.append(f"\\&{plain}" if plain[:1] in ".'" or plain.startswith("\\(aq") else plain)
    return "\n".join(lines)


def literal(words: str) -> str:
    """Text that shows as it is, so that it can be copied."""
    special = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}
    return "".join(special.get(character, character) for character in words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
