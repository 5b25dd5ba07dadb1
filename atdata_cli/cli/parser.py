"""The command line: commands, options and operands, as typer reads them and as help shows them."""

from __future__ import annotations

import enum
import importlib
import os
from dataclasses import dataclass
from functools import partial
from typing import Any, get_origin

import typer
from typer._click.exceptions import ClickException, NoArgsIsHelpError, NoSuchOption
from typer._coercion import RuntimeParam, TypeDescriptor
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command_from_info
from typer.models import CommandInfo

from atdata_cli.cli import options as opt
from atdata_cli.cli.app import COMMANDS
from atdata_cli.cli.given import note_typed
from atdata_cli.cli.options import ORIGINS, ConfigFile, JsonEvents, exit_codes_help
from atdata_cli.cli.settings import Settings, outranked
from atdata_cli.errors import ExitCode, UsageError

__all__ = ["app", "run"]


class _Parameters:
    """Gives all parameters of a command a converter of ours."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, help included."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if parameter._runtime_param is None:
                described: TypeDescriptor = parameter.type_descriptor
                parameter._runtime_param = _Lean(described.parameter_info, described.annotation)
                parameter.display_type_rich = partial(_shown_value, parameter)
        return parameters


def _shown_value(parameter: Any, ctx: Any) -> str | None:
    """What help shows behind the name of an option, as the man pages do; nothing behind that of an operand."""
    if parameter.param_type_name == "argument":
        return None
    return parameter.metavar or "|".join(map(str, parameter.type_descriptor.choices or ()))


def _shown_operand(parameter: Any) -> str:
    """``REF``, ``[REF]`` or ``REF...``."""
    name = parameter.metavar or parameter.name.upper()
    if parameter.nargs == -1:
        return name if "..." in name else f"{name}..."
    return name if parameter.required else f"[{name}]"


class _Command(_Parameters, TyperCommand):
    """A command whose plain options and arguments are converted without pydantic, which typer would import.

    Options that are not typed have the values that the configuration gives them.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What is typed and what is configured, without what excludes each other."""
        ctx.allow_extra_args = True  # so that they come back, and what to do about them can be said
        rest: list[str] = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            hint = f"quote a pattern, to name many: '{os.path.join(os.path.dirname(rest[0]), '*.tar')}'"
            raise UsageError(f"too many arguments: {' '.join(rest)}", hint=hint if rest[0].endswith(".tar") else None)
        note_typed({name for name in ctx.params if _rank(ctx, name) == _TYPED})
        origins = ctx.meta.get(ORIGINS, {})
        if origins:
            by_name = {option[2:]: parameter for parameter in self.params for option in parameter.opts}
            ranks = {name: _rank(ctx, parameter.name) for name, parameter in by_name.items()}
            for name in outranked(ranks):
                if name in by_name:
                    ctx.params[by_name[name].name] = by_name[name].default
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The command's operands, as the man pages show them."""
        operands = [one for one in self.get_params(ctx) if one.param_type_name == "argument"]
        return ["[OPTIONS]", *map(_shown_operand, operands)]


_TYPED = 9


def _rank(ctx: Any, name: str) -> int:
    """How much the word of whoever gave a parameter its value counts; nothing for its default."""
    source = ctx.get_parameter_source(name)
    if source is None or source.name == "DEFAULT":
        return 0
    return _TYPED if source.name != "DEFAULT_MAP" else int(ctx.meta[ORIGINS][name].rank)


def _common(config: ConfigFile = None, json_events: JsonEvents = False) -> None:
    pass


class _Commands(_Parameters, TyperGroup):
    """The same for the group of all commands, of which it imports only the one that is used."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {name: _Command(name, help=summary) for name, (_, summary) in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """The command that is named, with its options: for running it, its help and completions."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, self.load(name) if name else command, rest

    def load(self, name: str) -> _Command:
        """A command with everything that belongs to it."""
        module = importlib.import_module(f"atdata_cli.cli.{COMMANDS[name][0]}")
        # Where its options' types are looked up: a command that also runs without the parser does not import them.
        vars(module).setdefault("opt", opt)
        function = getattr(module, name)
        command = self._made(CommandInfo(name, cls=_Command, callback=function, epilog=exit_codes_help()))
        command.params += self._made(CommandInfo(name, cls=_Command, callback=_common)).params
        return command

    @staticmethod
    def _made(info: CommandInfo) -> _Command:
        return get_command_from_info(info, pretty_exceptions_short=True, rich_markup_mode=None)  # type: ignore[return-value]


@dataclass(frozen=True)
class _Lean(RuntimeParam):
    """Converts what the options of :mod:`atdata_cli.cli.options` take, and says in their words what is wrong."""

    def _coerce_value(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return self._converted(value)
        except typer.BadParameter as error:
            origin = ctx.meta.get(ORIGINS, {}).get(param.name)
            source = ctx.get_parameter_source(param.name)
            named = source is not None and source.name == "DEFAULT_MAP" and origin is not None
            hint = f"{origin.origin} says so" if named else None
            raise UsageError(f"{max(param.opts, key=len)}: {error.message}", hint=hint) from error

    def _converted(self, value: Any) -> Any:
        kind: Any = self.annotation
        if self.parameter_info.parser is not None:
            return self.parameter_info.parser(value)
        if kind is int:
            return self._number(value)
        if isinstance(kind, enum.EnumMeta):
            if value not in list(kind):
                raise typer.BadParameter(f"{value!r} is none of {', '.join(map(str, kind))}")
            return kind(value)
        return list(value) if get_origin(kind) is list else value

    def _number(self, value: Any) -> int:
        try:
            number = int(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is not a whole number") from None
        low = self.parameter_info.min
        if low is not None and number < low:
            raise typer.BadParameter(f"must be at least {low}")
        return number


app = typer.Typer(
    name="atdata-cli",
    cls=_Commands,
    help="Shard datasets into WebDataset tars in any store, and publish them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # with it, GITHUB_ACTIONS and FORCE_COLOR put ANSI codes into piped help
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def _root(version: opt.Version = False) -> None:
    pass


def run(settings: Settings | None) -> int:
    """Run the command that was typed; its exit code.

    Parameters
    ----------
    settings : the configuration, if it has been read already.

    Raises
    ------
    UsageError : what was typed is no command line.
    """
    try:
        return int(app(standalone_mode=False, obj=settings) or ExitCode.DONE)
    except NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except ClickException as error:
        raise _misread(error) from error


def _misread(error: ClickException) -> UsageError:
    """What the parser says, without the usage of the whole command."""
    if not isinstance(error, NoSuchOption):
        return UsageError(error.format_message().rstrip("."))
    from difflib import get_close_matches

    near = get_close_matches(error.option_name, error.possibilities or (), n=1, cutoff=0.8)
    return UsageError(error.message, hint=f"did you mean {near[0]}?" if near else None)
