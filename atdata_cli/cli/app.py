"""The program: its commands, and the one place where an error becomes an exit code."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from atdata_cli.cli.given import begin
from atdata_cli.cli.imports import leave_out
from atdata_cli.cli.output import flush_stdout, print_error
from atdata_cli.cli.settings import load
from atdata_cli.errors import AtdataError, ExitCode, UsageError, from_os_error, starved
from atdata_cli.signals import end_at, ending

__all__ = ["COMMANDS", "main"]

_CLEANING_SECONDS = 1.8  # after a signal

COMMANDS = {
    "write": ("write", "Shard samples into tars, in any store."),
    "commit": ("commit", "Make one dataset of parts that several runs wrote."),
    "inspect": ("inspect", "Show what a dataset holds, or check every byte of it."),
    "resolve": ("resolve", "Print URLs that WebDataset opens as they are."),
    "copy": ("copy", "Copy shards, byte for byte, to any store."),
    "publish": ("publish", "Put a dataset into an index under a name."),
    "unpublish": ("publish", "Take a name out of an index."),
    "login": ("login", "Log in to an account of the AT Protocol."),
    "logout": ("login", "End the session that login has kept."),
    "prune": ("tidy", "Delete shards that a dataset's manifest does not name."),
    "abort": ("tidy", "Remove what a job that was given up left."),
    "stores": ("stores", "List the kinds of places that datasets can be in."),
    "doctor": ("doctor", "Check step by step whether a place can be used."),
    "config": ("config", "Show every setting, and where it comes from."),
}
"""Each command, in the order of help: the module of ``atdata_cli.cli`` that has it as a function of the same name,
which is imported when the command is used, and what the list of commands says of it."""


_BARE = {"inspect": False, "resolve": True}
"""The commands that run without the parser if nothing but operands is typed, and whether they take more than one."""


def main() -> NoReturn:
    """Run the program and exit."""
    _open_closed_streams()
    _speak_utf8()
    arguments = sys.argv[1:]
    typed = arguments[: arguments.index("--")] if "--" in arguments else arguments
    as_json = "--json" in typed or "--json-events" in typed
    end_at(ending(), seconds=_CLEANING_SECONDS)
    leave_out()
    failed: AtdataError | None = None
    try:
        code = _run(arguments)
        flush_stdout()
    except SystemExit as stop:
        code = _stopped(stop, as_json=as_json)
    except Exception as error:
        failed = _told(error, arguments)
        code = failed.exit_code
    if failed is not None:  # only here, where what the error held on to is free again: memory may be what is wanting
        print_error(failed, as_json=as_json)
    with suppress(AtdataError):
        flush_stdout()
    # Python would look at every object once more for what nothing refers to: a tenth of a short command's time.
    gc.freeze()
    sys.exit(int(code))


def _run(arguments: Sequence[str]) -> int:
    """Run a command; its exit code.

    The parser and the options of all commands take as long to import as a command takes that only reads headers. Such
    a one is done without them where nothing is to be parsed: no option is typed, and no setting is there for one.
    """
    name, operands = next(iter(arguments), ""), list(arguments[1:])
    settings = None
    if _is_bare(name, operands):
        settings = load()
        if not settings.stores and not settings.defaults(name):
            begin(settings)
            command = getattr(import_module(f"atdata_cli.cli.{COMMANDS[name][0]}"), name)
            command(operands if _BARE[name] else operands[0])
            return ExitCode.DONE
    from atdata_cli.cli.parser import run

    return run(settings)


def _is_bare(name: str, operands: Sequence[str]) -> bool:
    """Whether this is one of the commands that need no parser, and nothing but its operands."""
    enough = len(operands) == 1 or (len(operands) > 1 and _BARE.get(name, False))
    return name in _BARE and enough and all(text and not text.startswith("-") for text in operands)


def _told(error: Exception, arguments: Sequence[str]) -> AtdataError:
    """What a person is told of an error."""
    if isinstance(error, UsageError):
        command = f"atdata-cli {arguments[0]}" if arguments and arguments[0] in COMMANDS else "atdata-cli"
        error.hint = error.hint or f"see {command} --help"
    if isinstance(error, AtdataError):
        return error
    if isinstance(error, OSError):
        try:
            flush_stdout()  # fails again if that is what failed
        except AtdataError as failed:
            return failed
        return from_os_error(error, str(error.filename or ""), doing="use")
    if not {"-v", "--verbose"}.isdisjoint(arguments):
        import traceback

        traceback.print_exception(error)
    return _unforeseen(error)


def _unforeseen(error: Exception) -> AtdataError:
    """What a person is told of an error that is none of ours: where, but not its text, which may quote anything."""
    lacking = starved(error)
    if lacking is not None:
        return lacking
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" in {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
    return AtdataError(
        f"unexpected {type(error).__name__}{where}",
        hint="this is a mistake of the program: run it with -v and report it",
    )


def _open_closed_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr (``>&-``) empty ones.

    Python has None for them, and the first file opened would get the number that others take for theirs.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - until the process ends


def _speak_utf8() -> None:
    """Begin again in Python's UTF-8 mode where the locale has another encoding.

    Names of files are keys of samples: a dataset must not depend on the locale. Python does so by itself in the locale
    "C", unless it is told not to, and from 3.15 on in all (https://peps.python.org/pep-0686).
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    try:
        os.execv(sys.executable, [sys.orig_argv[0], "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - no shell
    except OSError as error:
        failed = AtdataError(
            f"the locale is not UTF-8, and Python cannot be started in its UTF-8 mode: {error.strerror}",
            url=sys.executable,
            hint="set PYTHONUTF8=1, or LC_ALL=C.UTF-8",
        )
        print_error(failed, as_json="--json" in sys.argv)
        sys.exit(int(failed.exit_code))


_STOPPED = {
    ExitCode.HUNG_UP: "hung up",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.TERMINATED: "terminated",
}


_GOING_ON = {"write", "copy", "publish", "commit"}


def _stopped(stop: SystemExit, *, as_json: bool) -> int:
    """The exit code of a run that was ended, of which a person is told if it was by a signal."""
    code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    stopped = next((exit_code for exit_code in _STOPPED if exit_code == code), None)
    if stopped is not None:
        goes_on = not _GOING_ON.isdisjoint(sys.argv[1:2])
        hint = "run the same command again: it goes on where this one was" if goes_on else None
        error = AtdataError(_STOPPED[stopped], hint=hint)
        error.exit_code = stopped
        error.code = error.message
        print_error(error, as_json=as_json)
    return code
