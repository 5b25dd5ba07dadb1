"""The commands as data, for the generators of man pages and completions: read from the program itself."""

from __future__ import annotations

import enum
import inspect
import re
from dataclasses import dataclass
from typing import Any

import typer

from atdata_cli.cli.app import COMMANDS
from atdata_cli.cli.parser import app

__all__ = ["Argument", "Command", "Option", "commands", "root"]


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes
    ----------
    names : short ones first.
    value : what it takes, as help shows it; None for a flag.
    choices : the values it can have, if they are few.
    help : one line.
    default : that is not nothing.
    repeatable : it may be given several times.
    """

    names: tuple[str, ...]
    value: str | None
    choices: tuple[str, ...]
    help: str
    default: str | None
    repeatable: bool

    @property
    def long(self) -> str:
        """Its long name, without dashes."""
        return next(name for name in self.names if name.startswith("--"))[2:]


@dataclass(frozen=True)
class Argument:
    """One operand, or all that follow."""

    name: str
    help: str
    many: bool
    required: bool


@dataclass(frozen=True)
class Command:
    """A command; the program itself has an empty name."""

    name: str
    summary: str
    description: tuple[str, ...]
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]


def root() -> Command:
    """The program."""
    group = typer.main.get_command(app)
    return _command("", group, typer.Context(group, info_name="atdata-cli"), group.help or "")  # type: ignore[arg-type]


def commands() -> list[Command]:
    """All commands, in the order of help."""
    group: Any = typer.main.get_command(app)
    parent = typer.Context(group, info_name="atdata-cli", **group.context_settings)
    found = []
    for name, (_, summary) in COMMANDS.items():
        command = group.load(name)
        found.append(_command(name, command, typer.Context(command, info_name=name, parent=parent), summary))
    return found


def _command(name: str, command: Any, context: typer.Context, summary: str) -> Command:
    parameters = command.get_params(context)
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return Command(
        name,
        summary,
        tuple(" ".join(paragraph.split()) for paragraph in paragraphs),
        tuple(_option(one) for one in parameters if one.param_type_name == "option"),
        tuple(_argument(one) for one in parameters if one.param_type_name == "argument"),
    )


def _option(parameter: Any) -> Option:
    described = getattr(parameter, "type_descriptor", None)
    choices = tuple(str(getattr(one, "value", one)) for one in (described.choices or ())) if described else ()
    default = parameter.default
    default = default.value if isinstance(default, enum.Enum) else default
    plain = isinstance(default, str | int) and not isinstance(default, bool) and default != 0
    value = None if parameter.is_flag else parameter.metavar or "|".join(choices)
    names = sorted((*parameter.opts, *parameter.secondary_opts), key=lambda text: (text.startswith("--"), text))
    return Option(
        tuple(names),
        value,
        choices,
        " ".join((parameter.help or "").split()),
        str(default) if plain and not parameter.is_flag else None,
        bool(parameter.multiple),
    )


def _argument(parameter: Any) -> Argument:
    name = re.sub(r"^\[(.*)\]$", r"\1", parameter.metavar or parameter.name.upper())
    return Argument(name, " ".join((parameter.help or "").split()), parameter.nargs == -1, bool(parameter.required))
